from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.geometry import Letterbox, iou, similarity_transforms, transform_points

coordinates = st.floats(-200, 200, width=32)
sizes = st.just(0.0) | st.floats(0.125, 100, width=32)  # an area below float32's range is no face


@st.composite
def boxes(draw: st.DrawFn) -> np.ndarray:
    corners = draw(hnp.arrays(np.float32, (draw(st.integers(0, 5)), 2), elements=coordinates))
    sides = draw(hnp.arrays(np.float32, corners.shape, elements=sizes))
    return np.concatenate([corners, corners + sides], axis=1)


def iou_of_two(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either > 0 else 0.0


@given(boxes(), boxes())
def test_iou_equals_the_slow_definition(a: np.ndarray, b: np.ndarray) -> None:
    got = iou(a, b)
    assert got.shape == (len(a), len(b))
    assert got.dtype == np.float32
    for i, first in enumerate(a.astype(float)):
        for j, second in enumerate(b.astype(float)):
            assert got[i, j] == pytest.approx(iou_of_two(first, second), abs=2e-3)


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    b = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2]], np.float32)
    assert iou(a, b) == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))


def umeyama(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Equations 40 to 42 of the paper, one set of points, by singular values."""
    mean_p, mean_t = points.mean(axis=0), template.mean(axis=0)
    p, t = points - mean_p, template - mean_t
    u, d, vt = np.linalg.svd(t.T @ p / len(p))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / (p**2).sum(axis=1).mean()
    return np.column_stack([scale * rotation, mean_t - scale * rotation @ mean_p])


@given(hnp.arrays(np.float64, (3, 5, 2), elements=st.floats(-100, 100)), st.integers(0, 2**32 - 1))
def test_similarity_transforms_equal_umeyama(noise: np.ndarray, seed: int) -> None:
    template = np.random.default_rng(seed).uniform(0, 112, (5, 2))
    points = template * [1.5, 1.2] + noise
    got = similarity_transforms(points.astype(np.float32), template.astype(np.float32))
    for one, matrix in zip(points, got, strict=True):
        if np.linalg.svd(one - one.mean(axis=0), compute_uv=False)[1] > 1:
            assert matrix == pytest.approx(umeyama(one, template), abs=2e-2, rel=1e-3)


@given(st.floats(0.1, 10), st.floats(-np.pi, np.pi), st.floats(-500, 500), st.floats(-500, 500))
def test_similarity_transforms_undo_a_similarity(scale: float, angle: float, x: float, y: float) -> None:
    template = np.array([[38, 52], [74, 51], [56, 72], [42, 92], [71, 92]], np.float32)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (template @ turn.T + [x, y]).astype(np.float32)[None]
    back = transform_points(points, similarity_transforms(points, template))
    assert back[0] == pytest.approx(template, abs=0.02)


def test_similarity_transforms_never_mirror() -> None:
    template = np.array([[38, 52], [74, 51], [56, 72], [42, 92], [71, 92]], np.float32)
    mirrored = (template * [-1, 1]).astype(np.float32)[None]
    assert np.linalg.det(similarity_transforms(mirrored, template)[0, :, :2]) >= 0


def test_similarity_transform_of_one_point_is_the_templates_centre() -> None:
    template = np.array([[38, 52], [74, 51], [56, 72], [42, 92], [71, 92]], np.float32)
    matrix = similarity_transforms(np.full((1, 5, 2), 7, np.float32), template)[0]
    assert np.isfinite(matrix).all()
    assert matrix[:, 2] == pytest.approx(template.mean(axis=0))


def test_similarity_transforms_of_nobody() -> None:
    assert similarity_transforms(np.empty((0, 5, 2), np.float32), np.eye(5, 2)).shape == (0, 2, 3)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 2000))
def test_letterbox_fits(width: int, height: int, long_side_px: int) -> None:
    box = Letterbox.fit((width, height), long_side_px=long_side_px, multiple=32)
    for scaled, canvas, side in zip(box.scaled_wh, box.canvas_wh, (width, height), strict=True):
        assert 1 <= scaled <= min(side, long_side_px)
        assert canvas % 32 == 0
        assert 0 <= canvas - scaled < 32
        assert scaled == pytest.approx(side * min(1, long_side_px / max(width, height)), abs=1)
    assert np.array(box.scaled_wh) * box.to_image == pytest.approx([width, height])


@pytest.mark.parametrize("size_wh", [(64, 40), (640, 360), (1280, 720), (1000, 500), (1920, 1080)])
def test_letterbox_draws_the_shrunk_image_and_leaves_the_rest_black(size_wh: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 255, (*size_wh[::-1], 3), np.uint8)
    box = Letterbox.fit(size_wh, long_side_px=640, multiple=32)
    canvas = np.zeros((*box.canvas_wh[::-1], 3), np.uint8)
    box.draw(image, canvas)
    width, height = box.scaled_wh
    method = cv2.INTER_AREA if size_wh[0] >= 2 * width else cv2.INTER_LINEAR
    assert (canvas[:height, :width] == cv2.resize(image, (width, height), interpolation=method)).all()
    assert not canvas[height:].any()
    assert not canvas[:, width:].any()
