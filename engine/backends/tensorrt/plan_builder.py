"""Build TensorRT plans from ONNX graphs, for the GPU of this machine or for GPUs that are elsewhere.

Plans for RTX are built in the tests, without a GPU; the standard flavour has not yet been run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeAlias

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, untyped

from engine.atomic_files import write_atomically
from engine.backends.tensorrt.bindings import (
    TURING,
    Flavour,
    library,
    message_log,
    network_flags,
    one_line,
    reason_of,
    supported_gpus,
)
from engine.backends.tensorrt.graph_edits import cast_first, without_matmul
from engine.errors import ModelError

OnProgress: TypeAlias = Callable[[str, float], None]
"""Gets the name of the phase that is under way and the share of the whole that is done, 0..1."""

_NO_FP32_MATMUL: Final = "FP32 GEMM is not supported"


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Shapes that an input may have; the plan is fastest at the usual one.

    Attributes:
        smallest: Least size of each dimension, at least 1.
        usual: What to tune for.
        largest: Greatest size of each dimension; memory is laid out for it.

    Raises:
        ValueError: They have different lengths, or ``1 <= smallest <= usual <= largest`` does not hold.
    """

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]

    def __post_init__(self) -> None:
        same = len(self.smallest) == len(self.usual) == len(self.largest)
        if not same or not all(
            1 <= low <= mid <= high
            for low, mid, high in zip(self.smallest, self.usual, self.largest, strict=True)
        ):
            raise ValueError(
                f"expected 1 <= smallest <= usual <= largest in each dimension, "
                f"got {self.smallest}, {self.usual}, {self.largest}"
            )


def build_plan(
    model: bytes,
    *,
    flavour: Flavour,
    shapes: Mapping[str, ShapeRange],
    gpus: Sequence[str] = (),
    tf32: bool = True,
    timing_cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> bytes:
    """Compile an ONNX graph; its precision is that of the graph's own types and Q/DQ nodes.

    Args:
        model: Serialised ONNX, with the preprocessing inside: uint8 inputs are fine.
        flavour: ``tensorrt-rtx`` builds without a GPU, ``tensorrt`` for the GPU of this machine.
        shapes: For each input with dimensions that may vary, by name.
        gpus: Architectures such as ``sm86``, of ``supported_gpus``; only for ``tensorrt-rtx``, where none
            given means all from Ampere (SM80) on, also those to come. Turing (``sm75``) must be named; it
            doubles a small plan, and matrix products are then written as convolutions.
        tf32: Let float32 products round their factors to 10 bits of mantissa, as the library does by itself
            from Ampere on, for several times the speed.
        timing_cache: File of measurements that make the next build faster, for ``tensorrt``. One that is
            damaged, or of another GPU, is rebuilt.
        on_progress: Called from threads of the library.

    Returns:
        The plan, of use to this version of the library only.

    Raises:
        ModelError: The graph cannot be parsed or built, a GPU is not supported, or the library is missing.
        ValueError: The shapes do not fit the graph's inputs, or ``gpus`` were given for ``tensorrt``.
    """
    trt = library(flavour)
    targets = _targets(flavour, gpus)
    log = message_log(trt)
    mark = log.mark()
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as exc:  # what its constructor raises without a GPU
        raise ModelError(
            f"{flavour} cannot build on this machine: {log.reason(mark)}; build on the machine with the GPU, "
            "or anywhere with --engine tensorrt-rtx"
        ) from exc
    network = _parsed(trt, builder, log, _fitting(model, turing=TURING in targets), flavour)
    config = _configuration(trt, builder, network, shapes, targets=targets, tf32=tf32)
    monitor = _progress_monitor(trt, on_progress) if on_progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    cache = _load_timings(config, timing_cache) if timing_cache and flavour == "tensorrt" else None
    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.failure is not None:
        raise monitor.failure
    if plan is None:
        raise ModelError(_build_reason(flavour, log.reason(mark)))
    if cache is not None and timing_cache is not None:
        _save_timings(cache, timing_cache)
    return bytes(plan)


def _parsed(trt: Any, builder: Any, log: Any, graph: bytes, flavour: Flavour) -> Any:
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        raise ModelError(f"{flavour} cannot take the model: {_parse_reason(parser)}; use --engine openvino")
    if network.num_outputs == 0:
        raise ModelError("expected an ONNX model with outputs, got one without; export it again")
    return network


def _configuration(
    trt: Any,
    builder: Any,
    network: Any,
    shapes: Mapping[str, ShapeRange],
    *,
    targets: tuple[str, ...],
    tf32: bool,
) -> Any:
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if targets:
        config.num_compute_capabilities = len(targets)
    for number, target in enumerate(targets):
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), number)
    _add_profile(builder, network, config, shapes)
    return config


