"""The commands that measure accuracy: ``facestream bench lfw|ytf|ident|fruits|compare``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import platformdirs
import typer

from stream.cli_errors import EXIT_FAILED, Debug, one_line_errors
from stream.terminal import open_console

if TYPE_CHECKING:
    from engine.select import EngineKind
    from training.embedding_cache import VectorCache
    from training.results import BenchRun
    from training.sweeps import Bench, OpenModels, SweepKind

_CMC_RANKS: Final = (1, 2, 3, 5, 10, 20)
"""Points of the curve of how often the right person is among the nearest."""

_FARS: Final = (0.1, 0.01, 0.001)
"""False alarm rates at which identification is judged, and those that thresholds promise."""

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
Enlarge = Annotated[
    float | None,
    typer.Option(min=1.01, max=8.0, help="Show the detector small images enlarged by so much; 2 is good."),
]
SecondLook = Annotated[
    bool, typer.Option("--second-look", help="Find landmarks again in the upright face before it is cut out.")
]
NoFace = Annotated[
    Literal["leave-out", "centre"], typer.Option(help="What becomes of an image without a face.")
]
Workers = Annotated[int, typer.Option(min=1, help="Images that are looked at at the same time.")]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out what is missing or damaged, and say so.")
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep embeddings, so that a second run takes seconds.")
]
Sweep = Annotated[
    Literal["jpeg", "size", "dim", "frames", "quantisation", "engine", "precision", "detector", "flip"]
    | None,
    typer.Option(help="Run once for each setting of one choice, as in FaceNet's tables."),
]
FitOn = Annotated[
    Path | None, typer.Option(help="For --sweep dim: images of other people, for the main directions.")
]
Report = Annotated[Path | None, typer.Option(help="Write the report to this .html file.")]
JsonOut = Annotated[
    Path | None, typer.Option("--json", help="Write all that was found to this file; a folder for a sweep.")
]
LfwRoot = Annotated[Path, typer.Option(help="LFW's folder of people.")]
LfwPairs = Annotated[Path, typer.Option(help="Its pairs.txt, or a list in that form.")]
YtfRoot = Annotated[Path, typer.Option(help="Folder that holds frame_images_DB or aligned_images_DB.")]
YtfImages = Annotated[
    Literal["frame_images_DB", "aligned_images_DB"], typer.Option(help="Which folder is looked at.")
]
Frames = Annotated[int, typer.Option(min=0, help="Most frames of each video; 0 takes all.")]
Choice = Annotated[Literal["first", "spread", "best"], typer.Option(help="Which frames.")]


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
        from training.lfw_bench import run_lfw

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
        from training.ytf_bench import run_ytf

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
    from training.face_models import open_models

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
        with models() as opened, progress("images") as tell:
            run = bench(models=opened, on_progress=tell)
        finish(run, root, report, json_out)
        return
    from training.results import save
    from training.summary import show_sweep
    from training.sweeps import sweep as run_sweep

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
        from training.report import write_sweep_report

        write_sweep_report(runs, report, setting=sweep)


def bench_ident(
    videos: YtfRoot,
    stills: Annotated[
        Path | None, typer.Option(help="Folder of people's photographs, to enrol them by.")
    ] = None,
    scenario: Annotated[
        Literal["still-to-video", "video-to-video", "frame-to-video"],
        typer.Option(help="What is enrolled: photographs, a video, or its best frame."),
    ] = "still-to-video",
    leave_out: Annotated[
        Path | None, typer.Option(help="List to leave out, one a line: people, or videos as Some_Name/3.")
    ] = None,
    distractors: Annotated[
        bool, typer.Option("--distractors", help="Enrol also people of whom there are photographs alone.")
    ] = False,
    openness: Annotated[
        float, typer.Option(min=0.01, help="Probes of enrolled people for each probe of others.")
    ] = 0.5,
    repetitions: Annotated[int, typer.Option(min=1, help="Trials, each with other people enrolled.")] = 10,
    images: YtfImages = "frame_images_DB",
    frames: Frames = 100,
    choice: Choice = "first",
    score: Annotated[
        Literal["templates", "weighted", "mean"],
        typer.Option(
            help="Each photograph is a template, as in a gallery; or the cosine of means, weighted by "
            "quality or not."
        ),
    ] = "templates",
    face: Annotated[
        Literal["centre", "labelled"], typer.Option(help="Which of several faces in a frame.")
    ] = "centre",
    detector: Detector = "yunet",
    embedder: Embedder = "sface",
    engine: Engine = "auto",
    precision: Precision = "auto",
    flip: Flip = False,
    enlarge: Enlarge = None,
    second_look: SecondLook = False,
    workers: Workers = 2,
    skip_missing: SkipMissing = False,
    cache: Cache = True,
    report: Report = None,
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Identify the people in videos: closed set by rank, open set at a false alarm rate."""
    with one_line_errors(debug=debug):
        from training.face_models import open_models
        from training.ident_bench import run_ident

        with (
            open_models(
                detector=detector,
                embedder=embedder,
                kind=engine,
                precision=precision,
                flip=flip,
                enlarge=enlarge,
                second_look=second_look,
                min_score=0.6,
                threads=workers,
                workers=workers,
            ) as models,
            _staged_progress() as tell,
        ):
            run = run_ident(
                videos,
                models,
                stills=stills,
                scenario=scenario,
                leave_out=leave_out,
                distractors=distractors,
                images=images,
                frames_per_video=frames or None,
                frames=choice,
                face=face,
                score=score,
                openness=(openness,),
                repetitions=repetitions,
                ranks=_CMC_RANKS,
                fars=_FARS,
                cache=kept_embeddings(enabled=cache),
                workers=workers,
                skip_unreadable=skip_missing,
                command=command_line(),
                on_progress=tell,
            )
        finish(run, videos if stills is None else _common(videos, stills), report, json_out)


