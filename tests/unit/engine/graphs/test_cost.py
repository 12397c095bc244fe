from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from engine.errors import ModelError
from engine.graphs.cost import count_macs, layer_costs

FLOAT = onnx.TensorProto.FLOAT


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], rank: int = 4, channels: int = 6
) -> onnx.ModelProto:
    dims = ["n", channels, "h", "w"][:rank]
    inputs = [helper.make_tensor_value_info("x", FLOAT, dims)]
    outputs = [helper.make_tensor_value_info("y", FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def by_counting(size: int, kernel: int, stride: int, pad: int) -> int:
    """How many places a kernel of one dimension has, by moving it."""
    return sum(1 for start in range(-pad, size + pad - kernel + 1) if (start + pad) % stride == 0)


@given(
    group=st.sampled_from([1, 2, 3, 6]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 2),
    batch=st.integers(1, 4),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
)
def test_convolutions_cost_what_moving_the_kernel_costs(
    *, group: int, kernel: int, stride: int, pad: int, batch: int, size: tuple[int, int]
) -> None:
    weight = np.zeros((12, 6 // group, kernel, kernel), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group, strides=[stride] * 2, pads=[pad] * 4)
    places = np.prod([by_counting(side, kernel, stride, pad) for side in size])
    expected = 0
    for _ in range(12):  # output channels
        expected += int(places) * (6 // group) * kernel * kernel
    assert count_macs(model_of([node], {"w": weight}), (batch, 6, *size)) == batch * expected


def test_a_chain_of_layers_worked_out_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "dense"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("ConvTranspose", ["c", "up"], ["d"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "full"], ["g"], transB=1),
        helper.make_node("MatMul", ["g", "last"], ["y"]),
    ]
    shapes = {
        "dense": (8, 6, 3, 3),
        "depthwise": (8, 1, 3, 3),
        "up": (8, 5, 2, 2),
        "full": (7, 5),
        "last": (7, 3),
    }
    constants = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    got = [layer.macs for layer in layer_costs(model_of(nodes, constants), (2, 6, 10, 8))]
    images, places = 2, 5 * 4
    assert got == [
        images * places * 8 * 6 * 9,
        images * places * 8 * 9,
        images * places * 8 * 5 * 4,
        images * 5 * 7,
        images * 7 * 3,
    ]


def test_a_transposed_matrix_costs_the_same() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)
    assert count_macs(model_of([node], {"w": np.zeros((5, 4), np.float32)}, 2), (5, 6)) == 6 * 5 * 4


def test_mobilenet_costs_what_its_paper_says() -> None:
    """MobileNet 1.0 at 224 by 224 has 569 million (arXiv 1704.04861, table 4)."""
    strides_and_widths = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)]
    strides_and_widths += [(1, 512)] * 5 + [(2, 1024), (1, 1024)]
    nodes = [helper.make_node("Conv", ["x", "w"], ["0"], strides=[2, 2], pads=[1, 1, 1, 1])]
    constants = {"w": np.zeros((32, 3, 3, 3), np.float32)}
    name, width = "0", 32
    for number, (stride, wider) in enumerate(strides_and_widths, start=1):
        deep, point, middle = f"dw{number}", f"pw{number}", f"m{number}"
        constants[deep] = np.zeros((width, 1, 3, 3), np.float32)
        constants[point] = np.zeros((wider, width, 1, 1), np.float32)
        nodes += [
            helper.make_node(
                "Conv", [name, deep], [middle], group=width, strides=[stride] * 2, pads=[1, 1, 1, 1]
            ),
            helper.make_node("Conv", [middle, point], [str(number)]),
        ]
        name, width = str(number), wider
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "classes"], ["y"]),
    ]
    constants["classes"] = np.zeros((1024, 1000), np.float32)
    macs = count_macs(model_of(nodes, constants, channels=3), (1, 3, 224, 224))
    assert macs / 1e6 == pytest.approx(569, abs=1)


def test_inputs_that_do_not_fit() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = model_of([node], {"w": np.zeros((4, 6, 3, 3), np.float32)})
    with pytest.raises(ModelError, match=r"expected the shape \(None, 6, None, None\), got \(6, 8, 8\)"):
        count_macs(model, (6, 8, 8))
    with pytest.raises(ModelError, match=r"got \(1, 5, 8, 8\)"):
        count_macs(model, (1, 5, 8, 8))
    with pytest.raises(ModelError, match="does not take an input of the shape"):
        count_macs(
            model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.zeros(4, np.float32)}),
            (1, 6, 8, 8),
        )


def test_layers_of_unknown_shape_are_named() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["p"], to=FLOAT),
        helper.make_node("MatMul", ["w", "p"], ["y"]),
    ]
    with pytest.raises(ModelError, match="cannot tell the shape of 'p', which the layer 'y' needs"):
        count_macs(model_of(nodes, {"w": np.zeros((3, 4), np.float32)}), (1, 6, 2, 2))
