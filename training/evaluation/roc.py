"""What a verifier accepts at each threshold: ROC, AUC, EER, TAR at FAR, and how sure these are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError
from training.data.array_types import Scores
from training.evaluation.fold_accuracy import PairScores

Interpolation: TypeAlias = Literal["step", "linear"]


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """How many pairs are accepted at each threshold, from none to all.

    Attributes:
        thresholds: float64 (T,), falling; the first is infinite and accepts none.
        accepted_genuine: int64 (T,), genuine pairs accepted.
        accepted_impostors: int64 (T,), impostor pairs accepted.
    """

    thresholds: Scores
    accepted_genuine: npt.NDArray[np.int64]
    accepted_impostors: npt.NDArray[np.int64]

    @property
    def impostors(self) -> int:
        """Number of impostor pairs."""
        return int(self.accepted_impostors[-1])

    @property
    def tar(self) -> Scores:
        """True accept rate, FaceNet's VAL (section 4): accepted genuine by all genuine pairs, 0..1."""
        return np.asarray(self.accepted_genuine / self.accepted_genuine[-1], np.float64)

    @property
    def far(self) -> Scores:
        """False accept rate: accepted impostor by all impostor pairs, 0..1."""
        return np.asarray(self.accepted_impostors / self.accepted_impostors[-1], np.float64)


def roc(pairs: PairScores) -> Roc:
    """The curve over every threshold that makes a difference.

    Raises:
        DatasetError: There are no genuine or no impostor pairs.
    """
    if pairs.same.all() or not pairs.same.any():
        raise DatasetError("a ROC needs genuine and impostor pairs; use a list of pairs that has both")
    order = np.argsort(-pairs.similarities)
    falling = pairs.similarities[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    genuine = np.cumsum(pairs.same[order], dtype=np.int64)[last]
    return Roc(
        np.append(np.inf, falling[last]),
        np.append(np.int64(0), genuine),
        np.append(np.int64(0), last + 1 - genuine),
    )


def area_under(curve: Roc) -> float:
    """Area under the ROC (AUC), 0..1: the chance that a genuine pair is nearer than an impostor pair."""
    return float(np.trapezoid(curve.tar, curve.far))


def equal_error_rate(curve: Roc) -> float:
    """Where the false accept and false reject rates meet (EER), 0..1, on straight lines between points."""
    gap = curve.far - (1 - curve.tar)
    after = int(np.argmax(gap >= 0))
    weight = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(curve.far[after - 1] + weight * (curve.far[after] - curve.far[after - 1]))


@dataclass(frozen=True, slots=True)
class TarAtFar:
    """True accept rate (VAL) where the false accept rate is bounded.

    Attributes:
        far: The bound, 0..1.
        tar: Accepted genuine by all genuine pairs, 0..1.
        threshold: The lowest that keeps the bound; infinite where only accepting nobody does.
        false_accepts: Impostor pairs accepted at it: what the figure rests on.
        impostors: Impostor pairs in all.
    """

    far: float
    tar: float
    threshold: float
    false_accepts: int
    impostors: int


def tar_at_far(curve: Roc, far: float, *, interpolation: Interpolation = "step") -> TarAtFar:
    """True accept rate at a false accept rate.

    Args:
        curve: Of all pairs together; thresholds per fold are another figure.
        far: Bound of the false accept rate, above 0 and at most 1.
        interpolation: ``step`` is what a threshold reaches without exceeding the bound. ``linear`` draws a
            straight line to the curve's next point, as scripts that call an interpolation function do; it is
            never lower, and no threshold gives it.

    Raises:
        DatasetError: So few impostor pairs cannot support the rate: not one may be accepted.
        ValueError: ``far`` is out of range, or ``interpolation`` is unknown.
    """
    if not 0 < far <= 1:
        raise ValueError(f"far: expected more than 0 and at most 1, got {far}")
    if interpolation not in {"step", "linear"}:
        raise ValueError(f"interpolation: expected step or linear, got {interpolation!r}")
    # A rate such as 0.29 times 100 must not become 28.
    allowed = far * curve.impostors * (1 + 1e-12)
    if allowed < 1:
        raise DatasetError(
            f"a false accept rate of {far:g} needs at least {math.ceil((1 - 1e-12) / far):,} impostor pairs, "
            f"got {curve.impostors:,}; state 1/{curve.impostors:,} or more, or use a longer list"
        )
    at = int(np.searchsorted(curve.accepted_impostors, allowed, side="right")) - 1
    tar, accepted = float(curve.tar[at]), int(curve.accepted_impostors[at])
    if interpolation == "linear" and at + 1 < len(curve.tar):
        share = (far * curve.impostors - accepted) / (int(curve.accepted_impostors[at + 1]) - accepted)
        tar += max(share, 0.0) * float(curve.tar[at + 1] - curve.tar[at])
    return TarAtFar(far, tar, float(curve.thresholds[at]), accepted, curve.impostors)


def bootstrap_intervals(
    pairs: PairScores,
    statistics: Callable[[PairScores], Mapping[str, float]],
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap: where statistics would lie if other pairs of the same kind had been drawn.

    Pairs are drawn again within each fold and kind, so that every round has as many genuine and impostor
    pairs as the list. Pairs that share a person are taken for independent, which they are not quite: the
    intervals are a little too narrow.

    Args:
        pairs: What is drawn from.
        statistics: By name, all of one draw; for example ``lambda drawn: {"auc": area_under(roc(drawn))}``.
        rounds: Number of draws, at least 1.
        level: Share of the draws that lie within, between 0 and 1.
        seed: Of the draws.

    Returns:
        Lower and upper end of each.

    Raises:
        ValueError: A number is out of range.
    """
    if rounds < 1 or not 0 < level < 1:
        raise ValueError(f"expected rounds of at least 1 and level between 0 and 1, got {rounds} and {level}")
    random = np.random.default_rng(seed)
    strata = [
        rows
        for fold in np.unique(pairs.folds)
        for same in (False, True)
        if len(rows := np.flatnonzero((pairs.folds == fold) & (pairs.same == same)))
    ]
    values: dict[str, list[float]] = {}
    for _ in range(rounds):
        drawn = pairs[np.concatenate([random.choice(rows, len(rows)) for rows in strata])]
        for name, value in statistics(drawn).items():
            values.setdefault(name, []).append(value)
    ends = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name, each in values.items():
        low, high = np.quantile(each, ends)
        intervals[name] = (float(low), float(high))
    return intervals
