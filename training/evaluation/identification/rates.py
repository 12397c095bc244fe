"""Identification: whose face is it of those enrolled, and is it one of theirs at all?

Phillips, Grother and Micheals, "Evaluation Methods in Face Recognition", in Handbook of Face Recognition,
2011. A *mated* probe shows somebody who is enrolled, an *impostor* somebody who is not.

- Closed set: mated probes alone. Rank-k is the share of which the right person is among the k nearest; over
  all k it is the cumulative match characteristic (CMC).
- Open set: a probe is answered only where its similarity reaches a threshold. The false alarm rate (FAR) is
  the share of impostors that are answered with anybody, which their nearest enrolled person decides. The
  detection and identification rate (DIR) is the share of mated probes of which the right person reaches the
  threshold and is among the k nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import DatasetError
from training.data.array_types import BoolArray, Scores
from training.data.pairs import Indices
from training.evaluation.fold_accuracy import NEVER_ACCEPTED
from training.evaluation.set_scores import LEAST_WEIGHT


def template(embeddings: Embeddings, qualities: npt.NDArray[np.float32] | None = None) -> Scores:
    """One vector for several faces of a person: their mean, weighted with their quality where it is given.

    It is what the stream makes of a track. Faces of no quality at all count ``LEAST_WEIGHT``.

    Args:
        embeddings: float32 (n, D), unit rows.
        qualities: float32 (n,), 0..1; None weighs all alike.

    Returns:
        float64 (D,), unit length; zeros where there is no face.

    Raises:
        ValueError: There are more or fewer qualities than embeddings.
    """
    if qualities is not None and qualities.shape != (len(embeddings),):
        raise ValueError(f"qualities: expected ({len(embeddings)},), got {qualities.shape}")
    weights = np.ones(len(embeddings)) if qualities is None else np.maximum(qualities, LEAST_WEIGHT)
    total = weights.astype(np.float64) @ embeddings.astype(np.float64)
    return np.asarray(total / max(float(np.linalg.norm(total)), np.finfo(np.float64).tiny), np.float64)


def search(probes: Scores, gallery: Scores) -> Scores:
    """Cosine of each probe with each enrolled template.

    Args:
        probes: float64 (P, D), unit rows, zeros where no face was found.
        gallery: float64 (G, D), unit rows, zeros where no face was found.

    Returns:
        float64 (P, G); ``NEVER_ACCEPTED`` where one of the two has no face.
    """
    there = np.outer(probes.any(axis=1), gallery.any(axis=1))
    return np.where(there, probes @ gallery.T, NEVER_ACCEPTED)


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What searches came to; parallel arrays, one entry a probe.

    Attributes:
        people: intp (P,), number of the person that the probe shows.
        mated: bool (P,), whether that person is enrolled.
        own: float64 (P,), similarity to that person, ``NEVER_ACCEPTED`` for impostors.
        ranks: intp (P,), place of that person among those enrolled, from 1; 0 for impostors. Who is just as
            near comes first: a tie is no match. Without a face it is one more than there are people.
        best: float64 (P,), similarity to the nearest of those enrolled.
        winners: intp (P,), column of the nearest of those enrolled who are not that person; -1 for none.

    Raises:
        ValueError: An array has another shape or dtype.
    """

    people: Indices
    mated: BoolArray
    own: Scores
    ranks: Indices
    best: Scores
    winners: Indices

    def __post_init__(self) -> None:
        kinds: dict[str, type[np.generic]] = {"people": np.intp, "ranks": np.intp, "winners": np.intp}
        kinds |= {"mated": np.bool_, "own": np.float64, "best": np.float64}
        for name, kind in kinds.items():
            array: npt.NDArray[Any] = getattr(self, name)
            if array.shape != self.people.shape or array.ndim != 1 or array.dtype != kind:
                raise ValueError(
                    f"{name}: expected {kind.__name__} ({len(self.people)},), got {array.dtype} {array.shape}"
                )

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, rows: BoolArray | Indices) -> Outcomes:
        """Pick probes by mask or indices."""
        return Outcomes(
            self.people[rows],
            self.mated[rows],
            self.own[rows],
            self.ranks[rows],
            self.best[rows],
            self.winners[rows],
        )

    @property
    def impostors(self) -> int:
        """Number of probes of people who are not enrolled."""
        return int((~self.mated).sum())


