"""Choose and open an engine for a model package."""

from __future__ import annotations

from typing import Literal, TypeAlias

from engine.errors import ModelError
from engine.onnx_graph import parse_model, take_pixels, without_prelu
from engine.package import ModelPackage
from engine.protocol import Engine

EngineKind: TypeAlias = Literal["auto", "openvino", "onnxruntime"]


def open_engine(
    package: ModelPackage,
    *,
    kind: EngineKind = "auto",
    precision: str = "auto",
    threads: int | None = None,
    streams: int = 1,
) -> Engine:
    """Compile a model for this machine. Its input is ``pixels``, uint8 (N, H, W, 3), BGR.

    Args:
        package: The model.
        kind: ``auto`` takes OpenVINO, or ONNX Runtime where OpenVINO does not work.
        precision: ``auto``, ``fp32``, or what else the engine has.
        threads: Most threads that compute; None takes one for each core.
        streams: Calls of ``infer`` that may run at the same time; they share the threads.

    Raises:
        ModelError: The package is damaged, or no engine of that kind works here.
        ValueError: An argument is out of range.
    """
    graph = pixel_graph(package)
    match kind:
        case "openvino":
            return _open_openvino(graph, precision, threads, streams)
        case "onnxruntime":
            return _open_onnxruntime(graph, precision, threads, streams)
        case "auto":
            try:
                return _open_openvino(graph, precision, threads, streams)
            except ModelError as first:
                try:
                    return _open_onnxruntime(graph, precision, threads, streams)
                except ModelError as second:
                    raise ModelError(f"{package.name}: no engine works here: {first}; {second}") from second
    raise ValueError(f"kind: expected auto, openvino or onnxruntime, got {kind!r}")


def pixel_graph(package: ModelPackage) -> bytes:
    """The ONNX graph that every engine gets: preprocessing inside, PRelu in simple operations.

    Raises:
        ModelError: The package is damaged.
    """
    graph = parse_model(package.read(), origin=str(package.onnx_path))
    graph = take_pixels(graph, colour_order=package.colour_order, mean=package.mean, scale=package.scale)
    data: bytes = without_prelu(graph).SerializeToString()
    return data


def _open_openvino(graph: bytes, precision: str, threads: int | None, streams: int) -> Engine:
    try:
        from engine.openvino import OpenVinoEngine
    except (ImportError, OSError) as exc:
        raise ModelError(f"OpenVINO cannot be loaded ({exc}); run: pip install openvino") from exc
    return OpenVinoEngine(graph, precision=precision, threads=threads, streams=streams)


def _open_onnxruntime(graph: bytes, precision: str, threads: int | None, streams: int) -> Engine:
    try:
        from engine.onnxruntime import OnnxRuntimeEngine
    except (ImportError, OSError) as exc:
        raise ModelError(f"ONNX Runtime cannot be loaded ({exc}); run: pip install onnxruntime") from exc
    return OnnxRuntimeEngine(graph, precision=precision, threads=threads, streams=streams)
