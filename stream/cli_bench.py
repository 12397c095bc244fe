"""The commands that measure: ``facestream bench …``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import platformdirs
import typer
from rich.console import Console

from engine.errors import ConfigError
from stream.cli_errors import Debug, one_line_errors

if TYPE_CHECKING:
    from training.results import BenchRun

bench_app = typer.Typer(help="Measure speed and accuracy.", no_args_is_help=True, rich_markup_mode=None)


@bench_app.command("engine")
def bench_engine(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Of `facestream models list`.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Images in one call.")] = "1,4,8",
    threads: Annotated[int, typer.Option(min=1, help="That compute.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.05, help="For each point of the table.")] = 0.8,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Of the images, for models that take any size.")
    ] = "640x384",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and throughput into this .png or .svg.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Latency and throughput of every engine, beside what the processor can compute at most."""
    with one_line_errors(debug=debug):
        from stream.bench_engine import bench_engine as bench

        width, *rest = _whole_numbers(size, "x", "--size")
        if len(rest) != 1:
            raise ConfigError(f"--size: expected width and height as 640x384, got {size!r}")
        try:
            bench(
                models or ("yunet", "sface"),
                console=Console(),
                batches=_whole_numbers(batch, ",", "--batch"),
                seconds=seconds,
                threads=threads,
                size_wh=(width, rest[0]),
                json_out=json_out,
                plot_out=plot,
                command=("facestream", *sys.argv[1:]),
            )
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc


def _whole_numbers(text: str, separator: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise ConfigError(
            f"{option}: expected whole numbers with {separator!r} between, got {text!r}"
        ) from None


@bench_app.command("stream")
def bench_stream(
    source: Annotated[
        Path | None,
        typer.Argument(help="A video file; without it, the demo's clip as a camera would send it."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is run; the median counts.")] = 3,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Frames a second of the whole job, as ratios to decoding alone and to a plain OpenCV loop."""
    with one_line_errors(debug=debug):
        from stream.bench import bench_stream as bench

        bench(source, rounds=rounds, console=Console(), json_out=json_out)


Detector = Annotated[str, typer.Option(help="A detector of `facestream models list`.")]
Embedder = Annotated[str, typer.Option(help="An embedder of the same; fused is the most accurate.")]
Engine = Annotated[
    Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"],
    typer.Option(help="What computes the embedder."),
]
Precision = Annotated[
    Literal["auto", "fp32", "fp16", "bf16", "int8"], typer.Option(help="What it computes in.")
]
Flip = Annotated[bool, typer.Option("--flip/--no-flip", help="Add the embedding of the mirrored face.")]
NoFace = Annotated[
    Literal["leave-out", "centre"],
    typer.Option(help="What becomes of an image in which nothing is detected."),
]
Workers = Annotated[int, typer.Option(min=1, help="Images that are looked at at the same time.")]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out what is missing or damaged, and say so.")
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep embeddings, so that a second run takes seconds.")
]
Report = Annotated[Path | None, typer.Option(help="Write the report to this .html file.")]
JsonOut = Annotated[Path | None, typer.Option("--json", help="Write all that was found to this file.")]


@bench_app.command("lfw")
def bench_lfw(
    root: Annotated[Path, typer.Option(help="LFW's folder of people.")],
    pairs: Annotated[Path, typer.Option(help="Its pairs.txt, or a list in that form.")],
    images: Annotated[
        Literal["deepfunneled", "funneled", "original"],
        typer.Option(help="Which of LFW's sets it is; nothing in the files tells."),
    ] = "deepfunneled",
    detector: Detector = "yunet",
    embedder: Embedder = "sface",
    engine: Engine = "auto",
    precision: Precision = "auto",
    flip: Flip = False,
    no_face: NoFace = "leave-out",
    workers: Workers = 2,
    skip_missing: SkipMissing = False,
    cache: Cache = True,
    report: Report = None,
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Verify the pairs of Labeled Faces in the Wild: ten folds, labelled outside data."""
    with one_line_errors(debug=debug):
        from training.embedding_cache import VectorCache
        from training.face_models import open_models
        from training.lfw_bench import run_lfw

        with (
            open_models(
                detector=detector,
                embedder=embedder,
                kind=engine,
                precision=precision,
                flip=flip,
                threads=1,
                workers=workers,
            ) as models,
            _progress("images") as tell,
        ):
            run = run_lfw(
                root,
                pairs,
                models=models,
                images=images,
                no_face=no_face,
                cache=VectorCache(_cache_path() if cache else None),
                workers=workers,
                skip_missing=skip_missing,
                command=("facestream", *sys.argv[1:]),
                on_progress=tell,
            )
        _finish(run, root, report, json_out)


@bench_app.command("ytf")
def bench_ytf(
    root: Annotated[Path, typer.Option(help="Folder that holds frame_images_DB or aligned_images_DB.")],
    pairs: Annotated[Path, typer.Option(help="splits.txt, splits_corrected.txt, or a list in that form.")],
    images: Annotated[
        Literal["frame_images_DB", "aligned_images_DB"], typer.Option(help="Which folder is looked at.")
    ] = "frame_images_DB",
    frames: Annotated[int, typer.Option(min=0, help="Most frames of each video; 0 takes all.")] = 100,
    choice: Annotated[Literal["first", "spread", "best"], typer.Option(help="Which of them.")] = "first",
    score: Annotated[
        Literal["all-pairs", "mean", "weighted", "nearest"],
        typer.Option(
            help="Of two videos: FaceNet's mean over all pairs of frames, of re-normalised means, of means "
            "weighted by quality as the stream's are, or of the nearest pair."
        ),
    ] = "all-pairs",
    face: Annotated[
        Literal["labelled", "centre"], typer.Option(help="Which of several faces in a frame.")
    ] = "labelled",
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Accuracy weighs genuine and impostor pairs alike.")
    ] = False,
    detector: Detector = "yunet",
    embedder: Embedder = "sface",
    engine: Engine = "auto",
    precision: Precision = "auto",
    flip: Flip = False,
    no_face: NoFace = "leave-out",
    workers: Workers = 2,
    skip_missing: SkipMissing = False,
    cache: Cache = True,
    report: Report = None,
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Verify the pairs of videos of YouTube Faces."""
    with one_line_errors(debug=debug):
        from training.embedding_cache import VectorCache
        from training.face_models import open_models
        from training.ytf_bench import run_ytf

        with (
            open_models(
                detector=detector,
                embedder=embedder,
                kind=engine,
                precision=precision,
                flip=flip,
                threads=1,
                workers=workers,
            ) as models,
            _progress("videos") as tell,
        ):
            run = run_ytf(
                root,
                pairs,
                models=models,
                images=images,
                frames=frames or None,
                choice=choice,
                score=score,
                face=face,
                no_face=no_face,
                balanced=balanced,
                cache=VectorCache(_cache_path() if cache else None),
                workers=workers,
                skip_missing=skip_missing,
                command=("facestream", *sys.argv[1:]),
                on_progress=tell,
            )
        _finish(run, root, report, json_out)


def _cache_path() -> Path:
    return platformdirs.user_cache_path("facestream") / "benchmarks.sqlite"


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _finish(run: BenchRun, root: Path, report: Path | None, json_out: Path | None) -> None:
    """Show what was found, and write it to where it was asked for."""
    from training.results import save
    from training.summary import show_run

    show_run(run, Console())
    if json_out is not None:
        save(run, json_out)
    if report is not None:
        from training.report import write_report

        write_report(run, report, data_root=root)
