"""Cache of what engines found in images, by the images' content, so that a second run costs nothing.

One SQLite file: a killed process loses at most what it had not yet put, and several may use it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

from engine.errors import DatasetError
from engine.faces import FloatArray

_TABLE: Final = "CREATE TABLE IF NOT EXISTS vectors_1 (key BLOB PRIMARY KEY, data BLOB, crc INTEGER)"
_WAIT_S: Final = 60.0
_RETRY_S: Final = 0.01
_KEYS_AT_ONCE: Final = 500


def cache_key(image_sha256: bytes, *recipe: str | bytes) -> bytes:
    """A name for what was made of an image.

    Args:
        image_sha256: Of the file's content.
        recipe: Everything else that the result depends on.
    """
    digest = hashlib.sha256(image_sha256)
    for part in recipe:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class VectorCache:
    """Vectors of float32 by key, in a file or nowhere. May be used from several threads and processes.

    A vector whose checksum is wrong counts as absent; a file that is no database is set aside and a new one
    begun.

    Args:
        path: The file; its folder is made. None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        """Those of some vectors that are here and whole; float32 (n,) each.

        Raises:
            DatasetError: The file cannot be opened.
        """
        if self._path is None or not keys:
            return {}
        with self._lock:
            try:
                rows = self._select(keys)
            except sqlite3.DatabaseError as exc:
                self._begin_anew(exc)
                rows = []
        return {
            bytes(key): np.frombuffer(data, np.float32)
            for key, data, crc in rows
            if isinstance(data, bytes) and len(data) % 4 == 0 and _checksum(key, data) == crc
        }

    def put(self, vectors: Mapping[bytes, FloatArray]) -> None:
        """Keep vectors, all of them or none.

        Args:
            vectors: float32 (n,) by key.

        Raises:
            DatasetError: The file cannot be written.
        """
        if self._path is None or not vectors:
            return
        rows = []
        for key, vector in vectors.items():
            data = np.ascontiguousarray(vector, np.float32).tobytes()
            rows.append((key, data, _checksum(key, data)))
        with self._lock:
            try:
                self._insert(rows)
            except sqlite3.DatabaseError as exc:
                self._begin_anew(exc)
                try:
                    self._insert(rows)
                except sqlite3.DatabaseError as again:
                    raise self._unusable(again) from again

    def close(self) -> None:
        """Close the file. May be called twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, int]]:
        rows: list[tuple[bytes, bytes, int]] = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = list(keys[start : start + _KEYS_AT_ONCE])
            marks = ",".join("?" * len(some))
            query = f"SELECT key, data, crc FROM vectors_1 WHERE key IN ({marks})"  # noqa: S608 (only marks)
            rows += self._open().execute(query, some).fetchall()
        return rows

    def _insert(self, rows: Sequence[tuple[bytes, bytes, int]]) -> None:
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO vectors_1 VALUES (?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None and self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Embeddings identify people: for their owner alone.
                os.close(os.open(self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as exc:
                raise self._unusable(exc) from exc
            # All use is under the lock.
            self._connection = sqlite3.connect(self._path, timeout=_WAIT_S, check_same_thread=False)
            # A crash of the machine may lose the last entries, which are then computed again.
            _write_ahead(self._connection)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_TABLE)
        assert self._connection is not None
        return self._connection

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        """Set a damaged file aside; what only is busy, read-only or full is said."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._path is None or isinstance(error, sqlite3.OperationalError):
            raise self._unusable(error) from error
        try:
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as exc:
            raise self._unusable(exc) from exc

    def _unusable(self, error: Exception) -> DatasetError:
        return DatasetError(f"{self._path}: the cache cannot be used ({error}); remove it, or give another")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let others read while we write. SQLite does not wait for those who begin with the file as well."""
    give_up_at = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _checksum(key: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key))
