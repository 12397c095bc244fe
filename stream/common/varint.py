"""Zigzag varints: integers of any sign in as few bytes as they need (Protocol Buffers, "Signed Integers")."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1 << 14)
def encode_varint(value: int) -> bytes:
    """A whole number as a zigzag varint.

    Args:
        value: Of any sign; Kafka's and Confluent's formats have 32 bits for it.
    """
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(0x80 | (rest & 0x7F))
        rest >>= 7
    out.append(rest)
    return bytes(out)


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """The zigzag varint of up to five bytes at a position.

    Args:
        data: Bytes from anywhere.
        position: Where it begins, 0 or more.

    Returns:
        The number, and the position behind it.

    Raises:
        ValueError: The bytes end within it, or it is longer than five bytes.
    """
    number = 0
    for shift in range(0, 35, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), position
    raise ValueError("a broken varint")
