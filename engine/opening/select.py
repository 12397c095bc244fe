"""Open an engine for a model package: the one asked for, or the fastest that passes the parity gate."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from engine.atomic_files import write_atomically
from engine.backends.machine import processor_key
from engine.compilation.parity_check import judge, model_inputs, open_reference
from engine.compilation.precision import precisions
from engine.compilation.runtimes import (
    check_available,
    check_fit,
    engine_version,
    open_compiled,
    open_graph,
    why_unavailable,
    why_unfit,
)
from engine.compilation.sample_faces import sample_images
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import CompiledEngine, CompiledKind, EngineStore
from engine.errors import ModelError
from engine.faces import Image
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.protocol import Engine
from engine.vision.yunet import FaceDetector

log = logging.getLogger(f"facestream.{__name__}")

EngineKind: TypeAlias = Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]

_PROCESSOR_CHOICES: Final[tuple[tuple[CompiledKind, str], ...]] = (
    ("openvino", "auto"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
)
_GPU_KINDS: Final[tuple[CompiledKind, ...]] = ("tensorrt", "tensorrt-rtx")
_MADE_HERE: Final = frozenset({"auto", "fp32", "bf16", "fp16"})
_SAMPLES: Final = 8
_WARM_UP_RUNS: Final = 20
_TIMED_RUNS: Final = 15


def open_engine(
    package: ModelPackage,
    *,
    kind: EngineKind = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
    store: EngineStore | None = None,
) -> Engine:
    """Open a model on this machine. Its input is ``pixels``, uint8 (N, H, W, 3), BGR.

    Args:
        package: The model.
        kind: ``auto`` takes the fastest that passes the parity gate: what that is on this machine is measured
            once and remembered. OpenVINO and ONNX Runtime need no compiled engine but for int8 (and for fp16
            on ONNX Runtime); the TensorRT kinds do.
        precision: ``auto``, ``fp32``, or what else the engine has.
        threads: Most threads that compute, on processors; None takes one for each core.
        streams: Calls of ``infer`` that may run at the same time, on processors; they share the threads.
        store: Where compiled engines are; the user's cache by default.

    Raises:
        ModelError: The package is damaged, no engine of that kind works here, or a compiled one is missing or
            does not fit; the message has the command that makes it.
        ValueError: An argument is out of range.
    """
    if precision != "auto" and precision not in precisions():
        raise ValueError(f"precision: expected auto, {', '.join(precisions())}, got {precision!r}")
    store = store or EngineStore()
    match kind:
        case "auto":
            (engine,) = _open_fastest([package], precision, threads, streams, store)
            return engine
        case "tensorrt" | "tensorrt-rtx":
            return _open_stored(package, kind, precision, threads=threads, streams=streams, store=store)
        case "openvino" | "onnxruntime":
            made_here = precision in _MADE_HERE and (kind, precision) != ("onnxruntime", "fp16")
            if made_here:
                graph = pixel_graph(package, keep_prelu=kind == "openvino")
                return open_graph(kind, graph, precision, threads=threads, streams=streams)
            return _open_stored(package, kind, precision, threads=threads, streams=streams, store=store)
    raise ValueError(f"kind: expected auto, openvino, onnxruntime, tensorrt or tensorrt-rtx, got {kind!r}")


def open_engines(
    packages: Sequence[ModelPackage],
    *,
    kind: EngineKind = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
    store: EngineStore | None = None,
) -> list[Engine]:
    """Open the networks that make one model: all on one kind of engine in one precision, if one suits all.

    Which one that is, is chosen by the time that all of them take together. Where none passes the gate for
    all, or compiled engines are of several precisions, each runs on its own, and a warning says so.

    Args:
        packages: One or more.
        kind: ``auto`` takes the fastest that passes the parity gate; see ``open_engine``.
        precision: ``auto``, ``fp32``, or what else the engine has.
        threads: Most threads of each engine, on processors; None takes one for each core.
        streams: Calls of ``infer`` that may run at the same time, on processors.
        store: Where compiled engines are; the user's cache by default.

    Returns:
        Their engines, in the same order.

    Raises:
        ModelError: A package is damaged, no engine works here, or a compiled one is missing or does not fit.
        ValueError: An argument is out of range.
    """
    store = store or EngineStore()
    if precision != "auto" and precision not in precisions():
        raise ValueError(f"precision: expected auto, {', '.join(precisions())}, got {precision!r}")
    reason = "as compiled"
    if kind == "auto":
        try:
            return _open_fastest(packages, precision, threads, streams, store)
        except ModelError as exc:
            if len(packages) == 1:
                raise
            reason = str(exc)
    engines = _open_each(
        packages, kind=kind, precision=precision, threads=threads, streams=streams, store=store
    )
    if len({(engine.name, engine.precision) for engine in engines}) > 1:
        what = ", ".join(
            f"{package.name} on {engine.name} in {engine.precision}"
            for package, engine in zip(packages, engines, strict=True)
        )
        log.warning("the networks of one model run differently: %s (%s)", what, reason)
    return engines


def _open_stored(
    package: ModelPackage,
    kind: CompiledKind,
    precision: str,
    *,
    threads: int | None,
    streams: int,
    store: EngineStore,
) -> Engine:
    check_available(kind, purpose="run")
    compiled = find_compiled(package, kind, precision, store=store)
    engine = open_compiled(compiled, threads=threads, streams=streams)
    if compiled.parity is None:
        try:
            _judge_at_first_start(package, compiled, engine)
        except ModelError:
            engine.close()
            raise
    return engine


def find_compiled(
    package: ModelPackage, kind: CompiledKind, precision: str = "auto", *, store: EngineStore
) -> CompiledEngine:
    """The compiled engine of a model that may be loaded on this machine.

    Args:
        package: The model.
        kind: What runs it.
        precision: ``auto`` takes what there is, the one of least bits first, int8 last.
        store: Where to look.

    Raises:
        ModelError: There is none, or only such as were made by another version or for another machine, or do
            not give what the model gives.
    """
    wanted = ("fp16", "bf16", "fp32", "int8") if precision == "auto" else (precision,)
    engines = [
        engine
        for engine in store.engines()
        if engine.key.model_sha256 == package.sha256
        and engine.key.kind == kind
        and engine.key.precision in wanted
    ]
    engines.sort(key=lambda engine: wanted.index(engine.key.precision))
    fitting = [engine for engine in engines if why_unfit(engine.key) is None]
    for engine in fitting:
        if engine.may_serve:
            return engine
    if fitting:
        raise _failed_the_gate(fitting[0])
    for engine in engines:
        check_fit(engine)
    option = "" if precision == "auto" else f" --precision {precision}"
    raise ModelError(
        f"{package.name}: no engine for {kind}{option.replace(' --precision', ' in')} in {store.root}; "
        f"run: facestream compile {package.name} --engine {kind}{option}"
    )


def _open_fastest(
    packages: Sequence[ModelPackage],
    precision: str,
    threads: int | None,
    streams: int,
    store: EngineStore,
) -> list[Engine]:
    """Open what was found to be the fastest on this machine for all of these together, or find it."""
    candidates = _shared_candidates(packages, store)
    if precision != "auto":
        candidates = list(dict.fromkeys((kind, precision) for kind, _ in candidates))
    memory = store.root / f"choice.{_situation(packages, candidates, threads)}.json"

    def open_all(kind: CompiledKind, wanted: str) -> list[Engine]:
        return _open_each(
            packages, kind=kind, precision=wanted, threads=threads, streams=streams, store=store
        )

    remembered = _recall(memory)
    if remembered in candidates:
        try:
            return open_all(*remembered)
        except ModelError:
            pass  # it has changed: chosen again below
    choice, engines = _fastest(packages, candidates, open_all)
    with contextlib.suppress(ModelError):  # without it the next start takes longer, and nothing else
        write_atomically(memory, json.dumps({"kind": choice[0], "precision": choice[1]}).encode())
    return engines


def _open_each(
    packages: Sequence[ModelPackage],
    *,
    kind: EngineKind,
    precision: str,
    threads: int | None,
    streams: int,
    store: EngineStore,
) -> list[Engine]:
    """All of them, or none."""
    opened: list[Engine] = []
    try:
        for package in packages:
            engine = open_engine(
                package, kind=kind, precision=precision, threads=threads, streams=streams, store=store
            )
            opened.append(engine)
    except BaseException:
        _close(opened)
        raise
    return opened


def _close(engines: Sequence[Engine]) -> None:
    for engine in engines:
        engine.close()


def _shared_candidates(
    packages: Sequence[ModelPackage], store: EngineStore
) -> list[tuple[CompiledKind, str]]:
    """What may work for each of them, in the order of the first."""
    first, *others = (list(_candidates(package, store)) for package in packages)
    return [each for each in first if all(each in other for other in others)]


def _candidates(package: ModelPackage, store: EngineStore) -> Iterator[tuple[CompiledKind, str]]:
    """Kinds and precisions that may work here: compiled plans where there is a GPU, and the processor's."""
    for kind in _GPU_KINDS:
        if why_unavailable(kind, purpose="run") is None:
            for engine in store.engines():
                fits = engine.key.model_sha256 == package.sha256 and engine.key.kind == kind
                if fits and engine.may_serve and not engine.forced and why_unfit(engine.key) is None:
                    yield kind, engine.key.precision
    yield from _PROCESSOR_CHOICES


