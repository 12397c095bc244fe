"""Edits of ONNX graphs: fold quantised constants, free the shapes, take camera pixels, rewrite PRelu.

Every function takes a model and returns a new one; none changes its argument.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # comes with onnx, untyped
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError

ColourOrder: TypeAlias = Literal["bgr", "rgb"]
"""Order of the channels that a model was trained on."""

_FOLDABLE = frozenset(
    {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_QUANTISING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})
_ALIKE_FOR_ALL_CHANNELS = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Sub"})


def parse_model(data: bytes, *, origin: str) -> onnx.ModelProto:
    """Read a model from bytes that nobody vouches for.

    Args:
        data: A serialised ``ModelProto`` that holds its weights.
        origin: Where the bytes come from, for the error message.

    Raises:
        ModelError: The bytes are no valid ONNX model, the weights are kept in other files or are not finite,
            or the model does not take exactly one float32 image of three channels.
    """
    try:
        model = onnx.load_model_from_string(data)
        external = any(_is_elsewhere(each) for each in _messages(model))
        if not external:
            onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, ValueError, TypeError) as exc:
        if "No Op registered" in str(exc):
            raise ModelError(
                f"{origin}: uses an operator that is not of ONNX ({_first_line(exc)}); export it without"
            ) from exc
        raise ModelError(
            f"{origin}: expected an ONNX model, got {len(data)} bytes that are none ({_first_line(exc)}); "
            "download or export the file again"
        ) from exc
    if external:
        raise ModelError(f"{origin}: its weights are in other files; export it as a single file")
    _check_finite(model, origin)
    image_input(model, origin=origin)
    return model


def _messages(message: Message) -> Iterator[Message]:
    """A message and all messages in it: tensors may hang on nodes, inner graphs and functions too."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                yield from _messages(each)


def _is_elsewhere(message: Message) -> bool:
    """Whether it is a tensor that is kept in another file, which no hash of the model's covers."""
    return isinstance(message, onnx.TensorProto) and (
        message.data_location == onnx.TensorProto.EXTERNAL or bool(message.external_data)
    )


def _check_finite(model: onnx.ModelProto, origin: str) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS and not np.isfinite(numpy_helper.to_array(tensor)).all():
            raise ModelError(
                f"{origin}: expected finite weights, got NaN or infinity in {tensor.name!r}; "
                "the training or the export failed, do it again"
            )


