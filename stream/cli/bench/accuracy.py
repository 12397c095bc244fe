"""The commands that measure accuracy: ``facestream bench lfw|ytf|fruits|compare``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.errors import ModelError
from stream.cli.bench.options import (
    Cache,
    Choice,
    Detector,
    Embedder,
    Engine,
    Enlarge,
    FitOn,
    Flip,
    Frames,
    JsonOut,
    LfwPairs,
    LfwRoot,
    NoFace,
    Precision,
    Report,
    SecondLook,
    SkipMissing,
    Sweep,
    Workers,
    YtfImages,
    YtfRoot,
    check_bench,
    check_fit_on,
    command_line,
    finish,
    kept_embeddings,
    left_out,
    progress,
)
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.console.progress import Progress
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from engine.opening.select import EngineKind
    from training.data.cache import VectorCache
    from training.evaluation.sweeps import Bench, OpenModels, SweepKind


def bench_lfw(
    root: LfwRoot,
    pairs: LfwPairs,
    images: Annotated[
        Literal["deepfunneled", "funneled", "original"],
        typer.Option(help="Which of LFW's sets it is; nothing in the files tells."),
    ] = "deepfunneled",
    detector: Detector = "yunet",
    embedder: Embedder = "sface",
    engine: Engine = "auto",
    precision: Precision = "auto",
    flip: Flip = False,
    enlarge: Enlarge = None,
    second_look: SecondLook = False,
    no_face: NoFace = "leave-out",
    workers: Workers = 2,
    skip_missing: SkipMissing = False,
    cache: Cache = True,
    sweep: Sweep = None,
    fit_on: FitOn = None,
    report: Report = None,
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Verify the pairs of Labeled Faces in the Wild: ten folds, labelled outside data."""
    with one_line_errors(debug=debug):
        check_bench(
            {"--root": root, "--pairs": pairs, "--fit-on": fit_on},
            report=report,
            json_out=json_out,
            is_sweep=sweep is not None,
        )
        check_fit_on(sweep, fit_on)
        with Progress("loading"):
            from training.data.lfw_files import locate_lfw, read_lfw_pairs
            from training.evaluation.lfw import run_lfw

        locate_lfw(read_lfw_pairs(pairs), root, skip_missing=skip_missing)  # before models are loaded
        kept = kept_embeddings(enabled=cache)
        _measure(
            partial(
                run_lfw,
                root,
                pairs,
                images=images,
                no_face=no_face,
                cache=kept,
                workers=workers,
                skip_missing=skip_missing,
                command=command_line(),
            ),
            _opener(
                detector,
                embedder,
                engine,
                precision,
                flip=flip,
                enlarge=enlarge,
                second_look=second_look,
                workers=workers,
            ),
            root=root,
            sweep=sweep,
            fit_on=fit_on,
            cache=kept,
            workers=workers,
            report=report,
            json_out=json_out,
        )


