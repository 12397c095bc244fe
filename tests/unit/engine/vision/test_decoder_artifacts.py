from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.vision.decoder_artifacts import wholeness

FACE = np.array([[165, 55, 285, 205]], np.float32)


def moved(x: float, y: float) -> np.ndarray:
    return np.add(FACE, np.array([x, y, x, y], np.float32))


def damaged(portrait: np.ndarray, size_px: int = 16, seed: int = 0) -> np.ndarray:
    """Some blocks come from elsewhere in the picture, or too bright."""
    rng = np.random.default_rng(seed)
    image = portrait.copy()
    for y in range(48, 208, size_px):
        for x in range(160, 288, size_px):
            if rng.random() < 0.4:
                dy, dx = rng.integers(-40, 40, 2)
                piece = portrait[y + dy : y + dy + size_px, x + dx : x + dx + size_px]
                image[y : y + size_px, x : x + size_px] = cv2.add(piece, int(rng.integers(0, 60)))
    return image


@pytest.mark.parametrize("size_px", [8, 16])
def test_a_face_of_pieces_that_do_not_fit_is_worth_nothing(portrait: np.ndarray, size_px: int) -> None:
    assert wholeness(damaged(portrait, size_px), FACE) == pytest.approx([0])


def test_damage_that_motion_has_carried_off_the_grid_is_seen(portrait: np.ndarray) -> None:
    image = np.roll(damaged(portrait), (3, 5), axis=(0, 1))
    assert wholeness(image, moved(5, 3)) == pytest.approx([0])


@pytest.mark.parametrize("quality", [90, 50, 20])
def test_compression_is_no_damage(portrait: np.ndarray, quality: int) -> None:
    _, data = cv2.imencode(".jpg", portrait, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert wholeness(cv2.imdecode(data, cv2.IMREAD_COLOR), FACE) == pytest.approx([1])


@pytest.mark.parametrize("times", [0.6, 1.5, 2, 3])
@pytest.mark.parametrize("how", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_scaling_is_no_damage(portrait: np.ndarray, times: float, how: int) -> None:
    scaled = cv2.resize(portrait, None, fx=times, fy=times, interpolation=how)
    assert wholeness(scaled, FACE * np.float32(times)) == pytest.approx([1])


@pytest.mark.parametrize("times", [2, 3])
def test_repeated_pixels_are_no_damage(portrait: np.ndarray, times: int) -> None:
    enlarged = portrait.repeat(times, axis=0).repeat(times, axis=1)
    assert wholeness(enlarged, FACE * np.float32(times)) == pytest.approx([1])


def test_noise_and_contrast_are_no_damage(portrait: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 12, portrait.shape)
    for image in (portrait + noise, portrait * 0.3, (portrait - 128.0) * 2 + 128):
        assert wholeness(np.clip(image, 0, 255).astype(np.uint8), FACE) == pytest.approx([1])


def test_each_face_is_judged_by_itself(portrait: np.ndarray) -> None:
    image = np.hstack([portrait, damaged(portrait)])
    assert wholeness(image, np.concatenate([FACE, moved(512, 0)])) == pytest.approx([1, 0])


def test_a_mirrored_or_turned_picture_is_as_whole(portrait: np.ndarray) -> None:
    for image in (portrait, damaged(portrait)):
        left, top, right, bottom = FACE[0]
        mirrored = wholeness(image[:, ::-1], np.array([[512 - right, top, 512 - left, bottom]], np.float32))
        turned = wholeness(image.transpose(1, 0, 2), FACE[:, [1, 0, 3, 2]])
        assert mirrored == turned == wholeness(image, FACE)


def test_small_faces_are_not_judged(portrait: np.ndarray) -> None:
    assert wholeness(damaged(portrait), np.array([[200, 90, 240, 140]], np.float32)) == pytest.approx([1])


def test_nobody() -> None:
    assert wholeness(np.zeros((48, 64, 3), np.uint8), np.empty((0, 4), np.float32)).shape == (0,)


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(-1000, 1000, width=32)),
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.integers(0, 99),
)
def test_any_box_in_any_picture_gives_a_worth(boxes: np.ndarray, size: tuple[int, int], seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    values = wholeness(image, boxes)
    assert values.dtype == np.float32
    assert values.shape == (3,)
    assert ((values >= 0) & (values <= 1)).all()
