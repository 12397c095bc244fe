from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.picture_size import MAX_PIXELS, MAX_SIDE, picture_size, square_pixels

PIXELS = np.zeros((30, 70, 3), np.uint8)


@pytest.mark.parametrize(
    ("end", "options"),
    [
        (".jpg", []),
        (".png", []),
        (".bmp", []),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),  # VP8
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),  # VP8L
    ],
)
def test_every_kind_of_picture_states_its_size(end: str, options: list[int]) -> None:
    data = cv2.imencode(end, PIXELS, options)[1].tobytes()
    assert picture_size(data) == (70, 30)


def test_a_bitmap_may_run_from_top_to_bottom() -> None:
    data = bytearray(cv2.imencode(".bmp", PIXELS)[1].tobytes())
    data[22:26] = struct.pack("<i", -30)
    assert picture_size(bytes(data)) == (70, 30)


def test_an_extended_webp_states_the_size_of_its_canvas() -> None:
    canvas = (4095).to_bytes(3, "little") + (2047).to_bytes(3, "little")
    assert picture_size(b"RIFF\0\0\0\0WEBPVP8X" + struct.pack("<IB3x", 10, 0) + canvas) == (4096, 2048)


@pytest.mark.parametrize(
    "data", [b"", b"BM", b"#EXTM3U\nhttp://192.0.2.1/1.ts\n", b"RIFF\0\0\0\0WAVEfmt " + bytes(20)]
)
def test_what_is_no_picture_has_no_size(data: bytes) -> None:
    assert picture_size(data) is None


@pytest.mark.parametrize(
    ("size_wh", "aspect", "shown_wh"),
    [
        ((640, 360), (1, 1), (640, 360)),
        ((352, 576), (2, 1), (704, 576)),
        ((704, 240), (1, 2), (704, 480)),
        ((1440, 1080), (4, 3), (1920, 1080)),
        ((720, 480), (10, 11), (720, 528)),
        ((640, 360), (0, 1), (640, 360)),
        ((640, 360), (-2, 1), (640, 360)),
        ((640, 360), (65535, 1), (640, 360)),
        ((16000, 9000), (2, 1), (16000, 4500)),
        ((9000, 16000), (1, 2), (4500, 16000)),
    ],
)
def test_square_pixels_show_what_was_meant(size_wh, aspect, shown_wh) -> None:
    assert square_pixels(size_wh, aspect) == shown_wh


SIDES = st.integers(1, MAX_SIDE)
ANY = st.integers(-(2**31), 2**31 - 1)


@given(st.tuples(SIDES, SIDES), st.tuples(ANY, ANY))
def test_no_statement_about_pixels_takes_the_memory(size_wh, aspect) -> None:
    width, height = square_pixels(size_wh, aspect)
    assert 1 <= width <= MAX_SIDE
    assert 1 <= height <= MAX_SIDE
    assert width * height <= max(MAX_PIXELS, size_wh[0] * size_wh[1])
