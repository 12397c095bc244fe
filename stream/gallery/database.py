"""A gallery's file beneath its people: transactions, sealing, rows."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from engine.errors import GalleryError
from engine.models.package import Likeness
from stream.common.encryption import Sealer
from stream.gallery.audit_log import AuditTrail
from stream.gallery.records import GalleryModel, Negative, Template
from stream.gallery.tables import (
    BUSY_TIMEOUT_S,
    FILE_NAMES,
    connect,
    is_read_only,
    one_line,
    state_on_disk,
    timestamp,
)

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_BUSY_SNAPSHOT}
_MODEL: Final = "SELECT model, model_sha256, mirror, size, likeness_factor, likeness_shift FROM gallery"


class GalleryFile:
    """What all that work with a gallery's file share; ``stream.gallery.people.Gallery`` is what they open.

    Args:
        path: Of the file.
        database: Connection to it, checked.
        sealer: Of the key that it was made with; None where it was made without.

    Attributes:
        path: Of the file.
        database: Connection to it.
        id: Of the gallery.
        created: When it was made, UTC.
        keeps_photos: Whether photographs are kept.
        sealer: Of this file; None where nothing is sealed.
        audit: Who did what.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, sealer: Sealer | None) -> None:
        self.path = path
        self.database = database
        self._identity = _identity_of(path)
        row = database.execute("SELECT id, created, keep_photos, salt FROM gallery").fetchone()
        self.id = str(row[0])
        self.created = datetime.fromisoformat(row[1])
        self.keeps_photos = bool(row[2])
        self.sealer = None if sealer is None else sealer.for_file(row[3])
        self.audit = AuditTrail(path, database)
        self._on_disk = state_on_disk(path) if is_read_only(path) else None
        self._reopened = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self.database.close()

    @property
    def model(self) -> GalleryModel:
        """Whose embeddings it holds. An upgrade changes it."""
        with self.reading():
            row = self.database.execute(_MODEL).fetchone()
            return GalleryModel(row[0], row[1], bool(row[2]), row[3], Likeness(row[4], row[5]))

    @property
    def version(self) -> int:
        """Every change raises it."""
        with self.reading():
            return int(self.database.execute("SELECT version FROM gallery").fetchone()[0])

    @property
    def change_mark(self) -> int:
        """A number that is another one once somebody else has written; costs next to nothing to ask for.

        Raises:
            GalleryError: The file was deleted, or another one stands in its place.
        """
        if _identity_of(self.path) != self._identity:
            raise GalleryError(
                f"{self.path}: was deleted or replaced since it was opened; restart to use the new one"
            )
        self._follow()
        with self.reading():
            return (self._reopened << 32) + int(self.database.execute("PRAGMA data_version").fetchone()[0])

    def _follow(self) -> None:
        """Reopen a read-only file after others have written it: SQLite takes it for immutable."""
        if self._on_disk is None or (now := state_on_disk(self.path)) == self._on_disk:
            return
        self.database.close()
        self.database = connect(self.path)
        self.audit = AuditTrail(self.path, self.database)
        self._on_disk = now
        self._reopened += 1
        self.forget()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One state of the file for the whole block; errors of the database as GalleryError."""
        try:
            with self._transaction("BEGIN"):
                yield
        except (ValueError, TypeError, LookupError, OverflowError) as exc:
            raise GalleryError(f"{self.path}: damaged ({one_line(exc)}); restore a copy of it") from exc

    @property
    def changes(self) -> tuple[int, int]:
        """Version, and how often something was removed."""
        with self.reading():
            row = self.database.execute("SELECT version, removals FROM gallery").fetchone()
            return int(row[0]), int(row[1])

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else writes during the block, so that what is found out in it holds for what it writes."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """All changes of the block or none, and a higher version; errors of the database as GalleryError."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield
            self.database.execute("UPDATE gallery SET version = version + 1")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        if self.database.in_transaction:
            yield
            return
        try:
            self.database.execute(begin)
            yield
            self.database.execute("COMMIT")
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                self.database.execute("ROLLBACK")
            self.forget()
            if getattr(exc, "sqlite_errorcode", None) in _BUSY:
                raise GalleryError(
                    f"{self.path}: another process is writing to it, and had not finished after "
                    f"{BUSY_TIMEOUT_S:.0f} s; run this again once it has"
                ) from exc
            if isinstance(exc, sqlite3.OperationalError):
                raise GalleryError(
                    f"{self.path}: cannot be used now ({one_line(exc)}); make room, or check its permissions"
                ) from exc
            if isinstance(exc, sqlite3.Error):
                raise GalleryError(f"{self.path}: damaged ({one_line(exc)}); restore a copy of it") from exc
            raise

    def forget(self) -> None:
        """Called when changes were not kept: what was remembered of them does not hold."""

    def seal(self, kind: str, person_id: str, plain: bytes) -> bytes:
        """Seal something of a person, where there is a key.

        Args:
            kind: What it is, such as ``name`` or ``embedding``.
            person_id: Whose it is. What is sealed opens as this kind, of this person, in this gallery alone.
            plain: The bytes.

        Returns:
            28 bytes more, or ``plain`` where there is no key.
        """
        if self.sealer is None:
            return plain
        return self.sealer.seal(plain, context=f"{self.id}|{kind}|{person_id}".encode())

    def unseal(self, kind: str, person_id: str, sealed: bytes) -> bytes:
        """Open what ``seal`` made.

        Args:
            kind: As it was sealed.
            person_id: Whose it is.
            sealed: As it stands in a row.

        Raises:
            GalleryError: It was changed, is another person's, or is no bytes.
        """
        if not isinstance(sealed, bytes):  # SQLite keeps what it is given, whatever a column was declared as
            raise GalleryError(f"{self.path}: the {kind} of {person_id} is damaged; restore a copy")
        if self.sealer is None:
            return sealed
        try:
            return self.sealer.open(sealed, context=f"{self.id}|{kind}|{person_id}".encode())
        except ValueError as exc:
            raise GalleryError(f"{self.path}: the {kind} of {person_id} is {exc}; restore a copy") from exc

    def put_person(self, person_id: str, name: str, notes: str, created: datetime | None) -> str:
        """Add a person within a transaction.

        Args:
            person_id: New in this gallery.
            name: Is not checked.
            notes: Anything.
            created: When; None is now.

        Returns:
            ``person_id``.
        """
        row = (
            person_id,
            self.seal("name", person_id, name.encode()),
            self.seal("notes", person_id, notes.encode()),
            timestamp(created),
        )
        self.database.execute("INSERT INTO people (id, name, notes, created) VALUES (?, ?, ?, ?)", row)
        return person_id

    def put_template(self, person_id: str, template: Template) -> None:
        """Add a template within a transaction."""
        cursor = self.database.execute(
            "INSERT INTO templates (person, embedding, quality, source, origin, added) "
            "VALUES ((SELECT number FROM people WHERE id = ?), ?, ?, ?, ?, ?)",
            (
                person_id,
                self._sealed_vector(person_id, template.embedding),
                template.quality,
                template.source,
                self.seal("origin", person_id, template.origin.encode()),
                timestamp(template.added),
            ),
        )
        if self.keeps_photos and template.photo is not None:
            row = (cursor.lastrowid, self.seal("photo", person_id, template.photo))
            self.database.execute("INSERT INTO photos VALUES (?, ?)", row)
        if template.file:
            self.database.execute(FILE_NAMES)
            row = (cursor.lastrowid, self.seal("file", person_id, template.file.encode()))
            self.database.execute("INSERT INTO file_names VALUES (?, ?)", row)

    @property
    def has_file_names(self) -> bool:
        """Whether it can hold what photographs' files were called: older galleries cannot until one comes."""
        query = "SELECT 1 FROM sqlite_master WHERE name = 'file_names'"
        return self.database.execute(query).fetchone() is not None

    def put_negative(self, person_id: str, negative: Negative) -> None:
        """Add a face that is not a person's within a transaction."""
        self.database.execute(
            "INSERT INTO negatives (person, embedding, origin, added) "
            "VALUES ((SELECT number FROM people WHERE id = ?), ?, ?, ?)",
            (
                person_id,
                self._sealed_vector(person_id, negative.embedding),
                self.seal("origin", person_id, negative.origin.encode()),
                timestamp(negative.added),
            ),
        )

    def _sealed_vector(self, person_id: str, embedding: npt.NDArray[np.float32]) -> bytes:
        if len(embedding) != (size := self.model.size):
            raise ValueError(f"embedding: expected {size} numbers, got {len(embedding)}")
        return self.seal("embedding", person_id, embedding.astype("<f4").tobytes())

    def count_removal(self) -> None:
        """Let snapshots know, within a transaction, that something of what they hold is gone."""
        self.database.execute("UPDATE gallery SET removals = removals + 1")

    def vector(self, person_id: str, sealed: bytes, size: int) -> npt.NDArray[np.float32]:
        """An embedding as it stands in a row.

        Args:
            person_id: Whose it is.
            sealed: As it stands there.
            size: Numbers that it must have.

        Returns:
            float32 (size,).

        Raises:
            GalleryError: It is damaged.
        """
        raw = self.unseal("embedding", person_id, sealed)
        if len(raw) != 4 * size:
            raise GalleryError(
                f"{self.path}: an embedding of {person_id} has {len(raw)} bytes, expected {4 * size}; "
                "restore a copy"
            )
        return np.frombuffer(raw, "<f4").astype(np.float32)


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
