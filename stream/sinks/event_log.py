"""Read what was written: the events of a topic, a JSON Lines file or a SQLite file, in their order."""

from __future__ import annotations

import re
import shlex
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from engine.errors import ConfigError, SinkError, SourceError
from stream.common.logs import get_logger
from stream.common.uris import redact_uri
from stream.events.cloudevents import from_cloudevent, from_json
from stream.events.codecs import SchemaLookup, decode
from stream.events.event_types import Event
from stream.events.parsing import MAX_EVENT_BYTES, load_object
from stream.kafka.address import KafkaAddress, show_kafka
from stream.sinks.event_sink import JsonLinesAddress, SqliteAddress, parse_sink

log = get_logger(__name__)

POLL_S: Final = 0.2
"""How often a source that is followed is looked at when nothing comes."""

KNOWN_SOURCES: Final = "kafka://HOST/TOPIC, jsonl:PATH or sqlite:PATH"
"""Where events can be read."""

_CONNECT_S: Final = 10.0
_SILENCE_S: Final = 30.0
_BATCH: Final = 500
_LOOKED_AT: Final = 1024
_MOST_FOREIGN: Final = 20
"""Lines that are no events, without any that is, before a file is taken for something else."""
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What a source holds at one position.

    Attributes:
        event: None where there is none that can be read.
        problem: Why there is none, in one line; empty where there is one, and where a record without a value
            says that a key was erased.
        place: Where, for people.
        partition: Number of the topic's partition; 0 in files.
        done: Share of the source that was read, 0..1; None while it is followed.
    """

    event: Event | None
    problem: str
    place: str
    partition: int
    done: float | None


def read_log(
    source: str,
    *,
    since: datetime | None = None,
    follow: bool = False,
    lookup: SchemaLookup | None = None,
    stopping: threading.Event | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> Iterator[Entry]:
    """Everything in a source, the events of each camera in the order in which they were written.

    Args:
        source: ``kafka://…``, ``jsonl:PATH`` or ``sqlite:PATH``, or the path of such a file.
        since: Passes over what was written to a topic before; files are read whole.
        follow: Go on when the end is reached, until ``stopping``. A topic begins at its end then, unless
            ``since`` says otherwise. Not for SQLite.
        lookup: Finds Avro schemas that are not facestream's own; see ``stream.events.codecs.decode``.
        stopping: Ends it at the next entry, or within a second.
        on_end: Told once, when a source that is followed has been read to its end and is waited at.

    Yields:
        Entries. What comes in while a source is read to its end is left out.

    Raises:
        ConfigError: The source means nothing, or cannot be followed.
        SourceError: A file cannot be read.
        SinkError: No broker answers or lets us in, or there is no such topic.
    """
    stopping = stopping or threading.Event()
    match parse_log(source):
        case KafkaAddress() as address:
            return read_topic(
                address, since=since, follow=follow, lookup=lookup, stopping=stopping, on_end=on_end
            )
        case JsonLinesAddress(Path() as path):
            return _read_lines(path, stopping, follow=follow, on_end=on_end)
        case SqliteAddress(path) if not follow:
            return _read_table(path, stopping)
    raise ConfigError(f"{source}: cannot be followed; leave --follow out")


def only_events(entries: Iterable[Entry], source: str) -> Iterator[Event]:
    """The events among entries. Anything else is skipped, and the log says how often.

    Args:
        entries: As ``read_log`` gives them.
        source: Name of where they come from, without secrets.
    """
    skipped = 0
    for entry in entries:
        if entry.event is not None:
            yield entry.event
        skipped += bool(entry.problem)
    if skipped:
        log.warning("some records are not events", source=source, records=skipped)


def parse_log(source: str) -> KafkaAddress | JsonLinesAddress | SqliteAddress:
    """What the address of a source of events means.

    Args:
        source: An address or a path of events; see ``read_log``.

    Raises:
        ConfigError: It means nothing.
    """
    if not source.strip():
        raise ConfigError(f"SOURCE: got an empty text; name a file that was written, or {KNOWN_SOURCES}")
    if _is_there(path := Path(source)) and not path.is_dir():
        return SqliteAddress(path) if path.is_file() and _is_sqlite(path) else JsonLinesAddress(path)
    if not source.startswith(("kafka://", "jsonl:", "sqlite:")):
        shown, why = redact_uri(source), "is a folder" if _is_there(path) else "there is no such file"
        raise ConfigError(f"{shown}: {why}; name one that was written, or {KNOWN_SOURCES}")
    try:
        address = parse_sink(source)
    except SinkError as exc:
        raise ConfigError(f"SOURCE: {exc}") from None
    if isinstance(address, JsonLinesAddress) and address.path is None:
        raise ConfigError("SOURCE: standard output cannot be read; name a file")
    return address


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}); check its permissions") from exc


def parse_time(text: str, now: datetime) -> datetime:
    """A time that somebody typed.

    Args:
        text: ``90s``, ``10m``, ``2h`` or ``7d`` ago, or a time with a time zone as ISO 8601 has it.
        now: With a time zone.

    Raises:
        ConfigError: It is none.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        at = now.replace(tzinfo=None)
    if at.tzinfo is None:
        raise ConfigError(
            f"{text[:40]!r}: expected 90s, 10m, 2h or 7d ago, or a time with a time zone such as "
            "2026-01-31T08:00:00+01:00"
        )
    return at


