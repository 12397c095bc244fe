"""Boxes, similarity transforms and letterboxes, on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import FloatArray, Image


def iou(a_xyxy: FloatArray, b_xyxy: FloatArray) -> FloatArray:
    """Intersection over union of each box of ``a`` with each box of ``b``.

    Args:
        a_xyxy: float32 (N, 4): left, top, right, bottom.
        b_xyxy: float32 (M, 4).

    Returns:
        float32 (N, M), 0..1; 0 where a box has no area.
    """
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    union = _area(a_xyxy)[:, None] + _area(b_xyxy)[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def _area(boxes_xyxy: FloatArray) -> FloatArray:
    sides: FloatArray = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def similarity_transforms(points_xy: FloatArray, template_xy: FloatArray) -> FloatArray:
    """Rotation, uniform scale and shift that bring each set of points nearest to the template.

    Least squares without reflection: Umeyama, "Least-squares estimation of transformation parameters
    between two point patterns", PAMI 1991, equations 40 to 42. In two dimensions, with points as complex
    numbers, it is linear regression: ``w = a z + b``, ``a = Σ conj(z) w / Σ |z|²`` of the centred points.

    Args:
        points_xy: float32 (N, P, 2).
        template_xy: float32 (P, 2).

    Returns:
        float32 (N, 2, 3): matrices that map points to the template. Where all points of a set coincide,
        the scale is 0 and everything maps to the template's centre.
    """
    points = np.asarray(points_xy, np.float64)
    template = np.asarray(template_xy, np.float64)
    z = points[..., 0] + 1j * points[..., 1]
    w = template[..., 0] + 1j * template[..., 1]
    z_mean, w_mean = z.mean(axis=1), w.mean()
    z_centred = z - z_mean[:, None]
    spread = (z_centred.real**2 + z_centred.imag**2).sum(axis=1)
    a = (z_centred.conj() * (w - w_mean)).sum(axis=1) / np.maximum(spread, np.finfo(np.float64).tiny)
    b = w_mean - a * z_mean
    rows = [np.stack([a.real, -a.imag, b.real], axis=1), np.stack([a.imag, a.real, b.imag], axis=1)]
    matrices: FloatArray = np.stack(rows, axis=1).astype(np.float32)
    return matrices


def transform_points(points_xy: FloatArray, matrices: FloatArray) -> FloatArray:
    """Apply one matrix to each set of points.

    Args:
        points_xy: float32 (N, P, 2).
        matrices: float32 (N, 2, 3).

    Returns:
        float32 (N, P, 2).
    """
    moved = points_xy @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
    return np.asarray(moved, np.float32)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image lies on its canvas: shrunk, in the top left corner, black around it.

    Attributes:
        image_wh: Size of the image, pixels.
        scaled_wh: Size that it has on the canvas.
        canvas_wh: Size of the canvas.
    """

    image_wh: tuple[int, int]
    scaled_wh: tuple[int, int]
    canvas_wh: tuple[int, int]

    @classmethod
    def fit(cls, image_wh: tuple[int, int], *, long_side_px: int, multiple: int) -> Letterbox:
        """Shrink an image, never enlarge it, so that its longer side has at most ``long_side_px``.

        Args:
            image_wh: Width and height, each at least 1.
            long_side_px: Most pixels of the longer side.
            multiple: Both sides of the canvas are multiples of it.
        """
        scale = min(1.0, long_side_px / max(image_wh))
        width, height = (max(1, round(side * scale)) for side in image_wh)
        return cls(image_wh, (width, height), (_round_up(width, multiple), _round_up(height, multiple)))

    @property
    def to_image(self) -> FloatArray:
        """float32 (2,): factors that take canvas pixels (x, y) to image pixels."""
        return np.divide(self.image_wh, self.scaled_wh).astype(np.float32)

    def draw(self, image: Image, canvas: npt.NDArray[np.uint8]) -> None:
        """Write the image to its place on a canvas that is black there.

        Args:
            image: uint8 (H, W, 3), of the size ``image_wh``.
            canvas: uint8 (canvas H, canvas W, 3), written to.
        """
        width, height = self.scaled_wh
        place = canvas[:height, :width]
        if self.scaled_wh == self.image_wh:
            place[:] = image
        else:
            cv2.resize(image, self.scaled_wh, dst=place, interpolation=self._interpolation())

    def _interpolation(self) -> int:
        # Bilinear reads four pixels: below half size it misses some, and the picture aliases.
        halves = self.image_wh[0] >= 2 * self.scaled_wh[0]
        return cv2.INTER_AREA if halves else cv2.INTER_LINEAR


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
