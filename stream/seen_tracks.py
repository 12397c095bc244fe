"""The tracks of events that were written earlier: the newest state of each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import structlog

from engine.errors import SourceError
from stream.cloudevents import from_cloudevent
from stream.event_source import read_events
from stream.events import Event, FaceEvent
from stream.uris import redact_uri
from stream.wire import load_object

log = structlog.get_logger(__name__)

_SQLITE: Final = "sqlite:"
_SQLITE_BEGINS: Final = b"SQLite format 3\x00"
_EVENTS: Final = (
    "SELECT id, type, camera_id, track_id, time, data FROM events WHERE type LIKE ? ORDER BY time"
)
_TRACKS: Final = "facestream.track.%"


def read_tracks(source: str) -> list[FaceEvent]:
    """The newest event of each track that there is now.

    Args:
        source: Path of a file of JSON Lines or SQLite, or ``jsonl:``, ``sqlite:`` or ``kafka://…`` as a sink
            has it.

    Returns:
        In the order in which the tracks were first seen; one at least.

    Raises:
        SourceError: It cannot be read, or holds no track.
        SinkError: The address means nothing, or no broker answers.
    """
    path = Path(source.removeprefix(_SQLITE))
    is_sqlite = source.startswith(_SQLITE) or _begins_as_sqlite(path)
    tracks = newest_tracks(_of_sqlite(path) if is_sqlite else read_events(source))
    if not tracks:
        raise SourceError(f"{redact_uri(source)}: holds no event of a track; give what a --sink has written")
    return tracks


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


def _begins_as_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_BEGINS)) == _SQLITE_BEGINS
    except OSError:
        return False  # an address, or a file of which its reader says what is wrong


def _of_sqlite(path: Path) -> Iterator[Event]:
    skipped = 0
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            for row in database.execute(_EVENTS, (_TRACKS,)):
                if (event := _of_row(*row)) is None:
                    skipped += 1
                else:
                    yield event
    except sqlite3.Error as exc:
        raise SourceError(
            f"{path}: no events can be read ({exc}); give a file that --sink sqlite: has written"
        ) from exc
    if skipped:
        log.warning("some records are no events", source=str(path), records=skipped)


def _of_row(*row: Any) -> Event | None:
    """An event as it was before the sink took it apart; None where it is none."""
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
