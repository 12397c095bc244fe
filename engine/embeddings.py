"""Embeddings: unit vectors whose dot product is a cosine, and their 128-byte form."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""float32 (N, D), rows of unit length."""


def unit_rows(vectors: npt.NDArray[np.floating]) -> Embeddings:
    """Scale each row to unit length; a row of zeros stays zero.

    Args:
        vectors: float (..., D).

    Returns:
        float32 of the same shape.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def similarity(a: Embeddings, b: Embeddings) -> npt.NDArray[np.float32]:
    """Cosine of each row of ``a`` with each row of ``b``; higher is nearer.

    The squared L2 distance of FaceNet (arXiv 1503.03832, section 3) is ``2 - 2 * similarity``.

    Args:
        a: float32 (N, D), unit rows.
        b: float32 (M, D), unit rows.

    Returns:
        float32 (N, M), -1..1.
    """
    return a @ b.T


def quantise_int8(embedding: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], float]:
    """Symmetric int8 form of one embedding: ``embedding ≈ values * scale``.

    FaceNet stores 128 values in 128 bytes without naming a scheme (section 4); this one is ours. Cosines
    may be computed on the int8 values directly, since the scale cancels.

    Args:
        embedding: float32 (D,).

    Returns:
        int8 (D,) in -127..127, and the scale (> 0).

    Raises:
        ValueError: The embedding is not finite, or not one-dimensional.
    """
    if embedding.ndim != 1 or not np.isfinite(embedding).all():
        raise ValueError(f"expected a finite vector of one dimension, got shape {embedding.shape}")
    peak = float(np.abs(embedding).max(initial=0.0))
    scale = peak / 127.0
    if scale < np.finfo(np.float32).tiny:  # what is smaller cannot be divided by, and counts as zero
        scale = 1.0
    return np.rint(embedding / scale).astype(np.int8), scale


def dequantise_int8(values: npt.NDArray[np.int8], scale: float) -> npt.NDArray[np.float32]:
    """Unit-length float32 form of what ``quantise_int8`` made.

    Args:
        values: int8 (D,).
        scale: As ``quantise_int8`` gave it.

    Returns:
        float32 (D,), unit length (zero stays zero).
    """
    return unit_rows(values.astype(np.float32) * np.float32(scale))