def read_topic(
    address: KafkaAddress,
    *,
    since: datetime | None = None,
    follow: bool = False,
    lookup: SchemaLookup | None = None,
    stopping: threading.Event | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> Iterator[Entry]:
    """Everything in a topic, as ``read_log`` reads it.

    Raises:
        SinkError: No broker answers or lets us in, or there is no such topic.
    """
    from stream.kafka.clients import connect_consumer
    from stream.kafka.explanations import explain_failure
    from stream.kafka.kafka_python import KafkaError

    consumer = connect_consumer(address, group=None, timeout_s=_CONNECT_S)
    try:
        yield from _poll(
            consumer, address, since, lookup, stopping or threading.Event(), follow=follow, on_end=on_end
        )
    except KafkaError as exc:
        raise SinkError(explain_failure(exc, address)) from None
    finally:
        consumer.close(autocommit=False)


def _poll(
    consumer: Any,
    address: KafkaAddress,
    since: datetime | None,
    lookup: SchemaLookup | None,
    stopping: threading.Event,
    *,
    follow: bool,
    on_end: Callable[[], None],
) -> Iterator[Entry]:
    from stream.kafka.consuming.polling import poll

    begins, ends = _span(consumer, address.topic, since, at_end=follow and since is None)
    places = dict(begins)
    total = sum(max(0, ends[each] - begins[each]) for each in begins)
    heard_s, read, is_told = time.monotonic(), 0, False
    while not stopping.is_set() and (follow or any(places[each] < ends[each] for each in places)):
        if follow and not is_told and all(places[each] >= ends[each] for each in places):
            is_told = True
            on_end()
        batch, unreadable = poll(consumer, POLL_S, most=_BATCH)
        if unreadable is not None:
            place = f"partition {unreadable.partition}, offset {unreadable.offset}"
            yield Entry(None, "not a record that can be parsed", place, unreadable.partition, None)
        for partition, records in batch.items():
            for record in records:
                if not follow and record.offset >= ends[partition]:
                    break
                read += 1
                yield _entry(record, lookup, None if follow else min(1.0, read / total))
                if stopping.is_set():
                    return
        moved = {each: consumer.position(each) for each in places}
        if batch or moved != places:
            heard_s = time.monotonic()
        elif not follow and time.monotonic() - heard_s > _SILENCE_S:
            raise SinkError(f"{show_kafka(address)}: no records for {_SILENCE_S:g} s; check the brokers")
        places = moved


def _span(
    consumer: Any, topic: str, since: datetime | None, *, at_end: bool
) -> tuple[dict[Any, int], dict[Any, int]]:
    """Where to begin and to end in each partition; the consumer is then at the beginnings."""
    from stream.kafka.kafka_python import TopicPartition

    partitions = [
        TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())
    ]
    consumer.assign(partitions)
    timeout_ms = round(_CONNECT_S * 1000)
    ends = dict(consumer.end_offsets(partitions, timeout_ms=timeout_ms))
    if at_end:
        begins = dict(ends)
    elif since is None:
        begins = dict(consumer.beginning_offsets(partitions, timeout_ms=timeout_ms))
    else:
        since_ms = max(0, round(since.timestamp() * 1000))
        found = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms), timeout_ms=timeout_ms)
        begins = {each: ends[each] if found.get(each) is None else found[each].offset for each in partitions}
    for each, offset in begins.items():
        consumer.seek(each, offset)
    return begins, ends


