"""Names under which two sets show different people: proposed from the scores, decided by eye.

Stills and videos that were searched by name may show namesakes. What is compared under such a name looks
like a pair of two people, whatever the list says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.evaluation.fold_accuracy import NEVER_ACCEPTED, PairScores
from training.evaluation.roc import equal_error_rate, roc

RULE: Final = (
    "A name, or a video, is proposed where the median similarity of its own pairs lies below the threshold "
    "at which false accept and false reject rates meet (EER). That threshold is found without the pairs of "
    "what was proposed so far, until no more is proposed."
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A name whose own pairs look like pairs of two people.

    Attributes:
        name: The person's.
        median: Median similarity of the name's own pairs.
        threshold: What it lies below.
        pairs: Number of the name's own pairs with a face on both sides.
        below: How many of them lie below the threshold.
    """

    name: str
    median: float
    threshold: float
    pairs: int
    below: int


def propose_mismatches(scores: PairScores, names: Sequence[str]) -> list[Mismatch]:
    """Propose names under which the two sides show different people; see ``RULE``.

    Pairs without a face say nothing of who is shown, and are left aside.

    Args:
        scores: Pairs of one side with the other: all genuine ones, and impostor ones to compare with.
        names: Of each pair the first side's person, whose own pair it is where it is genuine.

    Returns:
        The least alike first.

    Raises:
        DatasetError: There are no genuine or no impostor pairs with faces.
        ValueError: There are more or fewer names than pairs.
    """
    if len(names) != len(scores):
        raise ValueError(f"names: expected {len(scores)}, one for each pair, got {len(names)}")
    genuine: defaultdict[str, list[int]] = defaultdict(list)
    there = scores.similarities > NEVER_ACCEPTED
    for row in np.flatnonzero(scores.same & there).tolist():
        genuine[names[row]].append(row)
    own = {name: scores.similarities[rows] for name, rows in genuine.items()}
    medians = {name: float(np.median(found)) for name, found in own.items()}
    proposed: set[str] = set()
    judged = there.copy()
    while True:
        threshold = _eer_threshold(scores[judged])
        more = {name for name, median in medians.items() if median < threshold} - proposed
        # Who is left must still be somebody to take the threshold from.
        if not more or proposed | more == set(medians):
            break
        proposed |= more
        judged[[row for name in more for row in genuine[name]]] = False
    found = [
        Mismatch(name, medians[name], threshold, len(own[name]), int((own[name] < threshold).sum()))
        for name in proposed
    ]
    return sorted(found, key=lambda each: (each.median, each.name))


def _eer_threshold(scores: PairScores) -> float:
    """Similarity at which false accepts and false rejects are equally frequent."""
    curve = roc(scores)
    rate = equal_error_rate(curve)
    return float(curve.thresholds[int(np.argmax(curve.far >= rate))])
