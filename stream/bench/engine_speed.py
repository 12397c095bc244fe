"""Speed of models on every engine and precision of this machine, against what its processor can do."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from engine.backends.benchmarking import SLICES, Timing, measure_peak, random_feeds, time_in_turns
from engine.backends.machine import processor_key, this_machine
from engine.compilation.runtimes import why_unavailable
from engine.compilation.store import CompiledKind
from engine.errors import ModelError, SinkError
from engine.graphs.cost import count_macs
from engine.graphs.edits import parse_model
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.protocol import Engine
from stream.bench.measurements import STOCK, EngineBench, Point
from stream.bench.plots import check_plot, draw
from stream.console.progress import Progress
from stream.console.terminal import show_commands

KINDS: Final[tuple[CompiledKind, ...]] = ("openvino", "onnxruntime", "tensorrt", "tensorrt-rtx")
PRECISIONS: Final = ("fp32", "bf16", "fp16", "int8")

_PEAK_SECONDS: Final = 0.5
_VERSIONS_OF: Final = ("facestream", "openvino", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model, its engines by (kind, precision), and the image size that they get."""

    package: ModelPackage
    engines: dict[tuple[str, str], Engine]
    size_wh: tuple[int, int]
    macs: int


def bench_engine(
    models: Sequence[str | Path] = ("yunet", "sface"),
    *,
    console: Console,
    batches: Sequence[int] = (1, 4, 8),
    kinds: Sequence[str] | None = None,
    precisions: Sequence[str] = PRECISIONS,
    size_wh: tuple[int, int] = (640, 384),
    threads: int = 1,
    seconds: float = 0.8,
    json_out: Path | None = None,
    plot_out: Path | None = None,
    command: Sequence[str] = (),
) -> EngineBench:
    """Time models on engines in turns, print the table, write the figures and the plot.

    Args:
        models: Names or files, as ``load_model`` takes them.
        console: For the table.
        batches: Images in a call.
        kinds: Of engines; by default all that can run on this machine.
        precisions: That are tried on each; what does not run here is left out and said.
        size_wh: Of the images, for models that take any size.
        threads: That compute.
        seconds: For each engine, precision, batch and model.
        json_out: File to write the figures to.
        plot_out: File to draw the plot to; ``.png`` or ``.svg``.
        command: How this was called, for the JSON.

    Raises:
        FacestreamError: A model cannot be loaded or run, a file not be written, or the plot not be drawn.
        ValueError: A number is out of range.
    """
    _check(batches, threads, seconds, plot_out)
    kinds = kinds or [kind for kind in KINDS if why_unavailable(kind, purpose="run") is None]
    left_out: dict[str, list[str]] = {}
    with ExitStack() as stack, Progress("opening engines") as progress:
        subjects = []
        for model in models:
            package = load_model(model)
            subjects.append(
                _open(package, kinds, precisions, size_wh=size_wh, threads=threads, left_out=left_out)
            )
            for engine in subjects[-1].engines.values():
                stack.enter_context(closing(engine))
        peaks = _peaks(subjects, threads, progress)
        points = _measure(subjects, batches, seconds, peaks, progress)
    bench = EngineBench(tuple(points), peaks, left_out)
    _show(bench, threads, console)
    if json_out is not None:
        packages = [subject.package for subject in subjects]
        _write(_tree(bench, packages, threads, command), json_out)
    if plot_out is not None:
        draw(bench, plot_out)
    return bench


def _check(batches: Sequence[int], threads: int, seconds: float, plot_out: Path | None) -> None:
    if not batches or min(batches) < 1 or threads < 1 or seconds <= 0:
        raise ValueError(
            f"expected batches and threads of at least 1 and seconds above 0, "
            f"got {list(batches)}, {threads} and {seconds}"
        )
    if plot_out is not None:
        check_plot(plot_out)  # now, not after the measuring


def _open(
    package: ModelPackage,
    kinds: Sequence[str],
    precisions: Sequence[str],
    *,
    size_wh: tuple[int, int],
    threads: int,
    left_out: dict[str, list[str]],
) -> _Subject:
    from engine.backends.onnxruntime import OnnxRuntimeEngine

    data = package.read()
    width, height = size_wh = package.input_size_wh or size_wh
    macs = count_macs(parse_model(data, origin=str(package.onnx_path)), (1, 3, height, width))
    engines: dict[tuple[str, str], Engine] = {(STOCK, "fp32"): OnnxRuntimeEngine(data, threads=threads)}
    for kind in kinds:
        for precision in precisions:
            try:
                engines[kind, precision] = _open_one(package, kind, precision, threads)
            except ModelError as exc:
                command = f"facestream compile MODEL --engine {kind} --precision {precision}"
                reason = f"not compiled; run: {command}" if "facestream compile" in str(exc) else str(exc)
                left_out.setdefault(f"{kind} {precision}: {reason}", []).append(package.name)
    return _Subject(package, engines, size_wh, macs)


def _open_one(package: ModelPackage, kind: Any, precision: str, threads: int) -> Engine:
    return open_engine(package, kind=kind, precision=precision, threads=threads)


