from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.models.alignment import ARCFACE_TEMPLATE_XY, align_faces
from engine.models.package import Patch

TEMPLATE = np.array(ARCFACE_TEMPLATE_XY, np.float32)


def picture(size: int) -> np.ndarray:
    y, x = (np.mgrid[:size, :size] + 0.5) * (112 / size) - 0.5
    waves = [127 + 120 * np.sin(x / 9 + y / 13), 127 + 120 * np.cos(x / 11), 2 * y]
    return np.clip(np.stack(waves, axis=2), 0, 255).astype(np.uint8)


def align(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    return align_faces(image, landmarks.astype(np.float32), [Patch(112, ARCFACE_TEMPLATE_XY)])


def test_a_face_that_lies_on_the_template_is_copied() -> None:
    image = picture(112)
    assert np.abs(align(image, TEMPLATE[None])[0].astype(int) - image).max() <= 1


@pytest.mark.parametrize("times", [1.5, 2, 3, 4, 5.5])
def test_size_does_not_matter(times: float) -> None:
    crop = align(picture(round(112 * times)), (TEMPLATE[None] + 0.5) * times - 0.5)[0]
    inner = np.abs(crop.astype(int) - picture(112))[3:-3, 3:-3]
    assert inner.mean() < 1
    assert inner.max() < 4


@pytest.mark.parametrize("angle", [-90, -30, 45, 180])
def test_rotation_is_undone(angle: float) -> None:
    size = 400
    upright = np.zeros((size, size, 3), np.uint8)
    upright[100:300, 100:300] = picture(200)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1.0)
    turned = cv2.warpAffine(upright, matrix, (size, size))
    points = TEMPLATE * (200 / 112) + 100
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    expected = align(upright, points[None])[0].astype(int)
    assert np.abs(align(turned, moved[None])[0] - expected)[8:-8, 8:-8].mean() < 3


def test_large_noisy_faces_do_not_alias() -> None:
    noise = np.random.default_rng(0).normal(128, 40, (672, 672, 3)).clip(0, 255).astype(np.uint8)
    crop = align(noise, (TEMPLATE[None] + 0.5) * 6 - 0.5)[0]
    # The mean of 36 pixels has a sixth of the deviation of one.
    assert crop.std() < 40 / 6 * 1.2


def test_faces_beyond_the_edge_are_black_there() -> None:
    for times in (1, 5):
        image = np.full((112 * times, 112 * times, 3), 200, np.uint8)
        crop = align(image, (TEMPLATE[None] - [56, 0]) * times)[0]
        assert (crop[10:100, :50] == 0).all()
        assert (crop[10:100, 62:-6] == 200).all()


@pytest.mark.parametrize("times", [1, 20])
def test_a_face_outside_of_the_image_is_black(times: int) -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    assert not align(image, TEMPLATE[None] * times + 10_000).any()


def test_landmarks_in_one_point_do_no_harm() -> None:
    assert align(picture(112), np.full((1, 5, 2), 30.0)).shape == (1, 112, 112, 3)


def test_views_of_larger_arrays_are_fine() -> None:
    frame = np.ascontiguousarray(np.tile(picture(336), (1, 2, 1)))
    view = frame[:, 100:436]
    landmarks = TEMPLATE[None] * 2 + 20
    assert (align(view, landmarks) == align(np.ascontiguousarray(view), landmarks)).all()


def test_nobody() -> None:
    assert align(picture(112), np.empty((0, 5, 2))).shape == (0, 112, 112, 3)
