"""Drawings of a benchmark, as SVG for a page. Imports ``matplotlib``, and only when it draws.

Colours are names that the page's style gives a meaning, so that one drawing does for light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engine.errors import ConfigError
from engine.home_folders import lend
from engine.optional_libraries import trouble_with
from training.data.array_types import Scores
from training.data.safe_text import clean
from training.evaluation.roc import Roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nobody would choose, and what the page replaces them with.
_INK, _MUTED, _LINE, _GENUINE, _IMPOSTOR, _ACCENT = (f"#0{n}0{n}0{n}" for n in "123456")
_NAMED: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _GENUINE: "var(--genuine)",
    _IMPOSTOR: "var(--impostor)",
    _ACCENT: "var(--accent)",
}
_WIDTH_IN: Final = 8.6
_NARROW_IN: Final = 4.4
"""Width of the drawing for telephones, on which letters then have their usual size."""
_NARROW_HEIGHT: Final = 1.15
"""Height of that drawing, of the other one's."""
_LONGEST_LABEL: Final = 32
_ROW_OF_LABELS: Final = 80  # characters of labels below an axis that stand beside each other; more are turned
_LOG_SPAN: Final = 20.0
"""Settings that differ by more than this factor are drawn on a logarithmic axis."""


def check_plots() -> None:
    """Check whether plots can be drawn, before anything is measured.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    lend("MPLCONFIGDIR", "matplotlib")
    if trouble := trouble_with("matplotlib", install='pip install "facestream[bench]"'):
        raise ConfigError(f"the report needs matplotlib: {trouble}")


@dataclass
class _Sheet:
    """A figure being drawn, and what it became: an SVG for wide pages and one for narrow ones."""

    figure: Figure
    svg: str = field(default="", init=False)


@contextmanager
def _drawing(name: str, height_in: float) -> Iterator[_Sheet]:
    """A figure to draw on; when the block ends its SVG is in ``svg``.

    Args:
        name: Unlike that of any other drawing of the page, since ids are made of it.
        height_in: Height, inches at a width of ``_WIDTH_IN``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    check_plots()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,  # names may hold dollars
        "font.size": 10.5,
        "font.family": "sans-serif",
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _MUTED,
        "text.color": _INK,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "xtick.labelcolor": _MUTED,
        "ytick.labelcolor": _MUTED,
        "grid.color": _LINE,
        "grid.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # Text is laid out by a font that has not every script; the page's own fonts show it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sheet = _Sheet(Figure(figsize=(_WIDTH_IN, height_in), layout="constrained"))
        yield sheet
        wide = _saved(sheet.figure)
        sheet.figure.set_size_inches(_NARROW_IN, height_in * _NARROW_HEIGHT)
        for axes in sheet.figure.axes:
            axes.tick_params(labelsize=8.5)
        narrow = _saved(sheet.figure)
    sheet.svg = _for_page(wide, name, "roomy") + "\n" + _for_page(narrow, f"{name}-narrow", "narrow")


