"""The numbers that verification is judged by, from the scores of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.errors import DatasetError
from training.evaluation.fold_accuracy import FoldAccuracy, PairScores, k_fold_accuracy
from training.evaluation.roc import area_under, bootstrap_intervals, equal_error_rate, roc, tar_at_far

FARS: Final = (1e-1, 1e-2, 1e-3, 1e-4)

Figures = dict[str, float | str | None]


def verification_figures(
    pairs: PairScores, *, balanced: bool = False, rounds: int = 1000, seed: int = 0
) -> tuple[Figures, tuple[dict[str, float], ...], tuple[str, ...]]:
    """All that pairs and their scores tell.

    Args:
        pairs: In two folds or more.
        balanced: Accuracy weighs genuine and impostor pairs alike; for lists that have more of one kind.
        rounds: Of the bootstrap (see ``training.evaluation.roc.bootstrap_intervals``).
        seed: Of the bootstrap.

    Returns:
        Figures by name, those of each fold, and notes. ``accuracy`` is the mean of the folds, as papers print
        it; ``accuracy pooled`` the share of all pairs. Intervals hold 95 per cent of the draws.

    Raises:
        DatasetError: A kind of pairs is missing where it is needed.
    """
    folds = k_fold_accuracy(pairs, balanced=balanced)
    curve = roc(pairs)
    figures: Figures = {
        "accuracy": folds.mean,
        "standard_error": folds.standard_error,
        "accuracy pooled": folds.pooled,
        "standard_error pooled": folds.pooled_standard_error,
        "errors": float((~folds.correct).sum()),
        "auc": area_under(curve),
        "eer": equal_error_rate(curve),
    }
    supported, notes = [], []
    for far in FARS:
        name = f"tar@far={far:g}"
        try:
            figures[name] = tar_at_far(curve, far).tar
            supported.append(far)
        except DatasetError as exc:
            figures[name] = None
            notes.append(f"{name} is not stated: {exc}")
    figures |= _intervals(pairs, supported, rounds=rounds, seed=seed)
    return figures, _of_folds(folds), tuple(notes)


def _of_folds(folds: FoldAccuracy) -> tuple[dict[str, float], ...]:
    rows = zip(folds.folds, folds.accuracies, folds.thresholds, folds.sizes, strict=True)
    return tuple(
        {
            "fold": float(fold),
            "accuracy": float(accuracy),
            "threshold": float(threshold),
            "pairs": float(size),
        }
        for fold, accuracy, threshold, size in rows
    )


def _intervals(pairs: PairScores, fars: Sequence[float], *, rounds: int, seed: int) -> Figures:
    """Both ends of the intervals of AUC, EER and each rate, all from the same draws."""

    def statistics(drawn: PairScores) -> dict[str, float]:
        curve = roc(drawn)
        rates = {f"tar@far={far:g}": tar_at_far(curve, far).tar for far in fars}
        return {"auc": area_under(curve), "eer": equal_error_rate(curve)} | rates

    figures: Figures = {}
    for name, (low, high) in bootstrap_intervals(pairs, statistics, rounds=rounds, seed=seed).items():
        figures[f"{name} low"], figures[f"{name} high"] = low, high
    return figures
