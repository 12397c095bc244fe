"""A benchmark's outcome as one self-contained HTML page: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from engine.errors import DatasetError
from training.data.array_types import Scores
from training.data.results import BenchRun
from training.evaluation.compare import LEVEL, compare
from training.evaluation.judged_pairs import IDENTIFICATION, judge
from training.report.identification import (
    identification_headline,
    mistakes_section,
    ranks_section,
    trials_section,
)
from training.report.markup import Markup, element, figure, section, table, write_page
from training.report.plots import TimedPoint, frontier_plot, sweep_plot
from training.report.sections import (
    NONE,
    errors_section,
    failures_section,
    folds_section,
    headline,
    is_subset,
    notes_section,
    number,
    other_figures_section,
    percent,
    repeat_section,
    roc_section,
    scores_section,
    time_section,
    what_was_measured,
)

Setting: TypeAlias = str | int | float

_TITLES: Final = {"lfw": "Labeled Faces in the Wild", "ytf": "YouTube Faces", "ident": "Identification"}


def write_report(run: BenchRun, path: Path, *, data_root: Path | None, title: str | None = None) -> None:
    """Write the report of one run.

    Args:
        run: What was measured. Its texts may come from anybody; they are escaped.
        path: HTML file.
        data_root: The data set's folder, for the pictures of the worst errors; None leaves them out.
        title: Of the page; None names the benchmark, and says so where it is a subset.

    Raises:
        ConfigError: matplotlib is not installed.
        DatasetError: The file cannot be written, or the run contradicts itself.
    """
    title = title or _title(run)
    if run.benchmark == IDENTIFICATION:
        _write_identification(run, path, title, data_root)
        return
    judged = judge(run) if run.pairs else None
    header = element(
        "header",
        element("h1", title),
        element("p", what_was_measured(run), class_="measured"),
        headline(run, judged),
    )
    write_page(
        path,
        title,
        header,
        notes_section(run),
        folds_section(run),
        roc_section(run, judged),
        Markup("") if judged is None else scores_section(judged),
        other_figures_section(run),
        Markup("") if judged is None else errors_section(run, judged, data_root),
        failures_section(run, judged),
        time_section(run),
        repeat_section(run),
    )


def _write_identification(run: BenchRun, path: Path, title: str, data_root: Path | None) -> None:
    header = element(
        "header",
        element("h1", title),
        element("p", what_was_measured(run), class_="measured"),
        identification_headline(run),
    )
    parts = [
        ranks_section(run),
        other_figures_section(run),
        trials_section(run),
        mistakes_section(run, data_root),
    ]
    shared = [failures_section(run, None), time_section(run), repeat_section(run)]
    write_page(path, title, header, notes_section(run), *parts, *shared)


def _title(run: BenchRun) -> str:
    name = _TITLES.get(run.benchmark, run.benchmark)
    if run.benchmark == "lfw" and isinstance(images := run.protocol.get("images"), str):
        name += f", {images}"
    return f"{name}: a subset" if is_subset(run) else name


def write_sweep_report(
    runs: Sequence[tuple[Setting, BenchRun]],
    path: Path,
    *,
    setting: str,
    figure_name: str = "accuracy",
    title: str | None = None,
) -> None:
    """Write the report of several runs that differ in one setting: a table, a plot, and what is noise.

    Args:
        runs: The setting's value with its run; the first is what the others are held against.
        path: HTML file.
        setting: What was varied, such as ``JPEG quality``.
        figure_name: The figure that is drawn, as ``BenchRun.figures`` names it; a share, 0..1.
        title: Of the page.

    Raises:
        ConfigError: matplotlib is not installed.
        DatasetError: There is no run, one lacks the figure, or the file cannot be written.
    """
    _check_runs([run for _, run in runs], figure_name)
    title = title or f"{_title(runs[0][1])}, by {setting}"
    values = np.array([100 * _figure(run, figure_name) for _, run in runs])
    errors = np.array([_error(run, figure_name) for _, run in runs])
    shown = figure_name.replace("_", " ")
    told = f"{shown} by {setting}: " + "; ".join(
        f"{value} {height:.2f} %" for (value, _), height in zip(runs, values, strict=True)
    )
    drawn = sweep_plot([v for v, _ in runs], values, errors, setting=setting, figure=f"{shown}, %")
    caption = "Bars: ± one standard error." if np.isfinite(errors).any() else None
    write_page(
        path,
        title,
        element(
            "header", element("h1", title), element("p", what_was_measured(runs[0][1]), class_="measured")
        ),
        figure(drawn, told, caption),
        _sweep_table(runs, setting),
        _all_notes([run for _, run in runs]),
        repeat_section(*(run for _, run in runs)),
    )


def _check_runs(runs: Sequence[BenchRun], figure_name: str) -> None:
    if not runs:
        raise DatasetError("a report of several runs needs at least one; give results that bench wrote")
    for row, run in enumerate(runs, 1):
        if number(run, figure_name) is None:
            raise DatasetError(
                f"run {row}, of {run.benchmark}: has no figure {figure_name!r}, "
                f"got {', '.join(run.figures) or 'none'}; choose one that all have"
            )


def _figure(run: BenchRun, name: str) -> float:
    value = number(run, name)
    return float("nan") if value is None else value


def _error(run: BenchRun, name: str) -> float:
    return 100 * _figure(run, "standard_error") if name == "accuracy" else float("nan")


def _sweep_table(runs: Sequence[tuple[Setting, BenchRun]], setting: str) -> Markup:
    fars = [name for name in runs[0][1].figures if name.startswith("tar@far=") and " " not in name]
    rows = []
    for row, (value, run) in enumerate(runs):
        accuracy, error = number(run, "accuracy"), number(run, "standard_error")
        told = percent(accuracy) + ("" if error is None else f" ± {100 * error:.2f}")
        rates = [percent(number(run, name)) for name in fars]
        against = NONE if row == 0 else _against(runs[0][1], run)
        rows.append((value, told, percent(number(run, "eer")), *rates, against, _seconds(run)))
    stated = [f"TAR at FAR {name.removeprefix('tar@far=')}" for name in fars]
    caption = f"Beside {runs[0][0]}: points by all pairs, and McNemar's p; * where p is below {LEVEL:g}"
    headings = (setting, "Accuracy", "EER", *stated, f"Beside {runs[0][0]}", "Time")
    return section("By setting", table(caption, headings, rows))


def _against(first: BenchRun, other: BenchRun) -> str:
    """Difference in points and its p-value; says so where the runs are not over the same pairs."""
    try:
        found = compare(first, other)
    except DatasetError:
        return "other pairs"
    return f"{found.difference_points:+.2f}, p {found.p_value:.2g}{' *' if found.beyond_noise else ''}"


def _seconds(run: BenchRun) -> str:
    return f"{sum(run.seconds.values()):,.1f} s"


def _all_notes(runs: Sequence[BenchRun]) -> Markup:
    notes = dict.fromkeys(note for run in runs for note in run.notes)
    return section("Notes", element("ul", *(element("li", note) for note in notes))) if notes else Markup("")


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A configuration of a time-constrained benchmark.

    Attributes:
        name: Of the configuration.
        milliseconds: What detection, alignment, embedding and matching together take.
        run: What it reached in accuracy.

    Raises:
        ValueError: The time is not above 0.
    """

    name: str
    milliseconds: float
    run: BenchRun

    def __post_init__(self) -> None:
        if not 0 < self.milliseconds < float("inf"):
            raise ValueError(f"milliseconds: expected more than 0, got {self.milliseconds}")