def _peaks(subjects: Sequence[_Subject], threads: int, progress: Progress) -> dict[str, float]:
    wanted = {engine.precision for subject in subjects for engine in subject.engines.values()}
    progress.update(what="measuring the processor's peak", done=0, total=len(wanted))
    peaks: dict[str, float] = {}
    for precision in (each for each in PRECISIONS if each in wanted):
        with suppress(ModelError):  # its share is not known then
            peaks[precision] = measure_peak(precision, threads=threads, seconds=_PEAK_SECONDS) * 2 / 1e9
        progress.advance()
    return peaks


def _measure(
    subjects: Sequence[_Subject],
    batches: Sequence[int],
    seconds: float,
    peaks: dict[str, float],
    progress: Progress,
) -> list[Point]:
    turns = sum(len(subject.engines) for subject in subjects) * len(batches) * SLICES
    progress.update(done=0, total=turns)
    points: list[Point] = []
    for subject in subjects:
        for batch in batches:
            progress.update(what=f"{subject.package.name}, batch {batch}")
            calls = {", ".join(key): _call(engine, subject, batch) for key, engine in subject.engines.items()}
            timings = time_in_turns(calls, seconds=seconds, on_slice=lambda _: progress.advance())
            stock_ms = timings[f"{STOCK}, fp32"].p50_ms
            points += [
                _point(
                    subject, key, batch=batch, timing=timings[", ".join(key)], stock_ms=stock_ms, peaks=peaks
                )
                for key in subject.engines
            ]
    return points


def _call(engine: Engine, subject: _Subject, batch: int) -> Callable[[], object]:
    width, height = subject.size_wh
    (spec,) = engine.inputs
    shape = (batch, 3, height, width) if spec.shape[1] == 3 else (batch, height, width, 3)
    feeds = random_feeds(engine, shape)
    return lambda: engine.infer(feeds)


def _point(
    subject: _Subject,
    key: tuple[str, str],
    *,
    batch: int,
    timing: Timing,
    stock_ms: float,
    peaks: dict[str, float],
) -> Point:
    precision = subject.engines[key].precision
    gflops = 2 * subject.macs * batch / (timing.p50_ms * 1e6)
    peak = peaks.get(precision)
    return Point(
        model=subject.package.name,
        engine=key[0],
        precision=precision,
        batch=batch,
        calls=len(timing.seconds),
        least_ms=timing.least_ms,
        p50_ms=timing.p50_ms,
        p99_ms=timing.p99_ms,
        images_per_s=batch * timing.calls_per_s,
        macs=subject.macs,
        gflops=gflops,
        share_of_peak=gflops / peak if peak else None,
        times_stock=stock_ms / timing.p50_ms,
    )


def _show(bench: EngineBench, threads: int, console: Console) -> None:
    for model in dict.fromkeys(point.model for point in bench.points):
        points = [point for point in bench.points if point.model == model]
        title = (
            f"{model}: {points[0].macs / 1e6:.0f} million multiply-accumulates an image, threads: {threads}"
        )
        table = Table(title=title, title_justify="left")
        table.add_column("engine")
        table.add_column("precision")
        for heading in ("batch", "p50 ms", "p99 ms", "images/s", "GFLOP/s", "of peak", "of stock"):
            table.add_column(heading, justify="right")
        for index, point in enumerate(points):
            last = index + 1 == len(points) or points[index + 1].batch != point.batch
            table.add_row(*_cells(point), end_section=last)
        console.print(table)
    peaks = ", ".join(f"{name} {gflops:.0f}" for name, gflops in bench.peak_gflops.items())
    console.print(f"the processor's measured peak, GFLOP/s: {peaks or 'not known'}")
    for reason, models in bench.left_out.items():
        what, _, command = reason.partition("; run: ")
        left_out = f"left out: {what} ({', '.join(models)})"
        if command:
            show_commands(console, [(left_out, command)])
        else:
            console.print(left_out, style="dim", highlight=False, markup=False)


def _cells(point: Point) -> list[str]:
    share = point.share_of_peak
    return [
        point.engine,
        point.precision,
        str(point.batch),
        f"{point.p50_ms:.2f}",
        f"{point.p99_ms:.2f}",
        f"{point.images_per_s:.0f}",
        f"{point.gflops:.0f}",
        "" if share is None else f"{share:.0%}",
        f"{point.times_stock:.1f} x",
    ]


def _tree(
    bench: EngineBench, packages: Sequence[ModelPackage], threads: int, command: Sequence[str]
) -> dict[str, Any]:
    machine = this_machine()
    return {
        "format": "facestream-bench-engine/1",
        "command": list(command),
        "machine": asdict(machine) | {"key": processor_key(machine)},
        "versions": {name: _version(name) for name in _VERSIONS_OF},
        "models": {package.name: {"sha256": package.sha256} for package in packages},
        "threads": threads,
        "peak_gflops": bench.peak_gflops,
        "points": [asdict(point) for point in bench.points],
        "left_out": bench.left_out,
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _write(tree: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")
    except OSError as exc:
        raise SinkError(f"{path}: cannot write the figures: {exc.strerror}; choose another place") from exc