def outcomes(similarities: Scores, people: Indices, enrolled: Indices) -> Outcomes:
    """Judge searches.

    Args:
        similarities: float64 (P, G), finite: of each probe with each person enrolled.
        people: intp (P,), number of the person that each probe shows.
        enrolled: intp (G,), number of the person of each column, each once.

    Raises:
        ValueError: The arrays do not fit, nobody is enrolled, somebody is twice, or a value is not finite.
    """
    if similarities.shape != (len(people), len(enrolled)) or not len(enrolled):
        raise ValueError(
            f"similarities: expected ({len(people)}, {len(enrolled)}) and somebody enrolled, "
            f"got {similarities.shape}"
        )
    if len(np.unique(enrolled)) != len(enrolled):
        raise ValueError("enrolled: duplicate person; make one template for each person")
    if not np.isfinite(similarities).all():
        raise ValueError(f"similarities: {(~np.isfinite(similarities)).sum()} are not finite")
    is_own = people[:, None] == enrolled[None, :]
    mated = is_own.any(axis=1)
    own = np.where(is_own, similarities, NEVER_ACCEPTED).max(axis=1)
    others = np.where(is_own, -np.inf, similarities)
    winners = np.where(np.isneginf(others.max(axis=1)), -1, others.argmax(axis=1))
    places = np.where(own > NEVER_ACCEPTED, 1 + (others >= own[:, None]).sum(axis=1), len(enrolled) + 1)
    ranks = np.where(mated, places, 0)
    best = similarities.max(axis=1)
    return Outcomes(people.astype(np.intp), mated, own, ranks.astype(np.intp), best, winners.astype(np.intp))


