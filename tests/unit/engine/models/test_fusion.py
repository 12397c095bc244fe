from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from engine.embeddings import unit_rows
from engine.errors import ModelError
from engine.graphs.builder import GraphBuilder
from engine.graphs.edits import without_prelu
from engine.models.fusion import fuse, fused_onnx
from engine.models.package import ModelPackage, Patch, canvas_wh

TEMPLATE = ((1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0, 3.0))


def embedder(folder: Path, *, side: int, size: int, opset: int = 17, **fields: object) -> ModelPackage:
    """A network that looks at every pixel: a PRelu, then one matrix."""
    rng = np.random.default_rng(side * 100 + size)
    graph = GraphBuilder("toy", opset=opset)
    slopes = rng.uniform(0, 1, (3, 1, 1)).astype(np.float32)
    x = graph.node("Flatten", graph.node("PRelu", "data", slopes), axis=1)
    weights = rng.normal(size=(3 * side * side, size)).astype(np.float32)
    graph.node("Gemm", x, weights, output="vector")
    model = graph.model(("batch", 3, side, side), {"vector": ("batch", size)}, image="data")
    data = model.SerializeToString()
    path = folder / f"toy-{side}-{size}-{opset}.onnx"
    path.write_bytes(data)
    known = {
        "name": f"toy-{side}",
        "task": "embedder",
        "licence": "MIT",
        "provenance": "made by a test",
        "patches": (Patch(side, TEMPLATE),),
        "input_size_wh": (side, side),
        "embedding_size": size,
    }
    return ModelPackage(onnx_path=path, sha256=hashlib.sha256(data).hexdigest(), **known | fields)


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    (result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image})
    return result


def alone(package: ModelPackage, rgb: np.ndarray) -> np.ndarray:
    """What a part says of its own view, preprocessed here."""
    image = rgb if package.colour_order == "rgb" else rgb[:, ::-1]
    image = (image - np.array(package.mean, np.float32).reshape(1, 3, 1, 1)) * np.float32(package.scale)
    return unit_rows(run(onnx.load(package.onnx_path), np.ascontiguousarray(image)))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[ModelPackage]:
    folder = tmp_path_factory.mktemp("toys")
    return [
        embedder(folder, side=5, size=4, colour_order="rgb", licence="Apache-2.0"),
        embedder(
            folder, side=7, size=6, opset=21, colour_order="bgr", mean=(9.0, 90.0, 140.0), scale=1 / 128
        ),
        embedder(folder, side=4, size=3, opset=13, colour_order="rgb", mean=(1.0, 2.0, 3.0)),
    ]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=3), st.integers(0, 1000))
def test_dot_products_are_weighted_means_of_the_parts_cosines(
    packages: list[ModelPackage], weights: list[float], seed: int
) -> None:
    parts = list(zip(packages, weights, strict=False))
    width, height = canvas_wh([p.patches[0] for p, _ in parts])
    canvas = np.random.default_rng(seed).uniform(0, 255, (2, 3, height, width)).astype(np.float32)
    vectors = run(fused_onnx(parts), canvas)
    expected, left = 0.0, 0
    for package, weight in parts:
        side = package.patches[0].size_px
        a, b = alone(package, canvas[:, :, :side, left : left + side])
        expected += weight / sum(weights) * float(a @ b)
        left += side
    assert vectors.shape == (2, sum(p.embedding_size for p, _ in parts))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert float(vectors[0] @ vectors[1]) == pytest.approx(expected, abs=1e-5)


def test_prelu_of_the_parts_can_still_be_rewritten(packages: list[ModelPackage]) -> None:
    model = fused_onnx([(packages[0], 1), (packages[1], 2)])
    rewritten = without_prelu(model)
    assert [node.op_type for node in model.graph.node].count("PRelu") == 2
    assert "PRelu" not in [node.op_type for node in rewritten.graph.node]
    canvas = np.random.default_rng(0).uniform(0, 255, (1, 3, 7, 12)).astype(np.float32)
    assert run(rewritten, canvas) == pytest.approx(run(model, canvas), abs=1e-5)


def test_what_the_package_says(packages: list[ModelPackage], tmp_path: Path) -> None:
    package = fuse([(packages[0], 1), (packages[1], 2)], name="both", folder=tmp_path)
    assert (package.name, package.task, package.licence) == ("both", "embedder", "Apache-2.0 AND MIT")
    assert (package.input_size_wh, package.embedding_size, package.colour_order) == ((12, 7), 10, "rgb")
    assert [patch.size_px for patch in package.patches] == [5, 7]
    assert (package.mean, package.scale) == ((0, 0, 0), 1)
    assert fuse([(packages[0], 1), (packages[1], 2)], name="both", folder=tmp_path) == package
    other = fuse([(packages[0], 1), (packages[1], 2.000001)], name="both", folder=tmp_path)
    assert other.sha256 != package.sha256, "another weight is another model"


def test_a_black_face_has_an_embedding_of_zeros_not_of_nan(tmp_path: Path) -> None:
    package = embedder(tmp_path, side=5, size=4, colour_order="rgb")
    assert not run(fused_onnx([(package, 1)]), np.zeros((1, 3, 5, 5), np.float32)).any()


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_weights_are_checked(packages: list[ModelPackage], weight: float) -> None:
    with pytest.raises(ValueError, match="expected a weight above 0"):
        fused_onnx([(packages[0], weight)])


def test_parts_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one embedder"):
        fused_onnx([])
    detector = embedder(tmp_path, side=5, size=4, task="detector")
    with pytest.raises(ValueError, match="expected an embedder, got a detector"):
        fuse([(detector, 1)], name="both", folder=tmp_path)


def test_parts_of_two_outputs_are_refused(tmp_path: Path) -> None:
    package = embedder(tmp_path, side=5, size=4)
    model = onnx.load(package.onnx_path)
    model.graph.output.append(
        helper.make_tensor_value_info("prelu_0", onnx.TensorProto.FLOAT, ["batch", 3, 5, 5])
    )
    package.onnx_path.write_bytes(model.SerializeToString())
    sha256 = hashlib.sha256(package.onnx_path.read_bytes()).hexdigest()
    fields = {field: getattr(package, field) for field in package.__slots__} | {"sha256": sha256}
    with pytest.raises(ModelError, match=r"expected one output, got \['vector', 'prelu_0'\]"):
        fused_onnx([(ModelPackage(**fields), 1)])
