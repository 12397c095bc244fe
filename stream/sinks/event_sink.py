"""Where events go: the contract of a sink, and what a sink's address on the command line means."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from engine.errors import SinkError
from stream.common.uris import redact_text
from stream.events.event_types import Event, IdentityEvent
from stream.events.parsing import EmbeddingEncoding
from stream.kafka.address import KafkaAddress, identities_of, parse_kafka, show_kafka
from stream.spool.cursor_and_lock import SpoolStats, spool_folder
from stream.spool.spool import Spool

if TYPE_CHECKING:
    from stream.events.codecs import EventFormat

KNOWN_SINKS = "kafka://HOST:PORT/TOPIC, jsonl:PATH, jsonl:- (standard output), sqlite:PATH"


class EventSink(Protocol):
    """Receives events.

    Contract: one thread calls. ``emit`` keeps the order, may block for a bounded time, and either takes all
    events of a call or raises SinkError; a sink that delivers in the background raises what went wrong there
    at the next call. Nothing is ever dropped silently. ``close`` delivers all events, may be called
    twice, and raises SinkError that says how many events could not be delivered.
    """

    def emit(self, events: Sequence[Event]) -> None:
        """Take some events."""

    def close(self, timeout_s: float) -> None:
        """Deliver all events within ``timeout_s``, and free everything."""


@runtime_checkable
class SpooledSink(EventSink, Protocol):
    """A sink that keeps events on disk until they are delivered."""

    @property
    def name(self) -> str:
        """Its address, without secrets."""

    @property
    def is_delivering(self) -> bool:
        """Whether the other end takes events, as far as is known."""

    def stats(self) -> SpoolStats:
        """Counts of undelivered events; may be called from any thread."""


def open_spool(address: KafkaAddress) -> Spool:
    """The spool of a topic at its usual place, with the usual limits, in the clear.

    Raises:
        SinkError: It cannot be used.
    """
    return Spool(spool_folder(show_kafka(address)))


@dataclass(frozen=True, slots=True)
class JsonLinesAddress:
    """A file of one CloudEvent a line; None is standard output."""

    path: Path | None


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A SQLite file.

    Attributes:
        path: Of the file.
        keep_days: Events and tracks older than this are deleted; None keeps them forever.
    """

    path: Path
    keep_days: float | None = None


SinkAddress: TypeAlias = JsonLinesAddress | SqliteAddress | KafkaAddress


def parse_sink(text: str) -> SinkAddress:
    """Parse a sink's address. Touches no file and no network.

    Args:
        text: ``kafka://…`` as ``stream.kafka.address.parse_kafka`` takes it,
            ``jsonl:PATH``, ``jsonl:-`` or ``sqlite:PATH[?keep_days=30]``.

    Raises:
        SinkError: It is invalid.
    """
    scheme, colon, rest = text.partition(":")
    match scheme:
        case "jsonl" if rest:
            return JsonLinesAddress(None if rest == "-" else Path(rest))
        case "sqlite" if rest:
            return _parse_sqlite(rest)
        case "kafka" if rest.startswith("//"):
            return parse_kafka(text)
    shown = redact_text(text) if colon else "the address"
    raise SinkError(f"sink {shown}: not understood, expected {KNOWN_SINKS}")


def file_of_sink(text: str) -> Path | None:
    """The file that a sink writes; None for a topic and standard output.

    Raises:
        SinkError: The address is invalid.
    """
    address = parse_sink(text)
    return None if isinstance(address, KafkaAddress) else address.path


