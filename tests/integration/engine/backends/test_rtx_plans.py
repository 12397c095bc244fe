"""Real plans of TensorRT for RTX, which builds without a GPU. They are run in ``tests/gpu``."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.tensorrt import plan_builder
from engine.backends.tensorrt.bindings import (
    flavour_available,
    library,
    message_log,
    runtime_version,
    supported_gpus,
)
from engine.backends.tensorrt.graph_edits import cast_first, without_matmul
from engine.backends.tensorrt.loading import load_plan
from engine.backends.tensorrt.plan_builder import ShapeRange, build_plan
from engine.compilation.source_graphs import pixel_graph
from engine.errors import ModelError
from engine.models import catalogue
from engine.models.package import ModelPackage

trt = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'facestream[tensorrt-rtx]'"
)

MODELS = [
    pytest.param(
        model.name, marks=pytest.mark.skipif(not model.installed, reason=f"no weights; {model.install}")
    )
    for model in catalogue.shipped_models()
]
GPUS: dict[str, Callable[[], tuple[str, ...]]] = {
    "one": lambda: ("sm86",),
    "two": lambda: ("sm86", "sm89"),
    "ampere-and-on": tuple,
    "all-named": supported_gpus,
}
FLOAT = onnx.TensorProto.FLOAT


def shapes_of(package: ModelPackage) -> dict[str, ShapeRange]:
    """Any batch to 32, and any size to full HD where the model takes any."""
    if package.input_size_wh is None:
        return {"pixels": ShapeRange((1, 32, 32, 3), (1, 384, 640, 3), (8, 1088, 1920, 3))}
    width, height = package.input_size_wh
    return {"pixels": ShapeRange(*((batch, height, width, 3) for batch in (1, 8, 32)))}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sface_plan(cache: Path) -> bytes:
    package = catalogue.load_model("sface", cache_dir=cache)
    return build_plan(pixel_graph(package), flavour="tensorrt-rtx", shapes=shapes_of(package), gpus=("sm86",))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gpus", GPUS)
def test_every_shipped_model_is_built(
    name: str, gpus: str, cache: Path, record_property: Callable[[str, object], None]
) -> None:
    package = catalogue.load_model(name, cache_dir=cache)
    graph = pixel_graph(package)
    begun = time.perf_counter()
    plan = build_plan(graph, flavour="tensorrt-rtx", shapes=shapes_of(package), gpus=GPUS[gpus]())
    record_property("build_s", round(time.perf_counter() - begun, 2))
    record_property("plan_bytes", len(plan))
    weights = sum(t.ByteSize() for t in onnx.load_model_from_string(graph).graph.initializer)
    assert weights < len(plan) < 2 * weights + 10_000_000


def test_what_is_here() -> None:
    assert runtime_version("tensorrt-rtx") == trt.__version__
    assert {"sm75", "sm86", "sm89", "sm120"} <= set(supported_gpus())
    assert supported_gpus()[0] == "sm75"
    assert flavour_available("tensorrt-rtx", purpose="build") is None


def test_names_that_the_lists_do_not_give_exist() -> None:
    """The API lists have the members of few classes only; the library that is here has them all."""
    nodes = ast.walk(ast.parse(Path(plan_builder.__file__).read_text(encoding="utf-8")))
    used = {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "error"}
    assert used == {"desc", "node_name", "node_operator"}
    assert used <= set(dir(trt.ParserError))
    assert {"DEVICE", "HOST"} <= set(trt.TensorLocation.__members__)
    assert {"phase_start", "step_complete", "phase_finish"} <= set(dir(trt.IProgressMonitor))


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_that_is_built_computes_the_same(name: str, cache: Path) -> None:
    """What TensorRT gets has its casts first and, for Turing, convolutions for matrix products."""
    package = catalogue.load_model(name, cache_dir=cache)
    graph = onnx.load_model_from_string(pixel_graph(package))
    changed = without_matmul(cast_first(graph))
    assert not {"Gemm", "MatMul"} & {node.op_type for node in changed.graph.node}
    width, height = package.input_size_wh or (96, 64)
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    expected = OnnxRuntimeEngine(graph.SerializeToString(), threads=1).infer({"pixels": pixels})
    got = OnnxRuntimeEngine(changed.SerializeToString(), threads=1).infer({"pixels": pixels})
    for key, value in expected.items():
        assert np.abs(got[key] - value).max() <= 1e-6 * max(1, np.abs(value).max())


def test_progress_is_told(cache: Path) -> None:
    package = catalogue.load_model("yunet", cache_dir=cache)
    shares: list[float] = []
    build_plan(
        pixel_graph(package),
        flavour="tensorrt-rtx",
        shapes=shapes_of(package),
        gpus=("sm86",),
        on_progress=lambda _, share: shares.append(share),
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(set(shares)) > 50


def test_a_build_is_stopped_by_what_a_report_raises(cache: Path) -> None:
    package = catalogue.load_model("sface", cache_dir=cache)

    def stop(_phase: str, share: float) -> None:
        if share > 0.1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(pixel_graph(package), flavour="tensorrt-rtx", shapes=shapes_of(package), on_progress=stop)


def model_of(nodes: list[onnx.NodeProto], *, elem_type: int = FLOAT) -> bytes:
    constants = [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", elem_type, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


TWO_VARIABLES = [
    helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
    helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
]
WITH_INT32 = [  # as quantisers write biases
    helper.make_node("Constant", [], ["q"], value=numpy_helper.from_array(np.ones(4, np.int32))),
    helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.float32(0.5))),
    helper.make_node("DequantizeLinear", ["q", "s"], ["b"]),
    helper.make_node("Add", ["x", "b"], ["y"]),
]
SHAPES = {"x": ShapeRange((1, 4), (2, 4), (4, 4))}


@pytest.mark.parametrize(
    ("nodes", "gpus", "message"),
    [
        (
            [helper.make_node("Strange", ["x"], ["y"], domain="mine", name="odd")],
            (),
            r"cannot take the model: operator Strange \('odd'\): .*Plugin not found.*--engine openvino",
        ),
        ([helper.make_node("Det", ["x"], ["y"])], (), "operator Det"),
        (
            TWO_VARIABLES,
            ("sm75",),
            r"no float32 matrix product for sm75: .*'product'.*--gpu sm80,.*--precision fp16",
        ),
        (WITH_INT32, (), "operator DequantizeLinear: .*Int32"),
        (TWO_VARIABLES, ("sm86", "sm90"), r"does not build for sm90; expected --gpu of sm75,sm80"),
        (TWO_VARIABLES, ("pentium",), "does not build for pentium"),
    ],
)
def test_what_cannot_be_built(nodes: list[onnx.NodeProto], gpus: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message) as failure:
        build_plan(model_of(nodes), flavour="tensorrt-rtx", shapes=SHAPES, gpus=gpus)
    assert "\n" not in str(failure.value)
    assert "/_src/" not in str(failure.value)


def test_products_of_two_variables_are_built_for_the_others() -> None:
    assert build_plan(model_of(TWO_VARIABLES), flavour="tensorrt-rtx", shapes=SHAPES, gpus=("sm86",))


def test_plans_without_tf32_are_built() -> None:
    assert build_plan(model_of(TWO_VARIABLES), flavour="tensorrt-rtx", shapes=SHAPES, tf32=False)


def test_half_precision_products_are_built_for_turing() -> None:
    half = onnx.load_model_from_string(model_of(TWO_VARIABLES))
    half.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    half.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert build_plan(half.SerializeToString(), flavour="tensorrt-rtx", shapes=SHAPES, gpus=("sm75",))


@pytest.mark.parametrize("keep", [0, 5000])
def test_truncated_models(keep: int, cache: Path) -> None:
    graph = pixel_graph(catalogue.load_model("yunet", cache_dir=cache))
    with pytest.raises(ModelError, match="expected an ONNX model"):
        build_plan(graph[:keep], flavour="tensorrt-rtx", shapes={})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan[: len(plan) // 2], "plan.header.size == blobSize"),
        (lambda plan: b"x" + plan[1:], "magicTag"),
        (lambda _: b"", "empty memory buffer"),
        (lambda plan: plan, "CUDA"),
    ],
    ids=["truncated", "no plan", "empty", "whole, but no GPU"],
)
def test_the_library_refuses_damaged_plans(
    sface_plan: bytes, damage: Callable[[bytes], bytes], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if message == "CUDA" and flavour_available("tensorrt-rtx") is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelError, match=f"sface: tensorrt-rtx refuses the plan: .*{message}") as failure:
        load_plan(library("tensorrt-rtx"), damage(sface_plan), model="sface", flavour="tensorrt-rtx")
    assert str(failure.value).endswith("run: facestream compile sface --engine tensorrt-rtx")
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", ""), "the library's chatter goes into the error"


def test_the_library_gets_one_logger() -> None:
    assert message_log(trt) is message_log(trt)
