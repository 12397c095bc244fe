"""OpenVINO: the default engine on processors. The only file that imports ``openvino``."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Mapping
from functools import cache
from threading import Lock
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.backends import telemetry

telemetry.switch_off()

import openvino as ov  # noqa: E402 - after the line above

from engine.errors import ModelError  # noqa: E402 - the same
from engine.protocol import Arrays, Pending, TensorSpec, check_feeds  # noqa: E402 - the same

Mode: TypeAlias = Literal["latency", "throughput"]

_HINTS: Final = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: Final = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_MOST_FIXED_SHAPES: Final = 8
_USUAL_AFTER: Final = 64
"""Calls of one shape after which a program of its own is worth its compiling: YuNet at 640 by 384 gains 12
per cent, or 0.4 ms an image, for 0.12 s."""

_PENDING_PER_STREAM: Final = 2
"""One that computes, one that waits for it."""

_STARTING = Lock()


def _core() -> ov.Core:
    """OpenVINO's core, one for the whole process and never freed.

    Its CPU plugin gives the thread that loads it an alternate signal stack. It frees that stack with the
    core, in whichever thread that happens and whatever another core has done to the stack since. Python's
    signal handlers run on it, so the next signal, Ctrl-C for instance, would be a segmentation fault.
    """
    with _STARTING:  # cached functions may run twice when threads meet, and the second core would be freed
        return _the_core()


@cache
def _the_core() -> ov.Core:
    return ov.Core()


def processor() -> tuple[str, tuple[str, ...]]:
    """The processor's name and the precisions that OpenVINO computes in on it, as OpenVINO calls them."""
    core = _core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return str(core.get_property("CPU", "FULL_DEVICE_NAME")), tuple(sorted(capabilities))


class _Call:
    """A call that has begun; who first wants its outputs, or its request, waits for it."""

    def __init__(self, program: _Program, request: ov.InferRequest, feeds: Arrays) -> None:
        self._program = program
        self._request = request
        self._feeds: Arrays | None = feeds  # their memory is the request's until it ends
        self._outputs: list[npt.NDArray[Any]] = []
        self._failure: ModelError | None = None
        self._lock = Lock()

    def result(self) -> Arrays:
        """See ``Pending.result``."""
        self.finish()
        if self._failure is not None:
            raise self._failure
        return dict(zip(self._program.output_names, self._outputs, strict=True))

    def finish(self) -> None:
        with self._lock:
            if self._feeds is None:
                return
            try:
                self._request.wait()
                self._outputs = self._program.outputs_of(self._request)
            except RuntimeError as exc:
                self._failure = ModelError(f"OpenVINO failed: {_reason(exc)}")
            self._feeds = None
            self._program.ended(self, self._request)


class _Program:
    """One compiled model and the requests that wait to be used again; one request serves one call."""

    def __init__(self, compiled: ov.CompiledModel, output_names: list[str], most_pending: int) -> None:
        self.compiled = compiled
        self.output_names = output_names
        self._most_pending = most_pending
        self._idle: list[ov.InferRequest] = []
        self._pending: deque[_Call] = deque()
        self._lock = Lock()

    def run(self, feeds: Arrays) -> Arrays:
        request = self._request()
        request.infer(feeds, share_inputs=True, share_outputs=True)
        outputs = self.outputs_of(request)
        with self._lock:
            self._idle.append(request)
        return dict(zip(self.output_names, outputs, strict=True))

    def start(self, feeds: Arrays) -> _Call:
        while oldest := self._oldest_if_full():
            oldest.finish()
        request = self._request()
        call = _Call(self, request, feeds)
        request.start_async(feeds, share_inputs=True)
        with self._lock:
            self._pending.append(call)
        return call

    def outputs_of(self, request: ov.InferRequest) -> list[npt.NDArray[Any]]:
        return [np.array(request.get_output_tensor(index).data) for index in range(len(self.output_names))]

    def ended(self, call: _Call, request: ov.InferRequest) -> None:
        with self._lock:
            if call in self._pending:
                self._pending.remove(call)
            self._idle.append(request)

    def finish(self) -> None:
        with self._lock:
            calls = list(self._pending)
        for call in calls:
            call.finish()

    def _oldest_if_full(self) -> _Call | None:
        with self._lock:
            return self._pending[0] if len(self._pending) >= self._most_pending else None

    def _request(self) -> ov.InferRequest:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self.compiled.create_infer_request()