def image_input(model: onnx.ModelProto, *, origin: str = "model") -> onnx.ValueInfoProto:
    """The one input that a model has beside its constants.

    Args:
        model: Any.
        origin: Where it comes from, for the error message.

    Raises:
        ModelError: The model does not take exactly one float32 image of three channels.
    """
    used = {name for node in model.graph.node for name in node.input}
    variable = used - {tensor.name for tensor in model.graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [i for i in model.graph.input if i.name in variable]
    if len(inputs) == 1:
        tensor = inputs[0].type.tensor_type
        dims = tensor.shape.dim
        if tensor.elem_type == onnx.TensorProto.FLOAT and len(dims) == 4 and dims[1].dim_value == 3:
            return inputs[0]
    found = ", ".join(helper.printable_value_info(i) for i in inputs[:3]) or "none"
    raise ModelError(
        f"{origin}: expected one input, a float32 image (N, 3, H, W), got {found}; export the model that way"
    )


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute what depends on constants only, so that block-quantised weights become plain float32.

    ONNX Runtime and OpenVINO do not run ``DequantizeLinear`` with ``block_size`` everywhere that the
    quantiser of the OpenCV Zoo puts it. Initialisers also leave the list of the graph's inputs; those that
    nothing uses are dropped, as are the stored shapes of intermediate results.

    Raises:
        ModelError: A constant cannot be computed.
    """
    folded = copy_model(model)
    graph = folded.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in _FOLDABLE and all(name in constants for name in node.input if name):
            for tensor in _evaluate(node, constants, folded.opset_import):
                constants[tensor.name] = tensor
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    replace_items(graph.input, [i for i in graph.input if i.name in used and i.name not in constants])
    replace_items(graph.initializer, [tensor for name, tensor in constants.items() if name in used])
    replace_items(graph.node, kept)
    del graph.value_info[:]
    return folded


def free_shapes(model: onnx.ModelProto, *, image_size: bool) -> onnx.ModelProto:
    """Make the batch symbolic and, for fully convolutional models, height and width too.

    ``Reshape`` nodes whose constant shape begins with 1 and holds a -1 keep their input's batch instead.

    Args:
        model: One NCHW image input; every output has the batch first and, with ``image_size``, the number
            of anchors second.
        image_size: Free height and width as well.
    """
    freed = copy_model(model)
    graph = freed.graph
    dims = image_input(freed).type.tensor_type.shape.dim
    for axis, symbol in ((0, "batch"), (2, "height"), (3, "width"))[: 3 if image_size else 1]:
        dims[axis].dim_param = symbol
    for output in graph.output:
        shape = output.type.tensor_type.shape.dim
        shape[0].dim_param = "batch"
        if image_size:
            shape[1].dim_param = f"{output.name}_anchors"
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in targets:
            target = numpy_helper.to_array(tensor).copy()
            if target[0] == 1 and -1 in target[1:]:
                target[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(target, tensor.name))
    del graph.value_info[:]
    return freed


def without_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write each PRelu as ``slope * x + (1 - slope) * relu(x)``, which is the same function.

    For ONNX Runtime, which has no blocked-layout kernel for PRelu and converts layouts around each. OpenVINO
    fuses a PRelu as it is into the convolution before it.
    """
    rewritten = copy_model(model)
    graph = rewritten.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "PRelu" or node.input[1] not in constants:
            nodes.append(node)
            continue
        x, slope = node.input
        (y,) = node.output
        rest = 1 - numpy_helper.to_array(constants[slope])
        graph.initializer.append(numpy_helper.from_array(rest, f"{y}/rest"))
        nodes += [
            helper.make_node("Relu", [x], [f"{y}/relu"]),
            helper.make_node("Mul", [f"{y}/relu", f"{y}/rest"], [f"{y}/positive"]),
            helper.make_node("Mul", [x, slope], [f"{y}/linear"]),
            helper.make_node("Add", [f"{y}/linear", f"{y}/positive"], [y]),
        ]
    replace_items(graph.node, nodes)
    return rewritten


def take_pixels(
    model: onnx.ModelProto,
    *,
    colour_order: ColourOrder,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> onnx.ModelProto:
    """Put the preprocessing into the graph: its input becomes uint8 (N, H, W, 3), BGR, named ``pixels``.

    The model then sees ``(pixel - mean) * scale`` as float32 NCHW in its own colour order. Where only a
    convolution tells the colours apart, its weights change places instead of the pixels.

    Args:
        model: One float32 NCHW image input.
        colour_order: What the model was trained on.
        mean: Of each channel, in the model's colour order, 0..255.
        scale: One factor for all channels.
    """
    taking = copy_model(model)
    graph = taking.graph
    image = image_input(taking)
    steps: list[tuple[str, npt.NDArray[Any] | None, dict[str, Any]]] = [
        ("Cast", None, {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", None, {"perm": [0, 3, 1, 2]}),
    ]
    if colour_order == "rgb":
        if _swap_colours_of_weights(graph, image.name):
            mean = mean[::-1]
        else:
            steps.insert(0, ("Gather", np.array([2, 1, 0]), {"axis": 3}))
    if any(mean):
        steps.append(("Sub", np.array(mean, np.float32).reshape(1, 3, 1, 1), {}))
    if scale != 1:
        steps.append(("Mul", np.array(scale, np.float32), {}))
    nodes: list[onnx.NodeProto] = []
    source = "pixels"
    for number, (operator, constant, attributes) in enumerate(steps, start=1):
        inputs = [source]
        if constant is not None:
            inputs.append(f"pixels/{operator}")
            graph.initializer.append(numpy_helper.from_array(constant, inputs[1]))
        source = image.name if number == len(steps) else f"pixels/{number}"
        nodes.append(helper.make_node(operator, inputs, [source], **attributes))
    n, _, h, w = (dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim)
    image.CopyFrom(helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, [n, h, w, 3]))
    replace_items(graph.node, [*nodes, *graph.node])
    return taking


def graph_precision(model: onnx.ModelProto) -> str:
    """What a graph asks an engine to compute in.

    Returns:
        ``int8`` where activations are quantised, ``fp16`` where most numbers of the weights are float16,
        ``fp32`` otherwise.
    """
    if any(node.op_type in _QUANTISING for node in model.graph.node):
        return "int8"
    counts = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in model.graph.initializer:
        if tensor.data_type in counts:
            counts[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if counts[onnx.TensorProto.FLOAT16] > counts[onnx.TensorProto.FLOAT] else "fp32"


def _swap_colours_of_weights(graph: onnx.GraphProto, image: str) -> bool:
    """Turn round the input channels of the first convolution, if nothing before it tells them apart."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ends = {output.name for output in graph.output}
    name = image
    while name not in ends:
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1:
            return False
        (node,) = users
        others = [constants.get(other) for other in node.input if other != name]
        if node.op_type == "Conv" and node.input[0] == name and (weight := others[0]) is not None:
            return _reverse_input_channels(graph, node, weight)
        alike = all(tensor is not None and math.prod(tensor.dims) == 1 for tensor in others)
        if node.op_type not in _ALIKE_FOR_ALL_CHANNELS or not alike:
            return False
        (name,) = node.output
    return False


def _reverse_input_channels(graph: onnx.GraphProto, node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    if weight.dims[1] != 3:  # a grouped convolution
        return False
    reversed_weight = np.ascontiguousarray(numpy_helper.to_array(weight)[:, ::-1])
    turned = numpy_helper.from_array(reversed_weight, f"{weight.name}/bgr")
    node.input[1] = turned.name
    graph.initializer.append(turned)
    used = {name for each in graph.node for name in each.input}
    replace_items(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    return True


def _evaluate(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], opsets: Iterable[onnx.OperatorSetIdProto]
) -> list[onnx.TensorProto]:
    used = {name: constants[name] for name in node.input if name}
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "constant", [], outputs, list(used.values()))
    try:
        values = ReferenceEvaluator(helper.make_model(graph, opset_imports=list(opsets))).run(None, {})
    except Exception as exc:  # what the evaluator raises on hostile values is not defined
        reason = _first_line(exc)
        raise ModelError(
            f"cannot compute the constant {node.output[0]!r} ({node.op_type}): {reason}"
        ) from exc
    return [numpy_helper.from_array(np.asarray(v), n) for n, v in zip(node.output, values, strict=True)]


def _first_line(exc: Exception) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that shares nothing with the model."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def replace_items(field: Any, items: Iterable[Any]) -> None:
    """Replace the content of a repeated field of a protobuf message."""
    kept = list(items)
    del field[:]
    field.extend(kept)
