"""Count the multiply-accumulates of an ONNX graph, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx
from onnx import shape_inference

from engine.errors import ModelError

Shape: TypeAlias = tuple[int, ...]

_COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class LayerCost:
    """The work of one layer.

    Attributes:
        name: Of its output.
        operator: ``Conv``, ``ConvTranspose``, ``Gemm`` or ``MatMul``.
        macs: Multiply-accumulates; a multiplication and an addition are one. Zeros at the border count.
    """

    name: str
    operator: str
    macs: int


def count_macs(model: onnx.ModelProto, input_shape: Shape) -> int:
    """Multiply-accumulates of one run; see ``layer_costs``."""
    return sum(layer.macs for layer in layer_costs(model, input_shape))


def layer_costs(model: onnx.ModelProto, input_shape: Shape) -> tuple[LayerCost, ...]:
    """The layers that multiply matrices. What works element by element is not counted, as is usual.

    Args:
        model: One input beside its constants.
        input_shape: Of that input, batch first.

    Raises:
        ModelError: The input's shape does not fit, or the shape of a layer cannot be told.
    """
    shapes = _shapes(model, input_shape)
    return tuple(
        LayerCost(node.output[0], node.op_type, _macs(node, shapes))
        for node in model.graph.node
        if node.op_type in _COUNTED
    )


def _shapes(model: onnx.ModelProto, input_shape: Shape) -> dict[str, Shape]:
    """The shape of everything in the graph that has a known one."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in fixed.graph.initializer}
    (image,) = (value for value in fixed.graph.input if value.name not in constants)
    dims = image.type.tensor_type.shape.dim
    wanted = tuple(dim.dim_value or None for dim in dims)
    fits = len(wanted) == len(input_shape) and all(
        want in {None, got} for want, got in zip(wanted, input_shape, strict=True)
    )
    if not fits:
        raise ModelError(f"{image.name}: expected the shape {wanted}, got {input_shape}")
    for dim, size in zip(dims, input_shape, strict=True):
        dim.dim_value = size
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:  # what it says may be true of another input only
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as exc:
        reason = next(iter(str(exc).strip().splitlines()), "no reason given")
        raise ModelError(f"the model does not take an input of the shape {input_shape}: {reason}") from exc
    graph = inferred.graph
    known = dict(constants)
    for value in [*graph.input, *graph.value_info, *graph.output]:
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in sizes):
            known[value.name] = tuple(dim.dim_value for dim in sizes)
    return known


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    try:
        first, second = shapes[node.input[0]], shapes[node.input[1]]
        given = shapes[node.output[0]]
    except KeyError as exc:
        raise ModelError(
            f"cannot tell the shape of {exc.args[0]!r}, which the layer {node.output[0]!r} needs"
        ) from exc
    match node.op_type:
        case "Conv":  # weight: outputs, inputs of a group, kernel
            return math.prod(given) * math.prod(second[1:])
        case "ConvTranspose":  # weight: inputs, outputs of a group, kernel
            return math.prod(first) * math.prod(second[1:])
        case "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return math.prod(given) * first[0 if transposed else 1]
    return math.prod(given) * first[-1]
