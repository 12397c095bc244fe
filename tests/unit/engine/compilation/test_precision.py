from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.backends.quantizers import quantise_static
from engine.compilation import precision as precision_module
from engine.compilation.precision import _most, _named, in_precision, precisions, with_quantised
from engine.errors import ModelError
from engine.graphs.builder import GraphBuilder
from engine.graphs.edits import take_pixels

FLOAT, HALF, BF16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
SAMPLES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


def small(*, large: float = 1.0, fragile: bool = False) -> bytes:
    """Convolutions with a shortcut, as residual networks have.

    Args:
        large: Factor of the second convolution's weights, which is taken back after it.
        fragile: Let the last convolution take the difference of numbers that int8 does not tell apart.
    """
    random = np.random.default_rng(1)

    def weight(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    graph = GraphBuilder("small")
    x = graph.node("Mul", "image", np.array(1 / 128, np.float32))
    x = graph.node("Relu", graph.node("Conv", x, weight(8, 3, 3, 3), weight(8), pads=[1, 1, 1, 1]))
    y = graph.node("Conv", x, weight(8, 8, 3, 3) * np.float32(large), weight(8), pads=[1, 1, 1, 1])
    y = graph.node("Mul", y, np.array(1 / large, np.float32))
    x = graph.node("Add", x, y)
    if fragile:
        offset = np.array(1000, np.float32)
        y = graph.node("Conv", graph.node("Add", x, offset), weight(8, 8, 1, 1), weight(8))
        # the same with the offset alone is taken away again
        ones = graph.node("Add", graph.node("Mul", x, np.array(0, np.float32)), offset)
        x = graph.node("Sub", y, graph.node("Conv", ones, np.array(_last_weight(graph)), weight(8) * 0))
    x = graph.node("GlobalAveragePool", x)
    graph.node("Flatten", x, output="y")
    model = graph.model(("n", 3, 8, 8), {"y": ("n", 8)}, image="image")
    return take_pixels(model, colour_order="rgb").SerializeToString()


def _last_weight(graph: GraphBuilder) -> np.ndarray:
    return numpy_helper.to_array([c for c in graph._constants if c.dims and list(c.dims[2:]) == [1, 1]][-1])


def run(graph: bytes, pixels: np.ndarray = SAMPLES) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels})[0]


def least_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def types_of(graph: bytes) -> dict[str, int]:
    """Type of each weight that has four dimensions."""
    initializers = onnx.load_model_from_string(graph).graph.initializer
    return {tensor.name: tensor.data_type for tensor in initializers if len(tensor.dims) == 4}


def ends_of(graph: bytes) -> list[int]:
    g = onnx.load_model_from_string(graph).graph
    return [value.type.tensor_type.elem_type for value in [*g.input, *g.output]]


def made(graph: bytes, precision: str, **options: object) -> bytes:
    return in_precision(graph, precision, samples=SAMPLES, **options)


def test_fp32_is_the_graph_itself() -> None:
    assert made(small(), "fp32") == small()
    assert precisions() == ("fp32", "fp16", "bf16", "int8")


def test_fp16_weights_and_the_same_ends() -> None:
    graph = made(small(), "fp16")
    assert set(types_of(graph).values()) == {HALF}
    assert ends_of(graph) == ends_of(small()) == [onnx.TensorProto.UINT8, FLOAT]
    exact, got = run(small()), run(graph)
    assert got.dtype == np.float32
    assert least_cosine(exact, got) > 0.99999
    assert (exact != got).any(), "it was computed in fp16"


def test_fp16_leaves_large_numbers_in_fp32() -> None:
    graph = made(small(large=1e6), "fp16")
    types = list(types_of(graph).values())
    assert types.count(FLOAT) == 1, "the convolution whose results do not fit"
    assert HALF in types
    assert least_cosine(run(small(large=1e6)), run(graph)) > 0.9999


