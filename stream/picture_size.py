"""How large a picture says it is, before anything is unpacked or scaled.

A file of a few kilobytes can state a size that fills the memory.
"""

from __future__ import annotations

import struct
from typing import Final

JPEG: Final = b"\xff\xd8"
PNG: Final = b"\x89PNG\r\n\x1a\n"
"""What files of these kinds begin with."""

MAX_PIXELS: Final = 100_000_000
"""Of a picture that is decoded."""

MAX_SIDE: Final = 16_384
"""Pixels: a video frame that says it is larger is refused before memory is taken to convert it."""

_MOST_SEGMENTS: Final = 10_000
_MOST_STRETCH: Final = 8


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, PNG, BMP or WebP file states; None where it is none, or cut off.

    Args:
        data: The file's content, from anywhere.
    """
    if data.startswith(JPEG):
        return _jpeg_size(data)
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 24:  # RFC 2083, section 4.1.1
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if data.startswith(b"BM") and len(data) >= 26:  # BITMAPINFOHEADER; rows may go from top to bottom
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(width), abs(height)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def square_pixels(size_wh: tuple[int, int], pixel_aspect: tuple[int, int]) -> tuple[int, int]:
    """Size that shows a picture as it is meant, with square pixels.

    The shorter side of a pixel is stretched, so that no detail is lost; where the picture would become too
    large, the longer side is shrunk. A pixel that claims to be more than eight times as wide as high, or
    the reverse, is taken for a mistake and for square.

    Args:
        size_wh: Width and height in pixels, each from 1 to ``MAX_SIDE``.
        pixel_aspect: Width to height of a pixel, as a stream states it; anything.

    Returns:
        Width and height, each from 1 to ``MAX_SIDE``.
    """
    (width, height), (wide, high) = size_wh, pixel_aspect
    if wide == high or min(wide, high) <= 0 or max(wide, high) > _MOST_STRETCH * min(wide, high):
        return size_wh
    stretched = (round(width * wide / high), height) if wide > high else (width, round(height * high / wide))
    if max(stretched) <= MAX_SIDE and stretched[0] * stretched[1] <= MAX_PIXELS:
        return stretched
    shrunk = (width, round(height * high / wide)) if wide > high else (round(width * wide / high), height)
    return max(1, shrunk[0]), max(1, shrunk[1])


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The size stands in the segment that begins with a marker SOF (ITU T.81, annex B)."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 9 > len(data):
            break
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """The size stands in the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None
