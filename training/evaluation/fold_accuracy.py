"""Verification: do two faces show one person? Accuracy by folds, and whether two runs really differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError
from training.data.array_types import BoolArray, Scores

NEVER_ACCEPTED: Final = -1.0
"""Similarity of a pair of which a face was not found: the least that a cosine can be."""


@dataclass(frozen=True, slots=True, eq=False)
class PairScores:
    """How alike the faces of each pair were found, and the truth; parallel arrays.

    Attributes:
        similarities: float64 (N,), finite, higher is nearer. A pair is accepted where its similarity is at
            least the threshold.
        same: bool (N,), True for genuine pairs (one person), False for impostor pairs (two).
        folds: intp (N,), which part of the benchmark a pair belongs to; any numbers, any sizes.

    Raises:
        ValueError: An array has another shape or dtype, or a similarity is not finite.
    """

    similarities: Scores
    same: BoolArray
    folds: npt.NDArray[np.intp]

    def __post_init__(self) -> None:
        kinds: dict[str, type[np.generic]] = {"similarities": np.float64, "same": np.bool_, "folds": np.intp}
        for name, kind in kinds.items():
            array: npt.NDArray[Any] = getattr(self, name)
            if array.shape != (len(self.same),) or array.dtype != kind:
                raise ValueError(
                    f"{name}: expected {kind.__name__} ({len(self.same)},), got {array.dtype} {array.shape}"
                )
        if not np.isfinite(self.similarities).all():
            raise ValueError(f"similarities: {(~np.isfinite(self.similarities)).sum()} are not finite")

    def __len__(self) -> int:
        return len(self.same)

    def __getitem__(self, rows: BoolArray | npt.NDArray[np.intp]) -> PairScores:
        """Pick pairs by mask or indices."""
        return PairScores(self.similarities[rows], self.same[rows], self.folds[rows])


@dataclass(frozen=True, slots=True, eq=False)
class FoldAccuracy:
    """Accuracy on each fold, at the threshold that was best on all the others.

    Attributes:
        folds: intp (K,), the folds' numbers, ascending.
        sizes: intp (K,), pairs in each.
        right: intp (K,), pairs of each that were judged rightly.
        accuracies: float64 (K,), 0..1.
        thresholds: float64 (K,), what each fold was judged by.
        correct: bool (N,), for each pair, in the order of the pairs, whether it was judged rightly.
    """

    folds: npt.NDArray[np.intp]
    sizes: npt.NDArray[np.intp]
    right: npt.NDArray[np.intp]
    accuracies: Scores
    thresholds: Scores
    correct: BoolArray

    @property
    def mean(self) -> float:
        """Mean over the folds, each counting the same: the figure that papers print."""
        return float(self.accuracies.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean: deviation of the folds (K - 1 degrees of freedom) by the root of K, as LFW has it."""
        return float(self.accuracies.std(ddof=1) / math.sqrt(len(self.accuracies)))

    @property
    def pooled(self) -> float:
        """Share of all pairs that were judged rightly, 0..1.

        It is ``mean`` where all folds have one size (and accuracy is not balanced), and the figure to compare
        runs by where they have not: in ``mean`` one pair of a small fold outweighs several of a large one.
        """
        return int(self.right.sum()) / int(self.sizes.sum())

    @property
    def pooled_standard_error(self) -> float:
        """Of ``pooled``, from its deviation from fold to fold (the ratio estimator of cluster sampling).

        It is ``standard_error`` where all folds have one size.
        """
        folds = len(self.sizes)
        deviations = (self.right - self.sizes * self.pooled) / self.sizes.sum()
        return float(math.sqrt(folds / (folds - 1) * (deviations**2).sum()))