def _common(first: Path, second: Path) -> Path:
    """The nearest folder that holds both."""
    return Path(os.path.commonpath([first.resolve(), second.resolve()]))


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
        from training.face_models import open_models
        from training.fruits import run_fruits
        from training.lfw import locate_lfw, read_lfw_pairs
        from training.lfw_bench import run_lfw
        from training.summary import show_fruits

        kept = kept_embeddings(enabled=True)
        images = locate_lfw(read_lfw_pairs(pairs), root).paths[:timed]
        with progress("images") as tell:
            found = run_fruits(
                partial(
                    run_lfw,
                    root,
                    pairs,
                    cache=kept,
                    workers=workers,
                    command=command_line(),
                    on_progress=tell,
                ),
                partial(open_models, threads=1),
                images,
                limit_ms=limit_ms,
                percentile=percentile,
            )
        show_fruits(found, open_console())
        if report is not None:
            from training.report import TimedRun, write_frontier_report

            points = [TimedRun(each.name, each.at_percentile_ms, each.run) for each in found.points]
            write_frontier_report(points, report, limits_ms=(limit_ms,))
    if found.best is None:
        raise typer.Exit(EXIT_FAILED)


def bench_audit(
    videos: YtfRoot,
    stills: Annotated[Path, typer.Option(help="Folder of people's photographs, one a name.")],
    sheet: Annotated[Path, typer.Option(help="Write pictures to decide by eye to this .html file.")],
    images: YtfImages = "frame_images_DB",
    frames: Frames = 20,
    embedder: Embedder = "sface",
    skip_missing: SkipMissing = False,
    debug: Debug = False,
) -> None:
    """Propose names that photographs and videos give to different people, and videos of somebody else."""
    with one_line_errors(debug=debug):
        from training.audit import RULE, write_contact_sheet
        from training.face_models import open_models
        from training.ident_audit import audit, audit_videos, pictures
        from training.ident_bench import load_ident

        with (
            open_models(embedder=embedder, min_score=0.6, second_look=True) as models,
            _staged_progress() as tell,
        ):
            faces = load_ident(
                videos,
                models,
                stills=stills,
                images=images,
                frames_per_video=frames or None,
                skip_unreadable=skip_missing,
                on_progress=tell,
            )
        people = audit(faces)
        proposed = people + audit_videos(faces, leave_out={each.name for each in people})
        names = {each.name for each in proposed}
        write_contact_sheet(proposed, pictures(faces.stills, names), pictures(faces.videos, names), sheet)
        for each in proposed:
            typer.echo(each.name)
        told = f"{len(people)} people and {len(proposed) - len(people)} videos of others"
        typer.echo(f"{told}; decide by eye: {sheet}. {RULE}", err=True)


def bench_compare(
    first: Annotated[Path, typer.Argument(help="A .json file of `bench lfw` or `bench ytf`.")],
    second: Annotated[Path, typer.Argument(help="Another, over the same pairs.")],
    debug: Debug = False,
) -> None:
    """Say whether the difference of two runs over the same pairs is larger than the noise."""
    with one_line_errors(debug=debug):
        from training.compare import compare, comparison_text
        from training.results import load

        found = compare(load(first), load(second))
        typer.echo(comparison_text(found, first=first.stem, second=second.stem))


def command_line() -> tuple[str, ...]:
    """What was typed, for the record."""
    return ("facestream", *sys.argv[1:])


def kept_embeddings(*, enabled: bool) -> VectorCache:
    """The user's cache of embeddings; one that keeps nothing where it is not wanted."""
    from training.embedding_cache import VectorCache

    return VectorCache(platformdirs.user_cache_path("facestream") / "benchmarks.sqlite" if enabled else None)


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left."""
    with _staged_progress() as tell:
        yield partial(tell, unit)


@contextmanager
def _staged_progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=open_console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda stage, done, total: progress.update(task, description=stage, completed=done, total=total)


def finish(run: BenchRun, root: Path, report: Path | None, json_out: Path | None) -> None:
    """Show what was found, and write it to where it was asked for."""
    from training.results import save
    from training.summary import show_run

    show_run(run, open_console())
    if json_out is not None:
        save(run, json_out)
    if report is not None:
        from training.report import write_report

        write_report(run, report, data_root=root)
