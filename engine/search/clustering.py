"""Group embeddings by person without names: by average linkage, all at once or as they come.

FaceNet clusters by agglomeration (arXiv 1503.03832, section 5.8). Two groups are as alike as the cosine of a
member of one with a member of the other, on average. That is the dot product of the groups' means, not scaled
to unit length, so a group is kept as one vector however many members it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.models.package import Likeness
from engine.search.open_set_threshold import Indices

_CUTS: Final[Mapping[str, float]] = {
    "sface-2021dec": 0.415,
    "dlib-resnet-v1": 0.941,
    "fused-sface-dlib-v1": 0.775,
}
"""Where B-cubed F was highest on CelebA: 294 people, 1 to 6 tracks of one or two photographs, mirrored."""
_CAUTION: Final = 0.025

_Vectors = npt.NDArray[np.float64]


def cluster_cut(model: str, likeness: Likeness) -> float:
    """Similarity from which on groups of an embedder's faces are one person.

    Args:
        model: Its package's name.
        likeness: Brings its cosines to SFace's scale; used where the model itself was not measured.

    Returns:
        For ``cluster`` and ``StreamClusterer``, -1..1.
    """
    cut = _CUTS.get(model)
    return (_CUTS["sface-2021dec"] - likeness.shift) / likeness.factor if cut is None else cut


def stream_caution(likeness: Likeness) -> float:
    """How much more alike than the cut young groups of a stream must be, for ``StreamClusterer``.

    Chosen on CelebA like the cuts, for streams in batches of 16: 0.025 on SFace's scale raises B-cubed F from
    95.3 to 96.6% (``fused`` 94.6 to 96.5%), once it has settled.

    Args:
        likeness: Brings the model's cosines to SFace's scale.
    """
    return _CAUTION / likeness.factor


def cluster(
    embeddings: Embeddings, cut: float, *, weights: npt.NDArray[np.floating] | None = None
) -> Indices:
    """Group embeddings: what is at least so alike on average is one person.

    The result is that of average linkage (UPGMA) cut at a similarity. It is found by chains of nearest
    neighbours (Murtagh, "A Survey of Recent Advances in Hierarchical Clustering Algorithms", 1983), in time
    N² and memory N.

    Args:
        embeddings: float32 (N, D), unit rows.
        cut: Groups are joined from this similarity on, as ``cluster_cut`` gives it.
        weights: (N,), above 0: an embedding of weight 3 counts as three of the same. None weighs all alike.

    Returns:
        intp (N,), number of each one's group, from 0 in the order of their first members.

    Raises:
        ValueError: The arrays do not fit, or a value is not finite.
    """
    worth = _checked_weights(embeddings, weights)
    groups = _Groups(embeddings.astype(np.float64) * worth[:, None], worth)
    parents = np.arange(len(worth))
    for gone, kept in groups.join(range(len(worth)), cut):
        parents[gone] = kept
    # A row's parent always has a lower number, so one pass finds all roots.
    for row in range(len(parents)):
        parents[row] = parents[parents[row]]
    return np.unique(parents, return_inverse=True)[1].astype(np.intp)


def _checked_weights(embeddings: Embeddings, weights: npt.NDArray[np.floating] | None) -> _Vectors:
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise ValueError(f"embeddings: expected finite numbers (N, D), got {embeddings.shape}")
    worth = np.ones(len(embeddings)) if weights is None else np.asarray(weights, np.float64)
    if worth.shape != (len(embeddings),) or not (np.isfinite(worth) & (worth > 0)).all():
        raise ValueError(f"weights: expected ({len(embeddings)},) above 0, got {worth.shape}")
    return worth


class _Groups:
    """Groups by row: the sum of their members' vectors, and of their weights; 0 where a row is empty."""

    def __init__(self, sums: _Vectors, weights: _Vectors) -> None:
        self.sums = sums
        self.weights = weights

    def join(self, starts: Iterable[int], cut: float, *, caution: float = 0.0) -> list[tuple[int, int]]:
        """Join groups until none are as alike as ``cut``.

        Args:
            starts: Rows that may have a neighbour so near; the others have none among themselves.
            cut: Similarity.
            caution: Is taken from a similarity for each of the two groups, divided by its weight.

        Returns:
            Rows (gone, kept) in order; the lower number is kept.
        """
        joined: list[tuple[int, int]] = []
        waiting = list(starts)[::-1]
        chain: list[int] = []
        while chain or waiting:
            if not chain:
                chain.append(waiting.pop())
                if not self.weights[chain[0]]:
                    chain.pop()  # has been joined to another since
                    continue
            last = chain[-1]
            nearest, is_mutual = self._nearest(last, chain[-2] if len(chain) > 1 else None, cut, caution)
            if nearest is None:
                chain.pop()
            elif not is_mutual and nearest not in chain:
                chain.append(nearest)
            else:
                # Rounding may close a chain into a ring of equals; its last two are as near as any.
                gone, kept = max(last, chain[-2]), min(last, chain[-2])
                del chain[-2:]
                self._merge(gone, kept)
                joined.append((gone, kept))
                waiting.append(kept)
        return joined

    def _nearest(self, row: int, previous: int | None, cut: float, caution: float) -> tuple[int | None, bool]:
        """The group nearest to one, and whether it is the chain's previous, which wins ties."""
        with np.errstate(divide="ignore", invalid="ignore"):
            similarities = self.sums @ self.sums[row] / (self.weights * self.weights[row])
            similarities -= caution / self.weights + caution / self.weights[row]
        similarities[self.weights == 0] = -np.inf
        similarities[row] = -np.inf
        best = int(similarities.argmax())
        if not similarities[best] >= cut:
            return (None, False) if previous is None else (previous, True)
        is_mutual = previous is not None and bool(similarities[previous] >= similarities[best])
        return (previous, True) if is_mutual else (best, False)

    def _merge(self, gone: int, kept: int) -> None:
        self.sums[kept] += self.sums[gone]
        self.weights[kept] += self.weights[gone]
        self.sums[gone] = 0
        self.weights[gone] = 0


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """What became of some embeddings that were added.

    Attributes:
        groups: intp (N,), the group of each; ids are never used again.
        merged: (gone, kept): groups that turned out to be one person, in order. Ids told before may be gone.
        forgotten: Groups that are not kept any more, since there were too many; nothing joins them again.
    """

    groups: Indices
    merged: tuple[tuple[int, int], ...]
    forgotten: tuple[int, ...]


