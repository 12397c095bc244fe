"""What every detector does: its protocol, the check of images, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import Faces, Image


class Detector(Protocol):
    """Finds faces and their landmarks. ``detect`` may be called from several threads."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in each image.

        Args:
            images: uint8 (H, W, 3) BGR, of any sizes.

        Returns:
            Faces of each image, in its own pixels, highest score first.

        Raises:
            ValueError: An image has another dtype or shape, or no pixels.
            ModelError: An engine failed.
        """


def check_images(images: Sequence[Image]) -> None:
    """Refuse what is no image.

    Raises:
        TypeError: An image is no array.
        ValueError: It has another dtype or shape than uint8 (H, W, 3), or no pixels.
    """
    for image in images:
        if not isinstance(image, np.ndarray):
            raise TypeError(f"image: expected a numpy array, uint8 (H, W, 3), got {type(image).__name__}")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")


def suppress(faces: Faces, *, max_iou: float) -> Faces:
    """Greedy non-maximum suppression.

    Args:
        faces: In any order.
        max_iou: Of two boxes that overlap more, the one of lower score goes.

    Returns:
        Those that stay, highest score first.
    """
    if len(faces) == 0:
        return faces
    boxes_xywh: npt.NDArray[np.float64] = faces.boxes_xyxy.astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    kept = cv2.dnn.NMSBoxes(boxes_xywh.tolist(), faces.scores.tolist(), 0.0, max_iou)
    return faces[np.asarray(kept, np.intp)]