def open_sink(
    text: str,
    *,
    encoding: EmbeddingEncoding = "float32-b64",
    event_format: EventFormat = "json",
    registry: str | None = None,
    connect_timeout_s: float = 5.0,
    spool_of: Callable[[KafkaAddress], Spool] = open_spool,
    sync_every_s: float = 0.5,
    track_states: bool = True,
) -> EventSink:
    """Open a sink.

    Args:
        text: As ``parse_sink`` takes it.
        encoding: How embeddings are written.
        event_format: How Kafka's records are written; files always hold JSON.
        registry: URL of the schema registry that gives Avro's and Protobuf's schemas their ids.
        connect_timeout_s: How long a broker may take to answer.
        spool_of: Opens the spool of a Kafka topic.
        sync_every_s: Interval of syncing the spool to disk.
        track_states: Whether the latest state of each track goes to a topic of its own.

    Raises:
        SinkError: The address is invalid, the file cannot be written, or the brokers refuse the connection.
            It is not an error if no broker answers: events are kept in the spool.
    """
    match parse_sink(text):
        case JsonLinesAddress(path):
            from stream.sinks.json_lines import JsonLinesSink

            return JsonLinesSink(path, encoding=encoding)
        case SqliteAddress(path, keep_days):
            from stream.sinks.sqlite import SqliteSink

            return SqliteSink(path, encoding=encoding, keep_days=keep_days)
        case KafkaAddress() as address:
            from stream.kafka.delivery.spooled_sink import KafkaSink
            from stream.kafka.schema_registry import SchemaRegistry, topic_encoder

            known = None if registry is None else SchemaRegistry.from_environment(registry, os.environ)

            def open_topic(address: KafkaAddress, *, track_states: bool) -> KafkaSink:
                sink = KafkaSink(
                    address,
                    spool_of(address),
                    encode=topic_encoder(address.topic, event_format, encoding, known),
                    track_states=track_states,
                    sync_every_s=sync_every_s,
                )
                sink.connect(connect_timeout_s)
                return sink

            tracks = open_topic(address, track_states=track_states)
            if address.identities is None:
                return tracks
            try:
                return IdentitiesApart(tracks, open_topic(identities_of(address), track_states=False))
            except BaseException:
                tracks.close(0.0)
                raise


def _parse_sqlite(rest: str) -> SqliteAddress:
    path, _, query = rest.partition("?")
    if not query:
        return SqliteAddress(Path(path))
    name, _, value = query.partition("=")
    try:
        keep_days = float(value)
    except ValueError:
        keep_days = math.nan
    if not path or name != "keep_days" or not 0 < keep_days < math.inf:
        raise SinkError(f"sink sqlite:{path}?…: expected keep_days=NUMBER above 0 behind the question mark")
    return SqliteAddress(Path(path), keep_days)


class FanOut:
    """Gives every event to several sinks. When one fails, the others still get the events.

    Args:
        sinks: Receivers; without any, events are discarded.
    """

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = tuple(sinks)

    @property
    def spooled(self) -> tuple[SpooledSink, ...]:
        """The sinks that keep events on disk until they are delivered."""
        found: list[SpooledSink] = []
        for sink in self._sinks:
            if isinstance(sink, FanOut):
                found += sink.spooled
            elif isinstance(sink, SpooledSink):
                found.append(sink)
        return tuple(found)

    def emit(self, events: Sequence[Event]) -> None:
        """Give events to all sinks.

        Raises:
            SinkError: Some failed; the first one's error.
        """
        _call_all(partial(sink.emit, events) for sink in self._sinks)

    def close(self, timeout_s: float) -> None:
        """Close all sinks, within ``timeout_s`` altogether as far as they keep to it.

        Raises:
            SinkError: Some failed; the first one's error.
        """
        deadline = time.monotonic() + timeout_s
        _call_all(partial(sink.close, max(0.0, deadline - time.monotonic())) for sink in self._sinks)


class IdentitiesApart(FanOut):
    """Gives identities to one sink, and all other events to another.

    Args:
        others: Where events of tracks and cameras go.
        identities: Where identities go.
    """

    def __init__(self, others: EventSink, identities: EventSink) -> None:
        super().__init__((others, identities))

    def emit(self, events: Sequence[Event]) -> None:
        """Give each event to its sink.

        Raises:
            SinkError: One of them failed; the other still got its events.
        """
        apart: tuple[list[Event], list[Event]] = [], []
        for event in events:
            apart[isinstance(event, IdentityEvent)].append(event)
        _call_all(partial(sink.emit, some) for sink, some in zip(self._sinks, apart, strict=True) if some)


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    """Make every call, also after one that fails.

    Raises:
        SinkError: Some failed; the first one's error.
    """
    errors: list[SinkError] = []
    for call in calls:
        try:
            call()
        except SinkError as exc:
            errors.append(exc)
    if errors:
        raise errors[0]
