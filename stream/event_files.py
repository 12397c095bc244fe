"""The tracks in a file of events: JSON Lines, or SQLite as the sink writes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import structlog

from engine.errors import SourceError
from stream.cloudevents import from_cloudevent, from_json
from stream.events import Event, FaceEvent
from stream.wire import MAX_EVENT_BYTES, load_object

log = structlog.get_logger(__name__)

_SQLITE_BEGINS: Final = b"SQLite format 3\x00"
_EVENTS: Final = (
    "SELECT id, type, camera_id, track_id, time, data FROM events WHERE type LIKE ? ORDER BY time"
)
_TRACKS: Final = "facestream.track.%"


def newest_tracks(events: Iterable[Event]) -> list[FaceEvent]:
    """The last event of each track, in the order in which the tracks were first seen.

    Args:
        events: In any order; repeats do no harm, and what is no event of a track is passed over.
    """
    newest: dict[str, FaceEvent] = {}
    for event in events:
        if isinstance(event, FaceEvent):
            known = newest.get(event.track_id)
            if known is None or event.sequence > known.sequence:
                newest[event.track_id] = event
    return sorted(newest.values(), key=lambda event: (event.first_seen, event.track_id))


def read_event_file(path: Path) -> Iterator[Event]:
    """The events of a file. What is none is passed over, and the log says how often.

    Args:
        path: JSON Lines, or a SQLite file of the sink, of which only the events of tracks are read.

    Raises:
        SourceError: The file cannot be read, or is of another kind.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_SQLITE_BEGINS))
    except OSError as exc:
        raise SourceError(f"{path}: events cannot be read ({exc.strerror}); check the path") from exc
    rows = _of_sqlite(path) if begins == _SQLITE_BEGINS else _of_lines(path)
    read = skipped = 0
    for event in rows:
        if event is None:
            skipped += 1
        else:
            read += 1
            yield event
    if skipped and not read:
        raise SourceError(
            f"{path}: none of its {skipped:,} records is an event; give a file of --sink jsonl: or sqlite:"
        )
    if skipped:
        log.warning("some records are no events", source=str(path), records=skipped)


def _of_lines(path: Path) -> Iterator[Event | None]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_EVENT_BYTES + 2):
                try:
                    yield from_json(line.strip())
                except ValueError:
                    yield None
    except OSError as exc:
        raise SourceError(f"{path}: events cannot be read ({exc.strerror}); check the disk") from exc


def _of_sqlite(path: Path) -> Iterator[Event | None]:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            for row in database.execute(_EVENTS, (_TRACKS,)):
                yield _of_row(*row)
    except sqlite3.Error as exc:
        raise SourceError(
            f"{path}: no events can be read ({exc}); give a file that --sink sqlite: has written"
        ) from exc


def _of_row(*row: Any) -> Event | None:
    """An event as it was before the sink took it apart."""
    if not all(isinstance(each, str) for each in row):
        return None
    event_id, kind, camera_id, track_id, time, data = row
    try:
        return from_cloudevent(
            {
                "specversion": "1.0",
                "id": event_id,
                "source": f"/facestream/cameras/{camera_id}",
                "type": kind,
                "subject": track_id,
                "time": time,
                "datacontenttype": "application/json",
                "dataschema": "urn:facestream:schema:track.v1",
                "data": load_object(data),
            }
        )
    except ValueError:
        return None
