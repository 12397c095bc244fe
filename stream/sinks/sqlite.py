"""Events in a SQLite file: every event, the state of every track and its identity, for SQL queries."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from engine.errors import SinkError
from stream.events.cloudevents import to_cloudevent
from stream.events.event_types import Event, FaceEvent, IdentityEvent
from stream.events.parsing import EmbeddingEncoding

SCHEMA_VERSION = 2

_APPLICATION_ID = 0x66616365  # "face"
_BUSY_TIMEOUT_S = 5.0
_SWEEP_EVERY_S: Final = 600.0
_IDENTITIES = """
CREATE TABLE identities (
    track_id TEXT PRIMARY KEY,
    camera_id TEXT NOT NULL,
    person_id TEXT,
    person_name TEXT,
    similarity REAL,
    at TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    gallery_id TEXT NOT NULL,
    gallery_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_person ON identities (person_id, at);
"""
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
{_IDENTITIES}
"""
_FROM_1 = f"{_IDENTITIES} PRAGMA user_version = 2;"
_ADD_EVENT = "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?, ?)"
_SET_TRACK = """
INSERT INTO tracks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (track_id) DO UPDATE SET
    state = excluded.state, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
    faces_seen = excluded.faces_seen, quality = excluded.quality, model = excluded.model,
    embedding = excluded.embedding, sequence = excluded.sequence
WHERE excluded.sequence >= sequence
"""
_SET_IDENTITY = """
INSERT INTO identities VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (track_id) DO UPDATE SET
    person_id = excluded.person_id, person_name = excluded.person_name, similarity = excluded.similarity,
    at = excluded.at, sequence = excluded.sequence, gallery_id = excluded.gallery_id,
    gallery_version = excluded.gallery_version
WHERE (excluded.sequence, excluded.gallery_version) >= (sequence, gallery_version)
"""
_OLD = (
    "DELETE FROM events WHERE time < ?",
    "DELETE FROM tracks WHERE last_seen < ?",
    "DELETE FROM identities WHERE at < ?",
)
_TRACKS_OF = """
SELECT DISTINCT track_id FROM events
WHERE type LIKE 'facestream.identity.%' AND json_extract(data, '$.person_id') = ?"""
_OF_TRACK = (
    "DELETE FROM events WHERE track_id = ?",
    "DELETE FROM tracks WHERE track_id = ?",
    "DELETE FROM identities WHERE track_id = ?",
)


class SqliteSink:
    """Writes each ``emit`` as one transaction. An event that is there already is not written twice.

    The table ``tracks`` holds the newest state of each track: ``embedding`` is float32, little-endian, unit
    length; ``identities`` holds the newest answer to who it is. Others may read while events are written
    (write-ahead log). A new file is readable by its owner alone.

    Args:
        path: Of the file; created if missing.
        encoding: How embeddings are written in the events' data; in ``tracks`` they are always exact.
        keep_days: Events and tracks older than this are deleted, at the start and then every ten minutes
            that bring events; None keeps them forever.

    Raises:
        SinkError: The file cannot be opened, or belongs to another program.
        ValueError: ``keep_days`` is not above 0.
    """

    def __init__(
        self, path: Path, *, encoding: EmbeddingEncoding = "float32-b64", keep_days: float | None = None
    ) -> None:
        if keep_days is not None and not keep_days > 0:
            raise ValueError(f"keep_days: expected above 0, got {keep_days}")
        self._path, self._encoding, self._keep_days = path, encoding, keep_days
        self._swept_at: float | None = None
        self._database: sqlite3.Connection | None = _open(path)

    def emit(self, events: Sequence[Event]) -> None:
        """Write some events.

        Raises:
            SinkError: They cannot be written; then none of them was.
            ValueError: The sink is closed.
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
        identities = [
            _identity_row(event, envelope["time"])
            for event, envelope in zip(events, envelopes, strict=True)
            if isinstance(event, IdentityEvent)
        ]
        try:
            with self._database:
                self._database.executemany(_ADD_EVENT, rows)
                self._database.executemany(_SET_TRACK, tracks)
                self._database.executemany(_SET_IDENTITY, identities)
            self._sweep_when_due()
        except sqlite3.Error as exc:
            raise SinkError(
                f"{self._path}: events cannot be written ({exc}); make room or choose another file"
            ) from exc

    def sweep(self, *, now: datetime) -> int:
        """Delete what has been kept long enough.

        Args:
            now: With a time zone.

        Returns:
            How many events were deleted.

        Raises:
            SinkError: The file cannot be written.
        """
        if self._keep_days is None:
            return 0
        before = (now - timedelta(days=self._keep_days)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return self._delete(_OLD, [(before,)])

    def tracks_of(self, person_id: str) -> list[str]:
        """Tracks that were ever said to be a person's.

        Args:
            person_id: Of the person.

        Returns:
            Their ids.

        Raises:
            SinkError: The file cannot be read.
            ValueError: The sink is closed.
        """
        if self._database is None:
            raise ValueError("expected an open sink, got a closed one")
        try:
            rows = self._database.execute(_TRACKS_OF, (person_id,)).fetchall()
        except sqlite3.Error as exc:
            raise SinkError(f"{self._path}: identities cannot be read ({exc}); try again") from exc
        return [row[0] for row in rows]

    def erase(self, track_ids: Iterable[str]) -> int:
        """Delete all that is known of some tracks.

        Args:
            track_ids: Of any source.

        Returns:
            How many events were deleted.

        Raises:
            SinkError: The file cannot be written.
        """
        erased = self._delete(_OF_TRACK, [(track_id,) for track_id in track_ids])
        assert self._database is not None
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    def _delete(self, statements: Sequence[str], rows: Sequence[tuple[str]]) -> int:
        if self._database is None:
            raise ValueError("expected an open sink, got a closed one")
        try:
            with self._database:
                counts = [self._database.executemany(each, rows).rowcount for each in statements]
        except sqlite3.Error as exc:
            raise SinkError(f"{self._path}: events cannot be deleted ({exc}); try again") from exc
        return counts[0]

    def _sweep_when_due(self) -> None:
        clock_s = time.monotonic()
        if self._swept_at is None or clock_s - self._swept_at >= _SWEEP_EVERY_S:
            self._swept_at = clock_s
            self.sweep(now=datetime.now(UTC))

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


def _identity_row(event: IdentityEvent, at: str) -> tuple[object, ...]:
    return (
        event.track_id,
        event.camera_id,
        event.person_id,
        event.person_name,
        event.similarity,
        at,
        event.sequence,
        event.gallery_id,
        event.gallery_version,
    )


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    except (OSError, sqlite3.Error) as exc:
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
    elif version == 1:
        database.executescript(f"BEGIN IMMEDIATE; {_FROM_1} COMMIT;")
    elif version != SCHEMA_VERSION:
        raise SinkError(f"{path}: of version {version}, expected {SCHEMA_VERSION}; choose another file")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not just unlinked
    database.execute("PRAGMA synchronous = NORMAL")
