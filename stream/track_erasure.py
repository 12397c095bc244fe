"""Erase a person's tracks from where events have gone: Kafka's compacted topic, and SQLite files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from engine.errors import SinkError
from stream.event_source import read_events_of
from stream.events import IdentityEvent
from stream.kafka import close_producer, connect_admin, connect_producer
from stream.kafka_address import KafkaAddress, show_kafka
from stream.sinks import SqliteAddress, parse_sink
from stream.sqlite import SqliteSink

_TIMEOUT_S: Final = 10.0


def erase_tracks(address: str, person_id: str, track_ids: Iterable[str]) -> int:
    """Erase tracks from a place that events were written to.

    In Kafka a tombstone goes to ``TOPIC.tracks`` for each, and the brokers forget the track's state when they
    compact the topic. The topics of events and identities cannot be told to forget: there a record ends with
    its retention. In a SQLite file rows are deleted.

    Args:
        address: ``kafka://…/TOPIC`` or ``sqlite:PATH``. The tracks that identities there call the person's
            are erased, too.
        person_id: Whose tracks.
        track_ids: Tracks that are known otherwise to be the person's.

    Returns:
        How many tombstones were written and acknowledged, or tracks deleted.

    Raises:
        SinkError: The address means neither, or what is there cannot be changed.
    """
    match parse_sink(address):
        case KafkaAddress() as kafka:
            tracks = dict.fromkeys([*track_ids, *_identified(kafka, person_id)])
            return _bury(kafka, list(tracks))
        case SqliteAddress(path=path):
            if not path.is_file():
                raise SinkError(f"{path}: no such file; give the file that events were written to")
            sink = SqliteSink(path)
            try:
                return sink.erase(dict.fromkeys([*track_ids, *sink.tracks_of(person_id)]))
            finally:
                sink.close(0.0)
    raise SinkError("expected kafka://HOST:PORT/TOPIC or sqlite:PATH to erase from")


def _identified(address: KafkaAddress, person_id: str) -> Iterator[str]:
    """Tracks that were ever said to be a person's."""
    identities = f"{address.topic}.identities"
    for topic in (address.topic, *_there(address, identities)):
        for event in read_events_of(replace(address, topic=topic)):
            if isinstance(event, IdentityEvent) and event.person_id == person_id:
                yield event.track_id


def _there(address: KafkaAddress, topic: str) -> list[str]:
    """A topic, where the brokers have it."""
    admin = connect_admin(address, _TIMEOUT_S)
    try:
        return [topic] if topic in admin.list_topics() else []
    finally:
        admin.close()


def _bury(address: KafkaAddress, track_ids: list[str]) -> int:
    states = replace(address, topic=f"{address.topic}.tracks")
    producer = connect_producer(states, _TIMEOUT_S)
    try:
        sent = [producer.send(states.topic, key=each.encode(), value=None) for each in track_ids]
        for future in sent:
            future.get(timeout=_TIMEOUT_S)
    except Exception as exc:
        raise SinkError(
            f"{show_kafka(states)}: not all of {len(track_ids)} tombstones were acknowledged "
            f"({type(exc).__name__}); run it again"
        ) from exc
    finally:
        close_producer(producer)
    return len(sent)
