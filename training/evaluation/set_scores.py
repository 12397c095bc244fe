"""Similarity of two sets of faces: of two videos, each with its frames' embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from training.data.array_types import Scores
from training.evaluation.fold_accuracy import NEVER_ACCEPTED

SetScore: TypeAlias = Literal["all-pairs", "mean", "weighted", "nearest"]
"""Four scores of two sets, all cosines or means of cosines, -1..1.

- ``all-pairs``: mean cosine over all pairs of one face of each set: FaceNet's score for YTF. It equals the
  dot product of the means, not scaled to unit length, so it costs O(n). As FaceNet's squared distance:
  ``2 - 2 * score``.
- ``mean``: cosine of the means; many scripts call this the paper's score, which it is not.
- ``weighted``: cosine of the means weighted with the faces' quality, as the stream's templates are made.
- ``nearest``: the largest cosine of all pairs.
"""

LEAST_WEIGHT: Final = 1e-3
"""Faces of lower quality count so much, so that a set of nothing but bad faces still has a mean."""


def score_sets(
    sets: Sequence[Embeddings],
    first: npt.NDArray[np.intp],
    second: npt.NDArray[np.intp],
    *,
    how: SetScore = "all-pairs",
    qualities: Sequence[npt.NDArray[np.float32]] | None = None,
) -> Scores:
    """Score pairs of sets.

    Args:
        sets: float32 (n, D), unit rows, of each set; n may differ and be 0.
        first: intp (P,), index of each pair's first set.
        second: intp (P,), index of its second.
        how: See ``SetScore``.
        qualities: float32 (n,) of each set, 0..1, for ``weighted``.

    Returns:
        float64 (P,), higher is nearer; ``NEVER_ACCEPTED`` where a set is empty.

    Raises:
        ValueError: ``how`` is unknown, or the qualities do not fit the sets.
    """
    if how not in get_args(SetScore):
        raise ValueError(f"how: expected {', '.join(get_args(SetScore))}, got {how!r}")
    if how == "nearest":
        return np.array(
            [
                float((sets[a].astype(np.float64) @ sets[b].T).max(initial=NEVER_ACCEPTED))
                for a, b in zip(first, second, strict=True)
            ],
            np.float64,
        )
    means = np.stack(
        [_mean(each, weights) for each, weights in zip(sets, _weights(sets, how, qualities), strict=True)]
    )
    if how != "all-pairs":
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        means /= np.maximum(lengths, np.finfo(np.float64).tiny)
    filled = np.array([len(each) > 0 for each in sets])
    scores = np.einsum("pd,pd->p", means[first], means[second])
    return np.where(filled[first] & filled[second], scores, NEVER_ACCEPTED)


def _weights(
    sets: Sequence[Embeddings], how: SetScore, qualities: Sequence[npt.NDArray[np.float32]] | None
) -> list[Scores]:
    if how != "weighted":
        return [np.ones(len(each)) for each in sets]
    if qualities is None or [q.shape for q in qualities] != [(len(each),) for each in sets]:
        raise ValueError("qualities: expected one for each embedding of each set")
    return [np.maximum(q.astype(np.float64), LEAST_WEIGHT) for q in qualities]


def _mean(embeddings: Embeddings, weights: Scores) -> Scores:
    """Weighted mean, not scaled to unit length; zeros for no embeddings."""
    total = weights @ embeddings.astype(np.float64)
    return np.asarray(total / max(float(weights.sum()), LEAST_WEIGHT), np.float64)
