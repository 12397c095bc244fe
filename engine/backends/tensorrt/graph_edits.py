"""Edits of ONNX graphs for TensorRT: unsupported operators rewritten in supported ones.

Every function takes a model and returns a new one; none changes its argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from engine.graphs.edits import copy_model, replace_items

_MOVES = frozenset({"Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that rearrange values and compute nothing."""


def without_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write each product of a matrix with constant weights as a convolution of one pixel: the same function.

    TensorRT for RTX has no float32 matrix product for Turing (SM75), but has convolutions. ``Gemm`` and, of
    matrices, ``MatMul`` are rewritten; products of two variables are left as they are.
    """
    rewritten = copy_model(model)
    graph = rewritten.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    matrices = _matrices(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        weights = _linear_weights(node, constants) if node.input and node.input[0] in matrices else None
        if weights is None:
            nodes.append(node)
            continue
        weight, bias = weights
        y = node.output[0]
        tensors = {
            f"{y}/weight": weight[:, :, None, None],
            f"{y}/bias": bias,
            f"{y}/pixel": np.array([0, weight.shape[1], 1, 1]),
            f"{y}/flat": np.array([0, weight.shape[0]]),
        }
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
        nodes += [
            helper.make_node("Reshape", [node.input[0], f"{y}/pixel"], [f"{y}/in"]),
            helper.make_node("Conv", [f"{y}/in", f"{y}/weight", f"{y}/bias"], [f"{y}/out"], name=node.name),
            helper.make_node("Reshape", [f"{y}/out", f"{y}/flat"], [y]),
        ]
    replace_items(graph.node, nodes)
    return rewritten


def cast_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cast uint8 inputs before they are rearranged, not after: the same function.

    TensorRT takes uint8 from outside, but has no operation on it other than ``Cast``.
    """
    cast = copy_model(model)
    nodes = list(cast.graph.node)
    for image in cast.graph.input:
        if image.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            continue
        chain = _moves_until_cast(image.name, nodes)
        if chain is None or len(chain) == 1:
            continue
        *moves, last = chain
        last.input[0], end, last.output[0] = image.name, last.output[0], f"{image.name}/cast"
        moves[0].input[0] = last.output[0]
        moves[-1].output[0] = end
        nodes.insert(nodes.index(moves[0]), nodes.pop(nodes.index(last)))
    replace_items(cast.graph.node, nodes)
    del cast.graph.value_info[:]
    return cast


def _matrices(model: onnx.ModelProto) -> set[str]:
    """Names of values that have two dimensions."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    found = {v.name for v in values if len(v.type.tensor_type.shape.dim) == 2}
    return found | {node.input[0] for node in model.graph.node if node.op_type == "Gemm"}


def _linear_weights(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Weight (M, K) and bias (M,) of ``y = weight @ x + bias``, or None where they are not constant."""
    if node.op_type not in {"Gemm", "MatMul"} or node.input[1] not in constants:
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    matrix = numpy_helper.to_array(constants[node.input[1]])
    if matrix.ndim != 2 or attributes.get("transA", 0):
        return None
    weight = matrix if attributes.get("transB", 0) else matrix.T
    bias = np.zeros(1, matrix.dtype)
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in constants:
            return None
        bias = numpy_helper.to_array(constants[node.input[2]])
        if bias.size not in {1, len(weight)} or (bias.ndim == 2 and bias.shape[0] != 1):
            return None
    weight = (attributes.get("alpha", 1.0) * weight).astype(matrix.dtype)
    bias = (attributes.get("beta", 1.0) * bias.reshape(-1)).astype(matrix.dtype)
    return weight, np.ascontiguousarray(np.broadcast_to(bias, len(weight)))


def _moves_until_cast(name: str, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto] | None:
    """The nodes that rearrange a value, and the ``Cast`` that ends their chain; None if there is none."""
    chain: list[onnx.NodeProto] = []
    while True:
        users = [node for node in nodes if name in node.input]
        if len(users) != 1 or users[0].input[0] != name:
            return None
        chain.append(users[0])
        if users[0].op_type == "Cast":
            return chain
        if users[0].op_type not in _MOVES:
            return None
        name = users[0].output[0]
