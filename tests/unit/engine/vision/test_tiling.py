from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.faces import Faces
from engine.vision.tiling import LargerLook


class Squares:
    """Finds white squares; as detectors do, it shrinks images first and needs 10 pixels then."""

    def __init__(self, side: int = 640) -> None:
        self.side = side
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        self.shapes += [image.shape[:2] for image in images]
        return [self._squares(image) for image in images]

    def _squares(self, image: np.ndarray) -> Faces:
        scale = max(1.0, max(image.shape[:2]) / self.side)
        size_wh = round(image.shape[1] / scale), round(image.shape[0] / scale)
        grey = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)[:, :, 0]
        _, _, stats, _ = cv2.connectedComponentsWithStats((grey > 127).astype(np.uint8))
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:].tolist() if min(w, h) >= 10]
        boxes_xyxy = np.array(boxes, np.float32).reshape(-1, 4) * np.float32(scale)
        middles = (boxes_xyxy[:, None, :2] + boxes_xyxy[:, None, 2:]) / 2
        return Faces(boxes_xyxy, np.full(len(boxes), 0.9, np.float32), np.repeat(middles, 5, axis=1))


def image_of(size_wh: tuple[int, int], *squares: tuple[int, int, int]) -> np.ndarray:
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


def test_a_small_face_in_a_large_photograph_is_found() -> None:
    image = image_of((6000, 4000), (4321, 1234, 80))
    detector = Squares()
    assert not len(detector.detect([image])[0])
    (found,) = LargerLook(detector).detect([image])
    np.testing.assert_allclose(found.boxes_xyxy, [[4321, 1234, 4401, 1314]], atol=4)
    np.testing.assert_allclose(found.landmarks_xy[0, 0], [4361, 1274], atol=3)


def test_an_image_that_is_not_large_is_looked_at_once() -> None:
    detector = Squares()
    (found,) = LargerLook(detector).detect([image_of((800, 600), (100, 100, 50))])
    assert len(found) == 1
    assert detector.shapes == [(600, 800)]


def test_memory_and_time_are_bounded() -> None:
    detector = Squares()
    LargerLook(detector).detect([image_of((3000, 3000))])
    _, *tiles = detector.shapes
    assert len(tiles) == 25
    assert max(max(shape) for shape in tiles) == 640


def test_a_face_that_both_looks_see_is_told_once() -> None:
    squares = [(300, 300, 200), (2500, 700, 500), (4000, 1500, 1800), (200, 3000, 330)]
    (found,) = LargerLook(Squares()).detect([image_of((6000, 4000), *squares)])
    assert len(found) == 4
    boxes = found.boxes_xyxy[np.argsort(found.boxes_xyxy[:, 0])]
    wanted = sorted([x, y, x + side, y + side] for x, y, side in squares)
    np.testing.assert_allclose(boxes, wanted, atol=12)


class Fragments(Squares):
    """Takes the middle of what fills a tile for a small face, as an eye may be."""

    def _squares(self, image: np.ndarray) -> Faces:
        if max(image.shape[:2]) > self.side or not (image > 127).all():
            return super()._squares(image)
        box = np.float32([[300, 300, 340, 340]])
        return Faces(box, np.float32([0.99]), np.full((1, 5, 2), 320, np.float32))


def test_a_part_of_a_large_face_is_no_face() -> None:
    (found,) = LargerLook(Fragments()).detect([image_of((3000, 3000), (300, 300, 2400))])
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes_xyxy, [[300, 300, 2700, 2700]], atol=6)


@given(st.integers(1, 5000), st.data())
def test_a_small_face_lies_wholly_in_a_tile(length: int, data: st.DataObject) -> None:
    look = LargerLook(Squares(), tile_px=640, overlap_px=128)
    starts = look._starts(length)
    face = data.draw(st.integers(0, max(0, length - 128)))
    assert any(start <= face and min(face + 128, length) <= start + 640 for start in starts)
    assert starts[0] == 0
    assert len(starts) == 1 or starts[-1] == length - 640


@pytest.mark.parametrize("options", [{"overlap_px": 0}, {"overlap_px": 400}, {"most_px": 500}])
def test_numbers_that_do_not_fit_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="overlap_px"):
        LargerLook(Squares(), **options)
