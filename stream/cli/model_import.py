"""``facestream models import``: an ONNX file of one's own, with its preprocessing stated."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.errors import Debug, one_line_errors
from stream.cli.model_tables import model_table
from stream.console.terminal import open_console

log = logging.getLogger(f"facestream.{__name__}")

if TYPE_CHECKING:
    from engine.compilation.preprocessing import Preprocessing
    from engine.compilation.separation import People


def import_model(
    file: Annotated[Path, typer.Argument(help="The ONNX file of an embedder.")],
    name: Annotated[str, typer.Option(help="How to call it: small letters, digits, '.', '_' and '-'.")],
    preset: Annotated[
        Literal["arcface", "facenet", "sface"] | None,
        typer.Option(
            help="How it was trained: arcface (InsightFace), facenet or sface; "
            "or state --colour-order, --mean and --scale."
        ),
    ] = None,
    colour_order: Annotated[Literal["rgb", "bgr"] | None, typer.Option(help="Of the channels.")] = None,
    mean: Annotated[float | None, typer.Option(help="Subtracted from each pixel, 0..255.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiplies each pixel after that.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, max=1024, help="Side of an aligned face, pixels.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,...",
            help="Where the right eye, left eye, nose, right and left corner of the mouth lie in it: "
            "ten numbers, pixels. Without it, ArcFace's template.",
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="SPDX name.")] = "unknown",
    threshold: Annotated[
        float | None, typer.Option(min=-1.0, max=1.0, help="Cosine from which two faces are one person.")
    ] = None,
    harmonic_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="An embedder whose embeddings this one's were trained to compare with; may be repeated. "
            "Galleries of it can be moved to this one as they are.",
        ),
    ] = None,
    faces: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Prove the preprocessing on these people, a folder of photographs each; without it, on "
            "small grey faces that scikit-image ships.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Keep a model that does not tell people apart, unproved.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a model of the same name.")] = False,
    debug: Debug = False,
) -> None:
    """Make a model package of your own ONNX file, with its preprocessing stated and proved.

    The model must tell people apart; where it does not, the message names a preprocessing with which it does.
    """
    with one_line_errors(debug=debug):
        from engine.compilation.importing import import_embedder
        from engine.models.catalogue import imported_folder, load_model
        from engine.models.package import Threshold

        folder = imported_folder()
        preflight.check_output_folder(folder, "--models-dir", room_mib=2 * preflight.size_mib(file))
        preflight.check_input_folder(faces, "--faces")
        older = [load_model(each) for each in harmonic_with or []]
        try:
            package = import_embedder(
                file,
                name=name,
                preprocessing=_preprocessing(preset, colour_order, mean=mean, scale=scale, size=size),
                folder=folder,
                template_xy=None if template is None else _points(template),
                licence=licence,
                thresholds=() if threshold is None else (Threshold(threshold),),
                harmonic_with=tuple(each.sha256 for each in older),
                replace=replace,
                people=None if force else partial(_people, faces),
            )
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        console = open_console()
        console.print(model_table(package))
        console.print(f"next: facestream models verify {name}")


def _people(faces: Path | None) -> People:
    from engine.compilation.parity_check import open_reference
    from engine.compilation.separation import people_in, shipped_people
    from engine.models.catalogue import load_model
    from engine.vision.yunet import FaceDetector

    log.info("proving that the model tells people apart: takes a few seconds, or a minute for a large one")
    detector = FaceDetector(open_reference(load_model("yunet")), min_score=0.6)
    if faces is None:
        return shipped_people(detector)
    if (people := people_in(faces, detector)) is None:
        raise ConfigError(
            f"--faces {faces}: expected a folder for each of two or more people, with two or more "
            "photographs in it that show a face"
        )
    return people


def _preprocessing(
    preset: str | None,
    colour_order: Literal["rgb", "bgr"] | None,
    *,
    mean: float | None,
    scale: float | None,
    size: int | None,
) -> Preprocessing:
    from engine.compilation.preprocessing import PRESETS, Preprocessing

    if preset is not None:
        base = PRESETS[preset]
        colour_order = colour_order or base.colour_order
        mean = base.mean if mean is None else mean
        scale = base.scale if scale is None else scale
        size = size or base.size_px
    if colour_order is None or mean is None or scale is None:
        raise ConfigError(
            "the preprocessing is not stated: give --preset, or --colour-order, --mean and --scale; "
            "a model that sees other pixels than it was trained on gives bad embeddings without a word"
        )
    return Preprocessing(colour_order, mean, scale, size)


def _points(text: str) -> tuple[tuple[float, float], ...]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 10 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"--template: expected ten numbers with commas between, got {text!r}")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
