from __future__ import annotations

import socket
import subprocess
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from captured import capture_logs
from event_checks import camera_event, face_event, identity_event
from event_topics import WholeTopic, ids
from kafka import KafkaConsumer, TopicPartition
from kafka_server import KafkaServer

from engine.errors import SinkError
from stream.events.cloudevents import from_json, to_json
from stream.events.event_types import CameraEvent, Event, FaceEvent
from stream.events.kafka_record import from_binary
from stream.kafka.topic_admin import probe_broker
from stream.sinks.event_sink import open_sink

pytestmark = pytest.mark.kafka

WAIT_S = 120.0


def read_topic(broker: str, topic: str, *, expected: int) -> list[tuple[bytes, Event]]:
    """All records of a topic, once there are as many as expected and no more come."""
    with closing(
        KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
    ) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[tuple[bytes, Event]] = []
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            batch = consumer.poll(timeout_ms=500)
            for records in batch.values():
                found += [(record.key, from_binary(record.headers, record.value)) for record in records]
            if not batch and len(found) >= expected:
                return found
    raise AssertionError(f"expected {expected} records within {WAIT_S} s, got {len(found)}")


def some_events(count: int) -> list[Event]:
    """Events of three cameras, their own order told by ``sequence``."""
    return [
        face_event(camera_id=f"cam-{i % 3}", run_id=f"run-{i % 3}", track_id=f"run-{i % 3}-1", sequence=i)
        for i in range(count)
    ]


@pytest.fixture(autouse=True)
def own_spools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


def test_records_hold_what_was_emitted_and_each_camera_keeps_its_order(kafka_broker: str, topic: str) -> None:
    events = [camera_event(), *some_events(60)]
    sink = open_sink(f"kafka://{kafka_broker}/{topic}")
    for event in events:
        sink.emit([event])
    with capture_logs() as told:
        sink.close(WAIT_S)
    assert [each["events"] for each in told if each["event"] == "delivered"] == [len(events)]
    found = read_topic(kafka_broker, topic, expected=len(events))
    assert {key for key, _ in found} == {b"door", b"cam-0", b"cam-1", b"cam-2"}
    for camera_id in ("door", "cam-0", "cam-1", "cam-2"):
        sent = [event.event_id for event in events if event.camera_id == camera_id]
        assert [event.event_id for _, event in found if event.camera_id == camera_id] == sent


def test_identities_apart_are_in_their_topic_alone(kafka_broker: str, topic: str) -> None:
    address = f"kafka://{kafka_broker}/{topic}?identities={topic}.names"
    sink = open_sink(address)
    sink.emit([face_event(), identity_event(), camera_event()])
    sink.emit([identity_event(sequence=1)])
    sink.close(WAIT_S)
    tracks = [event for _, event in read_topic(kafka_broker, topic, expected=2)]
    assert [type(event) for event in tracks] == [FaceEvent, CameraEvent]
    names = [event for _, event in read_topic(kafka_broker, f"{topic}.names", expected=2)]
    assert names == [identity_event(), identity_event(sequence=1)]
    with WholeTopic(address, group=None) as events:
        assert sorted(ids(events)) == sorted(ids([*tracks, *names]))


def test_kafka_receives_exactly_what_the_file_of_the_same_run_holds(
    kafka_broker: str, topic: str, portrait_clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stream.cli", "run", portrait_clip, "test://ball?frames=50"),
            *("--sink", f"jsonl:{path}", "--sink", f"kafka://{kafka_broker}/{topic}"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [from_json(line) for line in path.read_bytes().splitlines()]
    found = [event for _, event in read_topic(kafka_broker, topic, expected=len(written))]
    assert len(found) == len(written) >= 8
    for camera_id in ("portrait", "test-ball"):
        assert [to_json(event) for event in found if event.camera_id == camera_id] == [
            to_json(event) for event in written if event.camera_id == camera_id
        ]


def test_a_killed_broker_costs_no_event(mortal_server: KafkaServer, topic: str) -> None:
    broker = mortal_server.start()
    sink = open_sink(f"kafka://{broker}/{topic}")
    events = some_events(300)
    sink.emit(events[:100])
    mortal_server.kill()
    sink.emit(events[100:200])
    mortal_server.start()
    sink.emit(events[200:])
    sink.close(WAIT_S)
    found = read_topic(broker, topic, expected=len(events))
    for camera_id in ("cam-0", "cam-1", "cam-2"):
        sent = [event.event_id for event in events if event.camera_id == camera_id]
        ids = [event.event_id for _, event in found if event.camera_id == camera_id]
        assert list(dict.fromkeys(ids)) == sent, "in order, repeats aside"


def test_events_that_cannot_be_delivered_are_counted_aloud_and_go_with_the_next_run(
    mortal_server: KafkaServer, topic: str
) -> None:
    address = f"kafka://{mortal_server.start()}/{topic}"
    sink = open_sink(address)
    mortal_server.kill()
    sink.emit(some_events(5))
    with pytest.raises(
        SinkError, match=r"5 events were not delivered.* the next run with this sink delivers them"
    ):
        sink.close(0.5)
    broker = mortal_server.start()
    sink = open_sink(address)
    with capture_logs() as told:
        sink.close(WAIT_S)
    assert [each["events"] for each in told if each["event"] == "delivered"] == [5]
    found = [event.event_id for _, event in read_topic(broker, topic, expected=5)]
    assert sorted(found) == sorted(event.event_id for event in some_events(5))


def test_a_wrong_password_is_said_without_the_password(own_server: KafkaServer, topic: str) -> None:
    broker = own_server.start("--security", "sasl")
    options = "security=SASL_PLAINTEXT&mechanism=SCRAM-SHA-512"
    with pytest.raises(SinkError, match="the password") as caught:
        open_sink(f"kafka://producer:geheim@{broker}/{topic}?{options}", connect_timeout_s=WAIT_S)
    assert "geheim" not in str(caught.value)
    sink = open_sink(f"kafka://producer:producer-secret@{broker}/{topic}?{options}", connect_timeout_s=WAIT_S)
    assert "secret" not in repr(vars(sink))
    sink.emit(some_events(3))
    sink.close(WAIT_S)


def test_a_missing_topic_is_named_with_the_command_that_makes_it(own_server: KafkaServer) -> None:
    broker = own_server.start("--no-auto-create")
    with pytest.raises(SinkError, match=r"facestream events topics kafka://.*/nowhere"):
        open_sink(f"kafka://{broker}/nowhere?create=no", connect_timeout_s=WAIT_S)


def test_probe(kafka_broker: str) -> None:
    assert "answers" in probe_broker(kafka_broker, timeout_s=WAIT_S)


def test_nobody_there_keeps_events_until_somebody_is() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    sink = open_sink(f"kafka://127.0.0.1:{port}/x", connect_timeout_s=WAIT_S)
    sink.emit(some_events(2))
    assert time.monotonic() - begun < WAIT_S / 2
    with pytest.raises(SinkError, match=r"2 events were not delivered \(.*it cannot be reached"):
        sink.close(0.2)


def test_a_name_that_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(SinkError, match=r"it cannot be reached"):
        open_sink("kafka://no-such-host.invalid:9092/x")


def test_something_else_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        begun = time.monotonic()
        sink = open_sink(f"kafka://127.0.0.1:{port}/x", connect_timeout_s=1.0)
        assert time.monotonic() - begun < WAIT_S
        sink.emit(some_events(1))
        with pytest.raises(SinkError, match=r"not delivered .*does not answer like Kafka"):
            sink.close(0.0)