def test_bf16_weights_are_rounded_once() -> None:
    graph = made(small(), "bf16")
    model = onnx.load_model_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    assert next(o.version for o in model.opset_import if not o.domain) == 22
    assert set(types_of(graph).values()) == {BF16}
    assert ends_of(graph) == [onnx.TensorProto.UINT8, FLOAT]
    halves = [n for n in model.graph.node for a in n.attribute if HALF in {a.i, a.t.data_type}]
    assert halves == []
    exact = {t.name: numpy_helper.to_array(t) for t in onnx.load_model_from_string(small()).graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.data_type == BF16:
            rounded = numpy_helper.to_array(tensor).astype(np.float32)
            wanted = exact[tensor.name]
            assert (np.abs(rounded - wanted) <= np.abs(wanted).max() / 256).all()
            assert (rounded == bf16(wanted)).all()


def bf16(values: np.ndarray) -> np.ndarray:
    """Round to the nearest even by hand: the upper half of a float32."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32)


def test_bf16_leaves_large_numbers_in_fp32() -> None:
    types = list(types_of(made(small(large=1e6), "bf16")).values())
    assert types.count(FLOAT) == 1
    assert BF16 in types


def test_bf16_computes_the_same() -> None:
    """ONNX Runtime has no bf16 on processors; the reference evaluator has."""
    graph = onnx.load_model_from_string(made(small(), "bf16"))
    (got,) = ReferenceEvaluator(graph).run(None, {"pixels": SAMPLES[:2]})
    assert least_cosine(run(small(), SAMPLES[:2]), got.astype(np.float32)) > 0.999


@pytest.mark.parametrize("calibration", ["percentile", "entropy", "minmax"])
def test_int8_weights(calibration: str) -> None:
    told: list[tuple[str, float]] = []
    graph = made(
        small(), "int8", calibration=calibration, on_progress=lambda step, share: told.append((step, share))
    )
    assert onnx.TensorProto.INT8 in types_of(graph).values()
    assert ends_of(graph) == [onnx.TensorProto.UINT8, FLOAT]
    assert least_cosine(run(small()), run(graph)) > 0.995
    biases = [t.data_type for t in onnx.load_model_from_string(graph).graph.initializer if len(t.dims) == 1]
    assert onnx.TensorProto.INT32 not in biases, "TensorRT's parser refuses them"
    assert {step for step, _ in told} == {"writing int8", "calibrating", "measuring the layers"}
    assert told[-1] == ("measuring the layers", 1.0)


def test_int8_leaves_what_it_would_spoil() -> None:
    exact = small(fragile=True)
    graph = made(exact, "int8")
    types = list(types_of(graph).values())
    assert onnx.TensorProto.INT8 in types
    assert FLOAT in types
    assert least_cosine(run(exact), run(graph)) >= 0.999
    everything = quantise_static(
        _named(onnx.load_model_from_string(exact)), SAMPLES, calibration="percentile"
    )
    assert least_cosine(run(exact), run(everything.SerializeToString())) < 0.99, "all of it would be too much"


def test_a_model_that_stands_no_int8_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "_MOST_LOST", -1.0)
    with pytest.raises(ModelError, match=r"^int8: no layer of this model can be quantised without loss"):
        made(small(), "int8")


def test_only_the_chosen_layers_read_rounded_numbers() -> None:
    exact = _named(onnx.load_model_from_string(small()))
    quantised = quantise_static(exact, SAMPLES, calibration="percentile")
    layers = [node.name for node in exact.graph.node if node.op_type == "Conv"]
    nothing = with_quantised(exact, quantised, [])
    assert (run(nothing.SerializeToString()) == run(exact.SerializeToString())).all()
    mixed = with_quantised(exact, quantised, layers[1:])
    onnx.checker.check_model(mixed, full_check=True)
    makers = {name: node.op_type for node in mixed.graph.node for name in node.output}
    for node in mixed.graph.node:
        sources = [makers.get(name) for name in node.input]
        if node.name == layers[1]:
            assert sources[:2] == ["DequantizeLinear", "DequantizeLinear"]
        elif node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            assert "DequantizeLinear" not in sources, f"{node.name} reads what is exact, the shortcut too"
    everything = with_quantised(exact, quantised, layers)
    pairs = [node.op_type for node in everything.graph.node].count("QuantizeLinear")
    assert pairs <= 2 * len(layers)


@pytest.mark.parametrize("calibration", ["percentile", "entropy", "minmax"])
def test_any_number_of_samples_calibrates(calibration: str) -> None:
    samples = np.random.default_rng(2).integers(0, 256, (17, 8, 8, 3), np.uint8)
    graph = in_precision(small(), "int8", samples=samples, calibration=calibration)
    assert least_cosine(run(graph, samples), run(small(), samples)) > 0.998


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_most_that_holds_is_found(count: int, limit: int) -> None:
    assert _most(count, lambda tried: tried <= limit) == min(count, limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision: expected fp32, fp16, bf16, int8, got 'fp8'"),
        ({"calibration": "guess"}, "calibration: expected percentile, entropy, minmax, got 'guess'"),
        ({"samples": SAMPLES[:0]}, "samples: expected at least one image"),
    ],
)
def test_arguments_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_precision(small(), **{"precision": "int8", "samples": SAMPLES} | options)


def test_tools_print_and_warn_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("fp16", "bf16", "int8"):
        made(small(large=1e5), name)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_cannot_be_quantised_is_told_in_one_line() -> None:
    broken = helper.make_model(
        helper.make_graph(
            [helper.make_node("Strange", ["pixels"], ["y"], domain="mine")],
            "g",
            [helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["n", 8, 8, 3])],
            [helper.make_tensor_value_info("y", FLOAT, ["n", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
        ir_version=8,
    ).SerializeToString()
    for name in ("fp16", "bf16", "int8"):
        with pytest.raises(ModelError) as failure:
            made(broken, name)
        assert "\n" not in str(failure.value)
