"""Compile a model for an engine, run the parity gate, and publish the engine if it passes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypedDict

from engine.backends.tensorrt.bindings import supported_gpus
from engine.backends.tensorrt.plan_builder import ShapeRange, build_plan
from engine.compilation.child_process import Report, run_in_child
from engine.compilation.parity_check import judge, model_inputs, open_reference
from engine.compilation.precision import Calibration, Precision, in_precision
from engine.compilation.runtimes import (
    check_available,
    engine_version,
    is_tensorrt,
    open_compiled,
    stored_precision,
    this_target,
    why_unavailable,
)
from engine.compilation.sample_faces import faces_sha256, sample_images
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import (
    ENGINE_FILE,
    Accuracy,
    CompiledEngine,
    CompiledKind,
    EngineKey,
    EngineStore,
)
from engine.compilation.tolerances import Parity
from engine.errors import ModelError
from engine.models.package import ModelPackage
from engine.protocol import Engine
from engine.vision.yunet import FaceDetector

Judge: TypeAlias = Callable[[Engine, Engine], Sequence[Accuracy]]
"""Gets the compiled engine and the reference, measures both on a data set."""

DEFAULT_BATCHES: Final = {"detector": (1, 4, 8), "detector-stage": (1, 16, 64), "embedder": (1, 8, 32)}
_LONG_SIDE_PX: Final = 1280
_STRIDE: Final = 32
_USUAL_HW: Final = (384, 640)


@dataclass(frozen=True, slots=True)
class Order:
    """What to build; travels to the process that builds.

    Attributes:
        package: The model.
        key: What the engine will be.
        detector: Finds the faces on which it is judged.
        faces: Folder of images with faces; None for the portrait that scikit-image ships.
        calibration: How int8 finds its ranges.
        timing_cache: TensorRT's measurements of earlier builds.
    """

    package: ModelPackage
    key: EngineKey
    detector: ModelPackage
    faces: Path | None
    calibration: Calibration
    timing_cache: Path


def compile_engine(
    package: ModelPackage,
    *,
    kind: CompiledKind,
    detector: ModelPackage,
    precision: Precision = "fp32",
    gpus: Sequence[str] = (),
    batches: tuple[int, int, int] | None = None,
    faces: Path | None = None,
    calibration: Calibration = "percentile",
    store: EngineStore | None = None,
    force: bool = False,
    again: bool = False,
    measure: Judge | None = None,
    on_progress: Report | None = None,
) -> CompiledEngine:
    """Compile a model and publish the engine in a store, if it gives what the model gives.

    The engine is built and judged in a process of its own. Where it cannot run (a plan for a GPU that is not
    here), it is published as "not yet run", and judged when it is first opened.

    Args:
        package: The model.
        kind: What will run it.
        detector: Package of the detector that finds faces to judge an embedder on.
        precision: What it computes in.
        gpus: For ``tensorrt-rtx``, the architectures to build for, such as ``sm86``; none means all.
        batches: Least, usual and greatest number of images in one call; None for what suits the task.
        faces: Folder of images with faces to judge and calibrate on; None for 48 views of one portrait.
        calibration: How int8 finds the ranges of activations.
        store: Where to publish; the user's cache by default. An engine of the same key that is whole and
            passed is taken as it is, unless it is int8 and was calibrated otherwise, or on other faces.
        force: Publish an engine that fails. Its record says so.
        again: Build although the same engine is there.
        measure: Measures the accuracy of engine and reference on a data set, for the record.
        on_progress: Told of each step, and how much of it is done, 0..1.

    Raises:
        ModelError: The engine cannot be built, or fails the parity gate.
        ValueError: The batches are not in order.
    """
    least, usual, largest = batches or DEFAULT_BATCHES[package.task]
    if not 1 <= least <= usual <= largest:
        raise ValueError(f"batches: expected 1 <= least <= usual <= greatest, got {least},{usual},{largest}")
    store = store or EngineStore()
    key = engine_key(package, kind=kind, precision=precision, gpus=gpus, batches=(least, usual, largest))
    calibrated = _calibrated(key, calibration, faces)
    found = None if again or measure is not None else store.find(key)
    if found is not None and _is_good(found, force=force) and _is_calibrated(found, calibrated):
        return found
    with store.workshop() as folder:
        order = Order(package, key, detector, faces, calibration, store.root / f"{kind}.timings")
        sha256, parity = run_in_child(build, order, folder, on_progress=on_progress)
        engine = CompiledEngine(key, folder, sha256, parity, **calibrated)
        if parity is not None and not parity.passed and not force:
            raise ModelError(
                f"{package.name} on {kind} in {precision} fails the parity gate: "
                f"{'; '.join(parity.failures)}; nothing was published: choose another precision, or --force"
            )
        forced = parity is not None and not parity.passed
        accuracies = _measured(package, engine, measure) if measure is not None and parity is not None else ()
        return store.publish(dataclasses.replace(engine, forced=forced, accuracies=accuracies))


class _Calibrated(TypedDict, total=False):
    """What a record says of how int8 was calibrated."""

    calibration: str
    faces_sha256: str


def _calibrated(key: EngineKey, calibration: Calibration, faces: Path | None) -> _Calibrated:
    """Empty for the precisions that are not calibrated."""
    if key.precision != "int8":
        return {}
    if faces is None:
        return {"calibration": calibration}
    return {"calibration": calibration, "faces_sha256": faces_sha256(faces)}


def _is_calibrated(engine: CompiledEngine, wanted: _Calibrated) -> bool:
    """Whether an engine was calibrated as is wanted; who names no faces takes those it was calibrated on."""
    if engine.calibration not in {None, wanted.get("calibration")}:
        return False
    return "faces_sha256" not in wanted or engine.faces_sha256 == wanted["faces_sha256"]


def _is_good(engine: CompiledEngine, *, force: bool) -> bool:
    """Whether a published engine is whole and did not fail the gate."""
    if engine.parity is not None and not engine.parity.passed and not force:
        return False
    try:
        engine.read()
    except ModelError:
        return False
    return True


def _measured(package: ModelPackage, engine: CompiledEngine, measure: Judge) -> tuple[Accuracy, ...]:
    reference, candidate = open_reference(package), open_compiled(engine)
    try:
        return tuple(measure(candidate, reference))
    finally:
        candidate.close()
        reference.close()


def engine_key(
    package: ModelPackage,
    *,
    kind: CompiledKind,
    precision: Precision,
    gpus: Sequence[str] = (),
    batches: tuple[int, int, int],
) -> EngineKey:
    """The key of the engine that ``compile_engine`` makes here.

    Args:
        package: The model.
        kind: What will run it.
        precision: What it computes in.
        gpus: Architectures such as ``sm86``, for ``tensorrt-rtx`` alone; none means all.
        batches: Least, usual and greatest number of images in one call.

    Raises:
        ModelError: The kind cannot be built here, or GPUs are named for one that takes none.
    """
    if gpus and kind != "tensorrt-rtx":
        raise ModelError(f"{kind} builds only for this machine; --gpu is for tensorrt-rtx")
    check_available(kind, purpose="build")
    targets = tuple(sorted({gpu.strip().lower() for gpu in gpus}))
    if not targets:
        targets = supported_gpus() if kind == "tensorrt-rtx" else (this_target(kind),)
    return EngineKey(
        model=package.name,
        model_sha256=package.sha256,
        kind=kind,
        version=engine_version(kind),
        targets=targets,
        precision=precision,
        batches=batches,
        long_side_px=None if package.input_size_wh else _LONG_SIDE_PX,
    )


def build(order: Order, folder: Path, report: Report) -> tuple[str, Parity | None]:
    """Build one engine into a folder and judge it where it can run; called in a process of its own.

    Args:
        order: What is to be built, and what it is judged on.
        folder: Gets the engine's file.
        report: Told of the step that is under way, and how much of it is done.

    Returns:
        SHA-256 of the engine's file, and what the gate found; None where the engine cannot run here.

    Raises:
        ModelError: It cannot be built.
    """
    package, key = order.package, order.key
    report("reading", 0.0)
    images = sample_images(order.faces)
    with_faces = FaceDetector(open_reference(order.detector), min_score=0.6)
    graph = pixel_graph(package, keep_prelu=key.kind == "openvino")
    if (stored := stored_precision(key)) != "fp32":
        samples = model_inputs(package, images, detector=with_faces)
        graph = in_precision(
            graph, stored, samples=samples, calibration=order.calibration, on_progress=report
        )
    data = graph
    if is_tensorrt(key.kind):
        data = build_plan(
            graph,
            flavour=key.kind,
            shapes={"pixels": _shapes(package, key)},
            gpus=key.targets if key.kind == "tensorrt-rtx" else (),
            timing_cache=order.timing_cache,
            on_progress=report,
        )
    (folder / ENGINE_FILE).write_bytes(data)
    engine = CompiledEngine(key, folder, hashlib.sha256(data).hexdigest())
    if why_unavailable(key.kind, purpose="run") or this_target(key.kind) not in key.targets:
        return engine.sha256, None
    report("judging", 0.0)
    candidate = open_compiled(engine)
    try:
        return engine.sha256, judge(package, candidate, images, detector=with_faces, precision=key.precision)
    finally:
        candidate.close()


def _shapes(package: ModelPackage, key: EngineKey) -> ShapeRange:
    """What the engine shall take: models of any size get a range of sides as well."""
    if package.input_size_wh is not None:
        width, height = package.input_size_wh
        sizes = ((height, width),) * 3
    else:
        most = key.long_side_px or _LONG_SIDE_PX
        sizes = ((_STRIDE, _STRIDE), _USUAL_HW, (most, most))
    least, usual, largest = ((batch, *size, 3) for batch, size in zip(key.batches, sizes, strict=True))
    return ShapeRange(least, usual, largest)
