"""The engines of an NVIDIA GPU, for real: ``make test-gpu``. Not yet run: no GPU has been at hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine.backends.cuda import device_architecture
from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.tensorrt.bindings import Flavour, flavour_available, supported_gpus
from engine.backends.tensorrt.plan_builder import ShapeRange, build_plan
from engine.backends.tensorrt.runner import TensorRtEngine
from engine.compilation.compile import compile_engine
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import EngineStore
from engine.errors import ModelError
from engine.models import catalogue
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.protocol import Arrays, Engine

pytestmark = pytest.mark.gpu

LEAST_COSINE = 0.9999


def shapes_of(package: ModelPackage) -> dict[str, ShapeRange]:
    if package.input_size_wh is None:
        return {"pixels": ShapeRange((1, 32, 32, 3), (1, 384, 640, 3), (4, 768, 1280, 3))}
    width, height = package.input_size_wh
    return {"pixels": ShapeRange(*((batch, height, width, 3) for batch in (1, 8, 16)))}


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    if reason := flavour_available(request.param):
        pytest.skip(f"no GPU, or no {request.param}: {reason}")
    return request.param


@pytest.fixture(
    scope="module", params=[model.name for model in catalogue.shipped_models() if model.installed]
)
def package(request: pytest.FixtureRequest) -> ModelPackage:
    return catalogue.load_model(request.param)


@pytest.fixture(scope="module")
def plan(flavour: Flavour, package: ModelPackage) -> bytes:
    here = device_architecture()
    if flavour == "tensorrt-rtx" and here not in supported_gpus():
        pytest.skip(f"TensorRT for RTX does not build for {here}")
    gpus = (here,) if flavour == "tensorrt-rtx" else ()
    return build_plan(pixel_graph(package), flavour=flavour, shapes=shapes_of(package), gpus=gpus)


@pytest.fixture(scope="module")
def engine(plan: bytes, flavour: Flavour, package: ModelPackage) -> Engine:
    return TensorRtEngine(plan, flavour=flavour, model=package.name)


@pytest.fixture(scope="module")
def reference(package: ModelPackage) -> Engine:
    return OnnxRuntimeEngine(pixel_graph(package))


def pictures(package: ModelPackage, portrait: np.ndarray, seed: int, batch: int) -> Arrays:
    """Crops of the portrait, of the model's size or of a size that it may have."""
    rng = np.random.default_rng(seed)
    width, height = package.input_size_wh or (32 * int(rng.integers(2, 12)), 32 * int(rng.integers(2, 12)))
    tops, lefts = rng.integers(0, 512 - height, batch), rng.integers(0, 512 - width, batch)
    crops = [portrait[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)]
    return {"pixels": np.ascontiguousarray(crops)}


def agree(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, expected in wanted.items():
        assert got[name].shape == expected.shape
        assert np.isfinite(got[name]).all()
        a, b = got[name].ravel().astype(np.float64), expected.ravel().astype(np.float64)
        assert a @ b >= LEAST_COSINE * np.linalg.norm(a) * np.linalg.norm(b)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_the_numbers_are_those_of_onnx_runtime(
    engine: Engine, reference: Engine, package: ModelPackage, portrait: np.ndarray, batch: int
) -> None:
    for seed in range(4):
        feeds = pictures(package, portrait, seed, batch)
        agree(engine.infer(feeds), reference.infer(feeds))


def test_many_calls_in_flight(
    engine: Engine, reference: Engine, package: ModelPackage, portrait: np.ndarray
) -> None:
    feeds = [pictures(package, portrait, seed, 1 + seed % 4) for seed in range(12)]
    pending = [engine.submit(feed) for feed in feeds]
    for call, feed in zip(reversed(pending), reversed(feeds), strict=True):
        agree(call.result(), reference.infer(feed))


def test_several_threads(
    engine: Engine, reference: Engine, package: ModelPackage, portrait: np.ndarray
) -> None:
    feeds = [pictures(package, portrait, seed, 1 + seed % 4) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for result, feed in zip(pool.map(engine.infer, feeds), feeds, strict=True):
            agree(result, reference.infer(feed))


def test_one_shape_again_and_again(engine: Engine, package: ModelPackage, portrait: np.ndarray) -> None:
    """As CUDA graphs see it: captured once, launched with other pixels."""
    feeds = [pictures(package, portrait, 0, 2), pictures(package, portrait, 0, 2)]
    feeds[1]["pixels"] = np.ascontiguousarray(feeds[1]["pixels"][:, ::-1])
    first = [engine.infer(feed) for feed in feeds]
    for _ in range(20):
        for feed, expected in zip(feeds, first, strict=True):
            agree(engine.infer(feed), expected)


def test_shapes_outside_of_the_plan(engine: Engine, package: ModelPackage, portrait: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the plan was built for shapes"):
        engine.infer(pictures(package, portrait, 0, 17))


def test_closing(plan: bytes, flavour: Flavour, package: ModelPackage, portrait: np.ndarray) -> None:
    for _ in range(3):
        engine = TensorRtEngine(plan, flavour=flavour, model=package.name)
        call = engine.submit(pictures(package, portrait, 0, 1))
        engine.close()
        engine.close()
        assert call.result().keys() == {spec.name for spec in engine.outputs}
        with pytest.raises(ModelError, match="closed"):
            engine.infer(pictures(package, portrait, 0, 1))


def test_damaged_plans(plan: bytes, flavour: Flavour) -> None:
    for damaged in (b"", plan[: len(plan) // 2], b"x" + plan[1:]):
        with pytest.raises(ModelError, match="refuses the plan"):
            TensorRtEngine(damaged, flavour=flavour)


def test_kernels_and_measurements_are_kept(
    flavour: Flavour, plan: bytes, package: ModelPackage, portrait: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "kept"
    if flavour == "tensorrt":
        build_plan(pixel_graph(package), flavour=flavour, shapes=shapes_of(package), timing_cache=path)
    else:
        for _ in range(2):
            engine = TensorRtEngine(plan, flavour=flavour, runtime_cache=path)
            engine.infer(pictures(package, portrait, 0, 1))
            engine.close()
    assert path.stat().st_size > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_compiled_engines_pass_the_gate_and_serve(
    name: str, precision: str, flavour: Flavour, tmp_path: Path
) -> None:
    here = device_architecture()
    if flavour == "tensorrt-rtx" and here not in supported_gpus():
        pytest.skip(f"TensorRT for RTX does not build for {here}")
    model, store = catalogue.load_model(name), EngineStore(tmp_path)
    compiled = compile_engine(
        model,
        kind=flavour,
        detector=catalogue.load_model("yunet"),
        precision=precision,
        gpus=(here,) if flavour == "tensorrt-rtx" else (),
        store=store,
    )
    assert compiled.verdict == "passed"
    engine = open_engine(model, kind=flavour, precision=precision, store=store)
    assert (engine.name, engine.precision) == (flavour, precision)
    engine.close()
