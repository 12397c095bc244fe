"""What the commands that measure accuracy share: their options, and how they begin and end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from engine.errors import ConfigError
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from training.data.cache import VectorCache
    from training.data.results import BenchRun

Detector = Annotated[str, typer.Option(help="A detector of `facestream models list`.")]
Embedder = Annotated[
    str, typer.Option(help="An embedder of the same: sface, dlib, fused, or one that you imported.")
]
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
    Literal[
        "jpeg",
        "size",
        "dim",
        "frames",
        "quantisation",
        "engine",
        "precision",
        "detector",
        "flip",
        "second-look",
    ]
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


_LISTS: Final = frozenset({"--pairs", "--leave-out"})
"""Options that name files; the others of a data set name folders."""


def command_line() -> tuple[str, ...]:
    """What was typed, for the record."""
    return ("facestream", *sys.argv[1:])


def kept_embeddings(*, enabled: bool) -> VectorCache:
    """The user's cache of embeddings; one that keeps nothing where it is not wanted."""
    from engine.home_folders import writable
    from training.data.cache import VectorCache

    return VectorCache(writable("cache") / "benchmarks.sqlite" if enabled else None)


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Tells how many of how many are done."""
    with staged_progress() as tell:
        yield partial(tell, unit)


@contextmanager
def staged_progress() -> Iterator[Callable[[str, int, int], None]]:
    """The same, where what is counted changes on the way."""
    from stream.console.progress import Progress

    with Progress("starting") as progress:
        yield lambda stage, done, total: progress.update(what=stage, done=done, total=total)


def check_bench(
    inputs: Mapping[str, Path | None],
    *,
    report: Path | None = None,
    json_out: Path | None = None,
    is_sweep: bool = False,
) -> None:
    """See before anything is measured that it can be kept, and what is to be measured on is there.

    Args:
        inputs: Files and folders by option.
        report: As the option of that name.
        json_out: As ``--json``.
        is_sweep: ``--json`` is a folder.

    Raises:
        ConfigError: A library is missing.
        DatasetError: A file or folder is missing.
        SinkError: Something cannot be written.
    """
    from stream.app import preflight

    preflight.check_report(report)
    if is_sweep:
        preflight.check_output_folder(json_out, "--json")
    else:
        preflight.check_output(json_out, "--json")
    preflight.check_apart([("--report", report), ("--json", json_out)], inputs.items())
    preflight.check_page(report, "--report")
    for option, path in inputs.items():
        if option in _LISTS:
            preflight.check_input(path, option)
        else:
            preflight.check_input_folder(path, option)


def check_fit_on(sweep: str | None, fit_on: Path | None) -> None:
    """See that a sweep of dimensions has what it needs.

    Raises:
        ConfigError: ``--fit-on`` is missing.
    """
    if sweep == "dim" and fit_on is None:
        raise ConfigError(
            "--sweep dim: the main directions are taken from other people's faces; "
            "give a folder of images with --fit-on"
        )


def left_out(lacking: Mapping[str, str]) -> list[str]:
    """Lines that say what is not measured, and why; one for each reason.

    Args:
        lacking: Reasons by name.
    """
    reasons = dict.fromkeys(lacking.values())
    return [
        f"left out: {', '.join(name for name, each in lacking.items() if each == reason)}: {reason}"
        for reason in reasons
    ]


def finish(run: BenchRun, root: Path, report: Path | None, json_out: Path | None) -> None:
    """Show what was found, and write it to where it was asked for."""
    from training.data.results import save
    from training.report.summary import show_run

    show_run(run, open_console())
    if json_out is not None:
        save(run, json_out)
    if report is not None:
        from training.report.html import write_report

        write_report(run, report, data_root=root)
