"""Write a graph in a lower precision: fp16, bf16, or int8 where the model stands it.

Strongly typed engines (TensorRT from version 11 on) compute in the types that the graph names, so precision
is made here and not by flags of a builder. fp16 is ONNX Runtime's converter, int8 its static quantiser
(docs/decisions/0010-precision-tools.md); bf16 follows the placement of fp16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, version_converter

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.quantizers import convert_to_fp16, quantise_static
from engine.errors import ModelError
from engine.graphs.edits import copy_model, replace_items

Precision: TypeAlias = Literal["fp32", "fp16", "bf16", "int8"]
Calibration: TypeAlias = Literal["percentile", "entropy", "minmax"]

_FP16_SAFE: Final = 2.0**13
"""Results beyond an eighth of what fp16 holds stay in fp32: other faces may give larger ones."""

_BF16_OPSET: Final = 22
"""The first in which convolutions may be bf16."""

_MOST_LOST: Final = 0.001
"""int8 takes in layer by layer, the least sensitive first, while cosines stay above one minus this."""

_SAMPLE: Final = 64
"""Images on which the layers' sensitivity is measured."""


def precisions() -> tuple[str, ...]:
    """The names of all precisions, the exact one first."""
    return get_args(Precision)


def in_precision(
    graph: bytes,
    precision: Precision,
    *,
    samples: npt.NDArray[np.uint8],
    calibration: Calibration = "percentile",
    on_progress: Callable[[str, float], None] = lambda _step, _share: None,
) -> bytes:
    """Write a graph in another precision; its inputs and outputs keep their types.

    Args:
        graph: Serialised ONNX, fp32, of one input ``pixels``.
        precision: What it shall compute in. In fp16 and bf16, operations whose results on the samples come
            near the end of fp16's range stay fp32. In int8, convolutions are quantised, symmetrically and by
            output channel, and those that cost the most stay fp32.
        samples: uint8 (N, H, W, 3), what the model will see; at least one.
        calibration: How int8 finds the range of a tensor; percentile is the 99.99th.
        on_progress: Told of each step, and how much of it is done, 0..1.

    Raises:
        ModelError: The graph cannot be written that way.
        ValueError: There are no samples, or a name is unknown.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected {', '.join(get_args(Precision))}, got {precision!r}")
    if calibration not in get_args(Calibration):
        raise ValueError(f"calibration: expected {', '.join(get_args(Calibration))}, got {calibration!r}")
    if not len(samples):
        raise ValueError("samples: expected at least one image")
    if precision == "fp32":
        return graph
    model = _named(onnx.load_model_from_string(graph))
    on_progress(f"writing {precision}", 0.0)
    match precision:
        case "fp16":
            lowered = convert_to_fp16(model, keep=_large_nodes(model, samples))
        case "bf16":
            lowered = _bf16(model, samples)
        case "int8":
            return _int8(model, samples, calibration, on_progress)
    on_progress(f"writing {precision}", 1.0)
    data: bytes = lowered.SerializeToString()
    return data


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every node with a name of its own, so that it can be spoken of."""
    named = copy_model(model)
    for number, node in enumerate(named.graph.node):
        node.name = f"{node.op_type}_{number}"
    return named


