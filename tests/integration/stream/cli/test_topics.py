from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import typer
from kafka_server import KafkaServer
from typer.testing import CliRunner

from engine.errors import SinkError
from stream.cli.events import topics
from stream.kafka.address import parse_kafka
from stream.kafka.clients import connect_producer
from stream.kafka.topic_admin import ensure_topic, topic_states
from stream.kafka.topic_plan import TopicPlan, plan_topics

pytestmark = pytest.mark.kafka

WAIT_S = 120.0


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output in one line, errors."""
    app = typer.Typer()
    topics.register(app)
    app.callback()(lambda: None)
    done = CliRunner().invoke(app, ["topics", *arguments], env={"COLUMNS": "200"})
    return done.exit_code, " ".join(done.stdout.split()), done.stderr


def test_topics_are_made_once_and_shown(kafka_broker: str, topic: str) -> None:
    address = f"kafka://{kafka_broker}/{topic}?identities={topic}.names"
    code, shown, told = run(address, "--dry-run")
    assert (code, shown.count("missing")) == (1, 3)
    assert "docs/kafka.md" in told
    code, shown, _ = run(address, "--partitions", "3", "--retention", "2")
    assert (code, shown.count("made")) == (0, 3)
    assert f"{topic}.tracks made 3 " in shown
    assert f"{topic}.names made 3 " in shown
    assert shown.count("the latest of each key, 2 days") == 1
    code, shown, _ = run(address, "--partitions", "3", "--retention", "2")
    assert (code, shown.count("there"), shown.count("made")) == (0, 3, 0)
    code, shown, _ = run(address, "--partitions", "6", "--retention", "2")
    assert (code, shown.count("partitions 3, expected 6")) == (1, 3)


def test_trouble_is_one_line() -> None:
    code, shown, told = run("kafka://127.0.0.1:1/faces")
    assert (code, shown) == (1, "")
    assert told.startswith("error: kafka://127.0.0.1:1/faces: no broker accepts the connection")
    assert told.count("\n") == 1
    assert "HOST[:PORT]" in run("faces")[2]


def test_a_topic_that_is_there_is_left_as_it_is(kafka_broker: str, topic: str) -> None:
    address = parse_kafka(f"kafka://{kafka_broker}/{topic}")
    assert ensure_topic(address, WAIT_S, plan=TopicPlan(topic, 2))
    assert not ensure_topic(address, WAIT_S)
    _, (state,) = topic_states(address, [TopicPlan(topic)], WAIT_S)
    assert state is not None
    assert state.partitions == 2


def test_three_brokers_hold_three_copies_and_one_may_be_away(own_server: KafkaServer, topic: str) -> None:
    brokers = own_server.start("--nodes", "3")
    address = parse_kafka(f"kafka://{brokers}/{topic}")
    connect_producer(address, WAIT_S).close()
    own_server.kill("--node", "1")
    for plan in plan_topics(topic):
        ensure_topic(address, WAIT_S, plan=plan)
    count, states = topic_states(address, plan_topics(topic), WAIT_S, awaited=True)
    first = states[0]
    assert first is not None
    assert (first.replicas, first.settings["min.insync.replicas"]) == (3, "2")
    assert count in {2, 3}
    only_dead = replace(address, brokers=address.brokers[:1])
    with pytest.raises(SinkError, match="cannot be reached"):
        topic_states(only_dead, plan_topics(topic), WAIT_S)
