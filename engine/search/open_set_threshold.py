"""Open-set decisions: which enrolled person is it, if any? Cosines in, decisions out.

Phillips, Grother and Micheals, "Evaluation Methods in Face Recognition", in Handbook of Face Recognition,
2011: a stranger is *named* where the score of the nearest person enrolled reaches the threshold. The more
people are enrolled, the likelier one of them is near by chance, so the threshold rises with the gallery.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.models.package import Likeness

Indices: TypeAlias = npt.NDArray[np.intp]
Cosines: TypeAlias = npt.NDArray[np.float32]

_SHARPNESS: Final = 10.0
_RATES: Final = (1e-2, 1e-3, 1e-4)
_LEAST_SCORES: Final = 10
"""So many scores at least must lie above a quantile that is measured."""


def person_scores(cosines: Cosines, owners: Indices, people: int) -> Cosines:
    """Score of each probe with each person, from its cosines with that person's templates.

    The score is ``log(mean(exp(10 * cosine))) / 10``: the cosine itself where a person has one template,
    else between the mean of the cosines and the largest, nearer to the latter the more they differ. A bad
    photograph among good ones costs little, and a chance likeness of one photograph counts little. On CelebA
    (294 people, 1 to 5 photographs each, half of the people not enrolled, ``fused`` mirrored) it identifies
    89.5% of single faces at a false alarm rate of 1%, against 84.4% by the cosine with the mean photograph
    and 88.9% by the largest cosine (docs/decisions/0012-open-set-and-clustering.md).

    Args:
        cosines: float32 (Q, T), of each probe with each template.
        owners: intp (T,), whose template each is, 0 to ``people - 1``, in any order.
        people: Number of people.

    Returns:
        float32 (Q, people), -1..1; -inf for people without a template.

    Raises:
        ValueError: The arrays do not fit, or an owner is out of range.
    """
    if cosines.ndim != 2 or owners.shape != cosines.shape[1:]:
        raise ValueError(f"expected cosines (Q, T) and owners (T,), got {cosines.shape} and {owners.shape}")
    if len(owners) and not 0 <= owners.min() <= owners.max() < people:
        raise ValueError(f"owners: expected 0 to {people - 1}, got {owners.min()} to {owners.max()}")
    scores = np.full((len(cosines), people), -np.inf, np.float32)
    if not len(owners):
        return scores
    order = np.argsort(owners, kind="stable")
    present, starts, counts = np.unique(owners[order], return_index=True, return_counts=True)
    if len(present) == len(owners):  # one template a person: the cosine itself
        scores[:, present] = cosines[:, order]
        return scores
    sums = np.add.reduceat(np.exp(np.float32(_SHARPNESS) * cosines[:, order]), starts, axis=1)
    scores[:, present] = np.log(sums / counts.astype(np.float32)) / np.float32(_SHARPNESS)
    return scores


@dataclass(frozen=True, slots=True)
class ImpostorTail:
    """How rarely two different people are how alike: the upper tail of their scores.

    It is a generalised Pareto distribution (Pickands, "Statistical inference using extreme order
    statistics", 1975) through three measured points; its shape is the logarithm of the ratio of the two
    steps between them. From ``lowest_rate`` on, where too little was seen to hold the curve against, it goes
    on exponentially with the slope that it has there, which is on the safe side of the curve when the shape
    is below 0, as it is for every embedder that was measured.

    Attributes:
        at_1e2: Score that one in a hundred pairs of different people reaches.
        at_1e3: One in a thousand.
        at_1e4: One in ten thousand.
        lowest_rate: False match rate down to which the curve is followed; below it is extrapolation.

    Raises:
        ValueError: The scores do not rise, or a number is out of range.
    """

    at_1e2: float
    at_1e3: float
    at_1e4: float
    lowest_rate: float = 1e-5

    def __post_init__(self) -> None:
        if not -1 <= self.at_1e2 < self.at_1e3 < self.at_1e4 <= 1:
            raise ValueError(
                f"expected scores that rise within -1..1, got {self.at_1e2}, {self.at_1e3}, {self.at_1e4}"
            )
        if not 0 < self.lowest_rate <= _RATES[-1]:
            raise ValueError(f"lowest_rate: expected above 0 and at most 1e-4, got {self.lowest_rate}")

    @classmethod
    def of_likeness(cls, likeness: Likeness) -> ImpostorTail:
        """The tail of a model that was not measured: SFace's, on that model's scale.

        Args:
            likeness: Brings the model's cosines to SFace's scale; its thresholds decide how good this is.
        """
        points = [(each - likeness.shift) / likeness.factor for each in _MEASURED["sface-2021dec"]]
        return cls(*points)

    @classmethod
    def fitted(cls, scores: Cosines) -> ImpostorTail:
        """The tail of measured scores.

        Args:
            scores: float32 (N,), of different people; 100,000 at least.

        Raises:
            ValueError: There are too few of them, or they are all alike.
        """
        least = round(_LEAST_SCORES / _RATES[-1])
        if scores.ndim != 1 or len(scores) < least:
            raise ValueError(f"scores: expected at least {least:,} in one dimension, got {scores.shape}")
        points = np.quantile(scores, [1 - rate for rate in _RATES])
        return cls(*points.tolist())

    def raised_to(self, scores: Cosines) -> ImpostorTail:
        """The tail moved up to where a gallery's own people are more alike than those it was measured on.

        Relatives, or people of one age and descent, are nearer to each other than people at large; one in
        a hundred of their scores tells. The tail is never moved down: a gallery shows photographs, and
        probes may be worse.

        Args:
            scores: float32 (N,), of different people enrolled, each with every other. Fewer than 1,000 change
                nothing.
        """
        if scores.size < _LEAST_SCORES / _RATES[0]:
            return self
        shift = float(np.quantile(scores, 1 - _RATES[0])) - self.at_1e2
        shift = min(max(shift, 0.0), 1 - self.at_1e4)
        return ImpostorTail(
            self.at_1e2 + shift, self.at_1e3 + shift, self.at_1e4 + shift, lowest_rate=self.lowest_rate
        )

    def score_at(self, false_match_rate: float) -> float:
        """Score that so large a share of the pairs of different people reaches.

        Args:
            false_match_rate: Above 0; more than 0.01 is taken for 0.01, which asks for more than needed.

        Returns:
            At most 1.

        Raises:
            ValueError: The rate is not above 0.
        """
        if not false_match_rate > 0:
            raise ValueError(f"false_match_rate: expected above 0, got {false_match_rate}")
        rate = min(false_match_rate, _RATES[0])
        followed = max(rate, self.lowest_rate)
        decades = math.log10(_RATES[0] / followed)
        step, growth = self.at_1e3 - self.at_1e2, self._growth
        score = self.at_1e2 + step * _geometric(growth, decades)
        slope = step * math.pow(growth, decades) * _slope(growth)
        return min(score + slope * math.log10(followed / rate), 1.0)

    @property
    def _growth(self) -> float:
        """Each decade's step by the one before."""
        return (self.at_1e4 - self.at_1e3) / (self.at_1e3 - self.at_1e2)


def _geometric(growth: float, decades: float) -> float:
    """``1 + growth + growth ** 2 + …``, over so many decades, of which there may be a fraction."""
    return decades if math.isclose(growth, 1) else (math.pow(growth, decades) - 1) / (growth - 1)


def _slope(growth: float) -> float:
    """Derivative of ``_geometric`` at 0 decades."""
    return 1.0 if math.isclose(growth, 1) else math.log(growth) / (growth - 1)


_MEASURED: Final[Mapping[str, tuple[float, float, float]]] = {
    "sface-2021dec": (0.315, 0.384, 0.445),
    "dlib-resnet-v1": (0.9234, 0.9389, 0.9503),
    "fused-sface-dlib-v1": (0.726, 0.758, 0.783),
}
"""Scores that 1e-2, 1e-3 and 1e-4 of the pairs of different people reach: on CelebA, mirrored, probes being
the mean of two photographs, enrolled with 1 to 5. Without mirroring they are up to 0.003 lower. The more
varied the faces in a probe's mean, the higher: with one 0.014, 0.007 and 0.025 lower at 1e-4, with three
0.005, 0.002 and 0.010 higher. The frames of one stay vary less than photographs of two occasions."""


def impostor_tail(model: str, likeness: Likeness) -> ImpostorTail:
    """The tail of an embedder.

    Args:
        model: Its package's name.
        likeness: Brings its cosines to SFace's scale; used where the model itself was not measured.
    """
    points = _MEASURED.get(model)
    return ImpostorTail.of_likeness(likeness) if points is None else ImpostorTail(*points)


def accept_threshold(tail: ImpostorTail, *, false_accept_rate: float, people: int) -> float:
    """The score from which on a probe is named.

    A stranger is compared with everybody, so with a false match rate of one comparison he is named at a rate
    of ``1 - (1 - rate) ** people`` at most; scores of one stranger go together, which only lowers it.

    Args:
        tail: Of the scores that are compared.
        false_accept_rate: Share of strangers who may be named anybody, between 0 and 1.
        people: In the gallery; 0 counts as 1.

    Returns:
        -1..1. Down to a false match rate of ``tail.lowest_rate`` it rests on measurements.

    Raises:
        ValueError: A number is out of range.
    """
    if not 0 < false_accept_rate < 1 or people < 0:
        raise ValueError(
            f"expected a false_accept_rate between 0 and 1 and people of at least 0, "
            f"got {false_accept_rate} and {people}"
        )
    return tail.score_at(-math.expm1(math.log1p(-false_accept_rate) / max(people, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What probes were found to be; parallel arrays, one entry a probe.

    Attributes:
        known: bool (Q,), whether the score reached the threshold.
        person: intp (Q,), the person where known, -1 elsewhere.
        nearest: intp (Q,), the person of the highest score, known or not; -1 where nobody has a template.
        score: float32 (Q,), of the nearest person; -inf where nobody has a template.
        margin: float32 (Q,), by how much the runner-up is behind, at least 0; inf where there is none.

    Raises:
        ValueError: An array has another shape or dtype.
    """

    known: npt.NDArray[np.bool_]
    person: Indices
    nearest: Indices
    score: Cosines
    margin: Cosines

    def __post_init__(self) -> None:
        kinds: dict[str, type[np.generic]] = {"known": np.bool_, "person": np.intp, "nearest": np.intp}
        kinds |= {"score": np.float32, "margin": np.float32}
        for name, kind in kinds.items():
            array: npt.NDArray[Any] = getattr(self, name)
            if array.shape != (len(self.known),) or array.dtype != kind:
                raise ValueError(
                    f"{name}: expected {kind.__name__} ({len(self.known)},), got {array.dtype} {array.shape}"
                )

    def __len__(self) -> int:
        return len(self.known)


def decide(scores: Cosines, threshold: float) -> Decisions:
    """Name each probe, or call it unknown.

    Args:
        scores: float32 (Q, people), as ``person_scores`` gives them; higher is nearer.
        threshold: As ``accept_threshold`` gives it; a score that reaches it is named.

    Raises:
        ValueError: Scores are not of two dimensions, or one is NaN.
    """
    if scores.ndim != 2 or np.isnan(scores).any():
        raise ValueError(f"scores: expected (Q, people) without NaN, got {scores.shape}")
    probes = len(scores)
    two = np.full((probes, 2), -np.inf, np.float32)  # the runner-up, then the nearest
    count = min(2, scores.shape[1])
    if count:
        two[:, 2 - count :] = np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    best = two[:, 1]
    there = np.isfinite(best)
    nearest = np.where(there, scores.argmax(axis=1) if count else -1, -1).astype(np.intp)
    margin = np.full(probes, np.inf, np.float32)
    margin[there] = best[there] - two[there, 0]
    known = there & (best >= threshold)
    return Decisions(known, np.where(known, nearest, -1).astype(np.intp), nearest, best.copy(), margin)
