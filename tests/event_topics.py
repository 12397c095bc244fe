"""Events on a real Kafka, for tests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from event_checks import AT, face_event
from kafka import KafkaProducer

from stream.events.event_types import CameraEvent, Event, FaceEvent, IdentityEvent, TrackChange
from stream.events.kafka_record import to_binary
from stream.kafka.address import KafkaAddress
from stream.kafka.consuming.event_consumer import EventConsumer
from stream.kafka.topic_admin import ensure_topic
from stream.kafka.topic_plan import TopicPlan

WAIT_S = 120.0


class _RawKey(str):
    """A header's name that is not UTF-8, as kafka-python would never write it."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


class WholeTopic(EventConsumer):
    """Its loop ends where the topics end, not when nothing came for a while: that may be any while."""

    def idles_since(self, since_s: float) -> bool:
        assert time.monotonic() - since_s < WAIT_S, "the topics' ends were not reached in time"
        kafka, partitions = self._consumer, self._partitions
        if not (partitions and partitions.is_settled and kafka._subscription.has_all_fetch_positions()):
            return False
        ends = kafka.end_offsets(kafka.assignment(), timeout_ms=round(WAIT_S * 1000))
        return all(kafka.position(each) >= end for each, end in ends.items())


def make_topic(broker: str, topic: str, *, partitions: int = 4) -> str:
    """A new topic; its address."""
    ensure_topic(KafkaAddress((broker,), topic), WAIT_S, plan=TopicPlan(topic, partitions))
    return f"kafka://{broker}/{topic}"


def stays(*, cameras: int = 3, tracks: int = 4, updates: int = 3) -> list[FaceEvent]:
    """Events of whole stays, those of the cameras mixed."""
    changes = [TrackChange.APPEARED, *[TrackChange.UPDATED] * updates, TrackChange.LEFT]
    return [
        face_event(
            change=change,
            sequence=sequence,
            camera_id=f"cam-{camera}",
            run_id=f"run-{camera}",
            track_id=f"run-{camera}-{track}",
            at=AT,
        )
        for track in range(tracks)
        for sequence, change in enumerate(changes)
        for camera in range(cameras)
    ]


def write_events(broker: str, topic: str, events: Iterable[Event]) -> None:
    """Write events as the Kafka sink does."""
    messages = [to_binary(event) for event in events]
    write_records(broker, topic, [(each.key, each.value, each.headers) for each in messages])


def write_records(
    broker: str, topic: str, records: Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]
) -> None:
    """Write what may be no event at all."""
    with closing(KafkaProducer(bootstrap_servers=broker, acks="all")) as producer:
        futures = [
            producer.send(topic, key=key, value=value, headers=headers) for key, value, headers in records
        ]
        for future in futures:
            future.get(timeout=WAIT_S)


def unreadable_headers() -> list[tuple[str, bytes]]:
    """Headers that kafka-python cannot decode."""
    return [(_RawKey("name"), b"")]


def ids(events: Iterable[Event]) -> list[str]:
    return [event.event_id for event in events]


def by_track(events: Iterable[Event]) -> dict[str, list[Event]]:
    """Events of each track, or of each camera, in the order in which they came."""
    found: dict[str, list[Event]] = {}
    for event in events:
        match event:
            case FaceEvent() | IdentityEvent():
                found.setdefault(event.track_id, []).append(event)
            case CameraEvent():
                found.setdefault(event.run_id, []).append(event)
    return found