def _large_nodes(model: onnx.ModelProto, samples: npt.NDArray[np.uint8]) -> list[str]:
    """Names of the nodes that take or give numbers for which fp16 is too narrow."""
    probe = copy_model(model)
    known = {value.name for value in [*model.graph.output, *model.graph.input]}
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    floats = [value for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    probe.graph.output.extend(value for value in floats if value.name not in known)
    engine = OnnxRuntimeEngine(probe.SerializeToString(), precision="fp32")
    largest: dict[str, float] = {}
    for image in samples[:_SAMPLE]:
        for name, value in engine.infer({"pixels": np.ascontiguousarray(image[None])}).items():
            peak = np.abs(value).max(initial=largest.get(name, 0.0))  # NaN stays NaN
            largest[name] = float(peak)
    engine.close()
    large = {name for name, peak in largest.items() if not peak < _FP16_SAFE}
    return [node.name for node in model.graph.node if large.intersection([*node.input, *node.output])]


def _bf16(model: onnx.ModelProto, samples: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """What is fp16 in the fp16 form becomes bf16, with constants rounded from their fp32 values."""
    try:
        newer = (
            version_converter.convert_version(model, _BF16_OPSET) if _opset(model) < _BF16_OPSET else model
        )
    except Exception as exc:  # the converter raises RuntimeError and its own
        raise ModelError(f"cannot write bf16: opset {_BF16_OPSET} is needed: {exc}") from exc
    newer = _named(newer)
    newer.ir_version = max(newer.ir_version, 10)
    exact = {tensor.name: tensor for tensor in newer.graph.initializer}
    half = convert_to_fp16(newer, keep=_large_nodes(newer, samples))
    for tensor in half.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            source = exact.get(tensor.name, tensor)
            tensor.CopyFrom(_as_bf16(source))
    for node in half.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.BFLOAT16
            if attribute.t.data_type == onnx.TensorProto.FLOAT16:
                attribute.t.CopyFrom(_as_bf16(attribute.t))
    del half.graph.value_info[:]
    return half


def _as_bf16(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
    return numpy_helper.from_array(values, tensor.name)


def _opset(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}))


def _int8(
    model: onnx.ModelProto,
    samples: npt.NDArray[np.uint8],
    calibration: Calibration,
    on_progress: Callable[[str, float], None],
) -> bytes:
    """Quantise everything once, measure what each layer costs, keep the cheap ones."""
    on_progress("calibrating", 0.0)
    everything = quantise_static(model, samples, calibration=calibration)
    on_progress("calibrating", 1.0)
    layers = [node.name for node in everything.graph.node if node.op_type == "Conv"]
    few = samples[:_SAMPLE]
    exact = _outputs(model.SerializeToString(), few)

    def loss(quantised: Sequence[str]) -> float:
        graph = with_quantised(model, everything, quantised)
        return _largest_loss(_outputs(graph.SerializeToString(), few), exact)

    costs = {}
    for number, name in enumerate(layers):
        costs[name] = loss([name])
        on_progress("measuring the layers", (number + 1) / len(layers))
    ordered = sorted(layers, key=costs.__getitem__)
    count = _most(len(ordered), lambda few_layers: loss(ordered[:few_layers]) <= _MOST_LOST)
    if not count:
        raise ModelError("int8: no layer of this model can be quantised without loss; use fp16 or bf16")
    chosen = with_quantised(model, everything, ordered[:count])
    data: bytes = chosen.SerializeToString()
    return data


def _most(count: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to ``count`` for which something holds that stops holding at some point."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def with_quantised(
    exact: onnx.ModelProto, quantised: onnx.ModelProto, layers: Sequence[str]
) -> onnx.ModelProto:
    """Quantise some nodes of a graph as another form of it does, and leave everything else as it was.

    ONNX Runtime's quantiser lets all that reads a quantised result read its rounded form, shortcuts included;
    here only the named nodes do.

    Args:
        exact: fp32, every node with a name.
        quantised: The same graph in which inputs of nodes pass QuantizeLinear and DequantizeLinear.
        layers: Names of the nodes.
    """
    mixed = copy_model(exact)
    graph = mixed.graph
    made_by = {name: node for node in quantised.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    other = {node.name: node for node in quantised.graph.node}
    present = {tensor.name for tensor in graph.initializer}
    placed: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    chosen = frozenset(layers)
    for node in graph.node:
        if node.name in chosen:
            for pair in _rounding(other[node.name], made_by, placed):
                nodes.append(pair)
                new = [name for name in pair.input if name in constants and name not in present]
                graph.initializer.extend(constants[name] for name in new)
                present.update(new)
            replace_items(node.input, other[node.name].input)
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    replace_items(graph.node, nodes)
    replace_items(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    return mixed


def _rounding(
    node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto], placed: set[str]
) -> list[onnx.NodeProto]:
    """The Q and DQ nodes before a node that are not placed yet, in order; they count as placed then."""
    found: list[onnx.NodeProto] = []
    for name in node.input:
        chain: list[onnx.NodeProto] = []
        source = made_by.get(name)
        while source is not None and source.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            chain.insert(0, source)
            source = made_by.get(source.input[0])
        found += [each for each in chain if each.output[0] not in placed]
        placed.update(each.output[0] for each in chain)
    return found


def _outputs(graph: bytes, samples: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float64]]:
    """Each output of each sample as a vector."""
    engine = OnnxRuntimeEngine(graph, precision="auto")
    results = [engine.infer({"pixels": np.ascontiguousarray(image[None])}) for image in samples]
    engine.close()
    return [value.ravel().astype(np.float64) for each in results for value in each.values()]


def _largest_loss(got: Sequence[npt.NDArray[Any]], exact: Sequence[npt.NDArray[Any]]) -> float:
    """One minus the least cosine."""
    cosines = [
        float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-30))
        for one, other in zip(got, exact, strict=True)
    ]
    return 1 - min(cosines)
