"""The parts of a run's report."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from training.data.array_types import Scores
from training.data.results import BenchRun, PairRecord
from training.evaluation.judged_pairs import IDENTIFICATION, Judged
from training.evaluation.roc import roc
from training.report.markup import (
    Markup,
    breakable,
    element,
    figure,
    joined,
    joined_by,
    listing,
    picture,
    section,
    table,
    within,
)
from training.report.plots import folds_plot, histogram_plot, roc_plot, stages_plot

OFFICIAL_PAIRS: Final[Mapping[str, int]] = {"lfw": 6000, "ytf": 5000}
"""Pairs of each benchmark's official list."""

NONE: Final = "\u2013"
"""Stands where there is nothing to state."""

TERMS: Final = "The faces are the data set's, whose terms hold for this page too."

WORST: Final = 20
"""So many errors are shown."""

_LISTED: Final = 40
"""So many pairs without a face are named."""

_ROUNDING: Final = 5e-5
"""Accuracies nearer than this are the same figure in print."""

_TAR: Final = re.compile(r"tar@far=([0-9.e+-]+)")
_SHOWN_APART: Final = ("accuracy", "standard_error", "auc", "eer")
_RATE: Final = re.compile("tar@|accuracy|standard_error|rank-|dir@|eer|(strangers named|right|wrong name)@")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def percent(value: object, digits: int = 2) -> str:
    """A share as per cent; text as it is, and a dash for None."""
    if isinstance(value, int | float):
        return f"{100 * value:.{digits}f}\u00a0%"
    return NONE if value is None else str(value)


def number(run: BenchRun, name: str) -> float | None:
    """A figure of the run, if it is a number."""
    value = run.figures.get(name)
    return float(value) if isinstance(value, int | float) else None


def worded(name: str) -> str:
    """A figure's name in words: of ``dir@far=0.1 openness=0.5`` ``DIR at FAR 0.1, openness 0.5``."""
    name = re.sub(r"^(tar|dir)@far=", lambda match: f"{match[1].upper()} at FAR ", name)
    name = re.sub(r"@far=(\S+)", r" at FAR \1", name)
    name = re.sub(r"@promise=(\S+)", r" where \1 is promised", name)
    return re.sub(r" (\w+)=", r", \1 ", re.sub(r"^rank-", "rank ", name)).replace("_", " ")


def is_subset(run: BenchRun) -> bool:
    """Whether the run has fewer pairs than the benchmark's official list."""
    return 0 < len(run.pairs) < OFFICIAL_PAIRS.get(run.benchmark, 0)


def what_was_measured(run: BenchRun) -> str:
    """One sentence on the pairs and the list that the figures are of, and when."""
    parts = []
    official = OFFICIAL_PAIRS.get(run.benchmark)
    if run.pairs:
        same = sum(pair.same for pair in run.pairs)
        parts.append(f"{len(run.pairs):,} pairs ({same:,} of one person, {len(run.pairs) - same:,} of two)")
    if is_subset(run):
        parts.append(f"a subset, as the official list has {official:,}")
    if run.benchmark == IDENTIFICATION:
        parts = [f"{name} {value:,}" for name, value in run.data.items() if isinstance(value, int) and value]
    elif run.folds:
        parts.append(f"{len(run.folds)} folds, each judged by the threshold of the others")
    named = next((value for name, value in run.data.items() if name in {"list", "pairs_list"}), None)
    digest = next((str(v) for n, v in run.data.items() if "sha256" in n.lower() or "SHA-256" in n), None)
    if named is not None:
        parts.append(f"list {named}" + (f", SHA-256 {digest[:16]} (whole below)" if digest else ""))
    if run.measured_at is not None:
        parts.append(f"measured {run.measured_at}")
    return "; ".join(parts) + "." if parts else ""


