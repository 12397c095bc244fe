"""The commands about models and engines: ``facestream models …`` and ``facestream compile``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.cli.model_import import import_model
from stream.cli.model_tables import engine_table, model_table
from stream.console.terminal import open_console, show_commands, text_table

if TYPE_CHECKING:
    from engine.compilation.child_process import Report
    from engine.compilation.store import Accuracy
    from engine.models.package import ModelPackage
    from engine.protocol import Engine
    from stream.console.progress import Progress

_PASSED: Final = "passed"
_FAILED: Final = "failed"

_ENGINE_SIZE: Final = 4.0
"""Room that an engine must have, times the size of its model: one for many GPUs is larger than that."""

models_app = typer.Typer(
    help="Model packages: list, show, verify, import.", no_args_is_help=True, rich_markup_mode=None
)

Model = Annotated[
    str, typer.Argument(help="A name that `facestream models list` shows, or a .json or .onnx file.")
]
Faces = Annotated[
    Path | None,
    typer.Option(
        help="Folder of face images to judge on; without it, views of one portrait are used. Where it has a "
        "folder for each of some people, embedders are also held to tell these apart."
    ),
]


@models_app.command("list")
def list_models(debug: Debug = False) -> None:
    """Say which models there are, and which are installed."""
    with one_line_errors(debug=debug):
        from engine.models.catalogue import imported_models, shipped_models
        from engine.models.pretrained import MTCNN_STAGES

        table = text_table("name", "task", "licence", "state", "what it is")
        for model in shipped_models():
            if model.name == MTCNN_STAGES[0]:
                state = "installed" if model.installed else "not installed"
                whole = ", ".join(MTCNN_STAGES[:-1]) + f" and {MTCNN_STAGES[-1]}, together"
                table.add_row("mtcnn", "detector", model.licence, state, whole)
            state = "installed" if model.installed else "not installed"
            table.add_row(model.name, model.task, model.licence, state, model.provenance)
        for package in imported_models():
            table.add_row(package.name, package.task, package.licence, "imported", package.provenance)
        console = open_console()
        console.print(table)
        lacking = [model for model in shipped_models() if not model.installed]
        installs = dict.fromkeys(model.install for model in lacking)
        names = {each: ", ".join(m.name for m in lacking if m.install == each) for each in installs}
        show_commands(console, [(f"to install {names[each]}", each) for each in installs])


@models_app.command("show")
def show_model(model: Model, debug: Debug = False) -> None:
    """Show all that is known of a model, and the engines that were compiled of it."""
    with one_line_errors(debug=debug):
        from engine.compilation.store import EngineStore
        from engine.models.catalogue import load_detector

        console = open_console()
        for package in load_detector(model):
            console.print(model_table(package))
            mine = [e for e in EngineStore().engines() if e.key.model_sha256 == package.sha256]
            if mine:
                console.print(engine_table(mine))


@models_app.command("verify")
def verify_model(model: Model, faces: Faces = None, debug: Debug = False) -> None:
    """Check a model's files and preprocessing, and hold every engine that runs here against it."""
    with one_line_errors(debug=debug):
        from stream.console.progress import Progress

        with Progress(f"verifying {model}") as progress:
            rows = list(_verified(model, faces, progress))
        table = text_table("model", "engine", "precision", "parity", "found")
        for row in rows:
            table.add_row(*row)
        open_console().print(table)
    if any(parity == _FAILED for _, _, _, parity, _ in rows):
        raise typer.Exit(EXIT_FAILED)


def _verified(model: str, faces: Path | None, progress: Progress) -> Iterator[tuple[str, str, str, str, str]]:
    """Lines of the table of `models verify`."""
    from engine.models.catalogue import load_detector, load_model
    from engine.opening.verify import verify_engines, verify_preprocessing

    detector = load_model("yunet")
    for package in load_detector(model):
        progress.update(what=f"verifying the preprocessing of {package.name}")
        if proof := verify_preprocessing(package, detector=detector, faces=faces):
            found = proof.failure or str(proof.separation)
            advice = f"; import it again with {proof.advice}" if proof.advice else ""
            yield package.name, "preprocessing", "fp32", _FAILED if proof.failure else _PASSED, found + advice
        progress.update(what=f"verifying the engines of {package.name}")
        for verdict in verify_engines(package, detector=detector, faces=faces):
            passed = verdict.parity is not None and verdict.parity.passed
            found = verdict.reason if verdict.parity is None else str(verdict.parity)
            yield package.name, verdict.kind, verdict.precision, _PASSED if passed else _FAILED, found
            progress.advance()


models_app.command("import")(import_model)