class StreamClusterer:
    """Groups embeddings as they come, and says which groups turn out to be one person.

    Each batch is clustered with the groups that there are, by average linkage as ``cluster`` does. What was
    joined stays joined, so the order in which embeddings come has a part in the result; ``caution`` makes
    groups wait for more evidence, until ``settle``. Memory and time for an embedding grow with the number of
    groups that are kept, and not with the number of embeddings.

    Args:
        cut: Groups are joined from this similarity on, as ``cluster_cut`` gives it.
        caution: Is taken from the similarity of two groups for each of them, divided by its weight: young
            groups must be more alike. As ``stream_caution`` gives it; 0 for none.
        most_groups: So many are kept; then the one that nothing has joined for the longest is forgotten.

    Raises:
        ValueError: ``most_groups`` is below 1, or ``caution`` below 0.
    """

    def __init__(self, cut: float, *, caution: float = 0.0, most_groups: int = 10_000) -> None:
        if most_groups < 1 or not caution >= 0:
            raise ValueError(
                f"expected most_groups of at least 1, caution of at least 0, got {most_groups} and {caution}"
            )
        self._cut = cut
        self._caution = caution
        self._most = most_groups
        self._sums: _Vectors = np.empty((0, 0))
        self._weights: _Vectors = np.empty(0)
        self._ids: Indices = np.empty(0, np.intp)  # ascending, so that the older of two groups is kept
        self._touched: Indices = np.empty(0, np.intp)
        self._next_id = 0
        self._batches = 0

    def __len__(self) -> int:
        """Number of groups that are kept."""
        return len(self._ids)

    @property
    def newest_id(self) -> int:
        """The highest id that was given to a group; -1 before the first."""
        return self._next_id - 1

    def add(self, embeddings: Embeddings, *, weights: npt.NDArray[np.floating] | None = None) -> Grouping:
        """Take in a batch, of one or of many.

        Args:
            embeddings: float32 (N, D), unit rows.
            weights: (N,), as for ``cluster``.

        Raises:
            ValueError: The arrays do not fit, a value is not finite, or D differs from earlier embeddings.
        """
        worth = _checked_weights(embeddings, weights)
        old, new = len(self._ids), len(worth)
        if old and embeddings.shape[1] != self._sums.shape[1]:
            raise ValueError(
                f"embeddings: expected {self._sums.shape[1]} numbers each, got {embeddings.shape}"
            )
        self._batches += 1
        fresh = embeddings.astype(np.float64) * worth[:, None]
        groups = _Groups(
            np.concatenate([self._sums.reshape(-1, embeddings.shape[1]), fresh]),
            np.concatenate([self._weights, worth]),
        )
        rows = np.arange(old + new)
        joined = groups.join(range(old, old + new), self._cut, caution=self._caution)
        for gone, kept in joined:
            rows[rows == gone] = kept
        ids = self._keep(groups, rows, old, new)
        merged = tuple((int(ids[gone]), int(ids[kept])) for gone, kept in joined if gone < old)
        return Grouping(ids[rows[old:]], merged, self._forget())

    def settle(self) -> tuple[tuple[int, int], ...]:
        """Join what is alike enough without caution: at the end of a stream, or when it is looked at.

        Returns:
            (gone, kept), as in ``Grouping.merged``.
        """
        groups = _Groups(self._sums, self._weights)
        joined = groups.join(range(len(self._ids)), self._cut)
        merged = tuple((int(self._ids[gone]), int(self._ids[kept])) for gone, kept in joined)
        self._select(groups.sums, groups.weights, self._ids, self._touched, groups.weights > 0)
        return merged

    def _keep(self, groups: _Groups, rows: Indices, old: int, new: int) -> Indices:
        """Store what is left.

        Returns:
            Ids by row; new rows that were joined to others have none of their own.
        """
        is_new = (groups.weights > 0) & (np.arange(old + new) >= old)
        ids = np.concatenate([self._ids, np.full(new, -1)])
        ids[is_new] = self._next_id + np.arange(is_new.sum())
        self._next_id += int(is_new.sum())
        touched = np.concatenate([self._touched, np.full(new, self._batches)])
        touched[rows[old:]] = self._batches
        self._select(groups.sums, groups.weights, ids, touched, groups.weights > 0)
        return ids

    def _forget(self) -> tuple[int, ...]:
        """Let go of groups beyond the most that are kept."""
        surplus = len(self._ids) - self._most
        if surplus <= 0:
            return ()
        stale = np.lexsort((self._ids, self._touched))[:surplus]
        forgotten = tuple(np.sort(self._ids[stale]).tolist())
        kept = np.ones(len(self._ids), np.bool_)
        kept[stale] = False
        self._select(self._sums, self._weights, self._ids, self._touched, kept)
        return forgotten

    def _select(
        self,
        sums: _Vectors,
        weights: _Vectors,
        ids: Indices,
        touched: Indices,
        kept: npt.NDArray[np.bool_],
    ) -> None:
        self._sums, self._weights = sums[kept], weights[kept]
        self._ids, self._touched = ids[kept], touched[kept]
