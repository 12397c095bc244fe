from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.openvino import _USUAL_AFTER, Mode, OpenVinoEngine
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import EngineStore
from engine.errors import ModelError
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.protocol import Engine

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A detector as small as can be: each pixel's colours, halved, mixed into four channels."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["mixed"]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    mean = helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["n", 4])
    weight = numpy_helper.from_array(WEIGHT.reshape(4, 3, 1, 1), "w")
    graph = helper.make_graph(nodes, "tiny", [image], [mean], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return ModelPackage(
        name="tiny",
        task="detector",
        onnx_path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence="MIT",
        provenance="made by a test",
        colour_order="rgb",
        mean=(1.0, 2.0, 3.0),
        scale=0.5,
    )


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, package: ModelPackage) -> Engine:
    return open_engine(package, kind=request.param, precision="fp32", threads=2, streams=2)


def pixels(seed: int, shape: tuple[int, ...] = (2, 8, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def expected(batch: np.ndarray) -> np.ndarray:
    prepared = (batch[..., ::-1].astype(np.float32) - [1, 2, 3]) * 0.5
    return (prepared @ WEIGHT.T).mean(axis=(1, 2))


def test_engines_say_what_they_are(engine: Engine) -> None:
    assert engine.name in {"openvino", "onnxruntime"}
    assert engine.precision == "fp32"
    assert engine.max_batch is None
    (taken,), (given,) = engine.inputs, engine.outputs
    assert (taken.name, taken.shape, taken.dtype) == ("pixels", (None, None, None, 3), np.uint8)
    assert (given.name, given.shape, given.dtype) == ("mean", (None, 4), np.float32)


def test_the_same_numbers_come_out(engine: Engine) -> None:
    batch = pixels(0)
    got = engine.infer({"pixels": batch})
    assert got["mean"] == pytest.approx(expected(batch), abs=1e-3)


def test_results_are_not_overwritten_by_the_next_call(engine: Engine) -> None:
    first = engine.infer({"pixels": pixels(1)})["mean"]
    kept = first.copy()
    engine.infer({"pixels": pixels(2)})
    assert (first == kept).all()


def test_pixels_are_not_copied_in_python(engine: Engine) -> None:
    batch = pixels(0, (4, 256, 256, 3))
    engine.infer({"pixels": batch})
    tracemalloc.start()
    engine.infer({"pixels": batch})
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < batch.nbytes / 4


def test_any_number_of_shapes_is_served(engine: Engine) -> None:
    for side in range(1, 20):
        batch = pixels(side, (1 + side % 3, side, 21 - side, 3))
        assert engine.infer({"pixels": batch})["mean"] == pytest.approx(expected(batch), abs=1e-3)


def test_shapes_that_are_seen_often_get_programs_of_their_own(package: ModelPackage) -> None:
    engine = OpenVinoEngine(pixel_graph(package), precision="fp32", threads=1)
    for side in range(1, 12):
        batch = pixels(side, (1, side, 4, 3))
        for _ in range(_USUAL_AFTER):
            assert len(engine._programs) == min(side - 1, 8)
            result = engine.infer({"pixels": batch})["mean"]
        assert result == pytest.approx(expected(batch), abs=1e-3)
    assert len(engine._programs) == 8


def test_several_threads_may_call_at_once(engine: Engine) -> None:
    batches = [pixels(seed, (1, 32, 32, 3)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda batch: engine.infer({"pixels": batch})["mean"], batches))
    for batch, result in zip(batches, results, strict=True):
        assert result == pytest.approx(expected(batch), abs=1e-3)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "feeds: expected"),
        ({"image": pixels(0)}, "feeds: expected"),
        ({"pixels": pixels(0), "more": pixels(0)}, "feeds: expected"),
        ({"pixels": pixels(0).astype(np.float32)}, "pixels: expected uint8"),
        ({"pixels": pixels(0)[0]}, "pixels: expected uint8"),
        ({"pixels": pixels(0, (1, 4, 4, 4))}, "pixels: expected uint8"),
        ({"pixels": np.empty((0, 4, 4, 3), np.uint8)}, "without empty dimensions"),
        ({"pixels": pixels(0)[:, :, ::-1]}, "C-contiguous"),
    ],
)
def test_feeds_that_do_not_fit(engine: Engine, feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine.infer(feeds)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_a_closed_engine_says_so(package: ModelPackage, kind: str) -> None:
    engine = open_engine(package, kind=kind)
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        engine.infer({"pixels": pixels(0)})


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_any_number_of_calls_may_be_pending(package: ModelPackage, kind: str) -> None:
    engine = open_engine(package, kind=kind, precision="fp32", threads=1)
    batches = [pixels(seed, (1, 16, 16, 3)) for seed in range(30)]
    pending = [engine.submit({"pixels": batch}) for batch in batches]
    for batch, call in reversed(list(zip(batches, pending, strict=True))):
        first = call.result()["mean"]
        assert first == pytest.approx(expected(batch), abs=1e-3)
        assert call.result()["mean"] is first, "asking again does not compute again"
    if isinstance(engine, OpenVinoEngine):
        assert engine._shared is not None
        assert len(engine._shared._idle) == 2, "thirty calls shared the requests of one stream"


def test_threads_that_submit_and_call_do_not_lock_each_other_out(package: ModelPackage) -> None:
    engine = open_engine(package, kind="openvino", precision="fp32", threads=2, streams=2)
    batches = [pixels(seed, (1, 16, 16, 3)) for seed in range(60)]

    def work(share: list[np.ndarray]) -> list[np.ndarray]:
        pending = [engine.submit({"pixels": batch}) for batch in share]
        between = engine.infer({"pixels": share[0]})["mean"]
        return [between, *(call.result()["mean"] for call in pending)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, [batches[start::4] for start in range(4)], timeout=300))
    for start, (between, *rest) in enumerate(results):
        share = batches[start::4]
        for batch, result in zip([share[0], *share], [between, *rest], strict=True):
            assert result == pytest.approx(expected(batch), abs=1e-3)


