"""The parts of a report on identification, which has trials instead of folds, and no pairs but mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Final

import numpy as np

from training.data.results import BenchRun, PairRecord
from training.report.markup import Markup, element, figure, section, table
from training.report.plots import sweep_plot
from training.report.sections import (
    NONE,
    TERMS,
    card,
    number,
    percent,
    picture_card,
    plain,
    spread,
    worded,
)

_RANK: Final = re.compile(r"rank-([0-9]{1,9})")
_HEADLINES: Final = 4
_CONFUSED_FOLD: Final = 0
"""Fold of the pairs of who was taken for somebody else (``scoring.confusions``)."""


def identification_headline(run: BenchRun) -> Markup:
    """The first rates that the run states, as cards."""
    names = [
        name
        for name in run.figures
        if name.startswith(("rank-1", "dir@")) and not name.endswith((" low", " high", " sd"))
    ]
    names = [name for name in names if number(run, name) is not None and not name.startswith("rank-10")]
    cards = []
    for name in names[:_HEADLINES]:
        interval = spread(run, name)
        more = "" if interval == NONE else f"95 %: {interval}"
        told = worded(name)
        cards.append(card(told[:1].upper() + told[1:], percent(run.figures[name]), more))
    return element("ul", *cards, class_="cards") if cards else Markup("")


def ranks_section(run: BenchRun) -> Markup:
    """How often the right person is among the nearest (CMC), as a drawing."""
    found = {int(match[1]): name for name in run.figures if (match := _RANK.fullmatch(name))}
    rates = {rank: rate for rank in sorted(found) if (rate := number(run, found[rank])) is not None}
    if len(rates) < 2:
        return Markup("")
    told = "; ".join(f"rank {rank} {percent(rate)}" for rank, rate in rates.items())
    drawn = sweep_plot(
        list(rates),
        np.array([100 * rate for rate in rates.values()]),
        np.full(len(rates), np.nan),
        setting="rank",
        figure="right person among the nearest, %",
        name="ranks",
    )
    return section("Closed set", figure(drawn, f"Cumulative match characteristic: {told}."))


def trials_section(run: BenchRun) -> Markup:
    """What each trial was of, and came to."""
    if not run.folds:
        return Markup("")
    names = [name for name in dict.fromkeys(name for row in run.folds for name in row) if name != "trial"]
    rows = [
        (
            f"{row.get('trial', place):g}",
            *(plain(row[name], name) if name in row else NONE for name in names),
        )
        for place, row in enumerate(run.folds)
    ]
    return section("Trials", table("Each trial", ("Trial", *map(worded, names)), rows))


def mistakes_section(run: BenchRun, data_root: Path | None) -> Markup:
    """The clearest mistakes with their pictures: who was taken for whom, and strangers near somebody."""
    wrong = [_confusion(first, second, data_root) for first, second in _confusions(run.pairs)]
    near = [_stranger(pair, data_root) for pair in run.pairs if pair.fold != _CONFUSED_FOLD and not pair.same]
    parts = []
    if wrong:
        told = "On the left the probe, then who was found, then the right person."
        parts += [element("h3", "Taken for somebody else"), element("p", told)]
        parts.append(element("ol", *wrong, class_="errors triples"))
    if near:
        told = "On the left the probe, who is not enrolled; on the right the nearest who is."
        parts += [element("h3", "Strangers most like somebody enrolled"), element("p", told)]
        parts.append(element("ol", *near, class_="errors"))
    return section("Clearest mistakes", element("p", TERMS), *parts) if parts else Markup("")


def _confusions(pairs: Sequence[PairRecord]) -> Iterator[tuple[PairRecord, PairRecord | None]]:
    """Each probe with who was found, and with the right person, who follows in the list."""
    confused = [pair for pair in pairs if pair.fold == _CONFUSED_FOLD]
    for pair, after in zip_longest(confused, confused[1:]):
        if not pair.same:
            yield pair, after if after is not None and after.same and after.first == pair.first else None


def _confusion(found: PairRecord, right: PairRecord | None, root: Path | None) -> Markup:
    told = element("span", "Somebody else", class_="impostor") + f" · similarity {found.similarity:.3f}"
    sides = [(found.first, found.first_image), (found.second, found.second_image)]
    if right is not None:
        told += "; " + element("span", "the right person", class_="genuine") + f" {right.similarity:.3f}"
        sides.append((right.second, right.second_image))
    return picture_card(Markup(told), sides, root)


def _stranger(pair: PairRecord, root: Path | None) -> Markup:
    sides = ((pair.first, pair.first_image), (pair.second, pair.second_image))
    return picture_card(f"similarity {pair.similarity:.3f}", sides, root)
