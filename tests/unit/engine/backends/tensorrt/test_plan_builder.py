from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_stand_in import StandIn
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tensorrt_builder_stand_in import add_builder
from tensorrt_stand_in import make_stand_in

from engine.backends.tensorrt.bindings import reason_of
from engine.backends.tensorrt.graph_edits import cast_first, without_matmul
from engine.backends.tensorrt.plan_builder import Progress, ShapeRange, build_plan
from engine.backends.tensorrt.runner import TensorRtEngine
from engine.errors import ModelError
from engine.graphs.edits import take_pixels

FLOAT = onnx.TensorProto.FLOAT
RNG = np.random.default_rng(0)
SHAPES = {"pixels": ShapeRange((1, 4, 5, 3), (2, 4, 5, 3), (4, 4, 5, 3))}


def model_of(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: list[object]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, [f"y{axis}" for axis in range(len(shape))])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pixel_model() -> bytes:
    identity = helper.make_node("Identity", ["x"], ["y"])
    model = take_pixels(model_of([identity], {}, ["n", 3, 4, 5]), colour_order="rgb", scale=0.5)
    return model.SerializeToString()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = make_stand_in()
    add_builder(stand_in, stand_in.modules["tensorrt"])
    for name, module in stand_in.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


@pytest.mark.usefixtures("gpu")
def test_what_is_built_runs() -> None:
    plan = build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES)
    engine = TensorRtEngine(plan, flavour="tensorrt")
    pixels = RNG.integers(0, 256, (3, 4, 5, 3), np.uint8)
    (got,) = engine.infer({"pixels": pixels}).values()
    assert engine.max_batch == 4
    assert (got == pixels[..., ::-1].transpose(0, 3, 1, 2) * np.float32(0.5)).all()
    engine.close()


@pytest.mark.usefixtures("gpu")
def test_measurements_are_kept_for_the_next_build(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "timings"

    def build() -> bytes:
        build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES, timing_cache=path)
        return path.read_bytes()

    assert [build(), build()] == [b"timings 1 stand-in", b"timings 2 stand-in"]
    path.write_bytes(b"timings 7 another-GPU")
    assert build() == b"timings 1 stand-in"
    path.write_bytes(b"damaged")
    assert build() == b"timings 1 stand-in"
    path.unlink()
    path.mkdir()
    assert build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES, timing_cache=path), (
        "built nevertheless"
    )


@pytest.mark.usefixtures("gpu")
def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    build_plan(
        pixel_model(), flavour="tensorrt", shapes=SHAPES, on_progress=lambda *report: told.append(report)
    )
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert ("inner", 0.375) in told


def test_what_a_report_raises_stops_the_build(gpu: StandIn) -> None:
    def stop(_phase: str, share: float) -> None:
        if share > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES, on_progress=stop)
    assert not [call for call in gpu.calls if call.startswith("built")]


def test_tf32_can_be_left_out(gpu: StandIn) -> None:
    for tf32 in (True, False):
        build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES, tf32=tf32)
    assert gpu.calls == ["built with ['TF32']", "built with []"]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("Builder", "tensorrt cannot build on this machine: CUDA initialization failure.*tensorrt-rtx"),
        (
            "build_serialized_network",
            "cannot build the model: Error Code 10: Could not find any implementation",
        ),
        ("add_optimization_profile", "refuses the shapes"),
    ],
)
def test_builds_that_fail(gpu: StandIn, refused: str, message: str) -> None:
    gpu.refuse.add(refused)
    with pytest.raises(ModelError, match=message) as failure:
        build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("data", [b"junk", pixel_model()[:100], b""])
