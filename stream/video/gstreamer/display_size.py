"""How large a picture is when it is shown with square pixels."""

from __future__ import annotations

from typing import Final

from engine.vision.image_decoding import MAX_PIXELS

MAX_SIDE: Final = 16_384
"""Pixels: a video frame that says it is larger is refused before memory is taken to convert it."""

_MOST_STRETCH: Final = 8


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
