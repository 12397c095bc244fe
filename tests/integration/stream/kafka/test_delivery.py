from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from captured import capture_logs
from event_checks import face_event
from kafka import KafkaConsumer, TopicPartition
from kafka_cluster import KafkaCluster

from stream.common.encryption import Sealer
from stream.events.event_types import FaceEvent
from stream.events.kafka_record import from_binary
from stream.kafka.address import parse_kafka
from stream.kafka.delivery.spooled_sink import KafkaSink
from stream.kafka.topic_admin import connect_admin
from stream.spool.spool import Spool

pytestmark = pytest.mark.kafka

WAIT_S = 120.0


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def cluster(kafka_home: Path, tmp_path: Path) -> Iterator[KafkaCluster]:
    made = KafkaCluster(kafka_home, tmp_path, nodes=1)
    yield made
    made.stop()


def events_of_tracks(tracks: int, *, begin: int = 0) -> list[FaceEvent]:
    """Three events of each track."""
    return [
        face_event(camera_id=f"cam-{track % 3}", track_id=f"run-{track}", sequence=sequence)
        for track in range(begin, begin + tracks)
        for sequence in range(3)
    ]


def ids_of(events: list[FaceEvent]) -> list[str]:
    return sorted(event.event_id for event in events)


def read(broker: str, topic: str) -> list[tuple[str, str]]:
    """Key and event's id of all records of a topic, partition by partition."""
    found: list[tuple[str, str]] = []
    with closing(KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)) as consumer:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=500).values():
                found += [
                    (each.key.decode(), from_binary(each.headers, each.value).event_id) for each in records
                ]
    return found


def sink_to(address: str, folder: Path, **options: object) -> KafkaSink:
    sink = KafkaSink(parse_kafka(address), Spool(folder / "spool"), **options)  # type: ignore[arg-type]
    sink.connect(WAIT_S)
    return sink


def test_the_latest_state_of_each_track_is_in_a_compacted_topic(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    address = f"kafka://{kafka_broker}/{topic}"
    events = events_of_tracks(7)
    sink = sink_to(address, tmp_path)
    for event in events:
        sink.emit([event])
    sink.close(WAIT_S)
    assert sorted(each for _, each in read(kafka_broker, topic)) == ids_of(events)
    states = dict(read(kafka_broker, f"{topic}.tracks"))
    assert states == {f"run-{track}": f"run-{track}.2" for track in range(7)}
    with closing(connect_admin(parse_kafka(address), WAIT_S)) as admin:
        (found,) = admin.describe_topics([f"{topic}.tracks"])
        (events_topic,) = admin.describe_topics([topic])
    assert len(found["partitions"]) == len(events_topic["partitions"])


def test_states_can_be_left_out(kafka_broker: str, topic: str, tmp_path: Path) -> None:
    sink = sink_to(f"kafka://{kafka_broker}/{topic}", tmp_path, track_states=False)
    sink.emit(events_of_tracks(2))
    sink.close(WAIT_S)
    with closing(connect_admin(parse_kafka(f"kafka://{kafka_broker}/{topic}"), WAIT_S)) as admin:
        assert f"{topic}.tracks" not in admin.list_topics()
    assert len(read(kafka_broker, topic)) == 6


def test_events_of_a_sealed_spool_arrive_opened(kafka_broker: str, topic: str, tmp_path: Path) -> None:
    events = events_of_tracks(3)
    spool = Spool(tmp_path / "spool", sealer=Sealer(bytes(32)))
    sink = KafkaSink(parse_kafka(f"kafka://{kafka_broker}/{topic}"), spool)
    sink.connect(WAIT_S)
    sink.emit(events)
    sink.close(WAIT_S)
    assert sorted(each for _, each in read(kafka_broker, topic)) == ids_of(events)


def test_a_topic_that_is_removed_is_made_again_and_nothing_that_waits_is_lost(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    address = f"kafka://{kafka_broker}/{topic}"
    sink = sink_to(address, tmp_path)
    sink.emit(events_of_tracks(3))
    assert sink._spool.wait_until_empty(WAIT_S)
    with closing(connect_admin(parse_kafka(address), WAIT_S)) as admin:
        admin.delete_topics([topic])
    later = events_of_tracks(4, begin=100)
    sink.emit(later)
    sink.close(WAIT_S)
    assert set(ids_of(later)) <= {each for _, each in read(kafka_broker, topic)}


def test_a_broker_that_is_frozen_is_told_of_before_the_producer_gives_up(
    cluster: KafkaCluster, topic: str, tmp_path: Path
) -> None:
    broker = cluster.start()
    with capture_logs() as told:
        sink = sink_to(f"kafka://{broker}/{topic}", tmp_path)
        sink.emit(events_of_tracks(5))
        assert sink._spool.wait_until_empty(WAIT_S)
        assert sink.is_delivering
        cluster.freeze(1)
        begun_s = time.monotonic()
        sink.emit(events_of_tracks(5, begin=100))
        while sink.is_delivering and time.monotonic() - begun_s < WAIT_S:
            time.sleep(0.05)
        told_after_s = time.monotonic() - begun_s
        cluster.thaw(1)
        assert sink._spool.wait_until_empty(WAIT_S)
        sink.close(WAIT_S)
    assert told_after_s > 3.9, "a short pause is not worth a line"
    lines = [each for each in told if each["event"].startswith("kafka ")]
    assert [each["event"] for each in lines] == [
        "kafka does not take events; they wait in the spool",
        "kafka takes events again",
    ]
    assert "nothing was acknowledged for 4 s" in lines[0]["reason"]


def test_a_broker_that_comes_back_empty_gets_all_that_it_had_not_acknowledged(
    cluster: KafkaCluster, topic: str, tmp_path: Path
) -> None:
    broker = cluster.start()
    with capture_logs() as told:
        sink = sink_to(f"kafka://{broker}/{topic}", tmp_path)
        sink.emit(events_of_tracks(50))
        assert sink._spool.wait_until_empty(WAIT_S)
        cluster.wipe(1)
        later = events_of_tracks(20, begin=100)
        sink.emit(later)
        cluster.revive(1)
        sink.close(WAIT_S)
    assert sorted({each for _, each in read(broker, topic)}) == ids_of(later)
    lost = "kafka has lost events that it had acknowledged, or the topic was recreated; continuing"
    assert [each["event"] for each in told].count(lost) == 1
