"""The spool: events on disk from the moment that they count as emitted until a broker has acknowledged them.

A folder of segments (``stream/spool/segment.py``), a cursor that says what was acknowledged, and a lock.
What is appended has been given to the operating system when ``append`` returns: the end of the process, also
by kill -9, costs nothing. ``sync`` makes it safe from the end of power, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from stream.common.encryption import Sealer
from stream.common.logs import get_logger
from stream.spool.cursor_and_lock import (
    Batch,
    Cursor,
    CursorFile,
    SpoolFullError,
    SpoolLock,
    SpoolStats,
    disk_errors,
    list_segments,
    segment_path,
)
from stream.spool.framing import HEADER_BYTES
from stream.spool.segment import DamagedSegmentError, Segment

log = get_logger(__name__)

FullPolicy: TypeAlias = Literal["drop-oldest", "block"]

LEAST_SPOOL_BYTES: Final = 1 << 16
DAMAGED_SUFFIX: Final = ".damaged"
"""Of a segment that cannot be read, which is left in the folder for whoever wants to look."""

_MOST_SEGMENT_BYTES: Final = 4 << 20
_SEGMENTS_AT_LEAST: Final = 8
_RETRY_S: Final = 0.2


class Spool:
    """Keeps records in order. Thread-safe; a folder belongs to one process at a time.

    Args:
        folder: Created if missing, readable by its owner only.
        sealer: Encrypts records; None stores them in the clear.
        max_bytes: On disk, at least ``LEAST_SPOOL_BYTES``.
        when_full: ``drop-oldest`` drops the oldest segment and logs it; ``block`` waits and then refuses.
        clock: Seconds since 1970.

    Raises:
        SinkError: The folder cannot be used, or another process has it.
        ConfigError: It holds events that are encrypted with a missing key.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sealer: Sealer | None = None,
        max_bytes: int = 1 << 30,
        when_full: FullPolicy = "drop-oldest",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < LEAST_SPOOL_BYTES:
            raise ValueError(f"max_bytes: expected at least {LEAST_SPOOL_BYTES}, got {max_bytes}")
        self.folder = folder
        self._sealer, self._max_bytes, self._when_full, self._clock = sealer, max_bytes, when_full, clock
        self._segment_bytes = min(_MOST_SEGMENT_BYTES, max_bytes // _SEGMENTS_AT_LEAST)
        self._changed = threading.Condition()
        self._segments: dict[int, Segment] = {}
        self._newest = 0
        self._open_segment: Segment | None = None
        self._bytes = self._dropped = self._damaged_places = self._damaged_bytes = 0
        self._unsynced: set[int] = set()
        self._closed = False
        self._cursor_file: CursorFile | None = None
        self._lock = SpoolLock(folder)
        try:
            with disk_errors(self.folder):
                self._cursor_file = CursorFile(folder)
                self._recover(self._cursor_file.cursor)
        except BaseException:
            self._free()
            self._lock.release()
            raise

    # Writing.

    def append(self, payloads: Sequence[bytes], *, timeout_s: float) -> None:
        """Write some records, all or none.

        Args:
            payloads: Any bytes, each at most ``stream.spool.packed_records.MAX_RECORD_BYTES`` long.
            timeout_s: How long to wait for room.

        Raises:
            SpoolFullError: There was no room in time; none of them was taken.
            SinkError: They cannot be written.
        """
        if not payloads:
            return
        with self._changed:
            lack = self._try_append(payloads)
            deadline = 0.0 if lack is None else time.monotonic() + timeout_s
            while lack is not None:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    raise lack
                self._changed.wait(min(remaining_s, _RETRY_S))
                lack = self._try_append(payloads)

    def sync(self) -> None:
        """Sync appended records to disk, without blocking other threads.

        Raises:
            SinkError: The disk reports an error.
        """
        with self._changed:
            syncers = [self._segments[each].syncer() for each in self._unsynced & self._segments.keys()]
            self._unsynced.clear()
        with disk_errors(self.folder):
            for sync in syncers:
                sync()

    # Reading.

    @property
    def cursor(self) -> Cursor:
        """The position after the last settled record, where a reader starts."""
        with self._changed:
            return self._cursor

    def read(self, after: Cursor, *, want: int = 1 << 20) -> Batch | None:
        """The records after a position.

        Args:
            after: The cursor, or the end of an earlier batch.
            want: Approximate number of bytes.

        Returns:
            Some records; None at the end.

        Raises:
            SinkError: The disk reports an error.
        """
        with self._changed:
            found = self._place_after(after)
            if found is None:
                return None
            number, offset = found
            read = self._segments[number].reader(offset, want)
        with disk_errors(self.folder):
            chunk = read()
        if chunk.damaged_places:
            self._note_damage(segment_path(self.folder, number), chunk.damaged_bytes, "a checksum is wrong")
        return Batch(chunk.payloads, chunk.times_ms, Cursor(number, chunk.end, len(chunk.payloads)))

    def settle(self, end: Cursor) -> None:
        """Record that everything up to the end of a batch has been delivered. Batches are settled in order.

        Raises:
            SinkError: The disk reports an error.
        """
        with self._changed, disk_errors(self.folder):
            if self._closed or end <= self._cursor:
                return
            for number in [each for each in self._segments if each < end.segment]:
                self._remove(number)
            if (segment := self._segments.get(end.segment)) is not None:
                segment.waiting = 0 if end.offset >= segment.size else max(0, segment.waiting - end.passed)
            self._move_cursor(end)
            self._changed.notify_all()

    def tidy(self) -> None:
        """If nothing is undelivered, remove the segment; otherwise it is removed when it is full.

        Raises:
            SinkError: The disk reports an error.
        """
        with self._changed, disk_errors(self.folder):
            if self._closed or self._place_after(self._cursor) is not None:
                return
            for number in list(self._segments):
                self._remove(number)

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether everything was delivered in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._place_after(self._cursor) is None, timeout_s)

    def stats(self) -> SpoolStats:
        """Counts at this moment."""
        with self._changed:
            oldest_ms = None
            if not self._closed and (place := self._place_after(self._cursor)) is not None:
                oldest_ms = self._segments[place[0]].time_ms_at(place[1])
            return SpoolStats(
                events=self._waiting(),
                bytes=self._bytes,
                oldest_s=0.0 if oldest_ms is None else max(0.0, self._clock() - oldest_ms / 1000),
                dropped_events=self._dropped,
                damaged_places=self._damaged_places,
                damaged_bytes=self._damaged_bytes,
            )

    def erase(self, drop: Callable[[bytes], bool]) -> int:
        """Overwrite records that must not be kept, delivered or not.

        Records that a reader has already read are not recalled.

        Args:
            drop: Whether the record with this payload is to be erased.

        Returns:
            Number of erased records.

        Raises:
            SinkError: The disk reports an error.
        """
        erased = 0
        with self._changed, disk_errors(self.folder):
            for number, segment in self._segments.items():
                gone = segment.erase(drop)
                erased += len(gone)
                unsettled = sum(Cursor(number, offset) >= self._cursor for offset in gone)
                segment.waiting = max(0, segment.waiting - unsettled)
        return erased

    def close(self) -> None:
        """Release the folder, and remove it if nothing is undelivered. May be called twice.

        Raises:
            SinkError: The disk reports an error.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            is_empty = self._place_after(self._cursor) is None
            try:
                with disk_errors(self.folder):
                    for number in list(self._segments) if is_empty else ():
                        self._remove(number)
            finally:
                self._free()
                self._lock.release(clear=is_empty)
                self._changed.notify_all()

    # Whoever calls these holds the lock.

    def _recover(self, cursor: Cursor | None) -> None:
        """Take up what another process left; what is appended goes into a segment of one's own."""
        numbers = list_segments(self.folder)
        for number in numbers:
            if cursor is not None and number < cursor.segment:
                segment_path(self.folder, number).unlink(missing_ok=True)
            else:
                self._take_up(number, cursor, is_last=number == numbers[-1])
        if cursor is None:
            cursor = Cursor(min(self._segments, default=0), HEADER_BYTES)
        # After a power cut the cursor may be ahead of the data: nothing is ever added there.
        self._cursor = cursor
        self._newest = max([*numbers, cursor.segment])
        if waiting := self._waiting():
            log.info("the spool holds events of an earlier run", spool=str(self.folder), events=waiting)

    def _take_up(self, number: int, cursor: Cursor | None, *, is_last: bool) -> None:
        path = segment_path(self.folder, number)
        begin = cursor.offset if cursor is not None and cursor.segment == number else HEADER_BYTES
        if (size := path.stat().st_size) < HEADER_BYTES:
            path.unlink()  # the process ended while it made the file
            return
        try:
            segment = Segment.take_up(path, self._sealer, begin=begin, cut_tail=is_last)
        except DamagedSegmentError as exc:
            path.rename(path.with_suffix(DAMAGED_SUFFIX))
            self._note_damage(path.with_suffix(DAMAGED_SUFFIX), size, str(exc))
            return
        self._segments[number] = segment
        self._bytes += segment.size

    def _place_after(self, after: Cursor) -> tuple[int, int] | None:
        """Segment and offset where something stands that follows a place; None at the end."""
        segment = self._segments.get(after.segment)
        if segment is not None and after.offset < segment.size:
            return after.segment, after.offset
        for number in sorted(self._segments):
            if number > after.segment and self._segments[number].size > HEADER_BYTES:
                return number, HEADER_BYTES
        return None

    def _try_append(self, payloads: Sequence[bytes]) -> SpoolFullError | None:
        """Write; why there is no room when there is none."""
        if self._closed:
            raise ValueError("expected an open spool, got a closed one")
        length = sum(map(len, payloads))
        while self._bytes + length > self._max_bytes:
            if self._when_full == "block" or not self._drop_oldest("the spool is full"):
                return SpoolFullError(
                    f"{self.folder}: {self._waiting()} events wait in the spool, which is full "
                    f"({self._bytes >> 20} MiB); bring the brokers back, or raise spool.max_mib"
                )
        while True:
            try:
                with disk_errors(self.folder):
                    self._write(payloads)
            except SpoolFullError as exc:
                if self._when_full == "block" or not self._drop_oldest("the disk is full"):
                    return exc
            else:
                return None

    def _write(self, payloads: Sequence[bytes]) -> None:
        segment = self._open_segment
        if segment is None or segment.size >= self._segment_bytes:
            segment = self._begin_segment()
        self._bytes += segment.append(payloads, time_ms=int(self._clock() * 1000))
        self._unsynced.add(self._newest)

    def _begin_segment(self) -> Segment:
        path = segment_path(self.folder, self._newest + 1)
        segment = self._open_segment = Segment.create(path, self._sealer)
        self._newest += 1
        self._segments[self._newest] = segment
        self._bytes += segment.size
        return segment

    def _drop_oldest(self, why: str) -> bool:
        """Give up the oldest segment; False when there is nothing to give up."""
        oldest = min(self._segments, default=0)
        if not self._segments or self._segments[oldest].size <= HEADER_BYTES:
            return False
        lost = self._segments[oldest].waiting
        self._remove(oldest)
        self._move_cursor(max(self._cursor, Cursor(oldest + 1, HEADER_BYTES)))
        if lost:
            self._dropped += lost
            log.error("the oldest events were dropped", spool=str(self.folder), reason=why, events=lost)
        return True

    def _note_damage(self, path: Path, lost_bytes: int, reason: str) -> None:
        self._damaged_places += 1
        self._damaged_bytes += lost_bytes
        log.error(
            "a part of the spool is damaged and was skipped",
            file=str(path),
            bytes=lost_bytes,
            reason=reason,
            places_so_far=self._damaged_places,
        )

    def _move_cursor(self, cursor: Cursor) -> None:
        self._cursor = cursor
        if self._cursor_file is not None:
            with suppress(OSError):  # an old cursor on the disk costs repeats and no event
                self._cursor_file.write(cursor)

    def _remove(self, number: int) -> None:
        segment = self._segments.pop(number)
        if segment is self._open_segment:
            self._open_segment = None
        self._bytes -= segment.size
        segment.close(remove=True)

    def _waiting(self) -> int:
        return sum(segment.waiting for segment in self._segments.values())

    def _free(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        if self._cursor_file is not None:
            self._cursor_file.close()
            self._cursor_file = None