def headline(run: BenchRun, judged: Judged | None) -> Markup:
    """The figures that a reader looks for, as cards."""
    cards = []
    accuracy, error = number(run, "accuracy"), number(run, "standard_error")
    if accuracy is not None:
        more = "mean over the folds ± standard error" if error is not None else "mean over the folds"
        told = percent(accuracy) + (f" ± {100 * error:.2f}" if error is not None else "")
        cards.append(card("Accuracy", told, more))
    if judged is not None and accuracy is not None and abs(judged.correct.mean() - accuracy) > _ROUNDING:
        right = int(judged.correct.sum())
        told = f"{right:,} of {len(judged.scores):,}; each pair counts the same"
        cards.append(card("All pairs together", percent(float(judged.correct.mean())), told))
    if (eer := number(run, "eer")) is not None:
        told = _interval(run, "eer") or "false accepts = false rejects"
        cards.append(card("Equal error rate", percent(eer), told))
    if (auc := number(run, "auc")) is not None:
        low, high = number(run, "auc low"), number(run, "auc high")
        told = "1 is perfect" if low is None or high is None else f"95 %: {low:.4f} to {high:.4f}"
        cards.append(card("Area under the ROC", f"{auc:.5f}", told))
    stated = [(far, key) for far, key in _fars(run) if number(run, key) is not None]
    if stated:
        far, key = min(stated)
        cards.append(card(f"TAR at FAR {far:g}", percent(run.figures[key]), _interval(run, key)))
    return element("ul", *cards, class_="cards") if cards else Markup("")


def card(name: str, value: str, more: str) -> Markup:
    """A figure as an item of the list at a report's head."""
    parts = (("name", name), ("value", value), ("more", more))
    return element("li", *(element("span", text, class_=kind) for kind, text in parts))


def _fars(run: BenchRun) -> list[tuple[float, str]]:
    """False accept rates that the run has a figure for, or has refused, with its name; falling."""
    found = [(match[1], name) for name in run.figures if (match := _TAR.fullmatch(name))]
    rates = []
    for text, name in found:
        try:
            rates.append((float(text), name))
        except ValueError:
            continue
    return sorted(rates, reverse=True)


def _interval(run: BenchRun, key: str) -> str:
    low, high = number(run, f"{key} low"), number(run, f"{key} high")
    return "" if low is None or high is None else f"95 %: {100 * low:.2f} to {percent(high)}"


def folds_section(run: BenchRun) -> Markup:
    """Accuracy and threshold of each fold."""
    if not run.folds:
        return Markup("")
    rows = [
        (
            f"{row.get('fold', place):g}",
            f"{row['pairs']:,.0f}" if "pairs" in row else NONE,
            percent(row.get("accuracy")),
            f"{row['threshold']:.4f}" if "threshold" in row else NONE,
        )
        for place, row in enumerate(run.folds, 1)
    ]
    drawn = Markup("")
    mean, error = number(run, "accuracy"), number(run, "standard_error")
    accuracies = np.array([row["accuracy"] for row in run.folds if "accuracy" in row], np.float64)
    if mean is not None and error is not None and len(accuracies):
        told = (
            f"Accuracy of {len(accuracies)} folds, from {percent(accuracies.min())} to "
            f"{percent(accuracies.max())}; mean {percent(mean)} ± {100 * error:.2f}."
        )
        drawn = figure(folds_plot(accuracies, mean, error), told, "Line: mean; band: ± one standard error.")
    caption = "Each fold at the threshold that was best on all the others"
    return section(
        "Accuracy by fold", drawn, table(caption, ("Fold", "Pairs", "Accuracy", "Threshold"), rows)
    )


def roc_section(run: BenchRun, judged: Judged | None) -> Markup:
    """The curve, and true accept rates at the rates that the list supports; the others are refused."""
    fars = _fars(run)
    drawn = Markup("")
    impostors = 0 if judged is None else int((~judged.scores.same).sum())
    if judged is not None and 0 < impostors < len(judged.scores):
        points = [(far, tar) for far, key in fars if (tar := number(run, key)) is not None]
        told = "; ".join(f"at a false accept rate of {far:g} {percent(tar)}" for far, tar in points)
        drawn = figure(roc_plot(roc(judged.scores), points), f"ROC. True accept rate {told or 'not stated'}.")
    if not fars:
        return section("ROC", drawn) if drawn else drawn
    rows = [(f"{far:g}", *_tar_cells(run, key, far, impostors)) for far, key in fars]
    headings = ("False accept rate", "True accept rate", "95 % interval (bootstrap)")
    refused = [f"{far:g}" for far, key in fars if number(run, key) is None]
    aside = (
        f"Not stated: {', '.join(refused)}, which so few impostor pairs cannot support." if refused else ""
    )
    return section(
        "True accepts at bounded false accepts",
        drawn,
        table("One threshold for all pairs", headings, rows),
        element("p", aside, class_="aside") if aside else "",
    )


