"""Names under which two sets show different people: proposed from the scores, decided by eye.

Stills and videos that were searched by name may show namesakes. What is compared under such a name looks
like a pair of two people, whatever the list says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.evaluation.fold_accuracy import NEVER_ACCEPTED, PairScores
from training.evaluation.roc import equal_error_rate, roc
from training.report.markup import Markup, element, picture, write_page

SHOWN: Final = 8
"""So many pictures of each side stand on a contact sheet."""

RULE: Final = (
    "A name, or a video, is proposed where the median similarity of its own pairs lies below the threshold "
    "at which false accept and false reject rates meet (EER). That threshold is found without the pairs of "
    "what was proposed so far, until no more is proposed."
)


NEXT: Final = (
    "Write the names whose two sides show different people into a file, one a line, and give it to "
    "bench ident as --leave-out. The faces are the data sets', whose terms hold for this page too."
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


def write_contact_sheet(
    proposed: Sequence[Mismatch],
    stills: Mapping[str, Sequence[Path]],
    frames: Mapping[str, Sequence[Path]],
    path: Path,
    *,
    title: str = "Do both sides show one person?",
) -> None:
    """Write a page to decide by eye: of each name the stills on the left, the videos' frames on the right.

    Args:
        proposed: Names, in the order in which they are shown.
        stills: Pictures by name.
        frames: Pictures by name; of many, some that are spread evenly are shown.
        path: HTML file, which holds the pictures.
        title: Of the page.

    Raises:
        DatasetError: The file cannot be written.
    """
    items = [_item(each, stills.get(each.name, ()), frames.get(each.name, ())) for each in proposed]
    count = f"{len(proposed):,} proposed. " if proposed else "No name is proposed. "
    write_page(
        path,
        title,
        element(
            "header", element("h1", title), element("p", count + RULE, class_="measured"), element("p", NEXT)
        ),
        element("ol", *items, class_="sheet") if items else Markup(""),
    )


def _item(proposed: Mismatch, stills: Sequence[Path], frames: Sequence[Path]) -> Markup:
    told = (
        f"median similarity {proposed.median:.3f}, threshold {proposed.threshold:.3f}; "
        f"{proposed.below:,} of {proposed.pairs:,} pairs below it"
    )
    sides = [
        _side(proposed.name, heading, paths)
        for heading, paths in (("stills", stills), ("frames of videos", frames))
    ]
    return element(
        "li",
        element("h2", proposed.name.replace("_", " ")),
        element("p", told, class_="aside"),
        element("div", *sides, class_="sides"),
    )


def _side(name: str, heading: str, paths: Sequence[Path]) -> Markup:
    chosen = np.unique(np.rint(np.linspace(0, len(paths) - 1, min(SHOWN, len(paths)))).astype(np.intp))
    pictures = [picture(paths[row], f"{name}, {heading}, {paths[row].name}") for row in chosen]
    told = f"{heading}: {len(paths):,}" + (f", {len(chosen)} shown" if len(chosen) < len(paths) else "")
    return element("div", element("p", told), element("div", *pictures, class_="row"))
