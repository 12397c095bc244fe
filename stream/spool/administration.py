"""Maintenance of spools: status, erasing a person, purging.

All of it may be done while a run uses the spool, but for giving it up.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.common.encryption import Sealer
from stream.events.codecs import decode
from stream.events.event_types import IdentityEvent
from stream.events.kafka_record import BinaryMessage
from stream.spool.cursor_and_lock import (
    Cursor,
    SpoolLock,
    disk_errors,
    list_segments,
    read_cursor,
    segment_path,
)
from stream.spool.framing import HEADER_BYTES, Survey, erase_frames, read_header, survey_frames
from stream.spool.packed_records import unpack

_OTHER_FILES: Final = ("*.spool", "*.damaged")
_SUBJECT, _TYPE, _IDENTITY = "ce_subject", "ce_type", b"facestream.identity."


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What a folder holds.

    Attributes:
        folder: Of the spool.
        events: That wait.
        bytes: Of all segments.
        oldest_ms: When the oldest that waits was appended, milliseconds since 1970; None when none waits.
        damaged_bytes: That cannot be read. A run that writes at this moment may leave some for an instant.
        holder: Process that uses it; None when none does.
    """

    folder: Path
    events: int
    bytes: int
    oldest_ms: int | None
    damaged_bytes: int
    holder: int | None


def list_spools(base: Path) -> list[Path]:
    """Folders of spools, in the order of their names.

    Args:
        base: As ``spools_folder`` gives it; may be missing.
    """
    return sorted(path.parent for path in base.glob("*/lock"))


def look_at_spool(folder: Path) -> SpoolState:
    """Read a spool through, without changing it.

    Raises:
        SinkError: It cannot be read.
    """
    cursor = read_cursor(folder) or Cursor(0, HEADER_BYTES)
    events = size = damaged = 0
    oldest_ms: int | None = None
    with disk_errors(folder):
        for number in list_segments(folder):
            begin = cursor.offset if number == cursor.segment else HEADER_BYTES
            survey, length = _survey(segment_path(folder, number), begin)
            size += length
            if number < cursor.segment:
                continue
            events += survey.records
            damaged += survey.damaged_bytes
            oldest_ms = survey.first_ms if oldest_ms is None else oldest_ms
        damaged += sum(path.stat().st_size for path in folder.glob("*.damaged"))
        return SpoolState(folder, events, size, oldest_ms, damaged, _holder(folder))


def erase_from_spools(
    base: Path, *, person_id: str, track_ids: Iterable[str], sealer: Sealer | None = None
) -> int:
    """Overwrite the events of a person's tracks, and all that names the person, in every spool.

    What a run has read already may still arrive: tombstones in ``TOPIC.tracks`` are to be written afterwards.

    Args:
        base: Folder of the spools.
        person_id: Who.
        track_ids: Tracks that are known to be the person's.
        sealer: Of the key, where spools are sealed.

    Returns:
        How many events were erased.

    Raises:
        ConfigError: A spool is sealed with another key.
        SinkError: One cannot be changed.
    """
    tracks = {track_id.encode() for track_id in track_ids}
    return erase_events(base, lambda message: _is_about(message, person_id, tracks), sealer=sealer)


def erase_events(
    base: Path, is_to_go: Callable[[BinaryMessage], bool], *, sealer: Sealer | None = None
) -> int:
    """Overwrite events in every spool, delivered or not.

    Args:
        base: Folder of the spools.
        is_to_go: Told of each event whether it has to go.
        sealer: Of the key, where spools are sealed.

    Returns:
        How many went.

    Raises:
        ConfigError: A spool is sealed with another key.
        SinkError: One cannot be changed.
    """

    def drop(payload: bytes) -> bool:
        try:
            return is_to_go(unpack(payload))
        except ValueError:
            return False

    erased = 0
    for folder in list_spools(base):
        with disk_errors(folder):
            for number in list_segments(folder):
                erased += _erase(segment_path(folder, number), sealer, drop)
    return erased


def purge_spool(folder: Path) -> int:
    """Give up what a spool holds.

    Returns:
        How many events waited there.

    Raises:
        SinkError: A process uses it, or it cannot be removed.
    """
    lock = SpoolLock(folder)
    try:
        events = look_at_spool(folder).events
        with disk_errors(folder):
            for pattern in _OTHER_FILES:
                for path in folder.glob(pattern):
                    path.unlink()
    except BaseException:
        lock.release()
        raise
    lock.release(clear=True)
    return events


def _survey(path: Path, begin: int) -> tuple[Survey, int]:
    """What a segment holds from a byte on, and its length; nothing where it was removed meanwhile."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Survey(0, None, 0), 0
    try:
        size = os.fstat(file).st_size
        return survey_frames(file, min(begin, size), size), size
    finally:
        os.close(file)


def _erase(path: Path, sealer: Sealer | None, drop: Callable[[bytes], bool]) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        own = read_header(os.pread(file, HEADER_BYTES, 0), sealer, where=path)
        return len(erase_frames(file, limit=os.fstat(file).st_size, sealer=own, drop=drop))
    except ValueError:  # its header is damaged: what is sealed there, nobody can read
        return len(erase_frames(file, limit=os.fstat(file).st_size, sealer=None, drop=drop))
    finally:
        os.close(file)


def _holder(folder: Path) -> int | None:
    """The process that has the lock."""
    file = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(file, 20, 0).decode(errors="replace")
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(file)
    return None


def _is_about(message: BinaryMessage, person_id: str, tracks: set[bytes]) -> bool:
    headers = dict(message.headers)
    if headers.get(_SUBJECT) in tracks:
        return True
    if not headers.get(_TYPE, b"").startswith(_IDENTITY):
        return False
    event = decode(message.headers, message.value)
    return isinstance(event, IdentityEvent) and person_id in (event.person_id, event.previous_person_id)