class OpenVinoEngine:
    """An ONNX model compiled for the processor.

    A model that is compiled for one shape runs faster than one for all shapes, so shapes that are seen often
    get their own, up to eight; others share one. Calls from several threads, and calls that were submitted,
    run at the same time, as many as there are ``streams``; the others wait.

    A graph with Q/DQ nodes is run as it is, in int8. PRelu should be left in the graph.

    Args:
        model: Serialised ONNX.
        precision: ``auto`` takes bf16 where the processor computes in it and fp32 elsewhere; or ``fp32``,
            ``bf16``, ``fp16``; ``int8`` asks for a graph with Q/DQ nodes.
        threads: Most threads that compute, over all streams; None takes one for each core.
        streams: Calls that may run at the same time; they share the threads. None leaves it to ``mode``.
        mode: ``latency`` puts all threads into one call at a time, ``throughput`` one thread into each of
            as many calls.

    Raises:
        ModelError: The model cannot be compiled, or the processor or the graph has no such precision.
        ValueError: ``precision`` or ``mode`` is unknown, or ``threads`` or ``streams`` is below 1.
    """

    name = "openvino"
    max_batch: int | None = None

    def __init__(
        self,
        model: bytes,
        *,
        precision: str = "auto",
        threads: int | None = None,
        streams: int | None = None,
        mode: Mode = "latency",
    ) -> None:
        if any(number is not None and number < 1 for number in (threads, streams)):
            raise ValueError(f"expected threads and streams of at least 1, got {threads} and {streams}")
        if mode not in {"latency", "throughput"}:
            raise ValueError(f"mode: expected latency or throughput, got {mode!r}")
        if streams is None:
            streams = 1 if mode == "latency" else threads or os.cpu_count() or 1
        self._core = _core()
        self._most_pending = streams * _PENDING_PER_STREAM
        self._options = self._compile_options(precision, threads, streams)
        self._programs: dict[tuple[int, ...], _Program] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._shared: _Program | None = None
        self._lock = Lock()
        self._closed = False
        try:
            self._model = self._core.read_model(model)
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO cannot read the model: {_reason(exc)}") from exc
        operators = {node.get_type_name() for node in self._model.get_ops()}
        is_int8 = "FakeQuantize" in operators
        if precision == "int8" and not is_int8:
            raise ModelError("the graph is not quantised, so it cannot run in int8; convert it to Q/DQ first")
        if "PRelu" in operators:
            # Its just-in-time subgraphs would take the PRelu that the convolution before it does in passing.
            self._options["SNIPPETS_MODE"] = "DISABLE"
        self._inputs = tuple(_spec(port) for port in self._model.inputs)
        self._outputs = tuple(_spec(port) for port in self._model.outputs)
        self._free_shape = self._model.inputs[0].partial_shape
        compiled = self._first_program().compiled
        self._precision = "int8" if is_int8 else _precision_of(compiled)

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
        program = self._program(feeds[self._inputs[0].name].shape)
        try:
            return program.run(dict(feeds))
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO failed: {_reason(exc)}") from exc

    def submit(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Pending:
        """Begin to run the model; see ``Engine.submit``."""
        check_feeds(feeds, self._inputs)
        program = self._program(feeds[self._inputs[0].name].shape)
        try:
            return program.start(dict(feeds))
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO failed: {_reason(exc)}") from exc

    def close(self) -> None:
        """Wait for the calls that are pending, which keep their results, and free the compiled models."""
        with self._lock:
            self._closed = True
            programs = [*self._programs.values(), *([self._shared] if self._shared else [])]
            self._programs.clear()
            self._shared = None
        for program in programs:
            program.finish()

    def _compile_options(self, precision: str, threads: int | None, streams: int) -> dict[str, Any]:
        options: dict[str, Any] = {"NUM_STREAMS": streams}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if precision in {"auto", "int8"}:
            return options
        if precision not in _HINTS:
            raise ValueError(f"precision: expected auto, {', '.join(_HINTS)} or int8, got {precision!r}")
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
            if shape in self._programs:
                return self._programs[shape]
            self._seen[shape] += 1
            is_usual = self._shared is None or self._seen[shape] >= _USUAL_AFTER
            if is_usual and len(self._programs) < _MOST_FIXED_SHAPES:
                self._programs[shape] = self._compile(ov.PartialShape(list(shape)))
                return self._programs[shape]
            if self._shared is None:
                self._shared = self._compile(self._free_shape)
            return self._shared

    def _compile(self, shape: ov.PartialShape) -> _Program:
        try:
            self._model.reshape(shape)
            compiled = self._core.compile_model(self._model, "CPU", self._options)
        except RuntimeError as exc:
            raise ModelError(f"OpenVINO cannot compile the model for {shape}: {_reason(exc)}") from exc
        return _Program(compiled, [spec.name for spec in self._outputs], self._most_pending)


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
