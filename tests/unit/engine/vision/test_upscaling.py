from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engine.faces import Faces
from engine.vision.upscaling import EnlargingDetector


class BrightSpot:
    """Finds the middle of what is bright."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        self.shapes += [image.shape[:2] for image in images]
        return [self._spot(image) for image in images]

    def _spot(self, image: np.ndarray) -> Faces:
        rows, columns = np.nonzero(image[..., 0] > 100)
        if not len(rows):
            return Faces.none()
        box = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        middle = np.float32([columns.mean(), rows.mean()])
        return Faces(np.float32([box]), np.ones(1, np.float32), np.tile(middle, (1, 5, 1)))


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_faces_are_told_in_the_images_own_pixels(factor: float) -> None:
    image = np.zeros((120, 90, 3), np.uint8)
    image[40:60, 10:40] = 255
    plain, spot = BrightSpot(), BrightSpot()
    (wanted,) = plain.detect([image])
    detector = EnlargingDetector(spot, factor=factor, most_px=360)
    found, none = detector.detect([image, np.zeros_like(image)])
    assert spot.shapes[0] == (round(120 * factor), round(90 * factor))
    np.testing.assert_allclose(found.landmarks_xy, wanted.landmarks_xy, atol=0.02)
    np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=0.5)
    assert len(none) == 0


def test_large_images_stay_as_they_are() -> None:
    spot = BrightSpot()
    image = np.full((200, 321, 3), 255, np.uint8)
    (found,) = EnlargingDetector(spot).detect([image])
    assert spot.shapes == [(200, 321)]
    np.testing.assert_array_equal(found.boxes_xyxy, [[-0.5, -0.5, 320.5, 199.5]])
    EnlargingDetector(spot).detect([image[:, :320]])
    assert spot.shapes[1] == (400, 640)


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"factor": 1.0}, {"factor": float("nan")}, {"most_px": 0}):
        with pytest.raises(ValueError, match="expected a factor above 1"):
            EnlargingDetector(BrightSpot(), **wrong)
    with pytest.raises(ValueError, match="image: expected uint8"):
        EnlargingDetector(BrightSpot()).detect([np.zeros((0, 4, 3), np.uint8)])
    with pytest.raises(TypeError, match=r"image: expected a numpy array, .* got str"):
        EnlargingDetector(BrightSpot()).detect(["photo.jpg"])  # type: ignore[list-item]
