"""Events as records of Kafka, packed once: what lies in the spool is what is sent.

A packed record is its keys and, as one piece, everything that follows the key in Kafka's record format
(version 2: Apache Kafka, "Message format", Record): value and headers, with zigzag varints for lengths.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from stream.common.varint import decode_varint, encode_varint
from stream.events.kafka_record import BinaryMessage

MAX_RECORD_BYTES: Final = 8 << 20
"""Longest packed record that is written or read."""

_LENGTHS: Final = struct.Struct("<HH")  # of both keys
_FAULT: Final = "not a packed record"


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """A record without what depends on its place in a batch.

    Attributes:
        key: The camera's id.
        state_key: The track's id where the event tells the state of a track; empty otherwise.
        tail: Value and headers in Kafka's record format.
    """

    key: bytes
    state_key: bytes
    tail: bytes


def pack(message: BinaryMessage, *, state_key: bytes = b"") -> bytes:
    """Pack an event for the spool.

    Args:
        message: The event, encoded.
        state_key: Under which it is the latest state of something; empty where it is none.

    Raises:
        ValueError: A key is longer than 65,535 bytes, or all of it than ``MAX_RECORD_BYTES``.
    """
    if max(len(message.key), len(state_key)) > 0xFFFF:
        raise ValueError(f"expected keys of at most 65535 bytes, got {len(message.key)}, {len(state_key)}")
    parts = [
        _LENGTHS.pack(len(message.key), len(state_key)),
        message.key,
        state_key,
        encode_varint(len(message.value)),
        message.value,
        encode_varint(len(message.headers)),
    ]
    for name, text in message.headers:
        parts += (_header_name(name), encode_varint(len(text)), text)
    packed = b"".join(parts)
    if len(packed) > MAX_RECORD_BYTES:
        raise ValueError(f"expected an event of at most {MAX_RECORD_BYTES} bytes, got {len(packed)}")
    return packed


def split(packed: bytes) -> PackedRecord:
    """The parts of a packed record, without a look into its tail.

    Raises:
        ValueError: It is none.
    """
    try:
        key_length, state_length = _LENGTHS.unpack_from(packed)
    except struct.error as exc:
        raise ValueError(f"{_FAULT}: too short") from exc
    key_end = _LENGTHS.size + key_length
    tail_begin = key_end + state_length
    if len(packed) <= tail_begin:
        raise ValueError(f"{_FAULT}: too short")
    return PackedRecord(packed[_LENGTHS.size : key_end], packed[key_end:tail_begin], packed[tail_begin:])


def unpack(packed: bytes) -> BinaryMessage:
    """Undo ``pack``; trusts nothing.

    Raises:
        ValueError: It is no packed record.
    """
    record = split(packed)
    value, position = _read_piece(record.tail, 0)
    count, position = _read_length(record.tail, position)
    headers = []
    for _ in range(count):
        name, position = _read_piece(record.tail, position)
        text, position = _read_piece(record.tail, position)
        headers.append((_decode(name), text))
    if position != len(record.tail):
        raise ValueError(f"{_FAULT}: {len(record.tail) - position} bytes too many")
    return BinaryMessage(record.key, value, headers)


def frame_records(records: Iterable[tuple[bytes, bytes]], times_ms: Iterable[int], first_ms: int) -> bytes:
    """The records of one batch as Kafka wants them, before compression.

    Args:
        records: Key and tail of each.
        times_ms: Of each, milliseconds since 1970.
        first_ms: Of the batch: the first one's.
    """
    parts: list[bytes] = []
    for offset, ((key, tail), time_ms) in enumerate(zip(records, times_ms, strict=True)):
        begin = b"\0" + encode_varint(time_ms - first_ms) + encode_varint(offset) + encode_varint(len(key))
        parts += (encode_varint(len(begin) + len(key) + len(tail)), begin, key, tail)
    return b"".join(parts)


@lru_cache(maxsize=256)
def _header_name(name: str) -> bytes:
    raw = name.encode()
    return encode_varint(len(raw)) + raw


def _read_length(data: bytes, position: int) -> tuple[int, int]:
    """A length or count at a position, and where the next thing begins."""
    try:
        length, position = decode_varint(data, position)
    except ValueError as exc:
        raise ValueError(f"{_FAULT}: a broken length") from exc
    if length < 0:
        raise ValueError(f"{_FAULT}: a negative length")
    return length, position


def _read_piece(data: bytes, position: int) -> tuple[bytes, int]:
    length, begin = _read_length(data, position)
    if begin + length > len(data):
        raise ValueError(f"{_FAULT}: a piece is longer than the rest")
    return data[begin : begin + length], begin + length


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise ValueError(f"{_FAULT}: a header's name is not UTF-8") from exc
