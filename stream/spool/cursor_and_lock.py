"""What a spool has beside its segments: the cursor, the lock of the process that has it, plain values."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from crc32c import crc32c

from engine import home_folders
from engine.errors import SinkError

_HEAD: Final = struct.Struct("<QQQ")  # generation, segment, offset
_SLOT: Final = struct.Struct("<QQQI")  # and CRC-32C
_SUFFIX: Final = ".spool"
_CURSOR, _LOCK = "cursor", "lock"
_TRIES: Final = 100
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class SpoolFullError(SinkError):
    """There is no room for more events; once a broker takes some or the disk is cleared, there may be."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place between two records.

    Attributes:
        segment: Number of the segment.
        offset: Byte in it.
        passed: Of a batch's end: records gone over since its beginning; not part of the place.
    """

    segment: int
    offset: int
    passed: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What waits in a spool, and what became of the rest since it was opened.

    Attributes:
        events: That wait.
        bytes: On disk, with those that were delivered and not cleared away yet.
        oldest_s: Age of the oldest that waits; 0 when none does.
        dropped_events: Given up because the spool was full.
        damaged_places: Where something could not be read.
        damaged_bytes: In all of them.
    """

    events: int
    bytes: int
    oldest_s: float
    dropped_events: int
    damaged_places: int
    damaged_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order in which they were appended.

    Attributes:
        payloads: Of each; none where only erased or damaged ones stood.
        times_ms: When each was appended, milliseconds since 1970.
        end: What to settle when all of them have been acknowledged.
    """

    payloads: list[bytes]
    times_ms: list[int]
    end: Cursor


class SpoolLock:
    """Makes a folder and holds it for this process until ``release``, or until the process ends.

    Args:
        folder: Of the spool.

    Raises:
        SinkError: Another process has it, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / _LOCK
        with disk_errors(folder):
            self._file = self._take()

    def release(self, *, clear: bool = False) -> None:
        """Give the folder back.

        Args:
            clear: Remove what is left of it; other files in it are left alone.
        """
        if clear:
            (self._folder / _CURSOR).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        if clear:
            try:
                self._folder.rmdir()
            except OSError:
                return  # somebody keeps other things there, or has started again

    def _take(self) -> int:
        while True:
            file = self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
                os.close(file)
                raise SinkError(
                    f"{self._folder}: process {holder} uses this spool; stop it, or name another place "
                    "with spool.dir"
                ) from None
            if _is_at(file, self._path):
                os.ftruncate(file, 0)
                os.pwrite(file, str(os.getpid()).encode(), 0)
                return file
            os.close(file)  # the process before has just cleared it away

    def _open(self) -> int:
        tries = 0
        while True:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except (FileNotFoundError, FileExistsError):  # the process before is just clearing it away
                tries += 1
                if tries == _TRIES:
                    raise


def spool_folder(name: str, *, within: Path | None = None) -> Path:
    """Where the spool of a sink is kept: the same in every run, and another for each sink.

    Args:
        name: The sink's address, without secrets.
        within: Folder of all spools; None for that of ``engine.home_folders``.

    Raises:
        ConfigError: That cannot be written.
    """
    return (
        within or home_folders.writable("spool")
    ) / f"{name.rpartition('/')[2]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def spools_folder(within: Path | None = None) -> Path:
    """The folder of all spools, to look into: that of the configuration, or that of ``engine.home_folders``.

    Raises:
        ConfigError: There is none, and none can be made.
    """
    return within or home_folders.existing("spool")


def segment_path(folder: Path, number: int) -> Path:
    """Where a segment is kept."""
    return folder / f"{number:016d}{_SUFFIX}"


def list_segments(folder: Path) -> list[int]:
    """Numbers of the segments of a folder, in order."""
    return sorted(int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


class CursorFile:
    """Keeps what was acknowledged, in two slots by turns: one of them is whole at any moment.

    Args:
        folder: Of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / _CURSOR, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        raw = os.pread(self._file, 2 * _SLOT.size, 0)
        if len(raw) < 2 * _SLOT.size:  # take the room now, not on a full disk
            os.pwrite(self._file, bytes(2 * _SLOT.size - len(raw)), len(raw))
        self._generation, self.cursor = _newest(raw)

    def write(self, cursor: Cursor) -> None:
        """Keep a cursor. It is not forced to the disk: an old one costs repeats and no event."""
        self._generation += 1
        head = _HEAD.pack(self._generation, cursor.segment, cursor.offset)
        slot = head + crc32c(head).to_bytes(4, "little")
        os.pwrite(self._file, slot, (self._generation % 2) * _SLOT.size)
        self.cursor = cursor

    def close(self) -> None:
        """Free the file."""
        os.close(self._file)


def read_cursor(folder: Path) -> Cursor | None:
    """What was acknowledged; None where nothing was, or nothing that can be read."""
    try:
        return _newest((folder / _CURSOR).read_bytes())[1]
    except FileNotFoundError:
        return None


def _newest(raw: bytes) -> tuple[int, Cursor | None]:
    """Generation and cursor of the newest slot that is whole."""
    sound = [
        _SLOT.unpack(slot)
        for slot in (raw[: _SLOT.size], raw[_SLOT.size : 2 * _SLOT.size])
        if len(slot) == _SLOT.size and crc32c(slot[:-4]).to_bytes(4, "little") == slot[-4:]
    ]
    generation, segment, offset, _ = max(sound, default=(0, 0, 0, 0))
    return generation, Cursor(segment, offset) if generation else None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the system into ones that say how to fix them.

    Raises:
        SpoolFullError: The disk is full.
        SinkError: Anything else.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise SpoolFullError(
                f"{folder}: the disk is full and events cannot be kept; make room there, "
                "or name another place with spool.dir"
            ) from exc
        raise SinkError(
            f"{folder}: the spool cannot be used ({exc.strerror}); change its permissions, "
            "or name another place with spool.dir"
        ) from exc


def _is_at(file: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
