"""Events in a SQLite file: every event, and the state of every track, to be asked with SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from engine.errors import SinkError
from stream.cloudevents import to_cloudevent
from stream.events import Event, FaceEvent
from stream.wire import EmbeddingEncoding

SCHEMA_VERSION = 1

_APPLICATION_ID = 0x66616365  # "face"
_BUSY_TIMEOUT_S = 5.0
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE events (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    camera_id TEXT NOT NULL,
    track_id TEXT,
    time TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX events_by_time ON events (time);
CREATE INDEX events_by_track ON events (track_id);
CREATE TABLE tracks (
    track_id TEXT PRIMARY KEY,
    camera_id TEXT NOT NULL,
    state TEXT NOT NULL,
    first_seen TEXT NOT NULL,
    last_seen TEXT NOT NULL,
    faces_seen INTEGER NOT NULL,
    quality REAL NOT NULL,
    model TEXT NOT NULL,
    embedding BLOB NOT NULL,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tracks_by_camera ON tracks (camera_id, first_seen);
"""
_ADD_EVENT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)"
_SET_TRACK = """
INSERT INTO tracks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (track_id) DO UPDATE SET
    state = excluded.state, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
    faces_seen = excluded.faces_seen, quality = excluded.quality, model = excluded.model,
    embedding = excluded.embedding, sequence = excluded.sequence
WHERE excluded.sequence >= sequence
"""


class SqliteSink:
    """Writes each ``emit`` as one transaction. An event that is there already is not written twice.

    The table ``tracks`` holds the newest state of each track: ``embedding`` is float32, little-endian, unit
    length. Others may read while events are written (write-ahead log).

    Args:
        path: Of the file; made when it is not there.
        encoding: How embeddings are written in the events' data; in ``tracks`` they are always exact.

    Raises:
        SinkError: The file cannot be opened, or belongs to another program.
    """

    def __init__(self, path: Path, *, encoding: EmbeddingEncoding = "float32-b64") -> None:
        self._path, self._encoding = path, encoding
        self._database: sqlite3.Connection | None = _open(path)

    def emit(self, events: Sequence[Event]) -> None:
        """Write some events.

        Raises:
            SinkError: They cannot be written; then none of them was.
        """
        if self._database is None:
            raise ValueError("expected an open sink, got a closed one")
        envelopes = [to_cloudevent(event, encoding=self._encoding) for event in events]
        rows = [
            (
                envelope["id"],
                envelope["type"],
                envelope["data"]["camera_id"],
                envelope["data"].get("track_id"),
                envelope["time"],
                json.dumps(envelope["data"], separators=(",", ":")),
            )
            for envelope in envelopes
        ]
        tracks = [
            _track_row(event, envelope["data"])
            for event, envelope in zip(events, envelopes, strict=True)
            if isinstance(event, FaceEvent)
        ]
        try:
            with self._database:
                self._database.executemany(_ADD_EVENT, rows)
                self._database.executemany(_SET_TRACK, tracks)
        except sqlite3.Error as exc:
            raise SinkError(
                f"{self._path}: events cannot be written ({exc}); make room or choose another file"
            ) from exc

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 - the contract's; nothing waits here
        """Close the file; everything has been written already."""
        database, self._database = self._database, None
        if database is not None:
            database.close()


def _track_row(event: FaceEvent, data: dict[str, object]) -> tuple[object, ...]:
    return (
        event.track_id,
        event.camera_id,
        event.change.value,
        data["first_seen"],
        data["last_seen"],
        event.faces_seen,
        data["quality"],
        event.embedding_model,
        event.embedding.astype("<f4").tobytes(),
        event.sequence,
    )


def _open(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    except sqlite3.Error as exc:
        raise SinkError(
            f"{path}: cannot be opened for events ({exc}); make its folder, or change the permissions"
        ) from exc
    try:
        _prepare(database, path)
    except sqlite3.Error as exc:
        database.close()
        raise SinkError(f"{path}: cannot be used for events ({exc}); choose another file") from exc
    except SinkError:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make the tables in a new file; refuse a file of somebody else."""
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    is_new = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if is_new and application == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    elif application != _APPLICATION_ID:
        raise SinkError(f"{path}: a database of another program; choose another file")
    elif version != SCHEMA_VERSION:
        raise SinkError(f"{path}: of version {version}, expected {SCHEMA_VERSION}; choose another file")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
