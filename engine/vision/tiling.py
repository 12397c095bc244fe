"""Look at large photographs a second time, in tiles: a face that is small in them is large enough there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import Faces, FloatArray, Image
from engine.vision.detection import Detector, check_images, suppress

_LARGE: Final = 1.25
"""An image is large from so many times a tile's side on."""
_SAME_FACE_IOU: Final = 0.3


class LargerLook:
    """A detector that looks at large images twice: at the whole, shrunk, and at overlapping tiles of it.

    Detectors shrink an image to their working size, 640 pixels by default: a face of 100 pixels in a
    photograph of 24 megapixels has 11 then, too few to be found. In the tiles of such a photograph, which is
    shrunk to ``most_px`` for them, it has 43. Faces that are large enough in the first look are taken from
    there, since tiles may cut them. There are at most 25 tiles of 640 pixels; images that are not large are
    looked at once.

    ``detect`` may be called from several threads.

    Args:
        detector: Looks at images and tiles, which have the side of its working size, so that it does not
            shrink them.
        tile_px: That size.
        overlap_px: Of neighbouring tiles. Faces up to this size lie wholly within one of them.
        most_px: Images are shrunk for the second look, never enlarged, until the longer side has at most so
            many pixels.

    Raises:
        ValueError: The numbers do not fit.
    """

    def __init__(
        self, detector: Detector, *, tile_px: int = 640, overlap_px: int = 128, most_px: int = 2560
    ) -> None:
        if not 0 < overlap_px <= tile_px // 2 or most_px < tile_px:
            raise ValueError(
                "expected an overlap_px of at most half of tile_px, and most_px not below tile_px, "
                f"got {overlap_px}, {tile_px} and {most_px}"
            )
        self._detector = detector
        self._tile_px = tile_px
        self._overlap_px = overlap_px
        self._most_px = most_px

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in each image; see ``Detector.detect``."""
        check_images(images)
        return [
            self._look_again(image, faces) if self._is_large(image) else faces
            for image, faces in zip(images, self._detector.detect(images), strict=True)
        ]

    def _is_large(self, image: Image) -> bool:
        return bool(max(image.shape[:2]) > _LARGE * self._tile_px)

    def _look_again(self, image: Image, faces: Faces) -> Faces:
        """The faces of the first look and the small ones of the tiles, highest score first."""
        scale = min(1.0, self._most_px / max(image.shape[:2]))
        size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        shrunk = image if scale == 1 else cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
        corners = [(x, y) for y in self._starts(shrunk.shape[0]) for x in self._starts(shrunk.shape[1])]
        side = self._tile_px
        tiles = [np.asarray(shrunk[y : y + side, x : x + side], np.uint8) for x, y in corners]
        found = [
            _moved(self._small(seen, (shrunk.shape[1] - x, shrunk.shape[0] - y), (x, y)), (x, y))
            for (x, y), seen in zip(corners, self._detector.detect(tiles), strict=True)
        ]
        factors = np.array([image.shape[1] / size_wh[0], image.shape[0] / size_wh[1]], np.float32)
        small = _joined(found).scaled(factors)
        large = faces[_sides(faces) * scale > self._overlap_px]
        small = small[_outside(small, large)]
        return suppress(_joined([faces, small]), max_iou=_SAME_FACE_IOU)

    def _starts(self, length: int) -> list[int]:
        """Where tiles begin along a side: evenly, and overlapping by ``overlap_px`` or more."""
        room = max(0, length - self._tile_px)
        steps = -(-room // (self._tile_px - self._overlap_px))
        return [round(room * step / steps) for step in range(steps + 1)] if steps else [0]

    def _small(self, faces: Faces, rest_wh: tuple[int, int], corner_xy: tuple[int, int]) -> Faces:
        """Faces of a tile that are not larger than the overlap, and not cut by an edge within the image."""
        left, top, right, bottom = faces.boxes_xyxy.T
        side = self._tile_px
        cut = (left <= 0) & (corner_xy[0] > 0) | (top <= 0) & (corner_xy[1] > 0)
        cut |= (right >= side) & (rest_wh[0] > side) | (bottom >= side) & (rest_wh[1] > side)
        return faces[~cut & (_sides(faces) <= self._overlap_px)]


def _sides(faces: Faces) -> FloatArray:
    """The longer side of each box."""
    return np.asarray((faces.boxes_xyxy[:, 2:] - faces.boxes_xyxy[:, :2]).max(axis=1, initial=0), np.float32)


def _outside(faces: Faces, others: Faces) -> npt.NDArray[np.bool_]:
    """Whether the centre of each face lies in none of the others: an eye may be taken for a face."""
    x, y = ((faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2).T[..., None]
    left, top, right, bottom = others.boxes_xyxy.T
    inside = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
    return np.asarray(~inside.any(axis=1), np.bool_)


def _joined(parts: Sequence[Faces]) -> Faces:
    return Faces(
        np.concatenate([part.boxes_xyxy for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.landmarks_xy for part in parts]),
    )


def _moved(faces: Faces, by_xy: tuple[int, int]) -> Faces:
    by = np.array(by_xy, np.float32)
    return Faces(faces.boxes_xyxy + np.tile(by, 2), faces.scores, faces.landmarks_xy + by)
