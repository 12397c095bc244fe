"""OpenVINO: the default engine on processors. The only file that imports ``openvino``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# OpenVINO calls its maker's statistics server when it is imported, from a process that it forks while threads
# run. A package that cannot be found is its own way of leaving that out.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None means: not to be found

import openvino as ov  # noqa: E402 - after the line above

from engine.errors import ModelError  # noqa: E402 - the same
from engine.protocol import Arrays, Done, Pending, TensorSpec, check_feeds  # noqa: E402 - the same

_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Final = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_MOST_FIXED_SHAPES: Final = 8


class _Program:
    """One compiled model and the requests that wait to be used again; one request serves one call."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self.compiled = compiled
        self._idle: list[ov.InferRequest] = []

    def run(self, arrays: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        results = request.infer(arrays, share_inputs=True)
        self._idle.append(request)
        return [results[index] for index in range(len(self.compiled.outputs))]


class OpenVinoEngine:
    """An ONNX model compiled for the processor.

    A model that is compiled for one shape runs 10 to 20 per cent faster than one for all shapes, so the
    first eight shapes that are seen get their own; further ones share one. Calls from several threads run
    at the same time, as many as there are ``streams``; the others wait.

    Args:
        model: Serialised ONNX.
        precision: ``auto`` takes bf16 where the processor computes in it and fp32 elsewhere; or ``fp32``,
            ``bf16``, ``fp16``.
        threads: Most threads that compute, over all streams; None takes one for each core.
        streams: Calls that may run at the same time; they share the threads.

    Raises:
        ModelError: The model cannot be compiled, or the processor has no such precision.
        ValueError: ``precision`` is unknown, or ``threads`` or ``streams`` is below 1.
    """

    name = "openvino"
    max_batch: int | None = None

    def __init__(
        self, model: bytes, *, precision: str = "auto", threads: int | None = None, streams: int = 1
    ) -> None:
        if (threads is not None and threads < 1) or streams < 1:
            raise ValueError(f"expected threads and streams of at least 1, got {threads} and {streams}")
        self._core = ov.Core()
        self._options = self._compile_options(precision, threads, streams)
        self._programs: dict[tuple[int, ...], _Program] = {}
        self._shared: _Program | None = None
        self._lock = Lock()
        self._closed = False
        try:
            self._model = self._core.read_model(model)
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO cannot read the model: {_reason(exc)}") from exc
        self._inputs = tuple(_spec(port) for port in self._model.inputs)
        self._outputs = tuple(_spec(port) for port in self._model.outputs)
        self._free_shape = self._model.inputs[0].partial_shape
        self._precision = _precision_of(self._first_program().compiled)

    @property
    def precision(self) -> str:
        """What the compiled model computes in."""
        return self._precision

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` returns."""
        return self._outputs

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the model once; see ``Engine.infer``."""
        check_feeds(feeds, self._inputs)
        try:
            values = self._program(feeds[self._inputs[0].name].shape).run(dict(feeds))
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO failed: {_reason(exc)}") from exc
        return {spec.name: value for spec, value in zip(self._outputs, values, strict=True)}

    def submit(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Pending:
        """Run the model before returning; see ``Engine.submit``."""
        return Done(self.infer(feeds))

    def close(self) -> None:
        """Free the compiled models."""
        with self._lock:
            self._closed = True
            self._programs.clear()
            self._shared = None

    def _compile_options(self, precision: str, threads: int | None, streams: int) -> dict[str, Any]:
        options: dict[str, Any] = {"NUM_STREAMS": streams}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if precision == "auto":
            return options
        if precision not in _HINTS:
            raise ValueError(f"precision: expected auto, {', '.join(_HINTS)}, got {precision!r}")
        if _CAPABILITIES[precision] not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError(f"this processor does not compute in {precision}; use precision auto or fp32")
        return options | {"INFERENCE_PRECISION_HINT": _HINTS[precision]}

    def _first_program(self) -> _Program:
        """Compile once at the start, so that a model that cannot be compiled is known then."""
        shape = self._inputs[0].shape
        if None in shape[1:]:
            self._shared = self._compile(self._free_shape)
            return self._shared
        return self._program(tuple(1 if size is None else size for size in shape))

    def _program(self, shape: tuple[int, ...]) -> _Program:
        program = self._programs.get(shape)
        if program is not None:
            return program
        with self._lock:
            if self._closed:
                raise ModelError("the engine is closed; open a new one")
            if shape not in self._programs and len(self._programs) < _MOST_FIXED_SHAPES:
                self._programs[shape] = self._compile(ov.PartialShape(list(shape)))
            if shape in self._programs:
                return self._programs[shape]
            if self._shared is None:
                self._shared = self._compile(self._free_shape)
            return self._shared

    def _compile(self, shape: ov.PartialShape) -> _Program:
        try:
            self._model.reshape(shape)
            return _Program(self._core.compile_model(self._model, "CPU", self._options))
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO cannot compile the model for {shape}: {_reason(exc)}") from exc


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if dim.is_dynamic else dim.get_length() for dim in port.partial_shape)
    return TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()))


def _precision_of(compiled: ov.CompiledModel) -> str:
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return {value: key for key, value in _HINTS.items()}.get(hint, str(hint))


def _reason(exc: RuntimeError) -> str:
    """OpenVINO's last line that says something; the first ones name its own source files."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