def bench_ytf(
    root: YtfRoot,
    pairs: Annotated[Path, typer.Option(help="splits.txt, splits_corrected.txt, or a list in that form.")],
    images: YtfImages = "frame_images_DB",
    frames: Frames = 100,
    choice: Choice = "first",
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
    enlarge: Enlarge = None,
    second_look: SecondLook = False,
    no_face: NoFace = "leave-out",
    workers: Workers = 2,
    skip_missing: SkipMissing = False,
    cache: Cache = True,
    sweep: Sweep = None,
    fit_on: FitOn = None,
    report: Report = None,
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Verify the pairs of videos of YouTube Faces."""
    with one_line_errors(debug=debug):
        check_bench(
            {"--root": root, "--pairs": pairs, "--fit-on": fit_on},
            report=report,
            json_out=json_out,
            is_sweep=sweep is not None,
        )
        check_fit_on(sweep, fit_on)
        with Progress("loading"):
            from training.data.ytf_files import locate_ytf, read_ytf_pairs
            from training.evaluation.ytf import run_ytf

        locate_ytf(read_ytf_pairs(pairs), root, images=images, skip_missing=skip_missing)
        kept = kept_embeddings(enabled=cache)
        _measure(
            partial(
                run_ytf,
                root,
                pairs,
                images=images,
                frames=frames or None,
                choice=choice,
                score=score,
                face=face,
                no_face=no_face,
                balanced=balanced,
                cache=kept,
                workers=workers,
                skip_missing=skip_missing,
                command=command_line(),
            ),
            _opener(
                detector,
                embedder,
                engine,
                precision,
                flip=flip,
                enlarge=enlarge,
                second_look=second_look,
                workers=workers,
            ),
            root=root,
            sweep=sweep,
            fit_on=fit_on,
            cache=kept,
            workers=workers,
            report=report,
            json_out=json_out,
        )


def _opener(
    detector: str,
    embedder: str,
    engine: EngineKind,
    precision: str,
    *,
    flip: bool,
    enlarge: float | None,
    second_look: bool,
    workers: int,
) -> OpenModels:
    """Opens the models of a verification benchmark, whose workers each have a thread of the engines."""
    from training.data.model_setup import open_models

    return partial(
        open_models,
        detector=detector,
        embedder=embedder,
        kind=engine,
        precision=precision,
        flip=flip,
        enlarge=enlarge,
        second_look=second_look,
        threads=workers,
        workers=workers,
    )


def _measure(
    bench: Bench,
    models: OpenModels,
    *,
    root: Path,
    sweep: SweepKind | None,
    fit_on: Path | None,
    cache: VectorCache,
    workers: int,
    report: Path | None,
    json_out: Path | None,
) -> None:
    """Run a verification benchmark once, or once for each setting of a sweep."""
    if sweep is None:
        with progress("images") as tell, models() as opened:
            run = bench(models=opened, on_progress=tell)
        finish(run, root, report, json_out)
        return
    from training.data.results import save
    from training.evaluation.sweeps import sweep as run_sweep
    from training.report.summary import show_sweep

    skipped: list[str] = []
    with progress(sweep) as tell:
        runs = run_sweep(
            sweep,
            lambda **options: bench(on_progress=tell, **options),
            models,
            fit_on=fit_on,
            cache=cache,
            workers=workers,
            on_skipped=lambda setting, reason: skipped.append(f"{setting}: {reason}"),
        )
    show_sweep(sweep, runs, skipped, open_console())
    if json_out is not None:
        for setting, run in runs:
            save(run, json_out / f"{run.benchmark}-{sweep}-{setting.replace(' ', '-')}.json")
    if report is not None:
        from training.report.html import write_sweep_report

        write_sweep_report(runs, report, setting=sweep)


def bench_fruits(
    root: LfwRoot,
    pairs: LfwPairs,
    limit_ms: Annotated[float, typer.Option(min=1.0, help="For one image, all stages together.")] = 500.0,
    percentile: Annotated[
        float, typer.Option(min=1.0, max=100.0, help="Share of the images that must keep the limit.")
    ] = 100.0,
    timed: Annotated[int, typer.Option(min=10, help="Images that are timed.")] = 200,
    workers: Workers = 2,
    report: Report = None,
    debug: Debug = False,
) -> None:
    """The best accuracy within a limit of time on one core: detection, alignment, embedding, matching."""
    with one_line_errors(debug=debug):
        check_bench({"--root": root, "--pairs": pairs}, report=report)
        with Progress("loading"):
            from training.data.lfw_files import locate_lfw, read_lfw_pairs
            from training.data.model_setup import open_models
            from training.evaluation.latency_budget import configurations_here, run_fruits
            from training.evaluation.lfw import run_lfw
            from training.report.summary import show_fruits

            tried, lacking = configurations_here()
        for line in left_out(lacking):
            typer.echo(line, err=True)
        if not tried:
            raise ModelError(
                "no configuration has all of its models; install those that the lines above name"
            )
        kept = kept_embeddings(enabled=True)
        images = locate_lfw(read_lfw_pairs(pairs), root).paths[:timed]
        with Progress("starting") as bar:
            found = run_fruits(
                partial(
                    run_lfw,
                    root,
                    pairs,
                    cache=kept,
                    workers=workers,
                    command=command_line(),
                    on_progress=lambda done, total: bar.update(done=done, total=total),
                ),
                partial(open_models, threads=1),
                images,
                limit_ms=limit_ms,
                percentile=percentile,
                configurations=tried,
                on_configuration=lambda name: bar.update(what=_place(name, list(tried)), done=0, total=0),
            )
        show_fruits(found, open_console())
        if report is not None:
            from training.report.html import TimedRun, write_frontier_report

            points = [TimedRun(each.name, each.at_percentile_ms, each.run) for each in found.points]
            write_frontier_report(points, report, limits_ms=(limit_ms,))
    if found.best is None:
        raise typer.Exit(EXIT_FAILED)


def _place(name: str, of: list[str]) -> str:
    """Which of several configurations it is."""
    return f"{name} ({of.index(name) + 1} of {len(of)})"


def bench_compare(
    first: Annotated[Path, typer.Argument(help="A .json file of `bench lfw` or `bench ytf`.")],
    second: Annotated[Path, typer.Argument(help="Another, over the same pairs.")],
    debug: Debug = False,
) -> None:
    """Say whether the difference of two runs over the same pairs is larger than the noise."""
    with one_line_errors(debug=debug):
        from training.data.results import load
        from training.evaluation.compare import compare, comparison_text

        found = compare(load(first), load(second))
        typer.echo(comparison_text(found, first=first.stem, second=second.stem))
