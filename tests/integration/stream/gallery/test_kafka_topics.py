from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from event_checks import camera_event, face_event
from event_topics import WholeTopic
from kafka import KafkaProducer
from people import MODEL, gallery_of, vector

from engine.errors import SinkError
from stream.events.event_types import Event, TrackChange
from stream.events.kafka_record import to_binary
from stream.gallery.enrolment.enroller import Enroller
from stream.gallery.erasure import erase
from stream.gallery.identification.identifier import Identifier
from stream.kafka.address import parse_kafka
from stream.kafka.topic_admin import ensure_topic
from stream.kafka.topic_plan import plan_topics
from stream.sinks.event_log import read_log
from stream.sinks.track_erasure import erase_tracks, find_tracks
from stream.sinks.track_history import read_tracks

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(kafka_broker: str) -> str:
    """Address of a new topic, with its topics of tracks and identities."""
    name = f"faces-{uuid.uuid4().hex[:8]}"
    for plan in plan_topics(name, identities=f"{name}.names", partitions=3):
        ensure_topic(parse_kafka(f"kafka://{kafka_broker}/{plan.name}"), 120.0, plan=plan)
    return f"kafka://{kafka_broker}/{name}"


def write(broker: str, topic: str, events: Sequence[Event]) -> None:
    with closing(KafkaProducer(bootstrap_servers=broker, acks="all")) as producer:
        for event in events:
            message = to_binary(event)
            producer.send(topic, key=message.key, value=message.value, headers=message.headers)
        producer.send(topic, key=b"door", value=b"no event at all")
        producer.flush(timeout=120)


def seen(seed: int, track: str, **changes: object) -> Event:
    return face_event(embedding=vector(seed), embedding_model=MODEL.name, track_id=track, **changes)


def test_a_track_of_a_topic_is_enrolled_and_buried_with_all_that_was_called_the_person(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    name = topic.rpartition("/")[2]
    events = [
        camera_event(),
        seen(1, "t1"),
        seen(2, "t1", sequence=1, change=TrackChange.LEFT),
        seen(9, "t9"),
    ]
    write(kafka_broker, name, events)
    (event,) = (each for each in read_tracks(topic) if each.track_id == "t1")
    assert event.sequence == 1
    with gallery_of(tmp_path / "g.db", "Bob") as gallery:
        assert Enroller(gallery).enrol_track("Ann", event).is_taken
        ann = gallery.find("Ann").id
        identities = Identifier(gallery).identify([seen(2, "t5"), seen(2, "t6"), seen(0, "t7")], 0.0)
        write(kafka_broker, name, identities[:1])
        write(kafka_broker, f"{name}.names", identities[1:])
        erasure = erase(gallery, "Ann")
    assert erasure.person_id == ann
    assert erasure.tracks == ("t1",)
    assert find_tracks(topic, ann) == ["t5"]
    tracks = {*erasure.tracks, *find_tracks(f"{topic}?identities={name}.names", ann)}
    assert erase_tracks(topic, tracks) == 3
    with pytest.raises(SinkError, match="no such topic"):
        find_tracks(f"{topic}?identities={name}.nobody", ann)
    buried: list[str] = []
    with WholeTopic(f"{topic}.tracks", group=None, on_erased=buried.append) as states:
        assert list(states) == []
    assert sorted(buried) == ["t1", "t5", "t6"]


def test_a_topic_that_is_not_there_is_said(kafka_broker: str) -> None:
    with pytest.raises(SinkError, match="no such topic"):
        list(read_log(f"kafka://{kafka_broker}/nothing-{uuid.uuid4().hex[:8]}"))


def test_an_empty_topic_has_an_end(topic: str) -> None:
    assert list(read_log(topic)) == []