def _tar_cells(run: BenchRun, key: str, far: float, impostors: int) -> tuple[str, str]:
    value = run.figures[key]
    if isinstance(value, int | float):
        return percent(value), spread(run, key)
    if isinstance(value, str):
        return "not stated", value
    why = f"needs {np.ceil(1 / far - 1e-9):,.0f} impostor pairs, has {impostors:,}" if impostors else NONE
    return "not stated", why


def scores_section(judged: Judged) -> Markup:
    """How similarities lie around the threshold."""
    there, same = judged.with_faces, judged.scores.same
    genuine, impostors = judged.scores.similarities[there & same], judged.scores.similarities[there & ~same]
    low, high = float(judged.thresholds.min()), float(judged.thresholds.max())
    told = (
        f"Histograms of the similarities of {len(genuine):,} pairs of one person, "
        f"median {_median(genuine)}, and {len(impostors):,} of two people, median {_median(impostors)}; "
        f"thresholds from {low:.4f} to {high:.4f}."
    )
    caption = f"Thresholds of the folds: {low:.4f} to {high:.4f}."
    if without := int((~there).sum()):
        caption += f" {without:,} pairs without a face are left out here."
    return section("Scores", figure(histogram_plot(genuine, impostors, (low, high)), told, caption))


def _median(values: Scores) -> str:
    return f"{np.median(values):.3f}" if len(values) else NONE


def worst_errors(judged: Judged) -> list[int]:
    """Rows of the errors farthest beyond their threshold, the worst first; a face was found in all."""
    margins = np.where(judged.with_faces & ~judged.correct, judged.margins, np.inf)
    order = np.argsort(margins, kind="stable")[:WORST]
    return [int(row) for row in order if np.isfinite(margins[row])]


def errors_section(run: BenchRun, judged: Judged, data_root: Path | None) -> Markup:
    """The worst errors with their pictures."""
    rows = worst_errors(judged)
    wrong = int((judged.with_faces & ~judged.correct).sum())
    if not rows:
        return section("Errors", element("p", "No pair with two faces was judged wrongly."))
    shown = [_error(run.pairs[row], float(judged.thresholds[row]), data_root) for row in rows]
    which = "all are shown, the worst first" if wrong == len(rows) else f"these are the {len(rows)} worst"
    told = f"{wrong:,} pairs with two faces were judged wrongly; {which}."
    if wrong == 1:
        told = "One pair with two faces was judged wrongly."
    if data_root is None:
        told += " Pictures are left out, since no folder was given."
    else:
        told += f" {TERMS}"
    return section("Worst errors", element("p", told), element("ol", *shown, class_="errors"))


def _error(pair: PairRecord, threshold: float, root: Path | None) -> Markup:
    kind, said = ("genuine", "One person, rejected") if pair.same else ("impostor", "Two people, accepted")
    told = f" · similarity {pair.similarity:.3f}, threshold {threshold:.3f}, fold {pair.fold}"
    sides = ((pair.first, pair.first_image), (pair.second, pair.second_image))
    return picture_card(joined_by("", (element("span", said, class_=kind), told)), sides, root)


def picture_card(told: object, sides: Sequence[tuple[str, str | None]], root: Path | None) -> Markup:
    """An item of a list: what there is to say, and pictures with their labels beside each other.

    Args:
        told: What there is to say.
        sides: Label and picture of each, the picture's path relative to the root.
        root: The data set's folder; None leaves the pictures out.
    """
    shown = [
        element("div", picture(within(root, image), label, height_px=180), breakable(label), class_="side")
        for label, image in sides
    ]
    return element("li", element("p", told), element("div", *shown, class_="pair"))