def test_one_pending_call_may_be_waited_for_by_many(package: ModelPackage) -> None:
    engine = open_engine(package, kind="openvino", precision="fp32")
    batch = pixels(3)
    call = engine.submit({"pixels": batch})
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: call.result()["mean"], range(8)):
            assert result == pytest.approx(expected(batch), abs=1e-3)


def test_pending_calls_outlive_their_engine(package: ModelPackage) -> None:
    engine = open_engine(package, kind="openvino", precision="fp32")
    batch = pixels(4)
    call = engine.submit({"pixels": batch})
    engine.close()
    assert call.result()["mean"] == pytest.approx(expected(batch), abs=1e-3)
    with pytest.raises(ModelError, match="closed"):
        engine.submit({"pixels": batch})


@pytest.mark.parametrize(("mode", "streams"), [("latency", 1), ("throughput", 2)])
def test_a_mode_is_a_number_of_streams(package: ModelPackage, mode: Mode, streams: int) -> None:
    engine = OpenVinoEngine(pixel_graph(package), threads=2, mode=mode)
    assert engine._options["NUM_STREAMS"] == streams
    with pytest.raises(ValueError, match="mode: expected latency or throughput"):
        OpenVinoEngine(pixel_graph(package), mode="fast")


def converted(package: ModelPackage, precision: str) -> bytes:
    """The graph with its convolution's input and weight in float16, or passed through Q/DQ nodes."""
    model = onnx.load_model_from_string(pixel_graph(package))
    graph = model.graph
    (index,) = (i for i, node in enumerate(graph.node) if node.op_type == "Conv")
    convolution = graph.node[index]
    image, weight_name = convolution.input
    (weight,) = (tensor for tensor in graph.initializer if tensor.name == weight_name)
    if precision == "fp16":
        half = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, weight_name))
        before = [helper.make_node("Cast", [image], ["half"], to=onnx.TensorProto.FLOAT16)]
        after = [helper.make_node("Cast", ["mixed_half"], ["mixed"], to=onnx.TensorProto.FLOAT)]
        convolution.input[0], convolution.output[0] = "half", "mixed_half"
    else:
        values = numpy_helper.to_array(weight)
        steps = {"x": np.float32(1), "w": np.float32(np.abs(values).max() / 127)}
        zeros = {"x": np.int8(0), "w": np.int8(0)}
        graph.initializer.extend(numpy_helper.from_array(np.array(v), f"{n}/step") for n, v in steps.items())
        graph.initializer.extend(numpy_helper.from_array(np.array(v), f"{n}/zero") for n, v in zeros.items())
        before, after = [], []
        for name, source in (("x", image), ("w", weight_name)):
            before.append(
                helper.make_node("QuantizeLinear", [source, f"{name}/step", f"{name}/zero"], [f"{name}/q"])
            )
            before.append(
                helper.make_node(
                    "DequantizeLinear", [f"{name}/q", f"{name}/step", f"{name}/zero"], [f"{name}/dq"]
                )
            )
        convolution.input[0], convolution.input[1] = "x/dq", "w/dq"
    nodes = [*graph.node[:index], *before, convolution, *after, *graph.node[index + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("make", [OpenVinoEngine, OnnxRuntimeEngine])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 0.2), ("int8", 3)])
