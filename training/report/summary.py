"""A benchmark's result on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from training.data.results import BenchRun
from training.evaluation.latency_budget import Fruits

_HEADLINES = {
    "accuracy": "accuracy, mean of the folds",
    "accuracy pooled": "accuracy, all pairs",
    "auc": "area under the ROC",
    "eer": "equal error rate",
}
_OF_FRESH_IMAGES = ("images per second", "share in engines and decoding", "hours for ")
"""Figures that a run does not have if it embedded nothing anew."""


def show_run(run: BenchRun, console: Console) -> None:
    """Print what was measured, the figures, where the time went, and what a reader must know.

    Args:
        run: Of any benchmark.
        console: Where to.
    """
    table = Table("", ": ".join(str(part) for part in (run.benchmark, run.data.get("list")) if part))
    for model in run.models:
        table.add_row(model.task, f"{model.name} on {model.engine} in {model.precision}")
    for name, value in run.figures.items():
        if not name.startswith("standard_error") and not name.endswith((" low", " high", " sd")):
            table.add_row(_HEADLINES.get(name, name), _text(run, name, value))
    total = sum(run.seconds.values())
    shares = (
        [f"{name} {seconds / total:.0%}" for name, seconds in run.seconds.items() if seconds] if total else []
    )
    table.add_row("time", f"{total:.1f} s: {', '.join(shares)}")
    console.print(table)
    for note in run.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def show_sweep(
    kind: str, runs: Sequence[tuple[str, BenchRun]], skipped: Sequence[str], console: Console
) -> None:
    """Print accuracy and time of each setting.

    Args:
        kind: The choice that was varied.
        runs: Each setting and its run.
        skipped: Settings that could not be tried, and why.
        console: Where to.
    """
    table = Table(kind, "accuracy", "tar@far=0.001", "equal error rate", "images/s")
    for setting, run in runs:
        names = ("accuracy", "tar@far=0.001", "eer")
        speed = run.figures.get("images per second")
        fresh = f"{speed:.0f}" if isinstance(speed, float) else "kept"
        table.add_row(setting, *(_text(run, name, run.figures.get(name)) for name in names), fresh)
    console.print(table)
    for each in skipped:
        console.print(f"left out: {each}", markup=False, highlight=False, soft_wrap=True)


def show_fruits(found: Fruits, console: Console) -> None:
    """Print accuracy and time of each configuration, and the best within the limit.

    Args:
        found: Outcome.
        console: Where to.
    """
    table = Table("configuration", "accuracy", "median ms", f"ms at {found.percentile:g} %", "in time")
    for point in found.points:
        table.add_row(
            point.name,
            f"{point.accuracy:.2%} ± {point.standard_error * 100:.2f}",
            f"{point.median_ms:.1f}",
            f"{point.at_percentile_ms:.1f}",
            "yes" if point.keeps_limit else "no",
        )
    console.print(table)
    best = found.best or "no configuration keeps the limit"
    console.print(f"within {found.limit_ms:g} ms on one core, {found.images} images: {best}")


def _text(run: BenchRun, name: str, value: float | str | None) -> str:
    if value is None:
        is_cached = name.startswith(_OF_FRESH_IMAGES)
        return "embeddings came from the cache" if is_cached else "not supported by so few pairs"
    if isinstance(value, str):
        return value
    if not _is_share(name):
        return f"{value:,.4g}"
    figure = f"{value:.2%}"
    error = run.figures.get(name.replace("accuracy", "standard_error"))
    if name.startswith("accuracy") and isinstance(error, float):
        return f"{figure} ± {error * 100:.2f}"
    low, high = run.figures.get(f"{name} low"), run.figures.get(f"{name} high")
    if isinstance(low, float) and isinstance(high, float):
        return f"{figure} ({low:.2%} to {high:.2%})"
    return figure


def _is_share(name: str) -> bool:
    return (
        name in _HEADLINES
        or name.startswith(("tar@", "dir@", "rank", "b-cubed", "pairwise"))
        or "@promise=" in name
    )