def _situation(
    packages: Sequence[ModelPackage], candidates: Sequence[tuple[CompiledKind, str]], threads: int | None
) -> str:
    """A digest of all that the choice depends on."""
    versions = {
        kind: engine_version(kind) for kind, _ in candidates if not why_unavailable(kind, purpose="run")
    }
    models = "+".join(package.sha256 for package in packages)
    facts = [models, processor_key(), threads, candidates, sorted(versions.items())]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _recall(memory: Path) -> tuple[CompiledKind, str] | None:
    try:
        raw = json.loads(memory.read_bytes())
        return cast("CompiledKind", str(raw["kind"])), str(raw["precision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fastest(
    packages: Sequence[ModelPackage],
    candidates: Sequence[tuple[CompiledKind, str]],
    open_all: Callable[[CompiledKind, str], list[Engine]],
) -> tuple[tuple[CompiledKind, str], list[Engine]]:
    """Judge and time all; the fastest stay open."""
    name = _names(packages)
    log.info("choosing the engine for %s: the fastest of %d, once", name, len(candidates))
    images, detector = sample_images(most=_SAMPLES), _face_finder()
    trials = [_Trial.of(package, images, detector) for package in packages]
    best: tuple[float, tuple[CompiledKind, str], list[Engine]] | None = None
    reasons = []
    for candidate in candidates:
        engines: list[Engine] = []
        log.info("choosing the engine for %s: trying %s, precision %s", name, *candidate)
        try:
            engines = open_all(*candidate)
            seconds = sum(trial.seconds(engine) for trial, engine in zip(trials, engines, strict=True))
        except ModelError as exc:
            reasons.append(f"{' '.join(candidate)}: {exc}")
            slower = engines
        else:
            slower = engines
            if best is None or seconds < best[0]:
                slower, best = best[2] if best else [], (seconds, candidate, engines)
        _close(slower)
    for trial in trials:
        trial.reference.close()
    if best is None:
        raise ModelError(f"{name}: no engine works here: {'; '.join(reasons)}")
    log.info("chose the engine for %s: %s, precision %s", name, *best[1])
    return best[1], best[2]


@dataclasses.dataclass(frozen=True, slots=True)
class _Trial:
    """What the engines of one model are judged and timed on."""

    package: ModelPackage
    images: Sequence[Image]
    detector: FaceDetector
    reference: Engine
    pixels: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, package: ModelPackage, images: Sequence[Image], detector: FaceDetector) -> _Trial:
        pixels = np.ascontiguousarray(model_inputs(package, images, detector=detector)[:1])
        return cls(package, images, detector, open_reference(package), pixels)

    def seconds(self, engine: Engine) -> float:
        """Of one call; raises ``ModelError`` for an engine that fails the parity gate."""
        parity = judge(self.package, engine, self.images, detector=self.detector, reference=self.reference)
        if not parity.passed:
            raise ModelError("; ".join(parity.failures))
        return _least_seconds(engine, self.pixels)


