from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError
from engine.graphs.edits import (
    fold_constants,
    free_shapes,
    graph_precision,
    parse_model,
    take_pixels,
    without_prelu,
)

FLOAT = onnx.TensorProto.FLOAT
RNG = np.random.default_rng(0)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    outputs: dict[str, list[int]],
    size: tuple[int, int] = (4, 6),
    listed: bool = False,
) -> onnx.ModelProto:
    """A model with one image input; ``listed`` names its constants among the inputs, as old exporters do."""
    inputs = [helper.make_tensor_value_info("image", FLOAT, [1, 3, *size])]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    if listed:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    ends = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()]
    graph = helper.make_graph(nodes, "g", inputs, ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    return ReferenceEvaluator(model).run(None, feeds)


def quantised_convolution() -> tuple[onnx.ModelProto, np.ndarray]:
    quantised = RNG.integers(-128, 127, (5, 27), np.int8)
    scales = RNG.uniform(0.01, 0.1, (5, 3)).astype(np.float32)
    zeros = RNG.integers(-9, 9, (5, 3), np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["flat"], axis=1, block_size=9),
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
        helper.make_node("Conv", ["image", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    constants = {"q": quantised, "s": scales, "z": zeros, "shape": np.array([5, 3, 3, 3])}
    weight = np.empty((5, 27), np.float32)
    for row in range(5):
        for column in range(27):
            block = column // 9
            steps = int(quantised[row, column]) - int(zeros[row, block])
            weight[row, column] = steps * scales[row, block]
    return model_of(nodes, constants, outputs={"y": [1, 5, 4, 6]}, listed=True), weight.reshape(5, 3, 3, 3)


def test_folding_leaves_plain_weights_and_one_input() -> None:
    model, weight = quantised_convolution()
    folded = fold_constants(model)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert [i.name for i in folded.graph.input] == ["image"]
    (tensor,) = folded.graph.initializer
    assert numpy_helper.to_array(tensor) == pytest.approx(weight)
    assert len(model.graph.node) == 3, "the argument is left as it was"


def test_constants_that_cannot_be_computed_are_a_model_error() -> None:
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["v"]),
        helper.make_node("Add", ["image", "v"], ["y"]),
    ]
    constants = {"w": np.ones(4, np.float32), "shape": np.array([3])}
    model = model_of(nodes, constants, outputs={"y": [1, 3, 4, 6]})
    with pytest.raises(ModelError, match="cannot compute the constant 'v'"):
        fold_constants(model)


def test_freed_models_take_any_batch_and_size() -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["nhwc", "shape"], ["y"]),
    ]
    model = model_of(nodes, {"shape": np.array([1, -1, 3])}, outputs={"y": [1, 24, 3]})
    image = RNG.random((2, 3, 5, 7), np.float32)
    (got,) = run(free_shapes(model, image_size=True), image=image)
    assert (got == image.transpose(0, 2, 3, 1).reshape(2, 35, 3)).all()


def test_freeing_the_batch_alone_keeps_the_size() -> None:
    model = model_of([helper.make_node("Relu", ["image"], ["y"])], {}, outputs={"y": [1, 3, 4, 6]})
    freed = free_shapes(model, image_size=False)
    dims = freed.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 4, 6]


def test_prelu_in_simple_operations_is_the_same() -> None:
    slope = RNG.normal(size=(3, 1, 1)).astype(np.float32)
    prelu = helper.make_node("PRelu", ["image", "slope"], ["y"])
    model = model_of([prelu], {"slope": slope}, outputs={"y": [1, 3, 4, 6]})
    simple = without_prelu(model)
    assert "PRelu" not in {node.op_type for node in simple.graph.node}
    image = RNG.normal(size=(1, 3, 4, 6)).astype(np.float32)
    expected = np.where(image >= 0, image, slope * image)
    assert run(simple, image=image)[0] == pytest.approx(expected, abs=1e-6)


@given(
    st.sampled_from(["bgr", "rgb"]),
    st.tuples(*[st.floats(0, 255, width=16)] * 3),
    st.sampled_from([1.0, 1 / 128, 2.5]),
)
def test_pixels_are_prepared_in_the_graph(order: str, mean: tuple[float, ...], scale: float) -> None:
    identity = helper.make_node("Identity", ["image"], ["y"])
    model = free_shapes(model_of([identity], {}, outputs={"y": [1, 3, 4, 6]}), image_size=False)
    taking = take_pixels(model, colour_order=order, mean=mean, scale=scale)
    pixels = RNG.integers(0, 256, (2, 4, 6, 3), np.uint8)
    channels = pixels[..., ::-1] if order == "rgb" else pixels
    expected = ((channels.astype(float) - mean) * scale).transpose(0, 3, 1, 2)
    assert run(taking, pixels=pixels)[0] == pytest.approx(expected, abs=1e-3)


