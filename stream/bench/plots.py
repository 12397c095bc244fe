"""Draw what ``bench engine`` measured. The only file of the live half that imports ``matplotlib``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.errors import ConfigError, SinkError
from engine.home_folders import lend
from engine.optional_libraries import trouble_with
from stream.bench.measurements import STOCK, EngineBench, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = {
    (STOCK, "fp32"): "#9aa0a6",
    ("onnxruntime", "fp32"): "#f2b134",
    ("onnxruntime", "fp16"): "#d98c1f",
    ("onnxruntime", "int8"): "#a8600f",
    ("openvino", "fp32"): "#8ecae6",
    ("openvino", "fp16"): "#5aa9d6",
    ("openvino", "bf16"): "#1f77b4",
    ("openvino", "int8"): "#0b3c6f",
}
_OTHER_COLOURS: Final = ("#59a14f", "#b07aa1", "#e15759", "#76b7b2")
_GROUP_WIDTH: Final = 0.84


def check_plot(path: Path) -> None:
    """Check whether a plot can be drawn, before anything is measured.

    Raises:
        ConfigError: The name ends otherwise than in ``.png`` or ``.svg``, or matplotlib is not installed.
    """
    if path.suffix.lower() not in {".png", ".svg"}:
        raise ConfigError(f"{path}: expected a plot whose name ends in .png or .svg")
    lend("MPLCONFIGDIR", "matplotlib")
    if trouble := trouble_with("matplotlib", install='pip install "facestream[bench]"'):
        raise ConfigError(f"plots need matplotlib: {trouble}")


def draw(bench: EngineBench, path: Path) -> None:
    """Draw images a second, and the share of the processor's peak, of each model by batch and engine.

    Args:
        bench: At least one point.
        path: ``.png`` or ``.svg``, written to.

    Raises:
        ConfigError: As ``check_plot``.
        SinkError: The file cannot be written.
    """
    check_plot(path)
    lend("MPLCONFIGDIR", "matplotlib")
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(point.model for point in bench.points))
    figure = Figure(figsize=(11, 1.0 + 3.4 * len(models)), dpi=130, layout="constrained")
    grid = figure.subplots(len(models), 2, squeeze=False)
    seen = dict.fromkeys((point.engine, point.precision) for point in bench.points)
    series = [key for key in _COLOURS if key in seen] + [key for key in seen if key not in _COLOURS]
    for model, (speed, share) in zip(models, grid, strict=True):
        points = [point for point in bench.points if point.model == model]
        _bars(speed, points, series, [1e3 * p.batch / p.p50_ms for p in points], "{:.0f}")
        speed.set_title(f"{model}: images a second (more is better)", loc="left", fontsize=10)
        _bars(share, points, series, [100 * (p.share_of_peak or 0) for p in points], "{:.0f} %")
        share.set_title(f"{model}: share of the peak in that precision", loc="left", fontsize=10)
        share.set_ylabel("per cent")
    handles, labels = grid[0][0].get_legend_handles_labels()
    peaks = ", ".join(f"{name} {gflops:.0f}" for name, gflops in bench.peak_gflops.items())
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
    figure.suptitle(f"median calls; measured peak in GFLOP/s: {peaks or 'not known'}", fontsize=10)
    try:
        figure.savefig(path)
    except OSError as exc:
        raise SinkError(f"{path}: cannot write the plot: {exc.strerror}; choose another place") from exc


def _bars(
    axes: Axes,
    points: Sequence[Point],
    series: Sequence[tuple[str, str]],
    values: Sequence[float],
    label: str,
) -> None:
    """Groups of bars, a group for each batch, a bar for each engine and precision."""
    batches = list(dict.fromkeys(point.batch for point in points))
    width = _GROUP_WIDTH / len(series)
    by_place = {(p.engine, p.precision, p.batch): v for p, v in zip(points, values, strict=True)}
    for number, (engine, precision) in enumerate(series):
        colour = _COLOURS.get((engine, precision), _OTHER_COLOURS[number % len(_OTHER_COLOURS)])
        heights = [by_place.get((engine, precision, batch), 0.0) for batch in batches]
        places = [place - _GROUP_WIDTH / 2 + width * (number + 0.5) for place in range(len(batches))]
        name = engine if engine == STOCK else f"{engine} {precision}"
        bars = axes.bar(places, heights, width * 0.92, color=colour, label=name)
        axes.bar_label(bars, [label.format(h) if h else "" for h in heights], fontsize=7, padding=1)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
