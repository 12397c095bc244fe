"""Turn faces upright: warp them so that their landmarks lie where the embedder expects them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import FloatArray, Image
from engine.geometry import similarity_transforms
from engine.models.package import Patch, canvas_wh

ARCFACE_TEMPLATE_XY: Final[tuple[tuple[float, float], ...]] = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""The five landmarks in a crop of 112 by 112 pixels (ArcFace, arXiv 1801.07698; from its authors' code)."""

_LEAST_SCALE: Final = 1e-3
"""Landmarks that would have to be shrunk further are no face."""


def align_faces(image: Image, landmarks_xy: FloatArray, patches: Sequence[Patch]) -> npt.NDArray[np.uint8]:
    """Cut out faces, upright and of one size.

    Args:
        image: uint8 (H, W, 3).
        landmarks_xy: float32 (N, 5, 2), pixels of the image.
        patches: The aligned views wanted of each face, one or more.

    Returns:
        uint8 (N, canvas height, canvas width, 3), in the image's channel order: the views side by side. Black
        where the image ends, and altogether where the landmarks lie in one point.
    """
    width, height = canvas_wh(patches)
    canvases = np.zeros((len(landmarks_xy), height, width, 3), np.uint8)
    left = 0
    for patch in patches:
        views = canvases[:, : patch.size_px, left : left + patch.size_px]
        template = np.array(patch.template_xy, np.float32)
        for view, matrix in zip(views, similarity_transforms(landmarks_xy, template), strict=True):
            _warp(image, matrix, view)
        left += patch.size_px
    return canvases


def _warp(image: Image, matrix: FloatArray, crop: npt.NDArray[np.uint8]) -> None:
    """Warp without aliasing: bilinear sampling skips pixels below half size, so shrink by area first."""
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < _LEAST_SCALE:
        return
    if (factor := int(1 / scale)) >= 2:
        image, matrix = _shrink(image, matrix, factor, crop.shape[0])
    if image.size:
        cv2.warpAffine(image, matrix, crop.shape[1::-1], dst=crop, flags=cv2.INTER_LINEAR)


def _shrink(image: Image, matrix: FloatArray, factor: int, size_px: int) -> tuple[Image, FloatArray]:
    """The part of the image that the crop shows, shrunk by a whole factor, and the matrix that fits it."""
    corners = np.array([[0, 0], [size_px, 0], [0, size_px], [size_px, size_px]], np.float64)
    rotation, shift = matrix[:, :2].astype(np.float64), matrix[:, 2].astype(np.float64)
    seen = (corners - shift) @ np.linalg.inv(rotation).T
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(seen.min(axis=0)) - factor, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(seen.max(axis=0)) + factor, 0, (width, height)).astype(int)
    columns, rows = (right - left) // factor, (bottom - top) // factor
    if columns < 1 or rows < 1:
        return image[:0], matrix
    part = image[top : top + rows * factor, left : left + columns * factor]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    # A pixel of the small image has its centre at factor * x + (factor - 1) / 2 of the part.
    centre = np.array([left, top]) + (factor - 1) / 2
    fitted = np.column_stack([rotation * factor, rotation @ centre + shift])
    return np.asarray(small, np.uint8), fitted.astype(np.float32)