def colour_blind_start(*before: str, group: int = 1) -> onnx.ModelProto:
    """A convolution after operators that treat all channels alike."""
    weight = RNG.normal(size=(6, 3 // group, 3, 3)).astype(np.float32)
    nodes, source = [], "image"
    for number, operator in enumerate(before):
        nodes.append(helper.make_node(operator, [source, "two"], [f"s{number}"]))
        source = f"s{number}"
    nodes.append(helper.make_node("Conv", [source, "w"], ["y"], pads=[1, 1, 1, 1], group=group))
    constants = {"w": weight} | ({"two": np.array([2], np.float32)} if before else {})
    return model_of(nodes, constants, outputs={"y": [1, 6, 4, 6]})


@pytest.mark.parametrize("before", [(), ("Sub",), ("Sub", "Mul")])
def test_a_convolutions_weights_change_places_instead_of_the_colours(before: tuple[str, ...]) -> None:
    model = colour_blind_start(*before)
    taking = take_pixels(model, colour_order="rgb", mean=(1, 2, 3), scale=0.5)
    assert "Gather" not in {node.op_type for node in taking.graph.node}
    assert len(taking.graph.initializer) == len(model.graph.initializer) + 2, "mean and scale; one weight"
    pixels = RNG.integers(0, 256, (1, 4, 6, 3), np.uint8)
    image = ((pixels[..., ::-1] - np.float32([1, 2, 3])) * np.float32(0.5)).transpose(0, 3, 1, 2)
    assert run(taking, pixels=pixels)[0] == pytest.approx(run(model, image=image)[0], rel=1e-4, abs=1e-3)


def test_colours_change_places_where_weights_cannot() -> None:
    other = helper.make_node("Relu", ["image"], ["z"])
    watched = colour_blind_start()
    watched.graph.node.append(other)
    watched.graph.output.append(helper.make_tensor_value_info("z", FLOAT, [1, 3, 4, 6]))
    per_channel = colour_blind_start("Mul")
    (two,) = (tensor for tensor in per_channel.graph.initializer if tensor.name == "two")
    two.CopyFrom(numpy_helper.from_array(np.float32([1, 2, 3]).reshape(3, 1, 1), "two"))
    pixels = RNG.integers(0, 256, (1, 4, 6, 3), np.uint8)
    image = pixels[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    for model in (watched, per_channel, colour_blind_start(group=3)):
        taking = take_pixels(model, colour_order="rgb")
        assert "Gather" in {node.op_type for node in taking.graph.node}
        assert run(taking, pixels=pixels)[0] == pytest.approx(run(model, image=image)[0], abs=1e-3)


def test_a_graph_says_its_precision() -> None:
    model = colour_blind_start()
    assert graph_precision(model) == "fp32"
    half = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(half, "w"))
    assert graph_precision(model) == "fp16"
    model.graph.node.append(helper.make_node("QuantizeLinear", ["image", "w"], ["q"]))
    assert graph_precision(model) == "int8"


def test_a_good_model_is_read_back() -> None:
    model, _ = quantised_convolution()
    assert parse_model(model.SerializeToString(), origin="m.onnx") == model


@pytest.mark.parametrize("data", [b"", b"not a model at all", bytes(range(256)), b"\x08"])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: expected") as failure:
        parse_model(data, origin="m.onnx")
    assert "\n" not in str(failure.value)


@given(st.binary(max_size=200), st.integers(0, 600))
def test_damaged_models_never_raise_anything_else(noise: bytes, position: int) -> None:
    data = quantised_convolution()[0].SerializeToString()
    damaged = data[:position] + noise + data[position + len(noise) :]
    with contextlib.suppress(ModelError):
        fold_constants(parse_model(damaged, origin="m.onnx"))


def test_weights_in_other_files_are_refused() -> None:
    model, _ = quantised_convolution()
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelError, match="weights are in other files"):
        parse_model(model.SerializeToString(), origin="m.onnx")


@pytest.mark.parametrize("place", ["node", "inner graph", "function"])
def test_weights_in_other_files_are_refused_wherever_they_hang(place: str) -> None:
    """A file of that name in the working folder would stand in for weights that no hash covers."""
    elsewhere = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="w.bin")
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere)
    inner = helper.make_graph([constant], "inner", [], [helper.make_tensor_value_info("w", 1, [1])])
    model = model_of([helper.make_node("Relu", ["image"], ["y"])], {}, outputs={"y": [1, 3, 4, 6]})
    match place:
        case "node":
            model.graph.node.append(constant)
        case "inner graph":
            model.graph.node.append(
                helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
            )
        case _:
            opset = [helper.make_opsetid("", 17)]
            model.functions.append(helper.make_function("mine", "Weight", [], ["w"], [constant], opset))
    with pytest.raises(ModelError, match="weights are in other files"):
        parse_model(model.SerializeToString(), origin="m.onnx")


def test_models_without_an_image_are_refused() -> None:
    model = model_of([helper.make_node("Relu", ["image"], ["y"])], {}, outputs={"y": [1, 3, 4, 6]})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    with pytest.raises(ModelError, match=r"expected one input, a float32 image \(N, 3, H, W\), got %image"):
        parse_model(model.SerializeToString(), origin="m.onnx")
