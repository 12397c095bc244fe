"""Which detection continues which track: one-to-one, by overlap."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from engine.faces import FloatArray
from engine.geometry import iou

Rows: TypeAlias = npt.NDArray[np.intp]


def associate(
    tracks_xyxy: FloatArray, faces_xyxy: FloatArray, *, min_overlap: float, margin: float = 0.0
) -> tuple[Rows, Rows]:
    """Pair tracks with faces so that the sum of their overlaps is the largest.

    The overlap is the intersection over union of the boxes, each widened by ``margin`` of its size on every
    side, so that a small face which moved by its own width between two looks still overlaps with its
    prediction (buffered IoU; Yang et al., arXiv 2211.14317, section 3.2).

    Args:
        tracks_xyxy: float32 (T, 4), pixels; where the tracks should be now.
        faces_xyxy: float32 (F, 4), pixels.
        min_overlap: Pairs that overlap less are never made, > 0..1.
        margin: Share of width and height by which each side is moved outwards, >= 0.

    Returns:
        Two arrays of equal length: rows of ``tracks_xyxy``, and the rows of ``faces_xyxy`` paired with them.
    """
    if not len(tracks_xyxy) or not len(faces_xyxy):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    overlap = iou(widened(tracks_xyxy, margin), widened(faces_xyxy, margin))
    allowed = overlap >= min_overlap
    tracks, faces = linear_sum_assignment(np.where(allowed, overlap, 0.0), maximize=True)
    kept = allowed[tracks, faces]
    return tracks[kept], faces[kept]


def widened(boxes_xyxy: FloatArray, margin: float) -> FloatArray:
    """Boxes with each side moved outwards by ``margin`` times the width or height.

    Args:
        boxes_xyxy: float32 (N, 4), pixels.
        margin: Share of the size, >= 0.
    """
    shift = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * np.float32(margin)
    return np.concatenate([boxes_xyxy[:, :2] - shift, boxes_xyxy[:, 2:] + shift], axis=1)
