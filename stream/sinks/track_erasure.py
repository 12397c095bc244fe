"""Erase a person's tracks from where events have gone: Kafka's compacted topic, and SQLite files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from engine.errors import SinkError
from stream.events.event_types import IdentityEvent
from stream.kafka.address import KafkaAddress, show_kafka
from stream.kafka.clients import connect_producer
from stream.kafka.kafka_python import close_producer
from stream.sinks.event_log import only_events, read_topic
from stream.sinks.event_sink import SqliteAddress, parse_sink
from stream.sinks.sqlite import SqliteSink

_TIMEOUT_S: Final = 10.0


def find_tracks(address: str, person_id: str) -> list[str]:
    """Tracks that events in a place ever called a person's.

    Args:
        address: ``kafka://…/TOPIC``, where the topic of ``identities=`` is looked at as well, or
            ``sqlite:PATH``.
        person_id: Whose.

    Raises:
        SinkError: The address means neither, or it cannot be read.
        SourceError: A topic's end is not reached.
    """
    match parse_sink(address):
        case KafkaAddress() as kafka:
            return list(dict.fromkeys(_identified(kafka, person_id)))
        case SqliteAddress(path=path):
            with _open_sqlite(path) as sink:
                return sink.tracks_of(person_id)
    raise SinkError("expected kafka://HOST:PORT/TOPIC or sqlite:PATH to erase from")


def erase_tracks(address: str, track_ids: Iterable[str]) -> int:
    """Erase tracks from a place that events were written to.

    In Kafka a tombstone goes to ``TOPIC.tracks`` for each, and the brokers forget the track's state when they
    compact the topic. The topics of events and identities cannot be told to forget: there a record ends with
    its retention. In a SQLite file rows are deleted.

    Args:
        address: ``kafka://…/TOPIC`` or ``sqlite:PATH``.
        track_ids: Which.

    Returns:
        How many tombstones were written and acknowledged, or events deleted.

    Raises:
        SinkError: The address means neither, or what is there cannot be changed.
    """
    match parse_sink(address):
        case KafkaAddress() as kafka:
            return _bury(kafka, list(track_ids))
        case SqliteAddress(path=path):
            with _open_sqlite(path) as sink:
                return sink.erase(track_ids)
    raise SinkError("expected kafka://HOST:PORT/TOPIC or sqlite:PATH to erase from")


@contextmanager
def _open_sqlite(path: Path) -> Iterator[SqliteSink]:
    if not path.is_file():
        raise SinkError(f"{path}: no such file; give the file that events were written to")
    sink = SqliteSink(path)
    try:
        yield sink
    finally:
        sink.close(0.0)


def _identified(address: KafkaAddress, person_id: str) -> Iterator[str]:
    """Tracks that were ever said to be a person's."""
    for topic in dict.fromkeys((address.topic, address.identities or address.topic)):
        place = replace(address, topic=topic)
        for event in only_events(read_topic(place), show_kafka(place)):
            if isinstance(event, IdentityEvent) and event.person_id == person_id:
                yield event.track_id


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
