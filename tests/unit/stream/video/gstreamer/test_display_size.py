from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.vision.image_decoding import MAX_PIXELS
from stream.video.gstreamer.display_size import MAX_SIDE, square_pixels


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
