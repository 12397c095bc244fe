from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.faces import Faces
from engine.models.alignment import ARCFACE_TEMPLATE_XY, align_faces
from engine.models.package import Patch
from engine.vision.quality import (
    face_quality,
    head_angles,
    pose_factor,
    quality_bound,
    sharpness,
    size_factor,
)

TEMPLATE = np.array(ARCFACE_TEMPLATE_XY, np.float32)
# A head seen from the front: eyes, nose, mouth; x to the image's right, y down, z to the camera.
HEAD = np.array([[-1, -1, 0], [1, -1, 0], [0, 0.1, 0.8], [-0.8, 1, 0], [0.8, 1, 0]]) * 30


def seen(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return (HEAD @ (about_z @ about_x @ about_y).T)[None, :, :2].astype(np.float32) + 200


def faces(landmarks: np.ndarray, score: float = 0.9) -> Faces:
    n = len(landmarks)
    return Faces(
        np.zeros((n, 4), np.float32), np.full(n, score, np.float32), np.asarray(landmarks, np.float32)
    )


angles = st.floats(-1.2, 1.2)


@given(angles)
def test_yaw_alone_is_recovered(yaw: float) -> None:
    assert head_angles(seen(yaw=yaw))[0] == pytest.approx([yaw, 0, 0], abs=1e-3)


@given(st.floats(-0.8, 0.8))
def test_pitch_alone_is_recovered(pitch: float) -> None:
    assert head_angles(seen(pitch=pitch))[0] == pytest.approx([0, pitch, 0], abs=1e-3)


@given(st.floats(-3, 3))
def test_roll_alone_is_recovered(roll: float) -> None:
    assert head_angles(seen(roll=roll))[0] == pytest.approx([0, 0, roll], abs=1e-3)


@given(angles, angles, st.sampled_from(["yaw", "pitch", "roll"]))
def test_turning_further_is_never_better(a: float, b: float, axis: str) -> None:
    small, large = sorted((a, b), key=abs)
    assert pose_factor(seen(**{axis: large}))[0] <= pose_factor(seen(**{axis: small}))[0] + 1e-4


@given(st.floats(0.01, 50), st.floats(0.01, 50))
def test_larger_is_never_worse(a: float, b: float) -> None:
    small, large = sorted((a, b))
    factors = size_factor(np.stack([TEMPLATE * small, TEMPLATE * large]))
    assert factors[0] <= factors[1] + 1e-6


def test_size_follows_what_was_measured() -> None:
    scales = np.array([0.5, 0.3, 0.2, 0.15, 0.1], np.float32)
    measured = [0.98, 0.88, 0.71, 0.57, 0.32]
    assert size_factor(scales[:, None, None] * TEMPLATE) == pytest.approx(np.array(measured), abs=0.05)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.tile([3.0, 4.0], (5, 1)), TEMPLATE[:, ::-1] * -1])
def test_nonsense_landmarks_give_numbers(points: np.ndarray) -> None:
    bound = quality_bound(faces(points[None]))
    assert np.isfinite(bound).all()
    assert 0 <= bound[0] <= 1


@given(
    hnp.arrays(np.float32, (4, 5, 2), elements=st.floats(-100, 1000, width=32)),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_quality_is_within_its_bound(landmarks: np.ndarray, score: float, seed: int) -> None:
    found = faces(landmarks, score)
    crops = np.random.default_rng(seed).integers(0, 255, (4, 112, 112, 3), np.uint8)
    quality, bound = face_quality(found, crops), quality_bound(found)
    assert quality.dtype == bound.dtype == np.float32
    assert ((quality >= 0) & (quality <= bound) & (bound <= 1)).all()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_is_never_worse(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert quality_bound(faces(TEMPLATE[None], low))[0] <= quality_bound(faces(TEMPLATE[None], high))[0]


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    landmarks = np.array([[[202, 104], [245, 104], [226, 130], [206, 150], [242, 150]]], np.float32)
    return align_faces(portrait, landmarks, [Patch(112, ARCFACE_TEMPLATE_XY)])[0]


def test_blur_costs_more_the_stronger_it_is(crop: np.ndarray) -> None:
    blurred = [crop, *(cv2.GaussianBlur(crop, (0, 0), sigma) for sigma in (1, 2, 3, 4))]
    values = sharpness(np.stack(blurred))
    assert (np.diff(values) < -0.02).all()
    assert values[0] > 0.9
    assert values[4] < 0.7


@pytest.mark.parametrize("kernel", [np.ones((1, 15)), np.ones((15, 1)), np.eye(15)])
def test_motion_blur_costs_in_every_direction(crop: np.ndarray, kernel: np.ndarray) -> None:
    moved = cv2.filter2D(crop, -1, kernel.astype(np.float32) / 15)
    sharp, blurred = sharpness(np.stack([crop, moved]))
    assert blurred < 0.85 * sharp


def test_dim_light_and_noise_do_not_pass_for_blur_or_detail(crop: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 5, crop.shape)
    blurred = cv2.GaussianBlur(crop, (0, 0), 3).astype(float)
    dim, clean, noisy = (crop * 0.4, blurred, blurred + noise)
    values = sharpness(np.clip(np.stack([crop, dim, clean, noisy]), 0, 255).astype(np.uint8))
    assert values[1] == pytest.approx(values[0], abs=0.05)
    assert values[3] < values[0] - 0.1


def test_a_grey_wall_has_no_detail() -> None:
    assert sharpness(np.full((1, 112, 112, 3), 90, np.uint8)) == pytest.approx([0], abs=1e-6)


def test_nobody() -> None:
    assert face_quality(Faces.none(), np.empty((0, 112, 112, 3), np.uint8)).shape == (0,)


def test_each_face_needs_its_crop() -> None:
    with pytest.raises(ValueError, match="a crop for each of 1"):
        face_quality(faces(TEMPLATE[None]), np.empty((0, 112, 112, 3), np.uint8))