def _saved(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _for_page(svg: str, name: str, kind: str) -> str:
    """An SVG file as an element of a page: no prologue, no style for all the page, ids of its own.

    Args:
        svg: The file.
        name: Begins its ids.
        kind: Its class, by which the page's style chooses.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub("|".join(_NAMED), lambda match: _NAMED[match[0]], svg)
    # Its text is told in words beside it; a reader of screens need not spell out the ticks.
    return svg.replace("<svg", f'<svg class="{kind}" aria-hidden="true" focusable="false"', 1).strip()


def _label(value: object) -> str:
    """A name as a drawing has room for it; the table beside has all of it."""
    text = clean(value)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "\u2026"


def roc_plot(curve: Roc, points: Sequence[tuple[float, float]], *, name: str = "roc") -> str:
    """Draw true accept rate against false accept rate, which has a logarithmic axis.

    Args:
        curve: What is drawn.
        points: False and true accept rates that the report states, 0..1.
        name: Of the drawing.
    """
    least = 1 / curve.impostors
    left = 10 ** np.floor(np.log10(least) - 0.4)
    with _drawing(name, 3.9) as sheet:
        axes = sheet.figure.subplots()
        # Of the points at one rate the best; those at no false accept at all stand at the left edge.
        last = np.flatnonzero(np.append(np.diff(curve.far) > 0, True))
        far, tar = np.maximum(curve.far[last], left), curve.tar[last]
        axes.step(far, 100 * tar, where="post", color=_GENUINE, linewidth=1.8)
        axes.axvspan(left, least, facecolor=_MUTED, alpha=0.12, linewidth=0)
        seen = tar[far >= least]
        bottom = max(0.0, 100 * float(seen.min()) - max(1.0, 60 * float(1 - seen.min())))
        axes.set(xscale="log", xlim=(left, 1), ylim=(bottom, 100 + 0.04 * (100 - bottom)))
        told = f"fewer than one of\n{curve.impostors:,} impostor pairs:\nnot stated"
        is_low = 100 * tar[0] - bottom < (100 - bottom) / 2
        axes.text(
            np.sqrt(left * least),
            0.94 if is_low else 0.06,
            told,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top" if is_low else "bottom",
            color=_MUTED,
            size=9,
        )
        for far_bound, reached in points:
            axes.plot(far_bound, 100 * reached, "o", color=_GENUINE, markersize=6)
            axes.annotate(
                f"{100 * reached:.2f} %",
                (far_bound, 100 * reached),
                xytext=(4, -6),
                textcoords="offset points",
                va="top",
                size=9.5,
            )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True)
        axes.set_xlabel("false accept rate")
        axes.set_ylabel("true accept rate, %")
    return sheet.svg


def histogram_plot(
    genuine: Scores, impostors: Scores, thresholds: tuple[float, float], *, name: str = "scores"
) -> str:
    """Draw how the similarities of genuine and of impostor pairs lie around the threshold.

    Args:
        genuine: float64 (G,), similarities of pairs of one person.
        impostors: float64 (I,), of two people.
        thresholds: Least and greatest of the folds'.
        name: Of the drawing.
    """
    both = np.concatenate([genuine, impostors, thresholds])
    edges = np.linspace(both.min(), both.max() + 1e-9, 61)
    with _drawing(name, 3.4) as sheet:
        axes = sheet.figure.subplots()
        for scores, colour, told in (
            (impostors, _IMPOSTOR, "two people"),
            (genuine, _GENUINE, "one person"),
        ):
            counts, _ = np.histogram(scores, edges)
            shares = 100 * counts / max(1, len(scores))
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.28)
            axes.stairs(shares, edges, color=colour, linewidth=1.5)
            axes.annotate(
                f"{told}: {len(scores):,}",
                (float(np.median(scores)) if len(scores) else 0.0, shares.max()),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
        axes.axvspan(*thresholds, color=_ACCENT, alpha=0.25, linewidth=0.5)
        axes.axvline(sum(thresholds) / 2, color=_ACCENT, linewidth=1.3, linestyle=(0, (4, 3)))
        axes.annotate(
            "threshold",
            (sum(thresholds) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4),
            textcoords="offset points",
            color=_ACCENT,
            va="top",
        )
        axes.margins(x=0.01, y=0.14)
        axes.set_xlabel("similarity")
        axes.set_ylabel("share of the pairs, %")
    return sheet.svg


def folds_plot(accuracies: Scores, mean: float, standard_error: float, *, name: str = "folds") -> str:
    """Draw the accuracy of each fold, with the mean and its standard error.

    Args:
        accuracies: float64 (K,), 0..1.
        mean: 0..1.
        standard_error: Of the mean.
        name: Of the drawing.
    """
    with _drawing(name, 2.3) as sheet:
        axes = sheet.figure.subplots()
        low, high = 100 * (mean - standard_error), 100 * (mean + standard_error)
        axes.axhspan(low, high, color=_GENUINE, alpha=0.16, linewidth=0)
        axes.axhline(100 * mean, color=_GENUINE, linewidth=1.4)
        places = np.arange(1, len(accuracies) + 1)
        axes.vlines(places, 100 * mean, 100 * accuracies, color=_MUTED, linewidth=1)
        axes.plot(places, 100 * accuracies, "o", color=_GENUINE, markersize=6.5, clip_on=False)
        axes.set_xticks(places)
        axes.set_xlabel("fold")
        axes.set_ylabel("accuracy, %")
        axes.grid(visible=True, axis="y")
        axes.margins(y=0.18)
    return sheet.svg


def stages_plot(seconds: Sequence[tuple[str, float]], *, name: str = "stages") -> str:
    """Draw the time of each stage as a bar, the longest first.

    Args:
        seconds: Stages with their time, at least one.
        name: Of the drawing.
    """
    falling = sorted(seconds, key=lambda stage: -stage[1])
    total = sum(time for _, time in falling) or 1.0
    with _drawing(name, 0.7 + 0.34 * len(falling)) as sheet:
        axes = sheet.figure.subplots()
        bars = axes.barh(range(len(falling)), [time for _, time in falling], 0.62, color=_ACCENT, alpha=0.75)
        told = [f"{time:,.1f} s, {100 * time / total:.0f} %" for _, time in falling]
        axes.bar_label(bars, told, padding=5, color=_INK)
        axes.set_yticks(range(len(falling)), [_label(stage) for stage, _ in falling])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[["left"]].set_visible(False)
        axes.margins(x=0.18)
        axes.set_xlabel("seconds")
    return sheet.svg


def sweep_plot(
    settings: Sequence[str | float],
    values: Scores,
    errors: Scores,
    *,
    setting: str,
    figure: str,
    name: str = "sweep",
) -> str:
    """Draw a figure against a setting: along an axis where all are numbers, side by side otherwise.

    Args:
        settings: Of each run.
        values: float64 (R,), the figure as it is to be drawn.
        errors: float64 (R,), its standard errors; NaN where there is none.
        setting: What was varied.
        figure: What is drawn.
        name: Of the drawing.
    """
    numbers = [float(s) for s in settings if isinstance(s, int | float) and not isinstance(s, bool)]
    numeric = len(numbers) == len(settings)
    with _drawing(name, 3.6) as sheet:
        axes = sheet.figure.subplots()
        places = np.array(numbers) if numeric else np.arange(len(settings), dtype=np.float64)
        order = np.argsort(places, kind="stable")
        axes.errorbar(
            places[order],
            values[order],
            np.nan_to_num(errors[order]),
            fmt="o-" if numeric else "o",
            color=_GENUINE,
            markersize=6.5,
            linewidth=1.4,
            capsize=3,
        )
        if numeric and places.min() > 0 and places.max() / places.min() > _LOG_SPAN:
            axes.set_xscale("log")
            axes.minorticks_off()
        labels = [f"{number:g}" for number in numbers] if numeric else [_label(each) for each in settings]
        is_full = len(labels) * max(map(len, labels)) > _ROW_OF_LABELS
        angle, end = (20, "right") if is_full else (0, "center")
        axes.set_xticks(places, labels, rotation=angle, ha=end, rotation_mode="anchor")
        if not numeric:
            axes.set_xlim(-0.6, len(settings) - 0.4)
        axes.set_xlabel(_label(setting))
        axes.set_ylabel(clean(figure))
        axes.grid(visible=True, axis="y")
        axes.margins(x=0.06, y=0.15)
    return sheet.svg


@dataclass(frozen=True, slots=True)
class TimedPoint:
    """A configuration on the plane of time and accuracy.

    Attributes:
        name: Of the configuration.
        milliseconds: That it takes.
        accuracy: 0..1.
        best: Whether none is both quicker and better.
    """

    name: str
    milliseconds: float
    accuracy: float
    best: bool


def frontier_plot(points: Sequence[TimedPoint], limits_ms: Sequence[float], *, name: str = "frontier") -> str:
    """Draw accuracy against time, the frontier of what is worth its time, and the limits.

    Args:
        points: At least one.
        limits_ms: Drawn as upright lines.
        name: Of the drawing.
    """
    check_plots()
    from matplotlib.ticker import LogLocator

    with _drawing(name, 4.4) as sheet:
        axes = sheet.figure.subplots()
        for limit in limits_ms:
            axes.axvline(limit, color=_IMPOSTOR, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                f"{limit:g} ms",
                (limit, 0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4),
                textcoords="offset points",
                color=_IMPOSTOR,
                size=9,
            )
        best = sorted((point for point in points if point.best), key=lambda point: point.milliseconds)
        axes.plot(
            [point.milliseconds for point in best],
            [100 * point.accuracy for point in best],
            color=_GENUINE,
            linewidth=1.6,
            drawstyle="steps-post",
        )
        for point in points:
            _mark(axes, point)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(visible=True)
        axes.margins(x=0.2, y=0.14)
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("accuracy, %")
    return sheet.svg


def _mark(axes: Axes, point: TimedPoint) -> None:
    colour = _GENUINE if point.best else _MUTED
    place = (point.milliseconds, 100 * point.accuracy)
    axes.plot(*place, "o", color=colour, markersize=7 if point.best else 5)
    axes.annotate(
        _label(point.name),
        place,
        xytext=(-7, 5) if point.best else (7, -4),
        textcoords="offset points",
        ha="right" if point.best else "left",
        size=9.5,
        color=_INK if point.best else _MUTED,
    )
