from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.tracking.scene_cut import SceneCutDetector, difference, thumbnail


def scene(seed, *, height=180, width=320):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def noisy(image, seed, *, amount=6.0):
    noise = np.random.default_rng(seed).normal(0, amount, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def cuts(images):
    detector = SceneCutDetector()
    return [step for step, image in enumerate(images) if detector.is_cut(image)]


def test_only_the_jump_between_scenes_is_a_cut():
    one, other = scene(1), scene(2)
    images = [noisy(one, n) for n in range(10)] + [noisy(other, n) for n in range(10)]
    assert cuts(images) == [10]


def test_lamps_and_noise_are_no_cuts():
    one = scene(1)
    images = [noisy(one, n) for n in range(5)] + [noisy(one // 3, n) for n in range(5, 10)]
    assert cuts(images) == []


@pytest.mark.parametrize("level", [0, 5, 128, 255])
def test_an_empty_picture_never_cuts_to_itself(level):
    assert cuts([noisy(np.full((180, 320, 3), level, np.uint8), n, amount=3) for n in range(20)]) == []


def test_out_of_the_dark_is_a_cut():
    dark = np.zeros((180, 320, 3), np.uint8)
    assert cuts([dark, dark, scene(1), scene(1), dark]) == [2, 4]


def test_a_fast_pan_is_no_cut():
    wide = scene(3, width=2000)
    assert cuts([wide[:, 12 * step : 12 * step + 320].copy() for step in range(100)]) == []


def test_cuts_are_found_while_the_camera_moves():
    wide, other = scene(3, width=1000), scene(4, width=1000)
    images = [wide[:, 6 * n : 6 * n + 320] for n in range(20)] + [
        other[:, 6 * n : 6 * n + 320] for n in range(20)
    ]
    assert cuts(images) == [20]


def test_the_same_scene_in_another_size_is_no_cut():
    assert cuts([scene(1), scene(1, height=360, width=640), scene(1, height=90, width=160)]) == []


@given(st.integers(1, 90), st.integers(1, 140))
def test_any_size_has_a_thumbnail(height, width):
    image = np.full((height, width, 3), (30, 60, 90), np.uint8)
    small = thumbnail(image)
    assert small.shape == (18, 32)
    np.testing.assert_allclose(small, small[0, 0])
    assert difference(small, small) == pytest.approx(0)


def test_difference_is_one_minus_the_correlation():
    a, b = thumbnail(scene(1)), thumbnail(scene(2))
    assert difference(a, b) == pytest.approx(1 - np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=0.02)


@pytest.mark.parametrize(
    "setting", [{"min_change": 0.0}, {"min_change": 2.5}, {"min_change": 0.7, "sure_change": 0.6}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="expected"):
        SceneCutDetector(**setting)
