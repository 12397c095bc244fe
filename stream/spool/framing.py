"""What the bytes of a spool's segment mean: a header and frames, each with its checksum.

The header is magic, salt, fingerprint of the key or zeros, and CRC-32C. A frame is a mark, the payload's
length, a CRC-32C (RFC 3720, B.4) of length, time and payload, the time, and the payload, sealed where there
is a key. An erased frame keeps its length and nothing else, so that places of other frames do not change.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crc32c import crc32c

from engine.errors import ConfigError
from stream.common.encryption import KEY_VARIABLE, Sealer
from stream.spool.packed_records import MAX_RECORD_BYTES

HEADER_BYTES: Final = 44
FRAME_BYTES: Final = 20
"""A frame without its payload."""

_HEADER: Final = struct.Struct("<8s16s16sI")
_FRAME: Final = struct.Struct("<4sIIq")
_MAGIC: Final = b"FSSPOOL1"
_SALT_BYTES: Final = 16
_SEALING_BYTES: Final = 28
_IN_THE_CLEAR: Final = bytes(16)
_PLAIN, _SEALED, _ERASED = b"\xf5rec", b"\xf5sea", b"\xf5del"
_UINT32: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read of a segment.

    Attributes:
        payloads: Of whole records, opened.
        times_ms: When each was appended, milliseconds since 1970.
        end: Offset behind the last one.
        damaged_places: Where something was broken.
        damaged_bytes: In all of them.
    """

    payloads: list[bytes]
    times_ms: list[int]
    end: int
    damaged_places: int = 0
    damaged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What a part of a segment holds.

    Attributes:
        records: That are sound and not erased.
        first_ms: When the first of them was appended, milliseconds since 1970; None when there is none.
        sound_end: Where the last sound frame ends.
        damaged_bytes: Between sound frames.
        torn_bytes: Behind the last one.
    """

    records: int
    first_ms: int | None
    sound_end: int
    damaged_bytes: int = 0
    torn_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """A frame whose checksum is right."""

    offset: int
    end: int
    time_ms: int
    mark: bytes


def make_header(sealer: Sealer | None) -> tuple[bytes, Sealer | None]:
    """Begin a segment.

    Args:
        sealer: Of the spool's key; None leaves the segment in the clear.

    Returns:
        The header, and the sealer of this segment alone.
    """
    salt = os.urandom(_SALT_BYTES)
    mark = _IN_THE_CLEAR if sealer is None else sealer.fingerprint.encode()
    head = _HEADER.pack(_MAGIC, salt, mark, 0)[:-4]
    own = None if sealer is None else sealer.for_file(salt)
    return head + crc32c(head).to_bytes(4, "little"), own


def read_header(raw: bytes, sealer: Sealer | None, *, where: Path) -> Sealer | None:
    """The sealer of a segment that was written before; None for one in the clear.

    Args:
        raw: Its first bytes.
        sealer: Of the spool's key.
        where: Named in errors.

    Raises:
        ConfigError: It is sealed with a key that is not at hand.
        ValueError: The header is damaged.
    """
    if len(raw) < HEADER_BYTES or crc32c(raw[: HEADER_BYTES - 4]).to_bytes(4, "little") != raw[40:44]:
        raise ValueError("the header is damaged")
    magic, salt, mark, _ = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise ValueError("the header is of something else")
    if mark == _IN_THE_CLEAR:
        return None
    if sealer is None or sealer.fingerprint.encode() != mark:
        other = "another key" if sealer is not None else "a key"
        raise ConfigError(
            f"{where}: encrypted with {other} ({mark.decode(errors='replace')}); set {KEY_VARIABLE} to that "
            f"key, or discard the events: facestream spool purge {where.parent}"
        )
    return sealer.for_file(salt)


def make_frames(payloads: Sequence[bytes], *, time_ms: int, offset: int, sealer: Sealer | None) -> bytes:
    """The bytes that append some records.

    Args:
        payloads: Of the records.
        time_ms: Now, milliseconds since 1970.
        offset: Where in the segment they will stand; bound into what is sealed.
        sealer: Of the segment.
    """
    parts: list[bytes] = []
    mark = _PLAIN if sealer is None else _SEALED
    for plain in payloads:
        payload = plain if sealer is None else sealer.seal(plain, context=_context(offset))
        parts += (_FRAME.pack(mark, len(payload), _check(payload, time_ms), time_ms), payload)
        offset += FRAME_BYTES + len(payload)
    return b"".join(parts)


def read_frames(file: int, offset: int, *, limit: int, want: int, sealer: Sealer | None) -> Chunk:
    """Read records of a segment; damage costs what it touches and no more.

    Args:
        file: Open for reading.
        offset: Of the first one.
        limit: Where the segment ends.
        want: About so many bytes; at least one record where there is one.
        sealer: Of the segment.

    Returns:
        The records, fewer where a part is damaged. ``end`` lies behind ``offset`` unless that is the limit.
    """
    if offset >= limit:
        return Chunk([], [], offset)
    if (chunk := _parse(_pread(file, offset, min(want, limit - offset)), offset, sealer)) is not None:
        return chunk
    # A long record, or damage: look at all that there is.
    data = _pread(file, offset, limit - offset)
    if (chunk := _parse(data, offset, sealer)) is not None:
        return chunk
    begin = _next_sound(data, 1)
    end = offset + begin if begin < len(data) else limit
    return Chunk([], [], end, damaged_places=1, damaged_bytes=end - offset)


def survey_frames(file: int, offset: int, limit: int) -> Survey:
    """Go over the frames of a segment and look at each one's checksum.

    Args:
        file: Open for reading.
        offset: Where to begin.
        limit: Where the file ends.
    """
    data = _pread(file, offset, limit - offset)
    records, end, damaged = 0, 0, 0
    first_ms: int | None = None
    for found in _sound_frames(data):
        if found.mark != _ERASED:
            records += 1
            first_ms = found.time_ms if first_ms is None else first_ms
        damaged += found.offset - end
        end = found.end
    return Survey(records, first_ms, offset + end, damaged, len(data) - end)


def erase_frames(file: int, *, limit: int, sealer: Sealer | None, drop: Callable[[bytes], bool]) -> list[int]:
    """Write zeros over the records of a segment that are to go; others keep their places.

    Args:
        file: Open for reading and writing.
        limit: Where the segment ends.
        sealer: Of the segment.
        drop: Told a record's payload, opened, whether it has to go.

    Returns:
        Offsets of those that went.
    """
    data = _pread(file, HEADER_BYTES, limit - HEADER_BYTES)
    erased: list[int] = []
    for found in _sound_frames(data):
        if found.mark == _ERASED:
            continue
        plain = _open(data, found, HEADER_BYTES, sealer)
        if plain is not None and drop(plain):
            length = found.end - found.offset - FRAME_BYTES
            os.pwrite(file, _erased_frame(length), HEADER_BYTES + found.offset)
            erased.append(HEADER_BYTES + found.offset)
    if erased:
        os.fdatasync(file)
    return erased


def is_sealed(file: int, limit: int) -> bool:
    """Whether the first sound frame of a segment is sealed, whatever the header says.

    Args:
        file: Descriptor of the segment.
        limit: Bytes of it that are looked at.
    """
    found = next(_sound_frames(_pread(file, HEADER_BYTES, limit - HEADER_BYTES)), None)
    return found is not None and found.mark == _SEALED


def time_of(file: int, offset: int) -> int | None:
    """When the record at an offset was appended, milliseconds since 1970; None where none can be read.

    Args:
        file: Descriptor of the segment.
        offset: Where the record's frame begins, bytes.
    """
    raw = os.pread(file, FRAME_BYTES, offset)
    if len(raw) < FRAME_BYTES or raw[:4] not in (_PLAIN, _SEALED):
        return None
    return int(_FRAME.unpack(raw)[3])


def _parse(data: bytes, offset: int, sealer: Sealer | None) -> Chunk | None:
    """All records from the beginning of some bytes on; None when not even the first is whole."""
    payloads: list[bytes] = []
    times_ms: list[int] = []
    position = 0
    while (found := _sound_at(data, position)) is not None:
        if found.mark != _ERASED:
            plain = _open(data, found, offset, sealer)
            if plain is None:
                break
            payloads.append(plain)
            times_ms.append(found.time_ms)
        position = found.end
    return Chunk(payloads, times_ms, offset + position) if position else None


def _sound_frames(data: bytes) -> Iterator[_Found]:
    position = 0
    while position < len(data):
        found = _sound_at(data, position)
        if found is None:
            position = _next_sound(data, position + 1)
        else:
            yield found
            position = found.end


def _sound_at(data: bytes, position: int) -> _Found | None:
    """The frame at a position; None when it is not whole."""
    if position + FRAME_BYTES > len(data):
        return None
    mark, length, checksum, time_ms = _FRAME.unpack_from(data, position)
    end = position + FRAME_BYTES + length
    if end > len(data) or length > MAX_RECORD_BYTES + _SEALING_BYTES:
        return None
    if mark in (_PLAIN, _SEALED):
        sound = _check(data[position + FRAME_BYTES : end], time_ms) == checksum
    else:
        sound = mark == _ERASED and _length_check(length) == checksum
    return _Found(position, end, time_ms, mark) if sound else None


def _next_sound(data: bytes, position: int) -> int:
    """Where the next whole frame begins; the end of the bytes when there is none."""
    while (position := data.find(_PLAIN[:1], position)) >= 0:
        if _sound_at(data, position) is not None:
            return position
        position += 1
    return len(data)


def _check(payload: bytes, time_ms: int) -> int:
    """Of a frame; length and time are the value that the checksum begins with."""
    return int(crc32c(payload, (time_ms ^ len(payload)) & _UINT32))


def _erased_frame(length: int) -> bytes:
    return _FRAME.pack(_ERASED, length, _length_check(length), 0) + bytes(length)


def _length_check(length: int) -> int:
    return int(crc32c(length.to_bytes(4, "little")))


def _context(offset: int) -> bytes:
    return b"spool record at %d" % offset


def _open(data: bytes, found: _Found, offset: int, sealer: Sealer | None) -> bytes | None:
    """A frame's payload, opened; None when that cannot be done.

    Args:
        data: Part of a segment.
        found: The frame in it.
        offset: Of that part in the segment.
        sealer: Of the segment.
    """
    payload = data[found.offset + FRAME_BYTES : found.end]
    if sealer is None:
        return payload if found.mark == _PLAIN else None
    try:
        return sealer.open(payload, context=_context(offset + found.offset))
    except ValueError:
        return None


def _pread(file: int, offset: int, size: int) -> bytes:
    """Read all of it; less at the file's end."""
    pieces = []
    while size > 0 and (piece := os.pread(file, size, offset)):
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)