def test_converted_graphs_are_run_as_they_are(
    make: type[OpenVinoEngine], precision: str, tolerance: float, package: ModelPackage
) -> None:
    engine = make(converted(package, precision), threads=1)
    batch = pixels(5)
    assert engine.infer({"pixels": batch})["mean"] == pytest.approx(expected(batch), abs=tolerance)
    if precision == "int8" or make is OnnxRuntimeEngine:
        assert engine.precision == precision
        assert make(converted(package, precision), precision=precision, threads=1).precision == precision


def test_prelu_is_left_to_the_convolution_before_it(package: ModelPackage, tmp_path: Path) -> None:
    model = onnx.load_model(package.onnx_path)
    model.graph.node[0].output[0] = "before"
    model.graph.node.insert(1, helper.make_node("PRelu", ["before", "slope"], ["mixed"]))
    slope = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(slope.reshape(4, 1, 1), "slope"))
    path = tmp_path / "prelu.onnx"
    path.write_bytes(model.SerializeToString())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    fields = {f: getattr(package, f) for f in package.__slots__} | {"onnx_path": path, "sha256": sha256}
    prelu = ModelPackage(**fields)
    batch = pixels(6)
    mixed = (batch[..., ::-1].astype(np.float32) - [1, 2, 3]) * 0.5 @ WEIGHT.T
    activated = np.where(mixed >= 0, mixed, slope * mixed).mean(axis=(1, 2))
    for kind in ("openvino", "onnxruntime"):
        engine = open_engine(prelu, kind=kind, precision="fp32", threads=1)
        assert engine.infer({"pixels": batch})["mean"] == pytest.approx(activated, abs=1e-3)
        if isinstance(engine, OpenVinoEngine):
            steps = [
                node.get_rt_info()
                for node in engine._program(batch.shape).compiled.get_runtime_model().get_ops()
            ]
            kinds = {step["layerType"].get() for step in steps}
            assert "Convolution" in kinds
            assert not {"PRelu", "Subgraph"} & kinds


def test_int8_is_refused_for_graphs_that_are_not_quantised(package: ModelPackage) -> None:
    for make in (OpenVinoEngine, OnnxRuntimeEngine):
        with pytest.raises(ModelError, match="convert"):
            make(pixel_graph(package), precision="int8")


@pytest.mark.parametrize("make", [OpenVinoEngine, OnnxRuntimeEngine])
def test_graphs_that_cannot_be_run(make: type[OpenVinoEngine]) -> None:
    with pytest.raises(ModelError, match=r"cannot (read|load) the model") as failure:
        make(b"no model")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("make", [OpenVinoEngine, OnnxRuntimeEngine])
@pytest.mark.parametrize("arguments", [{"threads": 0}, {"streams": 0}])
def test_engines_need_threads(
    make: type[OpenVinoEngine], arguments: dict[str, int], package: ModelPackage
) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make(pixel_graph(package), **arguments)


def test_precisions_that_are_not_there(package: ModelPackage) -> None:
    with pytest.raises(ModelError, match=r"computes in fp32 .*, got 'bf16'"):
        open_engine(package, kind="onnxruntime", precision="bf16")
    with pytest.raises(ValueError, match="precision: expected auto"):
        open_engine(package, kind="openvino", precision="fp8")


def test_auto_falls_back_where_openvino_is_not(
    package: ModelPackage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path)
    monkeypatch.setitem(sys.modules, "engine.backends.openvino", None)
    assert open_engine(package, store=store).name == "onnxruntime"
    with pytest.raises(ModelError, match=r"pip install (--force-reinstall )?openvino"):
        open_engine(package, kind="openvino")
    monkeypatch.setitem(sys.modules, "engine.backends.onnxruntime", None)
    with pytest.raises(ModelError, match=r"tiny: no engine works here: .*openvino.*onnxruntime") as failure:
        open_engine(package, store=store)
    assert "\n" not in str(failure.value)


def test_a_package_whose_file_changed_is_not_opened(package: ModelPackage, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(package.onnx_path.read_bytes() + b"\0")
    changed = ModelPackage(**{f: getattr(package, f) for f in package.__slots__} | {"onnx_path": path})
    with pytest.raises(ModelError, match="wrong SHA-256"):
        open_engine(changed, store=EngineStore(tmp_path))


_SIGNALLED = """
import gc, os, signal, sys, threading
from pathlib import Path
from engine.backends.openvino import OpenVinoEngine

model = Path(sys.argv[1]).read_bytes()
engines = [OpenVinoEngine(model, precision="fp32", threads=1) for _ in range(2)]
while engines:  # in the order in which they were opened, each in a thread of its own
    thread = threading.Thread(target=engines.pop(0).close)
    thread.start()
    thread.join()
    del thread
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("stopped in order"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_after_engines_are_closed(package: ModelPackage) -> None:
    """OpenVINO moves the stack for signals, and frees it with its core."""
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALLED, package.onnx_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "stopped in order\n"), done.stderr
