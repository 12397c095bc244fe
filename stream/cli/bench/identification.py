"""The commands ``facestream bench ident`` and ``facestream bench audit``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from stream.app import preflight
from stream.cli.bench.options import (
    Cache,
    Choice,
    Detector,
    Embedder,
    Engine,
    Enlarge,
    Flip,
    Frames,
    JsonOut,
    Precision,
    Report,
    SecondLook,
    SkipMissing,
    Workers,
    YtfImages,
    YtfRoot,
    check_bench,
    command_line,
    finish,
    kept_embeddings,
    staged_progress,
)
from stream.cli.errors import Debug, one_line_errors
from stream.console.progress import Progress

_CMC_RANKS: Final = (1, 2, 3, 5, 10, 20)
"""Points of the curve of how often the right person is among the nearest."""

_FARS: Final = (0.1, 0.01, 0.001)
"""False alarm rates at which identification is judged, and those that thresholds promise."""


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
        check_bench(
            {"--videos": videos, "--stills": stills, "--leave-out": leave_out},
            report=report,
            json_out=json_out,
        )
        with Progress("loading"):
            from training.data.model_setup import open_models
            from training.data.names import read_names
            from training.data.person_faces import find_stills, find_videos
            from training.evaluation.identification.benchmark import run_ident

        find_videos(videos, images=images)  # what is wrong with them is said before models are loaded
        if stills is not None:
            find_stills(stills)
        if leave_out is not None:
            read_names(leave_out)

        with (
            staged_progress() as tell,
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
        preflight.check_output(sheet, "--sheet", room_mib=5.0)
        preflight.check_page(sheet, "--sheet")
        check_bench({"--videos": videos, "--stills": stills})
        with Progress("loading"):
            from training.data.model_setup import open_models
            from training.evaluation.identification.audit import audit, audit_videos, pictures
            from training.evaluation.identification.benchmark import load_ident
            from training.evaluation.mislabelled import RULE
            from training.report.contact_sheet import write_contact_sheet

        with (
            staged_progress() as tell,
            open_models(embedder=embedder, min_score=0.6, second_look=True) as models,
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