def rank_rate(results: Outcomes, rank: int) -> float:
    """Closed set: share of the mated probes whose person is among the ``rank`` nearest, 0..1.

    Args:
        results: Impostors in them do not matter. NaN comes of no mated probe.
        rank: At least 1.

    Raises:
        ValueError: ``rank`` is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank: expected at least 1, got {rank}")
    found = results.ranks[results.mated] <= rank
    return float(found.mean()) if len(found) else math.nan


@dataclass(frozen=True, slots=True)
class DirAtFar:
    """Detection and identification rate where the false alarm rate is bounded.

    Attributes:
        far: The bound, 0..1.
        rank: The right person must be among so many nearest.
        rate: Mated probes detected and identified by all mated probes, 0..1.
        threshold: The lowest that keeps the bound; a probe is answered where it is reached.
        false_alarms: Impostors answered at it: what the figure rests on.
        impostors: Impostor probes in all.
    """

    far: float
    rank: int
    rate: float
    threshold: float
    false_alarms: int
    impostors: int


def dir_at_far(results: Outcomes, far: float, *, rank: int = 1) -> DirAtFar:
    """Detection and identification rate at a false alarm rate.

    There is no interpolation: the threshold is the lowest that answers at most ``far`` times the number of
    impostors, and lies just above the nearest impostor that it must reject. REP-YTF's toolkit rounds that
    number to the nearest instead, and so may exceed the bound.

    Args:
        results: With mated probes and impostors.
        far: Bound, above 0 and at most 1.
        rank: At least 1.

    Raises:
        DatasetError: No probe is mated, or so few impostors cannot support the rate: none may be answered.
        ValueError: A number is out of range.
    """
    if not 0 < far <= 1 or rank < 1:
        raise ValueError(f"expected far above 0 and at most 1, rank of at least 1, got {far} and {rank}")
    if not results.mated.any():
        raise DatasetError("no probe shows anybody who is enrolled; give more videos of those people")
    if _allowed(results.impostors, far) < 1:
        raise DatasetError(
            f"a false alarm rate of {far:g} needs at least {math.ceil((1 - 1e-12) / far):,} impostor probes, "
            f"got {results.impostors:,}; state 1/{max(results.impostors, 1):,} or more, or give more people"
        )
    threshold = alarm_threshold(results, far)
    alarms = int((results.best[~results.mated] >= threshold).sum())
    rate = identification_rate(results, threshold, rank=rank)
    return DirAtFar(far, rank, rate, threshold, alarms, results.impostors)


def alarm_threshold(results: Outcomes, far: float) -> float:
    """The lowest threshold that keeps a false alarm rate, however few the impostors.

    Probes without a face never reach it: it is above ``NEVER_ACCEPTED``.

    Args:
        results: Impostors that there are; with too few of them none may be answered.
        far: Bound, 0..1.
    """
    impostors = np.sort(results.best[~results.mated])[::-1]
    allowed = _allowed(len(impostors), far)
    nearest_rejected = impostors[allowed] if allowed < len(impostors) else NEVER_ACCEPTED
    return float(np.nextafter(max(nearest_rejected, NEVER_ACCEPTED), np.inf))


def _allowed(impostors: int, far: float) -> int:
    # A rate such as 0.29 times 100 must not become 28.
    return math.floor(far * impostors * (1 + 1e-12))


def identification_rate(results: Outcomes, threshold: float, *, rank: int = 1) -> float:
    """Share of the mated probes that reach a threshold with the right person among the nearest, 0..1.

    NaN comes of no mated probe.
    """
    own, ranks = results.own[results.mated], results.ranks[results.mated]
    return float(((own >= threshold) & (ranks <= rank)).mean()) if len(own) else math.nan


def at_threshold(results: Outcomes, threshold: float) -> dict[str, float]:
    """What comes of answering from a threshold on that was set beforehand.

    Args:
        results: With mated probes and impostors.
        threshold: A probe is answered with the nearest person where it is reached.

    Returns:
        ``strangers named``, the share of the impostors that are answered; ``right`` and ``wrong name``, the
        shares of the mated probes that are answered rightly and wrongly.
    """
    best, mated = results.best, results.mated
    right = mated & (results.ranks == 1)
    return {
        "strangers named": float((best[~mated] >= threshold).mean()),
        "right": float((best[right] >= threshold).sum() / mated.sum()),
        "wrong name": float((best[mated & ~right] >= threshold).sum() / mated.sum()),
    }


def interval_over_people(
    runs: Sequence[Outcomes],
    statistic: Callable[[Outcomes], float],
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap: where the mean over the runs would lie if other people had been filmed.

    People are drawn, each with all the probes that show them and the same in every run, since a person's
    probes resemble each other and the runs share people. Galleries stay as they are, so what a gallery of
    other people would change is not in the interval.

    Args:
        runs: Repetitions of one experiment; people's numbers mean the same in all.
        statistic: Of one run, for example ``lambda results: rank_rate(results, 1)``. Where it is NaN, that
            run does not count in that draw.
        rounds: Number of draws, at least 1.
        level: Share of the draws that lie within, between 0 and 1.
        seed: Of the draws.

    Returns:
        Lower and upper end.

    Raises:
        DatasetError: The statistic was NaN in all draws.
        ValueError: A number is out of range, or there is no run.
    """
    if rounds < 1 or not 0 < level < 1 or not runs:
        raise ValueError(f"expected a run, rounds >= 1 and level between 0 and 1, got {rounds} and {level}")
    random = np.random.default_rng(seed)
    people = np.unique(np.concatenate([run.people for run in runs]))
    places = [np.searchsorted(people, run.people) for run in runs]
    means = []
    for _ in range(rounds):
        times = np.bincount(random.integers(0, len(people), len(people)), minlength=len(people))
        values = [
            statistic(run[np.repeat(np.arange(len(run)), times[place])])
            for run, place in zip(runs, places, strict=True)
        ]
        if told := [value for value in values if not math.isnan(value)]:
            means.append(sum(told) / len(told))
    if not means:
        raise DatasetError("too few people for an interval; give more")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