@pytest.mark.usefixtures("gpu")
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ModelError, match="expected an ONNX model"):
        build_plan(data, flavour="tensorrt", shapes={})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "pixels: expected a range of shapes that fit"),
        ({"image": SHAPES["pixels"]}, "has no input"),
        ({"pixels": ShapeRange((1, 4, 5), (1, 4, 5), (1, 4, 5))}, "expected a range"),
        ({"pixels": ShapeRange((1, 4, 5, 3), (1, 4, 5, 3), (1, 4, 6, 3))}, "expected a range"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_shapes_that_do_not_fit(shapes: dict[str, ShapeRange], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_plan(pixel_model(), flavour="tensorrt", shapes=shapes)


@pytest.mark.usefixtures("gpu")
def test_the_standard_library_builds_for_its_own_gpu() -> None:
    with pytest.raises(ValueError, match="gpus: tensorrt builds for this machine's GPU only"):
        build_plan(pixel_model(), flavour="tensorrt", shapes=SHAPES, gpus=("sm86",))


@pytest.mark.parametrize(
    "sizes", [((0,), (1,), (1,)), ((2,), (1,), (3,)), ((1,), (3,), (2,)), ((1,), (1, 1), (1,))]
)
def test_ranges_that_are_none(sizes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="expected 1 <= smallest <= usual <= largest"):
        ShapeRange(*sizes)


steps = st.integers(1, 5)


@given(steps, steps, steps)
def test_progress_of_phases_within_phases(outer: int, middle: int, inner: int) -> None:
    progress = Progress()
    shares = []
    progress.start("outer", None, outer)
    for a in range(outer):
        progress.start("middle", "outer", middle)
        for b in range(middle):
            progress.start("inner", "middle", inner)
            for c in range(inner):
                progress.step("inner", c)
                done = a + (b + (c + 1) / inner) / middle
                shares.append((progress.share, done / outer))
            progress.finish("inner")
            progress.step("middle", b)
        progress.finish("middle")
        progress.step("outer", a)
    progress.finish("outer")
    assert progress.share == 1
    for told, true in shares:
        assert told == pytest.approx(true)


def test_progress_never_falls() -> None:
    progress = Progress()
    progress.start("outer", None, 4)
    for step in (2, 0):
        progress.step("outer", step)
    assert progress.share == 0.75


def test_messages_become_one_line() -> None:
    failed = (
        "IRuntime::x: Error Code 1: Serialization (Assertion failed. In parsePlan at /_src/runtime.cpp:780)"
    )
    messages = [
        "ModelImporter.cpp:142: --- Begin node ---\nNode name: odd",
        failed,
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime",
        failed,
        "second\n  line\n[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime",
    ]
    assert reason_of(messages) == "IRuntime::x: Error Code 1: Serialization (Assertion failed); second; line"
    assert reason_of([]) == "no reason given"
    assert len(reason_of(["x" * 10_000])) < 500


@given(
    st.sampled_from(["Gemm", "MatMul"]),
    st.booleans(),
    st.sampled_from([None, (), (1,), (4,), (1, 4)]),
    st.sampled_from([1.0, 0.5]),
)
def test_matrix_products_as_convolutions_are_the_same(
    operator: str, transposed: bool, bias: tuple[int, ...] | None, factor: float
) -> None:
    matrix = RNG.normal(size=(4, 6) if transposed and operator == "Gemm" else (6, 4)).astype(np.float32)
    constants = {"w": matrix}
    attributes = {}
    if operator == "Gemm":
        attributes = {"transB": int(transposed), "alpha": factor, "beta": 2 * factor}
        if bias is not None:
            constants["b"] = RNG.normal(size=bias).astype(np.float32)
    nodes = [helper.make_node(operator, ["x", *constants], ["y"], **attributes)]
    model = model_of(nodes, constants, ["n", 6])
    rewritten = without_matmul(model)
    assert [node.op_type for node in rewritten.graph.node] == ["Reshape", "Conv", "Reshape"]
    onnx.checker.check_model(rewritten, full_check=True)
    x = RNG.normal(size=(3, 6)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    (got,) = ReferenceEvaluator(rewritten).run(None, {"x": x})
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [2, 5, 6]),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), [6, 6]),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), [6, 6]),
        (helper.make_node("Gemm", ["x", "w", "c"], ["y"]), [5, 6]),
    ],
)
def test_other_matrix_products_are_left(node: onnx.NodeProto, shape: list[object]) -> None:
    constants = {"w": np.ones((6, 6), np.float32), "c": np.ones((5, 1), np.float32)}
    model = model_of([node], constants, shape)
    assert [n.op_type for n in without_matmul(model).graph.node] == [node.op_type]


def test_pixels_are_cast_before_they_are_rearranged() -> None:
    model = onnx.load_model_from_string(pixel_model())
    assert [node.op_type for node in model.graph.node][:2] == ["Gather", "Cast"]
    first = cast_first(model)
    assert [node.op_type for node in first.graph.node][:3] == ["Cast", "Gather", "Transpose"]
    onnx.checker.check_model(first, full_check=True)
    pixels = RNG.integers(0, 256, (2, 4, 5, 3), np.uint8)
    (expected,) = ReferenceEvaluator(model).run(None, {"pixels": pixels})
    (got,) = ReferenceEvaluator(first).run(None, {"pixels": pixels})
    assert (got == expected).all()
    assert cast_first(first) == first


def test_models_without_uint8_inputs_are_left() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", 3])
    assert cast_first(model) == model
