"""Detect faces that a decoder put together from pieces that do not fit."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import FloatArray, Image

_GRID_PX: Final = 8
_LENGTH_PX: Final = 4
_LEAST_SIDE_PX: Final = 48
_MOST_LINES: Final = 48
_MARGIN: Final = 0.1
_LEAST_BREAK: Final = 4.0
_MOST_BREAK: Final = 30.0
_WHOLE: Final = 0.10
_BROKEN: Final = 0.11
_MOST_EQUAL: Final = 0.5


def wholeness(image: Image, boxes_xyxy: FloatArray) -> FloatArray:
    """The factor by which damage to the picture lowers each face's quality: 1 unless it is evident.

    Decoders fill damaged blocks with something else. Where it ends, grey values jump from one pixel to the
    next along a straight horizontal or vertical line; in what a lens has seen, they change over several
    pixels. The blocks' grid is not relied upon: motion carries damage off it.

    Args:
        image: uint8 (H, W, 3) BGR, as decoded. Scaling and blurring hide damage.
        boxes_xyxy: float32 (N, 4), pixels of the image; may reach beyond it.

    Returns:
        float32 (N,), 0..1; 1 for faces below about 60 pixels, where sharpened edges look the same, and in
        pictures that were enlarged by repeating pixels.
    """
    breaks = np.array([_breaks(_grey(image, box)) for box in boxes_xyxy.tolist()], np.float32)
    return np.asarray(np.clip((_BROKEN - breaks) / (_BROKEN - _WHOLE), 0, 1), np.float32)


def _grey(image: Image, box_xyxy: tuple[float, float, float, float]) -> npt.NDArray[np.uint8]:
    """The face without its surroundings, cut along the grid of most codecs' blocks."""
    height, width = image.shape[:2]
    left, top, right, bottom = box_xyxy
    across, down = _MARGIN * (right - left), _MARGIN * (bottom - top)
    x0, x1 = (_on_grid(x, width) for x in (left + across, right - across))
    y0, y1 = (_on_grid(y, height) for y in (top + down, bottom - down))
    if min(x1 - x0, y1 - y0) < _LEAST_SIDE_PX:
        return np.empty((0, 0), np.uint8)
    return np.asarray(cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_BGR2GRAY), np.uint8)


def _on_grid(value: float, most: int) -> int:
    return round(min(max(value, 0), most) // _GRID_PX) * _GRID_PX


def _breaks(grey: npt.NDArray[np.uint8]) -> float:
    """Mean height of the breaks along all short lines, over the median step between two pixels."""
    if not grey.size:
        return 0.0
    steps = [_steps(grey), _steps(grey.T)]
    if min(float((each == 0).mean()) for each in steps) >= _MOST_EQUAL:  # repeated pixels, or no picture
        return 0.0
    # A break is a step that towers over both of its neighbours.
    heights = [each[:, 1:-1] - each[:, :-2] - each[:, 2:] - _LEAST_BREAK for each in steps]
    total = sum(float(each.clip(0, _MOST_BREAK).sum()) for each in heights)
    usual = float(np.median(np.concatenate([each[:, ::5].ravel() for each in steps])))
    return total / sum(each.size for each in heights) / (1 + usual)


def _steps(grey: npt.NDArray[np.uint8]) -> FloatArray:
    """Differences between columns, each averaged over four rows; of large faces, of some of the rows."""
    rows, width = grey.shape[0] // _LENGTH_PX, grey.shape[1]
    lines = grey.reshape(rows, _LENGTH_PX, width)[:: -(-rows // _MOST_LINES)]
    means = lines.mean(axis=1, dtype=np.float32)
    return np.asarray(np.abs(np.diff(means, axis=1)), np.float32)
