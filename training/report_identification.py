"""The parts of a report on identification, which has trials instead of folds, and no pairs but mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from training.markup import Markup, element, figure, section, table
from training.plots import sweep_plot
from training.report_sections import NONE, card, number, pair_card, percent, plain, spread
from training.results import BenchRun

_RANK: Final = re.compile(r"rank-([0-9]{1,9})")
_HEADLINES: Final = 4


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
        cards.append(card(name.replace("dir@far=", "DIR at FAR "), percent(run.figures[name]), more))
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
    return section("Trials", table("Each trial", ("Trial", *names), rows))


def mistakes_section(run: BenchRun, data_root: Path | None) -> Markup:
    """The clearest mistakes with their pictures: the probe, and who was found."""
    if not run.pairs:
        return Markup("")
    cards = []
    for pair in run.pairs:
        kind, said = ("genuine", "The right person") if pair.same else ("impostor", "Somebody else")
        told = element("span", said, class_=kind) + f" · similarity {pair.similarity:.3f}"
        cards.append(pair_card(pair, Markup(told), data_root))
    told = "The probe on the left, somebody enrolled on the right."
    return section("Clearest mistakes", element("p", told), element("ol", *cards, class_="errors"))