def failures_section(run: BenchRun, judged: Judged | None) -> Markup:
    """Where no face was found."""
    counted = {
        name.replace("_", " "): f"{value:,}" if isinstance(value, int) else value
        for name, value in run.data.items()
        if re.search("face|missing|skipped|unreadable|damaged", name)
    }
    parts = [listing(counted)] if counted else []
    if judged is not None:
        rows = np.flatnonzero(~judged.with_faces)
        genuine = int(judged.scores.same[rows].sum())
        told = f"A face was found on both sides of all {len(run.pairs):,} pairs."
        if len(rows):
            told = (
                f"{len(rows):,} of {len(run.pairs):,} pairs lack a face and count as never accepted; "
                f"{genuine:,} of them are of one person and so are errors."
            )
        parts.append(element("p", told))
        if len(rows):
            some = [
                (run.pairs[row].first, run.pairs[row].second, "one" if run.pairs[row].same else "two")
                for row in rows[:_LISTED]
            ]
            caption = f"The first {len(some)} of {len(rows):,} pairs without a face"
            parts.append(table(caption, ("First", "Second", "People"), some))
    return section("Failures to detect", *parts) if parts else Markup("")


def time_section(run: BenchRun) -> Markup:
    """What each stage took."""
    stages = [(name, time) for name, time in run.seconds.items() if time > 0]
    if not stages:
        return Markup("")
    told = "Seconds by stage: " + ", ".join(f"{name} {time:.1f}" for name, time in stages) + "."
    total = sum(time for _, time in stages)
    return section("Time", figure(stages_plot(stages), told, f"{total:,.1f} s in all."))


def other_figures_section(run: BenchRun) -> Markup:
    """Figures that no other part of the report has, each with its interval where there is one."""
    names = [
        name
        for name in run.figures
        if name not in _SHOWN_APART
        and not name.startswith("tar@far=")
        and not (name.endswith((" low", " high", " sd")) and name.rpartition(" ")[0] in run.figures)
    ]
    rows = [(worded(name), plain(run.figures[name], name), spread(run, name)) for name in names]
    if not rows:
        return Markup("")
    return section("Further figures", table("As measured", ("Figure", "Value", "95 % interval"), rows))


def plain(value: float | str | None, name: str) -> str:
    """A figure by its name: rates as per cent, other numbers as they are."""
    if not isinstance(value, int | float) or _RATE.match(name):
        return percent(value)
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def spread(run: BenchRun, name: str) -> str:
    """The ends of a figure's interval."""
    low, high = number(run, f"{name} low"), number(run, f"{name} high")
    return NONE if low is None or high is None else f"{plain(low, name)} to {plain(high, name)}"


def notes_section(run: BenchRun) -> Markup:
    """What a reader must know."""
    if not run.notes:
        return Markup("")
    return section("Notes", element("ul", *(element("li", note) for note in run.notes)))


def repeat_section(*runs: BenchRun) -> Markup:
    """Everything that it takes to repeat runs; where they differ, what each of them has."""
    told = dict.fromkeys(
        (model.task, model.name, model.engine, model.precision, element("code", model.sha256))
        for run in runs
        for model in run.models
    )
    headings = ("Task", "Model", "Engine", "Precision", "SHA-256")
    commands = dict.fromkeys(shlex.join(run.command) for run in runs)
    parts = [element("pre", element("code", "\n".join(commands)))]
    if told:
        parts.append(element("div", table("Models", headings, told), class_="left"))
    groups: tuple[tuple[str, list[Mapping[str, object]]], ...] = (
        ("Protocol", [run.protocol for run in runs]),
        ("Data", [run.data for run in runs]),
        ("Machine", [run.machine for run in runs]),
    )
    for heading, values in groups:
        if shown := _merged(values):
            parts.append(joined([element("h3", heading), listing(shown)]))
    return section("To repeat it", *parts)


def _merged(groups: Sequence[Mapping[str, object]]) -> dict[str, object]:
    names = dict.fromkeys(name for group in groups for name in group)
    return {
        name.replace("_", " "): joined_by(
            " | ", dict.fromkeys(_shown(group[name]) for group in groups if name in group)
        )
        for name in names
    }


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, str) and _HASH.fullmatch(value):
        return element("code", value)
    return f"{value:,}" if isinstance(value, int) else str(value)
