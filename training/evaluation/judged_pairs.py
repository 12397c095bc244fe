"""The pairs of a stored run, each with the threshold that it was judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError
from training.data.array_types import BoolArray, Scores
from training.data.results import BenchRun
from training.data.safe_text import clean
from training.evaluation.fold_accuracy import NEVER_ACCEPTED, PairScores, k_fold_accuracy

IDENTIFICATION: Final = "ident"
"""The benchmark whose runs hold the worst pairs alone, and figures of trials instead of folds."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The pairs of a run; parallel arrays, in the order of its pairs.

    Attributes:
        scores: Similarities, truth and folds.
        thresholds: float64 (N,), what each pair was judged by.
    """

    scores: PairScores
    thresholds: Scores

    @property
    def correct(self) -> BoolArray:
        """Whether each pair was judged rightly, bool (N,)."""
        return np.equal(self.scores.similarities >= self.thresholds, self.scores.same)

    @property
    def with_faces(self) -> BoolArray:
        """Whether a face was found on both sides of each pair, bool (N,)."""
        return self.scores.similarities > NEVER_ACCEPTED

    @property
    def margins(self) -> Scores:
        """How far each pair lies on the right side of its threshold, float64 (N,); below 0 is an error."""
        beyond = self.scores.similarities - self.thresholds
        return np.where(self.scores.same, beyond, -beyond)


def scores_of(run: BenchRun) -> PairScores:
    """The pairs of a run as arrays, in their order.

    Raises:
        DatasetError: The run has not all pairs that it was measured on.
    """
    if not run.pairs or run.benchmark == IDENTIFICATION:
        raise DatasetError(
            f"{clean(run.benchmark)}: the run does not hold all its pairs; give one of lfw or ytf"
        )
    return PairScores(
        np.array([pair.similarity for pair in run.pairs], np.float64),
        np.array([pair.same for pair in run.pairs], np.bool_),
        np.array([pair.fold for pair in run.pairs], np.intp),
    )


def judge(run: BenchRun) -> Judged:
    """Judge the pairs of a run by the thresholds of its folds, or by the best of the others if it has none.

    Raises:
        DatasetError: The run has not all its pairs, or its folds are not those of its pairs.
    """
    scores = scores_of(run)
    folds, inverse = np.unique(scores.folds, return_inverse=True)
    if run.folds:
        return Judged(scores, _thresholds(run, folds)[inverse])
    found = k_fold_accuracy(scores, balanced=run.protocol.get("balanced") is True)
    return Judged(scores, found.thresholds[inverse])


def _thresholds(run: BenchRun, folds: npt.NDArray[np.intp]) -> Scores:
    """The threshold of each fold, in ascending order of the folds' numbers."""
    rows = run.folds
    if all("fold" in row for row in rows):
        rows = tuple(sorted(rows, key=lambda row: row["fold"]))
        if [row["fold"] for row in rows] != folds.tolist():
            raise DatasetError(
                f"{run.benchmark}: the run's folds are {[int(row['fold']) for row in rows]}, "
                f"its pairs' {folds.tolist()}; measure it again"
            )
    if len(rows) != len(folds) or not all("threshold" in row for row in rows):
        raise DatasetError(
            f"{run.benchmark}: expected a threshold for each of the pairs' {len(folds)} folds, "
            f"got {sum('threshold' in row for row in rows)}; measure it again"
        )
    return np.array([row["threshold"] for row in rows], np.float64)
