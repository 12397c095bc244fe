"""The nouns of the vision half: an image, and the faces found in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), channels in the order blue, green, red."""

FloatArray: TypeAlias = npt.NDArray[np.float32]

LANDMARKS = ("right eye", "left eye", "nose", "right mouth corner", "left mouth corner")
"""Order of the five points of a face; right and left are the person's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Faces found in one image, as parallel arrays.

    Attributes:
        boxes_xyxy: float32 (N, 4), pixels: left, top, right, bottom. May reach beyond the image.
        scores: float32 (N,), detector confidence, 0..1.
        landmarks_xy: float32 (N, 5, 2), pixels, in the order of ``LANDMARKS``.

    Raises:
        ValueError: An array has another shape or dtype.
    """

    boxes_xyxy: FloatArray
    scores: FloatArray
    landmarks_xy: FloatArray

    def __post_init__(self) -> None:
        count = len(self.scores)
        expected = {"boxes_xyxy": (count, 4), "scores": (count,), "landmarks_xy": (count, 5, 2)}
        for name, shape in expected.items():
            array: FloatArray = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {shape}, got {array.dtype} {array.shape}")

    @classmethod
    def none(cls) -> Faces:
        """No face at all."""
        return cls(
            boxes_xyxy=np.empty((0, 4), np.float32),
            scores=np.empty(0, np.float32),
            landmarks_xy=np.empty((0, 5, 2), np.float32),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> Faces:
        """Pick rows by mask, indices or slice (not by a single number, which would lose a dimension)."""
        return Faces(self.boxes_xyxy[rows], self.scores[rows], self.landmarks_xy[rows])

    def scaled(self, factors_xy: FloatArray) -> Faces:
        """The same faces in another image's pixels.

        Args:
            factors_xy: float32 (2,): what x and y are multiplied with.
        """
        return Faces(self.boxes_xyxy * np.tile(factors_xy, 2), self.scores, self.landmarks_xy * factors_xy)
