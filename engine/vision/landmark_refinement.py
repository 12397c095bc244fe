"""Detect landmarks again in upright, enlarged faces: they are more accurate, and so are embeddings."""

from __future__ import annotations

from typing import Final

import numpy as np

from engine.faces import Faces, FloatArray, Image
from engine.geometry import similarity_transforms, transform_points
from engine.models.alignment import ARCFACE_TEMPLATE_XY, align_faces
from engine.models.package import Patch
from engine.vision.detection import Detector

_SIDE_PX: Final = 320
_ENLARGED: Final = 2.0
"""Faces in the crops that are looked at are so much larger than in ArcFace's of 112 pixels."""
_FARTHEST_PX: Final = 35.0
"""Half of the distance between the eyes: landmarks that are further off on average are another face's."""
_SWAPPED: Final = (1, 0, 2, 4, 3)
"""Order of the landmarks in a mirror image: left and right change places."""
_SMALLEST: Final = 1e-12


def _upright() -> Patch:
    template = np.array(ARCFACE_TEMPLATE_XY)
    points = (template - template.mean(axis=0)) * _ENLARGED + (_SIDE_PX - 1) / 2
    return Patch(_SIDE_PX, tuple((float(x), float(y)) for x, y in points))


_UPRIGHT: Final = _upright()
_TEMPLATE_XY: Final = np.array(_UPRIGHT.template_xy, np.float32)


class SecondLook:
    """Finds the landmarks of faces again, in crops that are upright and of one size, and mirrored.

    Args:
        detector: Looks at two crops of each face, 320 by 320 pixels. It may be the one that found them.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def landmarks(self, image: Image, landmarks_xy: FloatArray) -> FloatArray:
        """Where the landmarks lie, seen from near. May be called from several threads.

        Args:
            image: uint8 (H, W, 3) BGR.
            landmarks_xy: float32 (N, 5, 2), pixels, as they were found first.

        Returns:
            float32 (N, 5, 2), pixels: the mean of where they are in the crop and in its mirror image. Of a
            face that is found in neither, they stay as they were.

        Raises:
            ModelError: An engine failed.
        """
        if not len(landmarks_xy):
            return landmarks_xy
        to_crop = similarity_transforms(landmarks_xy, _TEMPLATE_XY)
        crops = align_faces(image, landmarks_xy, [_UPRIGHT])
        looks = self._detector.detect([*crops, *np.ascontiguousarray(crops[:, :, ::-1])])
        first = transform_points(landmarks_xy, to_crop)
        seen = np.stack(
            [
                [_nearest(faces, points) for faces, points in zip(some, where, strict=True)]
                for some, where in ((looks[: len(crops)], first), (looks[len(crops) :], _mirrored(first)))
            ]
        )
        seen[1] = _mirrored(seen[1])
        there = np.isfinite(seen).all(axis=(2, 3), keepdims=True)
        looked = there.sum(axis=0)
        mean = np.where(there, seen, 0).sum(axis=0) / np.maximum(looked, 1)
        moved = transform_points(mean, _inverse(to_crop))
        return np.where(looked > 0, moved, landmarks_xy)


def _nearest(faces: Faces, landmarks_xy: FloatArray) -> FloatArray:
    """Landmarks (5, 2) of the face that lies where one was found before; NaN where there is none."""
    if not len(faces):
        return np.full_like(landmarks_xy, np.nan)
    off = np.linalg.norm(faces.landmarks_xy - landmarks_xy, axis=2).mean(axis=1)
    nearest = faces.landmarks_xy[off.argmin()]
    return nearest if off.min() <= _FARTHEST_PX else np.full_like(landmarks_xy, np.nan)


def _mirrored(landmarks_xy: FloatArray) -> FloatArray:
    """Landmarks (N, 5, 2) of upright crops in their mirror images, and the other way round."""
    mirrored = landmarks_xy[:, _SWAPPED]
    mirrored[:, :, 0] = _SIDE_PX - 1 - mirrored[:, :, 0]
    return mirrored


def _inverse(matrices: FloatArray) -> FloatArray:
    """The way back of similarity transforms (N, 2, 3). Of scale 0 there is none: numbers are finite."""
    turned = matrices[:, :, :2].transpose(0, 2, 1)
    squared = np.maximum(np.square(matrices[:, :, 0]).sum(axis=1), _SMALLEST)[:, None, None]
    back = turned / squared
    return np.concatenate([back, -back @ matrices[:, :, 2:]], axis=2)