def best_threshold(pairs: PairScores, *, balanced: bool = False) -> float:
    """The threshold at which most pairs are judged rightly.

    It lies halfway between two neighbouring similarities; of equally good ones it is the middle one.

    Args:
        pairs: At least one genuine and one impostor pair.
        balanced: Genuine pairs together weigh as much as impostor pairs together.

    Raises:
        DatasetError: There are no genuine or no impostor pairs.
    """
    genuine = int(pairs.same.sum())
    impostors = len(pairs) - genuine
    if not genuine or not impostors:
        raise DatasetError(
            f"a threshold needs genuine and impostor pairs, got {genuine} and {impostors}; "
            "use a list of pairs that has both in its folds"
        )
    order = np.argsort(pairs.similarities)
    values, starts = np.unique(pairs.similarities[order], return_index=True)
    rejected_genuine = np.append(0, np.cumsum(pairs.same[order]))[np.append(starts, len(pairs))]
    rejected_impostors = np.append(starts, len(pairs)) - rejected_genuine
    # Whole numbers, so that equally good ones are equal.
    weights = (impostors, genuine) if balanced else (1, 1)
    gains = (genuine - rejected_genuine) * weights[0] + rejected_impostors * weights[1]
    best = np.flatnonzero(gains == gains.max())
    return _between(values, int(best[len(best) // 2]))


def _between(values: Scores, index: int) -> float:
    """A threshold that rejects ``values[:index]`` and accepts ``values[index:]``; values ascend."""
    if index == 0:
        return float(values[0])
    if index == len(values):
        return float(np.nextafter(values[-1], np.inf))
    low, high = float(values[index - 1]), float(values[index])
    middle = low + (high - low) / 2
    return middle if middle > low else high


def k_fold_accuracy(pairs: PairScores, *, balanced: bool = False) -> FoldAccuracy:
    """Judge each fold by the threshold that is best on the others (LFW's View 2, YTF).

    Args:
        pairs: In two folds or more.
        balanced: Accuracy is the mean of the shares of genuine and of impostor pairs judged rightly, for
            lists that have more of one kind.

    Raises:
        DatasetError: There are fewer than two folds, or one kind of pairs is missing where it is needed.
    """
    folds, sizes = np.unique(pairs.folds, return_counts=True)
    if len(folds) < 2:
        raise DatasetError(f"expected pairs in at least two folds, got {len(folds)}; give the whole list")
    thresholds, accuracies = np.empty(len(folds)), np.empty(len(folds))
    right = np.empty(len(folds), np.intp)
    correct = np.empty(len(pairs), np.bool_)
    for index, fold in enumerate(folds):
        inside = pairs.folds == fold
        thresholds[index] = best_threshold(pairs[~inside], balanced=balanced)
        judged = (pairs.similarities[inside] >= thresholds[index]) == pairs.same[inside]
        correct[inside] = judged
        right[index] = judged.sum()
        accuracies[index] = _balanced(judged, pairs.same[inside], int(fold)) if balanced else judged.mean()
    return FoldAccuracy(folds, sizes, right, accuracies, thresholds, correct)


def _balanced(right: BoolArray, same: BoolArray, fold: int) -> float:
    if same.all() or not same.any():
        raise DatasetError(
            f"fold {fold} has pairs of one kind only, so it has no balanced accuracy; "
            "leave it out, or use plain accuracy"
        )
    return float((right[same].mean() + right[~same].mean()) / 2)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether two runs over the same pairs differ by more than chance.

    Attributes:
        only_first: Pairs that the first run alone judged rightly.
        only_second: Pairs that the second run alone judged rightly.
        p_value: Probability of a split at least as uneven if the runs were equally good, 0..1.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: BoolArray, second: BoolArray) -> McNemar:
    """McNemar's test, exact and two-sided (McNemar, Psychometrika 12, 1947).

    Args:
        first: bool (N,), for each pair whether the first run judged it rightly.
        second: bool (N,), of the second run, on the same pairs in the same order.

    Raises:
        ValueError: The arrays differ in shape.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"expected two runs over the same pairs, got {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    count, fewer = only_first + only_second, min(only_first, only_second)
    # Whole numbers do not lose the small probabilities of many pairs.
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**count))