def _entry(record: Any, lookup: SchemaLookup | None, done: float | None) -> Entry:
    place = f"partition {record.partition}, offset {record.offset}"
    if record.value is None:
        return Entry(None, "", place, record.partition, done)
    try:
        event = decode(record.headers, record.value, lookup=lookup)
    except ValueError as exc:
        return Entry(None, str(exc), place, record.partition, done)
    return Entry(event, "", place, record.partition, done)


def _read_lines(
    path: Path, stopping: threading.Event, *, follow: bool, on_end: Callable[[], None]
) -> Iterator[Entry]:
    number, torn, is_told, has_events = 0, b"", False, False
    try:
        with path.open("rb") as file:
            _check_text(path, file.peek(_LOOKED_AT))
            size = max(1, path.stat().st_size) if path.is_file() else None  # of a pipe nobody knows it
            while not stopping.is_set():
                # One byte more than an event may have, so that reading finds that it is too long.
                line = torn + file.readline(MAX_EVENT_BYTES + 2 - len(torn))
                if follow and not line.endswith(b"\n") and len(line) <= MAX_EVENT_BYTES:
                    torn = line  # its end is not written yet
                    if not line and not is_told:
                        is_told = True
                        on_end()
                    stopping.wait(POLL_S)
                    continue
                torn = b""
                if not has_events and number >= (_MOST_FOREIGN if line else 1):
                    raise SourceError(
                        f"{path}: {_what_was_read(number)}; name a file that a --sink has written"
                    )
                if not line:
                    return
                if not line.endswith(b"\n"):
                    _skip_line(file)
                number += 1
                done = None if follow or size is None else min(1.0, file.tell() / size)
                yield (entry := _from_line(line.rstrip(b"\n"), f"line {number}", done))
                has_events = has_events or entry.event is not None
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror}); check the path") from exc


def _check_text(path: Path, begin: bytes) -> None:
    """See by its first bytes that a file may hold lines of JSON."""
    for magic, program in _COMPRESSED.items():
        if begin.startswith(magic):
            raise SourceError(
                f"{path}: is compressed; unpack it first, or give /dev/stdin for it and write before the "
                f"command: {program} -dc {shlex.quote(str(path))} |"
            )
    if b"\0" in begin:
        raise SourceError(f"{path}: is not text; name a file that a --sink has written")


def _what_was_read(number: int) -> str:
    return "its only line is not an event" if number == 1 else f"none of its first {number} lines is an event"


def _skip_line(file: Any) -> None:
    """Go to the end of a line that is too long."""
    while (rest := file.readline(MAX_EVENT_BYTES)) and not rest.endswith(b"\n"):
        pass


def _from_line(line: bytes, place: str, done: float | None) -> Entry:
    try:
        return Entry(from_json(line), "", place, 0, done)
    except ValueError as exc:
        return Entry(None, str(exc), place, 0, done)


_ROWS: Final = """
SELECT id, type, camera_id, track_id, time, data FROM events
ORDER BY time, CASE WHEN json_valid(data) THEN json_extract(data, '$.sequence') END
"""


def _read_table(path: Path, stopping: threading.Event) -> Iterator[Entry]:
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; name one that facestream run wrote")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            total = database.execute("SELECT count(*) FROM events").fetchone()[0]
            for number, row in enumerate(database.execute(_ROWS), 1):
                if stopping.is_set():
                    return
                yield _from_row(row, min(1.0, number / max(1, total)))
    except sqlite3.Error as exc:
        raise SourceError(
            f"{path}: no events can be read ({exc}); name a SQLite file that facestream run wrote"
        ) from exc


def _from_row(row: tuple[Any, ...], done: float) -> Entry:
    number, kind, camera_id, track_id, at, data = row
    place = f"row {str(number)[:80]!r}"
    try:
        noun = str(kind).split(".")[1] if str(kind).count(".") >= 1 else ""
        event = from_cloudevent(
            {
                "specversion": "1.0",
                "id": number,
                "source": f"/facestream/cameras/{quote(str(camera_id), safe='')}",
                "type": kind,
                "subject": camera_id if noun == "camera" else track_id,
                "time": at,
                "datacontenttype": "application/json",
                "dataschema": f"urn:facestream:schema:{noun}.v1",
                "data": load_object(str(data)),
            }
        )
    except ValueError as exc:
        return Entry(None, str(exc), place, 0, done)
    return Entry(event, "", place, 0, done)
