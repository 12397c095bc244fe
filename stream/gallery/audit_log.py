"""Who did what with a gallery, without names, embeddings or pictures."""

from __future__ import annotations

import getpass
import json
import os
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from engine.errors import GalleryError
from stream.gallery.tables import one_line, timestamp

Fact: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that was done.

    Attributes:
        at: When, UTC.
        who: User of the operating system.
        action: What.
        detail: Counts, ids of people, paths of files.
    """

    at: datetime
    who: str
    action: str
    detail: dict[str, Fact]


class AuditTrail:
    """The list of what was done with a gallery; nothing of it is ever changed.

    Args:
        path: Of the gallery, for errors.
        database: The gallery's.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._path = path
        self._database = database

    def record(self, action: str, **detail: Fact) -> None:
        """Add an entry, within the transaction that it tells of where there is one.

        Args:
            action: What was done.
            detail: Counts, ids, paths; never a name or anything biometric.

        Raises:
            GalleryError: It cannot be written.
        """
        row = (timestamp(None), _user(), action, json.dumps(detail))
        try:
            self._database.execute("INSERT INTO audit (at, who, action, detail) VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as exc:
            raise GalleryError(f"{self._path}: the audit cannot be written ({exc}); make room") from exc

    def entries(self) -> list[AuditEntry]:
        """All of them, oldest first.

        Raises:
            GalleryError: They cannot be read.
        """
        query = "SELECT at, who, action, detail FROM audit ORDER BY number"
        try:
            return [
                AuditEntry(datetime.fromisoformat(at), who, action, json.loads(detail))
                for at, who, action, detail in self._database.execute(query)
            ]
        except (sqlite3.Error, ValueError, TypeError) as exc:
            raise GalleryError(f"{self._path}: damaged ({one_line(exc)}); restore a copy of it") from exc


def _user() -> str:
    """Name of the user; the number where it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
