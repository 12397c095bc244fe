"""The command ``facestream bench cluster``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    SecondLook,
    SkipMissing,
    Workers,
    YtfImages,
    YtfRoot,
    check_bench,
    command_line,
    finish,
    kept_embeddings,
    progress,
)
from stream.cli.errors import Debug, one_line_errors
from stream.console.progress import Progress


def bench_cluster(
    videos: YtfRoot,
    cut: Annotated[
        float | None,
        typer.Option(
            min=-1.0, max=1.0, help="Similarity from which on groups are one person; else the model's preset."
        ),
    ] = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="List to leave out, one a line: people, or videos as Some_Name/3.")
    ] = None,
    images: YtfImages = "frame_images_DB",
    frames: Frames = 100,
    choice: Choice = "first",
    rivals: Annotated[
        bool, typer.Option("--rivals/--no-rivals", help="Also scikit-learn's DBSCAN and HDBSCAN.")
    ] = True,
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
    json_out: JsonOut = None,
    debug: Debug = False,
) -> None:
    """Group videos by person without their names, then hold the groups against the names."""
    with one_line_errors(debug=debug):
        check_bench({"--videos": videos, "--leave-out": leave_out}, json_out=json_out)
        with Progress("loading"):
            from training.data.model_setup import open_models
            from training.evaluation.clustering import check_rivals, run_cluster

        if rivals:
            check_rivals()
        with (
            progress("videos") as tell,
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
            run = run_cluster(
                videos,
                models,
                cut=models.cut if cut is None else cut,
                caution=models.caution,
                leave_out=leave_out,
                images=images,
                frames_per_video=frames or None,
                frames=choice,
                rivals=rivals,
                cache=kept_embeddings(enabled=cache),
                workers=workers,
                skip_unreadable=skip_missing,
                command=command_line(),
                on_progress=tell,
            )
        finish(run, videos, None, json_out)