def _names(packages: Sequence[ModelPackage]) -> str:
    return ", ".join(package.name for package in packages)


def _least_seconds(engine: Engine, pixels: npt.NDArray[np.uint8]) -> float:
    """The quickest of some calls, once the engine is warm: on a busy machine the least disturbed one."""
    seconds = []
    for _ in range(_WARM_UP_RUNS + _TIMED_RUNS):
        begun = time.perf_counter()
        engine.infer({engine.inputs[0].name: pixels})
        seconds.append(time.perf_counter() - begun)
    return min(seconds[_WARM_UP_RUNS:])


def _judge_at_first_start(package: ModelPackage, compiled: CompiledEngine, engine: Engine) -> None:
    """An engine that was built where it could not run is held against its model before it serves."""
    parity = judge(
        package, engine, sample_images(), detector=_face_finder(), precision=compiled.key.precision
    )
    judged = dataclasses.replace(compiled, parity=parity)
    with contextlib.suppress(ModelError):  # then the next start judges again
        judged.save()
    if not parity.passed:
        raise _failed_the_gate(judged)


def _failed_the_gate(compiled: CompiledEngine) -> ModelError:
    failures = "; ".join(compiled.parity.failures) if compiled.parity else "not yet run"
    return ModelError(
        f"{compiled.folder.name} fails the parity gate: {failures}; "
        f"run: {compiled.compile_command()}, or choose another --precision"
    )


def _face_finder() -> FaceDetector:
    return FaceDetector(open_reference(load_model("yunet")), min_score=0.6)
