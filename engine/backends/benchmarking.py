"""Measure engines: calls in turn, so that load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from engine.errors import ModelError
from engine.optional_libraries import why_unusable
from engine.protocol import Engine

Call: TypeAlias = Callable[[], object]

SLICES: Final = 5
"""Turns that each call gets; between them the others run."""

_WARM_UP_CALLS: Final = 2
_PEAK_SIDE: Final = 1024
_PEAK_LAYERS: Final = 4


@dataclass(frozen=True, slots=True)
class Timing:
    """How long calls took.

    Attributes:
        seconds: Of each call, in the order of the calls; at least one.
    """

    seconds: tuple[float, ...]

    @property
    def least_ms(self) -> float:
        """The quickest call, which the neighbours disturbed least."""
        return min(self.seconds) * 1e3

    @property
    def p50_ms(self) -> float:
        """The median call."""
        return statistics.median(self.seconds) * 1e3

    @property
    def p99_ms(self) -> float:
        """What 99 of 100 calls do not exceed; the slowest call where there are fewer than 100."""
        return float(np.percentile(self.seconds, 99, method="higher")) * 1e3

    @property
    def calls_per_s(self) -> float:
        """Calls in a second, one after the other."""
        return len(self.seconds) / sum(self.seconds)


def time_in_turns(
    calls: Mapping[str, Call],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    on_slice: Callable[[str], None] = lambda _: None,
) -> dict[str, Timing]:
    """Time several calls within one run, in turns.

    Args:
        calls: What to time, by name.
        seconds: For each of them, over all turns.
        clock: Tells the time in seconds.
        on_slice: Told the name of each call at the end of its turn.

    Returns:
        By name. The first call of a turn is not counted: it finds the others' data in the caches.
    """
    for call in calls.values():
        for _ in range(_WARM_UP_CALLS):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(SLICES):
        for name, call in calls.items():
            call()
            _time_slice(call, seconds / SLICES, clock, times[name])
            on_slice(name)
    return {name: Timing(tuple(taken)) for name, taken in times.items()}


def _time_slice(call: Call, seconds: float, clock: Callable[[], float], times: list[float]) -> None:
    begun = before = clock()
    while True:
        call()
        after = clock()
        times.append(after - before)
        if after - begun >= seconds:
            return
        before = after


def measure_peak(precision: str, *, threads: int, seconds: float) -> float:
    """The most that the processor multiplies in a precision: a chain of large matrix products by OpenVINO.

    Args:
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        threads: That compute.
        seconds: Of measuring; the best call counts.

    Returns:
        Multiply-accumulates a second.

    Raises:
        ModelError: OpenVINO is not installed, or the processor does not compute in that precision.
    """
    try:
        from engine.backends.openvino import OpenVinoEngine
    except (ImportError, OSError) as exc:
        trouble = why_unusable("openvino", exc, title="OpenVINO", install="pip install openvino")
        raise ModelError(f"the peak is measured by OpenVINO: {trouble}") from exc
    engine = OpenVinoEngine(_matrix_products(precision), precision=precision, threads=threads)
    feed = np.random.default_rng(0).normal(size=(_PEAK_SIDE, _PEAK_SIDE)).astype(np.float32)
    try:
        timing = time_in_turns({precision: lambda: engine.infer({"x": feed})}, seconds=seconds)[precision]
    finally:
        engine.close()
    return _PEAK_LAYERS * _PEAK_SIDE**3 / (timing.least_ms / 1e3)


def _matrix_products(precision: str) -> bytes:
    rng = np.random.default_rng(1)
    side = _PEAK_SIDE
    constants: dict[str, npt.NDArray[Any]] = {}
    if precision == "int8":
        constants = {"step": np.array(4 / 127, np.float32), "zero": np.array(0, np.int8)}
    nodes: list[onnx.NodeProto] = []
    name = "x"
    for layer in range(_PEAK_LAYERS):
        weight, product = f"w{layer}", f"y{layer}"
        values = rng.normal(size=(side, side)).astype(np.float32) / np.float32(side**0.5)
        if precision == "int8":
            constants[f"{weight}/q"] = np.round(values * 1000).clip(-127, 127).astype(np.int8)
            constants[f"{weight}/step"] = np.array(1e-3, np.float32)
            nodes += [
                helper.make_node("QuantizeLinear", [name, "step", "zero"], [f"{product}/q"]),
                helper.make_node("DequantizeLinear", [f"{product}/q", "step", "zero"], [f"{product}/dq"]),
                helper.make_node("DequantizeLinear", [f"{weight}/q", f"{weight}/step", "zero"], [weight]),
            ]
            name = f"{product}/dq"
        else:
            constants[weight] = values
        nodes.append(helper.make_node("MatMul", [name, weight], [product]))
        name = product
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [side, side]) for n in ("x", name)]
    tensors = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "peak", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def random_feeds(engine: Engine, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """An input of an engine that has one: pixels, uint8 or float 0..255.

    Args:
        engine: Any with one input.
        shape: Of the input.
    """
    (spec,) = engine.inputs
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return {spec.name: values.astype(spec.dtype)}
