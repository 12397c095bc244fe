from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import SinkError
from stream.video.drawing import (
    Label,
    Shot,
    contact_sheet,
    draw_labels,
    fit,
    plain_letters,
    save_png,
    track_colour,
)

GREY = np.full((240, 320, 3), 128, np.uint8)


def test_a_label_is_drawn_in_its_tracks_colour_and_the_image_is_left_alone():
    drawn = draw_labels(GREY, [Label((100, 80, 200, 180), "#1", 1)], caption="door")
    assert (GREY == 128).all()
    assert drawn.shape == GREY.shape
    np.testing.assert_allclose(drawn[130, 100], track_colour(1), atol=12)  # its edge is smooth
    assert (drawn[100:160, 120:180] == 128).all(), "nothing within the box"


@pytest.mark.parametrize(
    "box", [(-50, -50, 20, 20), (300, 220, 400, 300), (0, 0, 320, 240), (1e5, 0, 1e5 + 1, 1)]
)
def test_boxes_beyond_the_picture_do_no_harm(box):
    assert draw_labels(GREY, [Label(box, "a long line of text " * 9, 3)]).shape == GREY.shape


def test_names_are_written_without_accents_and_not_at_all_where_they_cannot_be():
    assert plain_letters("Renée Ørsted") == ""
    assert plain_letters("Renée Dvořák") == "Renee Dvorak"
    assert plain_letters("大厅") == ""


def test_neighbouring_numbers_have_different_colours():
    colours = [np.array(track_colour(number)) for number in range(30)]
    assert all(np.abs(a - b).sum() > 60 for a, b in pairwise(colours))


def test_fit_keeps_the_shape_of_things():
    wide = np.full((50, 200, 3), 255, np.uint8)
    fitted = fit(wide, (100, 100))
    assert fitted.shape == (100, 100, 3)
    bright = (fitted[:, :, 0] > 200).sum(axis=0)
    assert set(bright.tolist()) == {25}
    assert fit(wide, (30, 400)).shape == (400, 30, 3)


def test_the_contact_sheet_has_a_tile_for_each_shot():
    shot = Shot(np.full((40, 40, 3), 200, np.uint8), ("#1", "best 0:01"), 1)
    one, six = (contact_sheet([shot] * count, title="who was there") for count in (1, 6))
    assert six.shape[0] > one.shape[0]
    assert six.shape[1] > one.shape[1]
    assert contact_sheet([], title="nobody").size > 0


def test_a_png_can_be_read_again_and_a_bad_place_is_said(tmp_path: Path):
    save_png(GREY, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png")), GREY)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot write the picture"):
        save_png(GREY, tmp_path / "file" / "a.png")
