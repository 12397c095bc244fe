from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.backends.machine import one_core
from stream.bench.event_throughput import make_events
from stream.cli.root import app
from stream.events.kafka_record import from_binary, to_binary
from stream.kafka.address import parse_kafka
from stream.kafka.topic_admin import connect_admin


@pytest.mark.kafka
def test_the_cost_of_events_is_measured_on_a_broker_and_nothing_is_left_there(
    kafka_broker: str, tmp_path: Path
) -> None:
    path = tmp_path / "figures.json"
    arguments = ["bench", "events", "--broker", kafka_broker, "--events", "1000", "--rounds", "1"]
    done = CliRunner().invoke(app, [*arguments, "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert "events/s" in done.output
    figures = json.loads(path.read_text())
    assert [(each["events_at_once"], each["track_states"]) for each in figures["costs"]] == [
        *((1, False), (32, False), (1, True), (32, True))
    ]
    assert all(each["events_per_s"] > 0 and each["cpu_us"] > 0 for each in figures["costs"])
    with closing(connect_admin(parse_kafka(f"kafka://{kafka_broker}/x"), 10.0)) as admin:
        assert not [topic for topic in admin.list_topics() if topic.startswith("facestream-bench-")]


def test_without_a_broker_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACESTREAM_TEST_KAFKA", raising=False)
    done = CliRunner().invoke(app, ["bench", "events"])
    assert (done.exit_code, "--broker HOST:PORT" in done.output) == (2, True)


def test_its_events_are_events_and_all_different() -> None:
    events = make_events(50)
    assert len({event.event_id for event in events}) == 50
    for event in events:
        message = to_binary(event, encoding="int8-b64")
        assert from_binary(message.headers, message.value).event_id == event.event_id


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin processes")
def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
