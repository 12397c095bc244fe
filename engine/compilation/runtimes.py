"""The engines on this machine: their versions, what they are built for, and how a compiled one is opened."""

from __future__ import annotations

import importlib.metadata
from typing import Literal, TypeGuard

from engine.backends.machine import processor_key
from engine.backends.tensorrt.bindings import Flavour
from engine.compilation.precision import Precision
from engine.compilation.store import CompiledEngine, CompiledKind, EngineKey
from engine.errors import ModelError
from engine.optional_libraries import why_unusable
from engine.protocol import Engine


def is_tensorrt(kind: CompiledKind) -> TypeGuard[Flavour]:
    """Whether a kind of engine runs plans on a GPU."""
    return kind in {"tensorrt", "tensorrt-rtx"}


def check_available(kind: CompiledKind, *, purpose: Literal["build", "run"]) -> None:
    """Refuse a kind of engine that cannot be built, or run, on this machine.

    Args:
        kind: Of the engine.
        purpose: Building may need less than running: plans for RTX are built without a GPU.

    Raises:
        ModelError: It is not installed, or there is no GPU for it.
    """
    if reason := why_unavailable(kind, purpose=purpose):
        raise ModelError(f"{kind} cannot be used here: {reason}")


def why_unavailable(kind: CompiledKind, *, purpose: Literal["build", "run"]) -> str | None:
    """Why a kind of engine cannot be built, or run, here, with how to fix it; None where it can.

    Args:
        kind: Of the engine.
        purpose: What for.
    """
    if not is_tensorrt(kind):
        try:
            importlib.metadata.version(kind)
        except importlib.metadata.PackageNotFoundError:
            return f"it is not installed; run: pip install {kind}"
        return None
    from engine.backends.tensorrt.bindings import flavour_available

    return flavour_available(kind, purpose=purpose)


def _unusable(kind: Literal["openvino", "onnxruntime"], error: Exception) -> str:
    title = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}[kind]
    return why_unusable(kind, error, title=title, install=f"pip install {kind}")


def engine_version(kind: CompiledKind) -> str:
    """Version of the library of a kind of engine.

    Raises:
        ModelError: It is not installed.
    """
    if not is_tensorrt(kind):
        return importlib.metadata.version(kind)
    from engine.backends.tensorrt.bindings import runtime_version

    return runtime_version(kind)


def this_target(kind: CompiledKind) -> str:
    """What an engine must be made for to run here: the GPU's architecture, or the processor's key.

    Raises:
        ModelError: There is no GPU.
    """
    if is_tensorrt(kind):
        from engine.backends.cuda import device_architecture

        return device_architecture()
    return processor_key()


def stored_precision(key: EngineKey) -> Precision:
    """The precision in which an engine's graph is written. OpenVINO lowers an fp32 graph itself.

    Raises:
        ModelError: The kind of engine does not compute in that precision.
    """
    match key.kind, key.precision:
        case "openvino", "int8":
            return "int8"
        case "openvino", _:
            return "fp32"
        case "onnxruntime", "bf16":
            raise ModelError("ONNX Runtime has no bf16 on processors; use fp32, fp16 or int8")
        case _, ("fp32" | "fp16" | "bf16" | "int8") as precision:
            return precision
    raise ModelError(f"{key.kind}: unknown precision {key.precision!r}; use fp32, fp16, bf16 or int8")


def why_unfit(key: EngineKey) -> str | None:
    """Why a compiled engine must not be loaded on this machine; None where it may.

    Raises:
        ModelError: Its kind of engine is not installed, or there is no GPU for it.
    """
    if (version := engine_version(key.kind)) != key.version:
        return f"it was built by {key.kind} {key.version}, this machine has {version}"
    if (target := this_target(key.kind)) not in key.targets:
        return f"it was built for {', '.join(key.targets)}, this machine has {target}"
    return None


def check_fit(engine: CompiledEngine) -> None:
    """Refuse a compiled engine that was made by another version or for another machine.

    Raises:
        ModelError: It was; the message has the command that makes one for this machine. Or its kind of engine
            is not installed, or there is no GPU for it.
    """
    if reason := why_unfit(engine.key):
        target = this_target(engine.key.kind)
        command = engine.compile_command(target=None if target in engine.key.targets else target)
        raise ModelError(f"{engine.folder.name}: {reason}; run: {command}")


def open_compiled(engine: CompiledEngine, *, threads: int | None = None, streams: int = 1) -> Engine:
    """Load a compiled engine, unless it is damaged or was made for something else.

    Args:
        engine: From a store.
        threads: Most threads that compute, on processors; None takes one for each core.
        streams: Calls that run at the same time, on processors.

    Raises:
        ModelError: It is damaged, of another version or for another machine, or cannot be loaded.
    """
    check_fit(engine)
    key = engine.key
    return open_graph(key.kind, engine.read(), key.precision, threads=threads, streams=streams, key=key)


def open_graph(
    kind: CompiledKind,
    data: bytes,
    precision: str,
    *,
    threads: int | None = None,
    streams: int = 1,
    key: EngineKey | None = None,
) -> Engine:
    """Load a graph, or a plan, into the engine that it is for.

    Args:
        kind: Of engine.
        data: Serialised ONNX, or the plan.
        precision: What it computes in.
        threads: Most threads that compute, on processors; None takes one for each core.
        streams: Calls that run at the same time, on processors.
        key: Of a compiled engine, for the error messages.

    Raises:
        ModelError: The library is missing, or refuses it.
    """
    match kind:
        case "openvino":
            try:
                from engine.backends.openvino import OpenVinoEngine
            except (ImportError, OSError) as exc:
                raise ModelError(_unusable("openvino", exc)) from exc
            return OpenVinoEngine(data, precision=precision, threads=threads, streams=streams)
        case "onnxruntime":
            try:
                from engine.backends.onnxruntime import OnnxRuntimeEngine
            except (ImportError, OSError) as exc:
                raise ModelError(_unusable("onnxruntime", exc)) from exc
            return OnnxRuntimeEngine(data, precision=precision, threads=threads, streams=streams)
        case "tensorrt" | "tensorrt-rtx":
            from engine.backends.tensorrt.runner import TensorRtEngine

            model = "model" if key is None else key.model
            return TensorRtEngine(data, flavour=kind, precision=precision, model=model)