def _targets(flavour: Flavour, gpus: Sequence[str]) -> tuple[str, ...]:
    if flavour == "tensorrt":
        if gpus:
            raise ValueError(
                "gpus: tensorrt builds for this machine's GPU only; use tensorrt-rtx to name others"
            )
        return ()
    targets = tuple(dict.fromkeys(gpu.lower() for gpu in gpus))
    known = supported_gpus(flavour)
    unknown = [gpu for gpu in targets if gpu not in known]
    if unknown:
        raise ModelError(
            f"tensorrt-rtx does not build for {', '.join(unknown)}; expected --gpu of {','.join(known)}; "
            "for other GPUs use --engine tensorrt on the machine that has it"
        )
    return targets


def _fitting(model: bytes, *, turing: bool) -> bytes:
    """The same function in the operators that TensorRT has for the GPUs."""
    try:
        graph = cast_first(onnx.load_model_from_string(model))
        data: bytes = (without_matmul(graph) if turing else graph).SerializeToString()
    except (DecodeError, ValueError, onnx.shape_inference.InferenceError) as exc:
        raise ModelError(
            f"expected an ONNX model, got {len(model)} bytes that are none ({one_line(str(exc))}); "
            "download or export the file again"
        ) from exc
    return data


def _parse_reason(parser: Any) -> str:
    error = parser.get_error(0)
    reason = reason_of([error.desc()])
    if not error.node_operator():
        return reason
    name = f" ({error.node_name()!r})" if error.node_name() else ""
    return f"operator {error.node_operator()}{name}: {reason}"


def _build_reason(flavour: Flavour, reason: str) -> str:
    if _NO_FP32_MATMUL in reason:
        others = ",".join(gpu for gpu in supported_gpus(flavour) if gpu != TURING)
        return (
            f"{flavour} has no float32 matrix product for {TURING}: {reason}; "
            f"compile for the others (--gpu {others}), or with --precision fp16"
        )
    return f"{flavour} cannot build the model: {reason}; try --precision fp32, or use --engine openvino"


def _add_profile(builder: Any, network: Any, config: Any, shapes: Mapping[str, ShapeRange]) -> None:
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    unknown = shapes.keys() - {tensor.name for tensor in inputs}
    if unknown:
        raise ValueError(f"shapes: the model has no input {sorted(unknown)}, but {[t.name for t in inputs]}")
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        shape = tuple(tensor.shape)
        if -1 not in shape and tensor.name not in shapes:
            continue
        wanted = shapes.get(tensor.name)
        if wanted is None or not _fits(shape, wanted):
            raise ValueError(f"{tensor.name}: expected a range of shapes that fit {shape}, got {wanted}")
        profile.set_shape(tensor.name, wanted.smallest, wanted.usual, wanted.largest)
    if shapes and config.add_optimization_profile(profile) < 0:
        raise ModelError(f"TensorRT refuses the shapes {dict(shapes)}; give other ones")


def _fits(shape: tuple[int, ...], wanted: ShapeRange) -> bool:
    return len(shape) == len(wanted.usual) and all(
        size in {-1, low} and (size == -1 or low == high)
        for size, low, high in zip(shape, wanted.smallest, wanted.largest, strict=True)
    )


def _load_timings(config: Any, path: Path) -> Any:
    saved = b""
    with contextlib.suppress(OSError):
        saved = path.read_bytes()
    cache = config.create_timing_cache(saved)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _save_timings(cache: Any, path: Path) -> None:
    # Without it the next build takes longer, and nothing else: no reason to lose this one.
    with contextlib.suppress(ModelError):
        write_atomically(path, bytes(cache.serialize()))


def _progress_monitor(trt: Any, on_progress: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is found at run time
        """Reports phases within phases as one share; stops the build when the report fails."""

        def __init__(self) -> None:
            super().__init__()
            self.failure: BaseException | None = None
            self._lock = Lock()
            self._progress = Progress()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._progress.start(phase_name, parent_phase, num_steps)
                self._report(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._progress.step(phase_name, step)
                self._report(phase_name)
            return self.failure is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._progress.finish(phase_name)
                self._report(phase_name)

        def _report(self, phase: str) -> None:
            if self.failure is not None:
                return
            try:
                on_progress(phase, self._progress.share)
            except BaseException as exc:  # noqa: BLE001 - must not pass through the library; raised after it
                self.failure = exc

    return Monitor()


class Progress:
    """The share done of a job whose phases have steps, and phases within steps.

    Attributes:
        share: 0..1, never falling.
    """

    def __init__(self) -> None:
        self.share = 0.0
        self._phases: dict[str, tuple[float, float]] = {}
        self._step: dict[str, tuple[float, float]] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within the step of its parent that is under way."""
        begin, width = self._step.get(parent, (0.0, 1.0)) if parent else (0.0, 1.0)
        self._phases[name] = (begin, width / max(steps, 1))
        self._step[name] = (begin, width / max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """A step, counted from 0, is done."""
        if name in self._phases:
            begin, width = self._phases[name]
            self._step[name] = (begin + (step + 1) * width, width)
            self.share = max(self.share, min(begin + (step + 1) * width, 1.0))

    def finish(self, name: str) -> None:
        """A phase ends."""
        self._phases.pop(name, None)
        self._step.pop(name, None)
        if not self._phases:
            self.share = 1.0
