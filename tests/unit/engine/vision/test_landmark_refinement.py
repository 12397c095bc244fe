from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.faces import Faces
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.vision.landmark_refinement import SecondLook

COLOURS = np.uint8([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0], [0, 250, 250]])


class ColourDots:
    """Finds faces made of five dots: each landmark is the middle of what has its colour.

    Args:
        blind: It finds no face in images of these numbers, counted from 0.
        off_xy: It is off by so many pixels, to the right and down in the picture that it sees.
    """

    def __init__(self, *, blind: Sequence[int] = (), off_xy: tuple[float, float] = (0, 0)) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._blind = blind
        self._off = np.float32(off_xy)

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        first = len(self.shapes)
        self.shapes += [image.shape for image in images]
        return [
            Faces.none() if number in self._blind else self._face(image)
            for number, image in enumerate(images, first)
        ]

    def _face(self, image: np.ndarray) -> Faces:
        mirrored = self._middle(image, 0)[0] > self._middle(image, 1)[0]
        order = (1, 0, 2, 4, 3) if mirrored else range(5)
        points = np.stack([self._middle(image, each) for each in order]) + self._off
        return Faces(np.zeros((1, 4), np.float32), np.ones(1, np.float32), points[None].astype(np.float32))

    def _middle(self, image: np.ndarray, landmark: int) -> np.ndarray:
        near = ((image > 125) == (COLOURS[landmark] > 125)).all(axis=2)
        return np.argwhere(near).mean(axis=0)[::-1]


def dotted(*faces: np.ndarray) -> np.ndarray:
    """A picture of faces, given by their landmarks (5, 2)."""
    image = np.zeros((400, 600, 3), np.uint8)
    rows, columns = np.mgrid[:400, :600]
    for face in faces:
        for (x, y), colour in zip(face, COLOURS, strict=True):
            image[np.hypot(columns - x, rows - y) < 5] = colour
    return image


def face_at(x: float, y: float, *, scale: float = 1.0, degrees: float = 0.0) -> np.ndarray:
    template = np.float32(ARCFACE_TEMPLATE_XY) - 56
    angle = np.deg2rad(degrees)
    turn = scale * np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (template @ turn.T + np.float32([x, y])).astype(np.float32)


FACES = np.stack([face_at(150, 200, scale=1.2, degrees=30), face_at(430, 180, degrees=-80)])


def test_landmarks_are_found_where_they_are_however_the_face_is_turned() -> None:
    detector = ColourDots()
    rough = FACES + np.float32([4, -3])
    found = SecondLook(detector).landmarks(dotted(*FACES), rough)
    assert found == pytest.approx(FACES, abs=0.5)
    assert found.dtype == np.float32
    assert detector.shapes == [(320, 320, 3)] * 4


def test_what_is_off_in_the_face_and_in_its_mirror_image_cancels_out() -> None:
    found = SecondLook(ColourDots(off_xy=(6, 0))).landmarks(dotted(*FACES), FACES)
    assert found == pytest.approx(FACES, abs=0.5)
    one_sided = SecondLook(ColourDots(off_xy=(6, 0), blind=(2, 3))).landmarks(dotted(*FACES), FACES)
    assert np.linalg.norm(one_sided - FACES, axis=2) == pytest.approx(np.tile([[3.6], [3.0]], 5), abs=0.5)


def test_a_face_that_is_not_found_again_stays_where_it_was() -> None:
    rough = FACES + np.float32([4, -3])
    found = SecondLook(ColourDots(blind=(0, 2))).landmarks(dotted(*FACES), rough)
    np.testing.assert_array_equal(found[0], rough[0])
    assert found[1] == pytest.approx(FACES[1], abs=0.5)


def test_another_face_near_by_is_not_taken() -> None:
    rough = FACES[:1] + np.float32([0, 30])
    found = SecondLook(ColourDots()).landmarks(dotted(*FACES), rough)
    np.testing.assert_array_equal(found, rough)


@pytest.mark.filterwarnings("error")
def test_no_faces_and_faces_of_no_size_are_left_alone() -> None:
    none = np.empty((0, 5, 2), np.float32)
    assert SecondLook(ColourDots()).landmarks(dotted(), none).shape == (0, 5, 2)
    point = np.full((1, 5, 2), 7, np.float32)
    np.testing.assert_array_equal(SecondLook(ColourDots(blind=(0, 1))).landmarks(dotted(), point), point)