def frontier(milliseconds: Scores, accuracies: Scores) -> list[int]:
    """Rows of what none beats: none is as quick and better, or as good and quicker; the quickest first.

    Args:
        milliseconds: float64 (N,).
        accuracies: float64 (N,).
    """
    order = np.lexsort((-accuracies, milliseconds))
    kept: list[int] = []
    for row in order:
        if not kept or accuracies[row] > accuracies[kept[-1]]:
            kept.append(int(row))
    return kept


def write_frontier_report(
    runs: Sequence[TimedRun],
    path: Path,
    *,
    limits_ms: Sequence[float] = (100, 500, 1000),
    title: str = "Accuracy within a time limit",
) -> None:
    """Write the report of a time-constrained benchmark: the best within each limit, and the frontier.

    Args:
        runs: The configurations.
        path: HTML file.
        limits_ms: Limits, each with its best configuration.
        title: Of the page.

    Raises:
        ConfigError: matplotlib is not installed.
        DatasetError: There is no run, one has no accuracy, or the file cannot be written.
    """
    _check_runs([each.run for each in runs], "accuracy")
    times = np.array([each.milliseconds for each in runs])
    accuracies = np.array([_figure(each.run, "accuracy") for each in runs])
    best = frontier(times, accuracies)
    points = [
        TimedPoint(each.name, each.milliseconds, float(accuracies[row]), row in best)
        for row, each in enumerate(runs)
    ]
    told = "Accuracy against time. On the frontier: " + "; ".join(
        f"{points[row].name}, {times[row]:.1f} ms, {percent(float(accuracies[row]))}" for row in best
    )
    write_page(
        path,
        title,
        element(
            "header",
            element("h1", title),
            element("p", what_was_measured(runs[0].run), class_="measured"),
        ),
        _best_within(points, limits_ms),
        section("The frontier", figure(frontier_plot(points, limits_ms), told, "Line: what none beats.")),
        _timed_table(runs, set(best)),
        _all_notes([each.run for each in runs]),
        repeat_section(*(each.run for each in runs)),
    )


def _best_within(points: Sequence[TimedPoint], limits_ms: Sequence[float]) -> Markup:
    rows = []
    for limit in limits_ms:
        within = [point for point in points if point.milliseconds <= limit]
        if not within:
            rows.append((f"{limit:g} ms", "none keeps it", NONE, NONE))
            continue
        best = max(within, key=lambda point: (point.accuracy, -point.milliseconds))
        rows.append((f"{limit:g} ms", best.name, percent(best.accuracy), f"{best.milliseconds:.1f} ms"))
    headings = ("Limit", "Best configuration", "Accuracy", "Takes")
    return section("Within the limit", table("The best that keeps each limit", headings, rows))


def _timed_table(runs: Sequence[TimedRun], best: set[int]) -> Markup:
    rows = []
    for row, each in sorted(enumerate(runs), key=lambda item: item[1].milliseconds):
        error = number(each.run, "standard_error")
        accuracy = percent(_figure(each.run, "accuracy")) + ("" if error is None else f" ± {100 * error:.2f}")
        rows.append((each.name, f"{each.milliseconds:.1f} ms", accuracy, "yes" if row in best else ""))
    headings = ("Configuration", "Time", "Accuracy", "On the frontier")
    return section("All configurations", table("The quickest first", headings, rows))
