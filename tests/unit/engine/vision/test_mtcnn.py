from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.geometry import iou
from engine.vision.mtcnn import cut_squares, keep_best, moved, pyramid_sizes, squared, uncovered, windows

side = st.integers(1, 40)
boxes = arrays(
    np.float32, st.tuples(st.integers(0, 12), st.just(4)), elements=st.floats(0, 50, width=32)
).map(lambda a: np.concatenate([a[:, :2], a[:, :2] + a[:, 2:] + np.float32(0.5)], axis=1))


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(12, 200))
def test_pyramids_go_from_the_smallest_face_to_the_largest(height: int, width: int, least: int) -> None:
    sizes = pyramid_sizes((height, width), min_face_px=least)
    assert bool(sizes) == (min(height, width) >= least)
    assert all(min(size) >= 12 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    if sizes:
        assert sizes[0] == pytest.approx((height * 12 / least, width * 12 / least), abs=0.6)
        assert min(sizes[-1]) * 0.709 < 13, "the largest face fills the image"


def test_windows_lie_where_their_cells_are() -> None:
    scores = np.zeros((10, 12), np.float32)
    scores[9, 0], scores[0, 11] = 0.7, 0.9
    edges = np.arange(4 * 120, dtype=np.float32).reshape(4, 10, 12)
    found = windows(scores, edges, stretch_xy=np.array([3.0, 2.0]), min_score=0.6)
    assert found[:, :4].tolist() == [[66, 0, 102, 24], [0, 36, 36, 60]]
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.7])
    assert found[:, 5:].tolist() == [edges[:, 0, 11].tolist(), edges[:, 9, 0].tolist()]
    assert windows(scores, edges, stretch_xy=np.ones(2), min_score=0.95).shape == (0, 9)


def test_edges_move_by_shares_of_the_side() -> None:
    box = np.array([[10, 20, 30, 60]], np.float32)
    assert moved(box, np.array([[0.5, -0.25, 0, 1]], np.float32)).tolist() == [[20, 10, 30, 100]]


@given(boxes)
def test_squares_have_the_longer_side_and_the_same_centre(boxes_xyxy: np.ndarray) -> None:
    squares = squared(boxes_xyxy)
    sides = squares[:, 2:] - squares[:, :2]
    assert sides[:, 0] == pytest.approx(sides[:, 1], abs=1e-3)
    assert sides[:, 0] == pytest.approx(
        (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0), abs=1e-3
    )
    assert squares[:, :2] + squares[:, 2:] == pytest.approx(boxes_xyxy[:, :2] + boxes_xyxy[:, 2:], abs=1e-3)


@given(boxes, st.randoms())
def test_suppression_keeps_the_best_of_each_heap(boxes_xyxy: np.ndarray, random: object) -> None:
    scores = np.array(random.sample(range(1, 100), len(boxes_xyxy)), np.float32) / 100
    kept = keep_best(boxes_xyxy, scores, max_iou=0.5)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    overlaps = iou(boxes_xyxy, boxes_xyxy)
    for row in range(len(scores)):
        better = [k for k in kept if scores[k] > scores[row] and overlaps[row, k] > 0.5 + 1e-4]
        assert (row in kept) or scores[row] < scores[kept].max()
        assert not (row in kept and better)


@given(boxes, st.randoms())
def test_no_box_lies_in_another_in_the_end(boxes_xyxy: np.ndarray, random: object) -> None:
    """Against the loop that one would write first."""
    scores = np.array(random.sample(range(1, 100), len(boxes_xyxy)), np.float32) / 100
    expected: list[int] = []
    for row in np.argsort(-scores):
        left, top, right, bottom = boxes_xyxy[row]
        for other in expected:
            x1, y1, x2, y2 = boxes_xyxy[other]
            common = max(0, min(right, x2) - max(left, x1)) * max(0, min(bottom, y2) - max(top, y1))
            if common > 0.7 * min((right - left) * (bottom - top), (x2 - x1) * (y2 - y1)):
                break
        else:
            expected.append(int(row))
    assert uncovered(boxes_xyxy, scores, most=0.7).tolist() == expected


@given(st.integers(0, 10_000), side, side, st.integers(1, 6), st.integers(1, 4))
def test_whole_pixels_are_averaged_as_opencv_does(
    seed: int, left: int, top: int, factor: int, size: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), np.uint8)
    right, bottom = left + factor * size, top + factor * size
    (crop,) = cut_squares(image, np.array([[left, top, right, bottom]], np.float32), size_px=size)
    expected = cv2.resize(image[top:bottom, left:right], (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(crop.astype(int) - expected).max() <= 1


def test_parts_of_pixels_count_by_their_area() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 2] = (200, 100, 40)
    (crop,) = cut_squares(image, np.array([[1.5, 0.5, 3.5, 2.5]], np.float32), size_px=2)
    expected = np.zeros((2, 2, 3), int)
    expected[0, 0] = expected[1, 0] = expected[0, 1] = expected[1, 1] = (50, 25, 10)
    assert np.array_equal(crop[..., 0] + 0, [[50, 50], [50, 50]])
    assert np.array_equal(crop, expected)


def test_beyond_the_image_it_is_black_and_empty_boxes_are_black() -> None:
    image = np.full((10, 20, 3), 200, np.uint8)
    around = np.array(
        [[-10, -5, 30, 35], [100, 100, 110, 110], [5, 5, 5, 5], [-1e6, -1e6, -1e5, 1]], np.float32
    )
    crops = cut_squares(image, around, size_px=8)
    assert crops.shape == (4, 8, 8, 3)
    assert (crops[0, 1:3, 2:6] == 200).all()
    assert crops[0].sum() == 8 * 3 * 200
    assert not crops[1:].any()
    assert cut_squares(image, around[:0], size_px=8).shape == (0, 8, 8, 3)
