"""What ``facestream events`` does: choose, show and replay what stands in a log of events."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.text import Text

from engine.errors import ConfigError
from stream.app.preflight import check_apart
from stream.common.encryption import Sealer
from stream.common.printable import local_time, printable
from stream.console.live_table import describe_event
from stream.events.codecs import EventFormat
from stream.events.event_types import CameraEvent, Event, FaceEvent, IdentityEvent
from stream.events.fields import noun_of
from stream.events.parsing import EmbeddingEncoding
from stream.kafka.address import KafkaAddress
from stream.sinks.event_log import Entry, parse_log
from stream.sinks.event_sink import EventSink, open_sink, parse_sink
from stream.spool.spool import Spool

KINDS: Final = (
    *("track", "track.appeared", "track.updated", "track.left", "camera", "camera.up", "camera.down"),
    *("identity", "identity.decided", "identity.corrected"),
)
"""What ``--type`` takes."""

_STYLES: Final = {
    "appeared": "green",
    "updated": "",
    "left": "dim",
    "up": "bold green",
    "down": "bold red",
    "decided": "bold cyan",
    "corrected": "bold yellow",
}
_BATCH: Final = 200
_CLOSE_S: Final = 60.0
_SPOOL_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are wanted. What is empty or None wants all.

    Attributes:
        cameras: Ids.
        kinds: Some of ``KINDS``.
        tracks: Ids.
        people: Ids or names; only identity events have any.
        since: From this time on.
        until: Before this time.

    Raises:
        ConfigError: A kind is unknown.
    """

    cameras: Collection[str] = ()
    kinds: Collection[str] = ()
    tracks: Collection[str] = ()
    people: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ConfigError(f"--type {unknown[0][:40]}: expected one of {', '.join(KINDS)}")

    def wants(self, event: Event) -> bool:
        """Whether an event is wanted."""
        noun = noun_of(event)
        return (
            (not self.cameras or event.camera_id in self.cameras)
            and (not self.kinds or bool({noun, f"{noun}.{event.change.value}"} & set(self.kinds)))
            and (not self.tracks or (not isinstance(event, CameraEvent) and event.track_id in self.tracks))
            and (not self.people or _names_one_of(event, self.people))
            and (self.since is None or event.at >= self.since)
            and (self.until is None or event.at < self.until)
        )


def show_event(event: Event) -> Text:
    """A coloured line about an event. What could steer a terminal is replaced: events come from outside."""
    line = printable(describe_event(event))
    day = local_time(event.at, "%Y-%m-%d ")
    return Text(day + line, style=_STYLES[event.change.value], overflow="ignore", no_wrap=True)


def chosen(
    entries: Iterable[Entry], wanted: EventFilter, *, on_problem: Callable[[Entry], None]
) -> Iterator[tuple[Event, float | None]]:
    """The events of a log that are wanted, and how much of the log was read.

    Args:
        entries: Of a log.
        wanted: Which events.
        on_problem: Told of each entry that cannot be read.
    """
    for entry in entries:
        if entry.problem:
            on_problem(entry)
        elif entry.event is not None and wanted.wants(entry.event):
            yield entry.event, entry.done


def replay(
    events: Iterable[tuple[Event, float | None]],
    sink: EventSink,
    *,
    stopping: threading.Event,
    most_per_s: float | None = None,
    on_progress: Callable[[int, float | None], None] = lambda _count, _done: None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Give events to a sink in their order; they keep their ids.

    Args:
        events: With the share of the log that was read, as ``chosen`` gives them.
        sink: Where to; stays open.
        stopping: Ends it, also while it waits.
        most_per_s: Events a second at the most, above 0; None for as many as go.
        on_progress: Told of the events so far and the share of the log after each batch.
        clock: Seconds that never go back.

    Returns:
        How many.

    Raises:
        SinkError: They cannot be written.
    """
    begun_s, count, batch, done = clock(), 0, list[Event](), None
    size = _BATCH if most_per_s is None else max(1, min(_BATCH, int(most_per_s / 10)))
    for event, done in events:
        batch.append(event)
        if len(batch) < size:
            continue
        count += _emit(sink, batch)
        on_progress(count, done)
        if most_per_s is not None:
            stopping.wait(max(0.0, begun_s + count / most_per_s - clock()))
        if stopping.is_set():
            return count
    count += _emit(sink, batch)
    on_progress(count, done)
    return count


@contextmanager
def open_target(
    text: str,
    source: str,
    *,
    event_format: EventFormat = "json",
    encoding: EmbeddingEncoding = "float32-b64",
    registry: str | None = None,
) -> Iterator[EventSink]:
    """Open the sink that a log is replayed into. Closing it waits until everything is there.

    It leaves the topic of states alone: old events would undo newer states.

    Args:
        text: As ``stream.sinks.event_sink.parse_sink`` takes it.
        source: The log, which must be another.
        event_format: How Kafka's records are written.
        encoding: How embeddings are written.
        registry: URL of a schema registry.

    Raises:
        ConfigError: It is the log itself.
        SinkError: It cannot be opened, or not everything was delivered.
    """
    target, log = parse_sink(text), parse_log(source)
    is_same_topic = (
        isinstance(target, KafkaAddress)
        and isinstance(log, KafkaAddress)
        and (set(target.brokers) & set(log.brokers) and log.topic in {target.topic, target.identities})
    )
    if is_same_topic:
        raise ConfigError("--sink: expected another place than SOURCE, got the same; name another")
    if not isinstance(target, KafkaAddress) and not isinstance(log, KafkaAddress):
        check_apart([("--sink", target.path)], [("SOURCE", log.path)])
    with tempfile.TemporaryDirectory(prefix="facestream-replay-") as scratch:

        def spool_of(address: KafkaAddress) -> Spool:
            sealer = Sealer.from_environment(os.environ)
            return Spool(
                Path(scratch) / address.topic, sealer=sealer, max_bytes=_SPOOL_BYTES, when_full="block"
            )

        sink = open_sink(
            text,
            encoding=encoding,
            event_format=event_format,
            registry=registry,
            spool_of=spool_of,
            track_states=False,
        )
        try:
            yield sink
        except BaseException:
            sink.close(1.0)
            raise
        sink.close(_CLOSE_S)


def _emit(sink: EventSink, batch: list[Event]) -> int:
    count = len(batch)
    if batch:
        sink.emit(batch)
        batch.clear()
    return count


def _names_one_of(event: Event, people: Collection[str]) -> bool:
    match event:
        case IdentityEvent():
            return bool({event.person_id, event.person_name, event.previous_person_id} & set(people))
        case FaceEvent() | CameraEvent():
            return False
