"""One file of the spool: written by one process, read while it is written, continued by the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from stream.common.encryption import Sealer
from stream.common.logs import get_logger
from stream.spool.framing import (
    HEADER_BYTES,
    Chunk,
    erase_frames,
    is_sealed,
    make_frames,
    make_header,
    read_frames,
    read_header,
    survey_frames,
    time_of,
)

log = get_logger(__name__)


class DamagedSegmentError(Exception):
    """Nothing of a segment can be read."""


class Segment:
    """An open segment. ``create`` begins one, ``take_up`` opens what another process left.

    Attributes:
        path: Of the file.
        size: In bytes, up to the end of the last whole record.
        waiting: Records that are not settled; kept by the spool.

    Raises:
        OSError: The system refuses; of any method.
    """

    def __init__(self, path: Path, file: int, *, size: int, waiting: int, sealer: Sealer | None) -> None:
        self.path, self.size, self.waiting = path, size, waiting
        self._file, self._sealer = file, sealer

    @classmethod
    def create(cls, path: Path, sealer: Sealer | None) -> Segment:
        """Begin a segment, with a key of its own where the spool has one."""
        header, own = make_header(sealer)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, header, 0)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        return cls(path, file, size=HEADER_BYTES, waiting=0, sealer=own)

    @classmethod
    def take_up(cls, path: Path, sealer: Sealer | None, *, begin: int, cut_tail: bool) -> Segment:
        """Open a segment that was written before.

        Args:
            path: Of the file.
            sealer: Of the spool's key.
            begin: What stands before this byte is settled.
            cut_tail: What stands behind the last whole record was never finished: take it away.

        Raises:
            DamagedSegmentError: Its header is damaged, and with it the way to open what is sealed.
            ConfigError: It is sealed with a key that is not at hand.
        """
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            own = _sealer_of(file, size, sealer, path)
            survey = survey_frames(file, min(max(begin, HEADER_BYTES), size), size)
            if cut_tail and survey.torn_bytes:
                log.info("cut off an unfinished event", file=str(path), bytes=survey.torn_bytes)
                os.ftruncate(file, survey.sound_end)
                size = survey.sound_end
        except BaseException:
            os.close(file)
            raise
        return cls(path, file, size=size, waiting=survey.records, sealer=own)

    def append(self, payloads: Sequence[bytes], *, time_ms: int) -> int:
        """Write some records, all or none.

        Args:
            payloads: Of the records.
            time_ms: When they came, milliseconds since 1970.

        Returns:
            How many bytes that took.
        """
        data = make_frames(payloads, time_ms=time_ms, offset=self.size, sealer=self._sealer)
        try:
            written = os.pwrite(self._file, data, self.size)
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self.size + written)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)
        self.waiting += len(payloads)
        return len(data)

    def reader(self, offset: int, want: int) -> Callable[[], Chunk]:
        """What reads some records, also when this segment is closed meanwhile; to be called once.

        Args:
            offset: Where the first of them begins, bytes.
            want: About so many bytes; at least one record where there is one.
        """
        file, limit = os.dup(self._file), self.size

        def read() -> Chunk:
            try:
                return read_frames(file, offset, limit=limit, want=want, sealer=self._sealer)
            finally:
                os.close(file)

        return read

    def syncer(self) -> Callable[[], None]:
        """What brings the file to the disk, also when this segment is closed meanwhile; to be called once."""
        file = os.dup(self._file)

        def sync() -> None:
            try:
                os.fdatasync(file)
            finally:
                os.close(file)

        return sync

    def erase(self, drop: Callable[[bytes], bool]) -> list[int]:
        """Overwrite the records that ``drop`` says; their offsets."""
        return erase_frames(self._file, limit=self.size, sealer=self._sealer, drop=drop)

    def time_ms_at(self, offset: int) -> int | None:
        """When the record at an offset was appended, milliseconds since 1970."""
        return time_of(self._file, offset)

    def close(self, *, remove: bool = False) -> None:
        """Free the file, and the name of it when nobody needs it any more."""
        os.close(self._file)
        if remove:
            self.path.unlink(missing_ok=True)


def _sealer_of(file: int, size: int, sealer: Sealer | None, path: Path) -> Sealer | None:
    try:
        return read_header(os.pread(file, HEADER_BYTES, 0), sealer, where=path)
    except ValueError as exc:
        if size < HEADER_BYTES or is_sealed(file, size):
            raise DamagedSegmentError(str(exc)) from exc
        log.warning("the header of a segment is damaged; its events are not", file=str(path))
        return None
