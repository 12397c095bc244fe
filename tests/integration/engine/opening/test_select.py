"""``--engine auto``: the fastest that gives what the model gives, measured once and remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from captured import capture_logs
from cuda_stand_in import StandIn
from small_models import embedder
from tensorrt_stand_in import make_stand_in, plan_of

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.openvino import OpenVinoEngine
from engine.compilation.runtimes import engine_version, this_target
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import CompiledEngine, EngineKey, EngineStore
from engine.compilation.tolerances import Parity
from engine.errors import ModelError
from engine.models.package import ModelPackage
from engine.opening import select
from engine.opening.select import open_engine, open_engines
from engine.protocol import Arrays, Engine

PIXELS = {"pixels": np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)}


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return embedder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """How long each kind of engine seems to take; what was timed is in it afterwards."""
    seconds: dict[str, float] = {"openvino": 1.0, "onnxruntime": 2.0, "tensorrt": 0.1, "tensorrt-rtx": 0.1}
    seconds["timed"] = 0

    def measure(engine: Engine, pixels: np.ndarray) -> float:
        assert pixels.shape == (1, 112, 112, 3)
        engine.infer({"pixels": pixels})
        seconds["timed"] += 1
        return seconds[engine.name]

    monkeypatch.setattr(select, "_least_seconds", measure)
    return seconds


def choices(store: EngineStore) -> list[Path]:
    return sorted(store.root.glob("choice.*.json"))


@pytest.mark.parametrize("fastest", ["openvino", "onnxruntime"])
def test_the_fastest_is_taken_and_remembered(
    fastest: str, package: ModelPackage, store: EngineStore, timed: dict[str, float]
) -> None:
    timed[fastest] = 0.5
    with capture_logs() as told:
        assert open_engine(package, store=store).name == fastest
    assert timed["timed"] == 3
    first, *trials, last = (e["event"] for e in told if "the engine for" in e["event"])
    assert (first, len(trials)) == (f"choosing the engine for {package.name}: the fastest of 3, once", 3)
    assert last.startswith(f"chose the engine for {package.name}: {fastest}, precision ")
    (memory,) = choices(store)
    assert json.loads(memory.read_bytes())["kind"] == fastest
    timed.update(openvino=5.0, onnxruntime=5.0)
    with capture_logs() as told:
        assert open_engine(package, store=store).name == fastest
    assert told == []
    assert timed["timed"] == 3, "the second start measures nothing"


def test_really_measured_engines_are_one_of_those_that_there_are(
    package: ModelPackage, store: EngineStore
) -> None:
    engine = open_engine(package, store=store, threads=1)
    (memory,) = choices(store)
    assert json.loads(memory.read_bytes())["kind"] == engine.name
    exact = OnnxRuntimeEngine(pixel_graph(package), threads=1).infer(PIXELS)["embedding"]
    assert engine.infer(PIXELS)["embedding"] == pytest.approx(exact, abs=0.05)


def test_another_number_of_threads_or_precision_is_another_choice(
    package: ModelPackage, store: EngineStore, timed: dict[str, float]
) -> None:
    open_engine(package, store=store)
    open_engine(package, store=store, threads=1)
    assert open_engine(package, store=store, precision="fp32").precision == "fp32"
    assert len(choices(store)) == 3
    assert timed["timed"] == 8


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"kind": "openvino"}', b'{"kind": "abacus", "precision": "fp32"}']
)
def test_a_damaged_memory_is_made_anew(
    content: bytes, package: ModelPackage, store: EngineStore, timed: dict[str, float]
) -> None:
    open_engine(package, store=store)
    (memory,) = choices(store)
    memory.write_bytes(content)
    assert open_engine(package, store=store).name == "openvino"
    assert timed["timed"] == 6
    assert json.loads(memory.read_bytes())["kind"] == "openvino"


def test_what_was_remembered_and_fails_is_looked_for_anew(
    package: ModelPackage, store: EngineStore, timed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("OpenVINO cannot compile the model")

    assert open_engine(package, store=store).name == "openvino"
    monkeypatch.setattr(OpenVinoEngine, "__init__", refuse)
    assert open_engine(package, store=store).name == "onnxruntime"
    (memory,) = choices(store)
    assert json.loads(memory.read_bytes())["kind"] == "onnxruntime"
    assert timed["timed"] == 4


def test_a_memory_that_cannot_be_written_stops_nobody(
    package: ModelPackage, tmp_path: Path, timed: dict[str, float]
) -> None:
    (tmp_path / "file").touch()
    assert open_engine(package, store=EngineStore(tmp_path / "file" / "engines")).name == "openvino"
    assert timed["timed"] == 3


def wrong(result: Arrays) -> Arrays:
    return {name: value[:, ::-1].copy() for name, value in result.items()}


def failing(_result: Arrays) -> Arrays:
    raise ModelError("OpenVINO failed: bus error")


def silent(result: Arrays) -> Arrays:
    return {name: value * np.nan for name, value in result.items()}


@pytest.mark.parametrize("change", [wrong, failing, silent])
def test_an_engine_that_does_not_give_what_the_model_gives_is_never_chosen(
    change: object,
    package: ModelPackage,
    store: EngineStore,
    timed: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = OpenVinoEngine.infer

    def infer(self: OpenVinoEngine, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return change(whole(self, feeds))

    monkeypatch.setattr(OpenVinoEngine, "infer", infer)
    closed: list[str] = []
    close = OpenVinoEngine.close
    monkeypatch.setattr(OpenVinoEngine, "close", lambda self: (closed.append(self.name), close(self)))
    assert open_engine(package, store=store).name == "onnxruntime"
    assert timed["timed"] == 1
    assert len(closed) == 2, "engines that are not taken are closed"


def test_the_slower_ones_are_closed_and_the_chosen_one_is_open(
    package: ModelPackage, store: EngineStore, timed: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed["onnxruntime"] = 0.5
    closed: list[object] = []
    for kind in (OpenVinoEngine, OnnxRuntimeEngine):
        close = kind.close
        monkeypatch.setattr(kind, "close", lambda self, close=close: (closed.append(self), close(self)))
    engine = open_engine(package, store=store)
    assert engine not in closed
    assert sum(isinstance(each, OpenVinoEngine) for each in closed) == 2
    assert engine.infer(PIXELS)["embedding"].shape == (2, 16)


def test_a_model_that_no_engine_runs_right_is_told(tmp_path: Path, store: EngineStore) -> None:
    with pytest.raises(ModelError) as failure:
        open_engine(embedder(tmp_path, "constant"), store=store)
    message = str(failure.value)
    assert message.startswith("tiny: no engine works here: openvino auto: the output is the same whatever")
    assert "; onnxruntime fp32: " in message
    assert "\n" not in message
    assert choices(store) == []


# --- a model of several networks


@pytest.fixture
def stages(tmp_path: Path) -> list[ModelPackage]:
    """Two networks of one model: the same one, so that its gate passes, under two hashes."""
    return [embedder(tmp_path, name=name, seed=seed) for seed, name in enumerate(("first", "second"))]


def test_the_networks_of_one_model_run_alike_on_what_is_fastest_for_all(
    stages: list[ModelPackage], store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"openvino": iter([1.0, 9.0] * 2), "onnxruntime": iter([4.0, 2.0])}
    monkeypatch.setattr(select, "_least_seconds", lambda engine, _: next(seconds[engine.name]))
    for _ in range(2):  # chosen, and remembered
        engines = open_engines(stages, store=store)
        assert [(each.name, each.precision) for each in engines] == [("onnxruntime", "fp32")] * 2
    assert engines[0].infer(PIXELS)["embedding"] != pytest.approx(engines[1].infer(PIXELS)["embedding"])
    assert len(choices(store)) == 1


@pytest.mark.usefixtures("timed")
def test_what_fails_for_one_network_is_taken_for_none(
    stages: list[ModelPackage], store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, "openvino", stages[1])
    with capture_logs() as told:
        engines = open_engines(stages, store=store)
    assert [each.name for each in engines] == ["onnxruntime"] * 2
    assert not [entry for entry in told if "run differently" in entry["event"]]


@pytest.mark.usefixtures("timed")
def test_networks_that_no_engine_runs_all_of_run_differently_and_are_told_of(
    stages: list[ModelPackage], store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_on(monkeypatch, "openvino", stages[1])
    fail_on(monkeypatch, "onnxruntime", stages[0])
    with capture_logs() as told:
        engines = open_engines(stages, store=store)
    assert [each.name for each in engines] == ["openvino", "onnxruntime"]
    (warning,) = (entry["event"] for entry in told if "run differently" in entry["event"])
    assert "first on openvino in " in warning
    assert "second on onnxruntime in fp32" in warning
    assert "no engine works here: openvino auto: made to fail" in warning


def fail_on(monkeypatch: pytest.MonkeyPatch, kind: str, package: ModelPackage) -> None:
    whole = select.judge

    def judge(judged: ModelPackage, engine: Engine, *args: object, **options: object) -> Parity:
        if (judged, engine.name) == (package, kind):
            raise ModelError("made to fail")
        return whole(judged, engine, *args, **options)

    monkeypatch.setattr(select, "judge", judge)


# --- compiled plans, on a GPU that is made up


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = make_stand_in()
    for name, module in stand_in.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


def plan(
    package: ModelPackage,
    store: EngineStore,
    *,
    kind: str = "tensorrt-rtx",
    precision: str = "fp32",
    graph: bytes | None = None,
    parity: Parity | None = None,
    forced: bool = False,
    **other: object,
) -> CompiledEngine:
    """Publish a plan as a machine without a GPU does: the gate has not yet run."""
    shapes = {"pixels": tuple((batch, 112, 112, 3) for batch in (1, 8, 32))}
    data = plan_of(graph or pixel_graph(package), shapes)
    key = EngineKey(
        model=package.name,
        model_sha256=package.sha256,
        kind=kind,
        version=engine_version(kind),
        targets=(this_target(kind),),
        precision=precision,
        batches=(1, 8, 32),
    )
    key = dataclasses.replace(key, **other)
    with store.workshop() as folder:
        (folder / "engine.bin").write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return store.publish(CompiledEngine(key, folder, sha256, parity, forced))


def upside_down(package: ModelPackage) -> bytes:
    """A graph that gives other embeddings than the model."""
    model = onnx.load_model_from_string(pixel_graph(package))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Transpose":
                attribute.ints[:] = [0, 3, 2, 1]
    return model.SerializeToString()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt-rtx"])
def test_the_first_start_on_a_gpu_judges_and_the_second_does_not(
    kind: str, package: ModelPackage, store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan(package, store, kind=kind).verdict == "not yet run"
    engine = open_engine(package, kind=kind, store=store)
    exact = OnnxRuntimeEngine(pixel_graph(package), threads=1).infer(PIXELS)["embedding"]
    assert engine.infer(PIXELS)["embedding"] == pytest.approx(exact, abs=1e-5)
    (compiled,) = store.engines()
    assert compiled.verdict == "passed"
    assert compiled.parity is not None
    assert compiled.parity.samples > 40
    monkeypatch.setattr(select, "judge", None)
    open_engine(package, kind=kind, store=store).close()


def test_a_plan_that_fails_at_its_first_start_never_serves(
    package: ModelPackage, store: EngineStore, gpu: StandIn
) -> None:
    plan(package, store, graph=upside_down(package))
    said = []
    for _ in range(2):
        with pytest.raises(ModelError, match="fails the parity gate: cosine to the") as failure:
            open_engine(package, kind="tensorrt-rtx", store=store)
        said.append(str(failure.value))
        assert gpu.held().keys() <= {"logger"}, "nothing of it stays on the GPU"
    assert said[0] == said[1]
    assert "run: facestream compile tiny --engine tensorrt-rtx --precision fp32 --batch 1,8,32" in said[0]
    (compiled,) = store.engines()
    assert compiled.verdict == "failed"


@pytest.mark.usefixtures("gpu")
def test_a_good_plan_is_taken_where_another_failed(package: ModelPackage, store: EngineStore) -> None:
    failed = Parity(48, 0.2, 0.5, failures=("cosine to the reference is 0.20000, fp16 needs 0.999",))
    plan(package, store, precision="fp16", parity=failed)
    plan(package, store, precision="fp32")
    assert open_engine(package, kind="tensorrt-rtx", store=store).precision == "fp32"


@pytest.mark.usefixtures("gpu")
def test_a_failed_plan_that_was_forced_serves_who_asks_for_it_and_not_auto(
    package: ModelPackage, store: EngineStore, timed: dict[str, float]
) -> None:
    failed = Parity(1000, 0.2, 0.9, failures=("cosine",))  # on more faces than are looked at here
    plan(package, store, parity=failed, forced=True)
    assert open_engine(package, kind="tensorrt-rtx", store=store).name == "tensorrt-rtx"
    assert open_engine(package, store=store).name == "openvino"
    assert timed["timed"] == 3


@pytest.mark.usefixtures("gpu", "timed")
def test_auto_takes_a_plan_that_passes_and_no_other(package: ModelPackage, store: EngineStore) -> None:
    assert open_engine(package, store=store).name == "openvino"
    plan(package, store, targets=("sm75",))
    plan(package, store, version="0.1")
    plan(package, store, precision="fp16", graph=upside_down(package))
    assert open_engine(package, store=store).name == "openvino"
    plan(package, store)
    assert open_engine(package, store=store).name == "tensorrt-rtx", "a new engine is a new situation"


@pytest.mark.usefixtures("gpu")
def test_plans_for_others_are_refused_with_the_command_for_this_machine(
    package: ModelPackage, store: EngineStore
) -> None:
    with pytest.raises(ModelError, match=r"no engine for tensorrt-rtx in .* run: facestream compile tiny"):
        open_engine(package, kind="tensorrt-rtx", store=store)
    plan(package, store, targets=("sm75", "sm80"))
    with pytest.raises(ModelError, match=r"for sm75, sm80, this machine has sm86; run: .* --gpu sm86 -o "):
        open_engine(package, kind="tensorrt-rtx", store=store)
    plan(package, store, kind="tensorrt", version="10.9")
    with pytest.raises(ModelError, match=r"by tensorrt 10\.9, this machine has .*; run: facestream compile"):
        open_engine(package, kind="tensorrt", store=store)
