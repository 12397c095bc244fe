"""Notice when the picture jumps to another scene, from a few hundred of its pixels."""

from __future__ import annotations

import math
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import Image

Thumbnail: TypeAlias = npt.NDArray[np.float32]

_COLUMNS, _ROWS = 32, 18
_SHARED_VARIANCE = 4.0**2
_MEMORY = 0.8
_RATIO = 3.0


class SceneCutDetector:
    """Compares small grey thumbnails of successive frames by correlation.

    Correlation does not mind a lamp that is switched on or a camera that adapts to the light. The difference
    of two frames (1 - correlation) must be large in itself, and large against what was usual lately, so that
    a shaking or panning camera is not taken for a cut.

    A cut that is seen where none was costs one embedding for each face; a cut that is missed is left to the
    embeddings to find.

    Args:
        min_change: Least difference at a cut. Unrelated scenes differ by about 1, successive frames of one
            scene by less than 0.1, and by up to 0.5 when the camera moves fast.
        sure_change: Difference from which it is a cut whatever the camera does; in between, it must be three
            times the recent mean.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(self, *, min_change: float = 0.6, sure_change: float = 0.8) -> None:
        if not 0 < min_change <= sure_change <= 2:
            raise ValueError(
                f"expected 0 < min_change <= sure_change <= 2, got {min_change} and {sure_change}"
            )
        self._min_change = min_change
        self._sure_change = sure_change
        self._last: Thumbnail | None = None
        self._usual = 0.0

    def is_cut(self, image: Image) -> bool:
        """Take in the next frame and tell whether it begins another scene than the one before.

        Args:
            image: uint8 (H, W, 3), at least one pixel.
        """
        last, self._last = self._last, thumbnail(image)
        if last is None:
            return False
        change = difference(last, self._last)
        unusual = _RATIO * self._usual
        if change >= max(self._min_change, min(unusual, self._sure_change)):
            return True
        self._usual = _MEMORY * self._usual + (1 - _MEMORY) * change
        return False


def thumbnail(image: Image) -> Thumbnail:
    """Grey picture of fixed size, made of at most a few thousand pixels of the image.

    Args:
        image: uint8 (H, W, 3).

    Returns:
        float32 (18, 32), 0..255.
    """
    row_step, column_step = (max(1, image.shape[0] // (2 * _ROWS)), max(1, image.shape[1] // (2 * _COLUMNS)))
    sparse = np.ascontiguousarray(image[row_step // 2 :: row_step, column_step // 2 :: column_step])
    small = cv2.resize(sparse, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def difference(a: Thumbnail, b: Thumbnail) -> float:
    """One minus the correlation of two thumbnails, 0..2.

    A contrast of four grey values that both share is added to both, so that the noise in two dark or empty
    pictures does not make them different.

    Args:
        a: Of one picture.
        b: Of another; the order does not count.
    """
    a, b = a - a.mean(), b - b.mean()
    variance_a, variance_b, covariance = (
        float((x * y).mean()) + _SHARED_VARIANCE for x, y in ((a, a), (b, b), (a, b))
    )
    return 1.0 - covariance / math.sqrt(variance_a * variance_b)