def compile_model(
    model: Model,
    engine: Annotated[
        Literal["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime"], typer.Option(help="What will run it.")
    ],
    gpu: Annotated[
        str,
        typer.Option(
            metavar="SM,...", help="For tensorrt-rtx: GPUs to build for, such as sm86,sm89; or all."
        ),
    ] = "all",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"], typer.Option(help="What it computes in.")
    ] = "fp32",
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N,N]",
            help="Least, usual and greatest number of images in one call; or the greatest, tuned for that.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder to put the engine in; without it, where `run` looks."),
    ] = None,
    faces: Faces = None,
    calibration: Annotated[
        Literal["percentile", "entropy", "minmax"],
        typer.Option(help="How int8 finds the range of activations."),
    ] = "percentile",
    lfw: Annotated[
        Path | None, typer.Option(help="LFW's folder of people: also record the change of accuracy on it.")
    ] = None,
    ytf: Annotated[
        Path | None, typer.Option(help="YouTube Faces' folder: the same on its videos, 5 frames of each.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="The list of pairs of --lfw or --ytf.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Keep an engine that fails the parity gate.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Build even when the same engine is there.")] = False,
    debug: Debug = False,
) -> None:
    """Compile a model for an engine, and keep the engine if it gives what the model gives."""
    with one_line_errors(debug=debug):
        from engine.compilation.compile import compile_engine
        from engine.compilation.store import EngineStore
        from engine.home_folders import writable
        from engine.models.catalogue import load_detector, load_model

        if [lfw, ytf, pairs].count(None) not in {1, 3} or (lfw is not None and ytf is not None):
            raise ConfigError("give --lfw or --ytf, a data set's folder, together with --pairs, its list")
        out = out or writable("engines")
        preflight.check_output_folder(out, "--out")
        preflight.check_input(pairs, "--pairs")
        for option, folder in {"--faces": faces, "--lfw": lfw, "--ytf": ytf}.items():
            preflight.check_input_folder(folder, option)
        built = []
        packages = load_detector(model)
        room_mib = max(preflight.size_mib(package.onnx_path) for package in packages) * _ENGINE_SIZE
        preflight.check_output_folder(out, "--out", room_mib=room_mib)
        for package in packages:
            with _progress(package.name) as report:
                measure = None
                if pairs is not None and package.task == "embedder":
                    of_set = _lfw_accuracy if lfw is not None else _ytf_accuracy
                    measure = partial(of_set, package, lfw or ytf or Path(), pairs, report)
                try:
                    compiled = compile_engine(
                        package,
                        kind=engine,
                        detector=load_model("yunet"),
                        precision=precision,
                        gpus=() if gpu == "all" else tuple(gpu.split(",")),
                        batches=None if batch is None else _batches(batch),
                        faces=faces,
                        calibration=calibration,
                        store=EngineStore(out),
                        force=force,
                        again=again,
                        measure=measure,
                        on_progress=report,
                    )
                except ValueError as exc:
                    raise ConfigError(str(exc)) from exc
            built.append(compiled)
        console = open_console()
        console.print(engine_table(built))
        for compiled in built:
            console.print(f"{compiled.folder}", soft_wrap=True)
        if any(compiled.parity is None for compiled in built):
            console.print(
                "This machine cannot run it: it is held against the model when it first starts on a GPU."
            )


def _batches(text: str) -> tuple[int, int, int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    match sizes:
        case [size]:
            return 1, size, size
        case [least, usual, largest]:
            return least, usual, largest
    raise ConfigError(f"--batch: expected a number, or three with commas between, got {text!r}")


def _lfw_accuracy(
    package: ModelPackage, root: Path, pairs: Path, report: Report, candidate: Engine, reference: Engine
) -> list[Accuracy]:
    from engine.compilation.parity_check import open_reference
    from engine.compilation.store import Accuracy
    from engine.models.catalogue import load_model
    from engine.vision.embedder import FaceEmbedder
    from engine.vision.yunet import FaceDetector
    from training.evaluation.precision_cost import compare_on_lfw

    exact, got = compare_on_lfw(
        root,
        pairs,
        FaceEmbedder.from_package(package, reference),
        {"candidate": FaceEmbedder.from_package(package, candidate)},
        FaceDetector(open_reference(load_model("yunet")), min_score=0.6),
        on_progress=lambda stage, done, total: _tell(report, f"LFW: {stage}", done, total),
    )
    return [Accuracy(f"LFW, {got.pairs} pairs of {pairs.name}", got.accuracy, exact.accuracy)]


def _tell(report: Report, stage: str, done: int, total: int) -> None:
    report(stage, done / max(1, total))


def _ytf_accuracy(
    package: ModelPackage, root: Path, pairs: Path, report: Report, candidate: Engine, reference: Engine
) -> list[Accuracy]:
    from engine.compilation.parity_check import open_reference
    from engine.compilation.store import Accuracy
    from engine.models.catalogue import load_model
    from engine.vision.embedder import FaceEmbedder
    from engine.vision.yunet import FaceDetector
    from training.data.model_setup import FaceModels
    from training.evaluation.ytf import run_ytf

    detector = FaceDetector(open_reference(load_model("yunet")), min_score=0.6)
    found = []
    for stage, engine in (("reference", reference), ("engine", candidate)):
        run = run_ytf(
            root,
            pairs,
            models=FaceModels(detector, FaceEmbedder.from_package(package, engine)),
            frames=5,
            rounds=1,
            on_progress=partial(_tell, report, f"YTF: {stage}"),
        )
        found.append(float(run.figures["accuracy"] or 0.0))
        count = len(run.pairs)
    return [Accuracy(f"YTF, {count} pairs of {pairs.name}, 5 frames", found[1], found[0])]


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """Tells the step that is under way."""
    from stream.console.progress import Progress

    with Progress(f"{title}: starting", total=1.0) as progress:
        yield lambda step, share: progress.update(what=f"{title}: {step}", done=share)
