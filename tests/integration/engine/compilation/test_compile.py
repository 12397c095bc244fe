"""Engines are compiled, judged and published; on real engines, in processes of their own as always."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_models import embedder
from tensorrt_stand_in import make_stand_in

from engine.backends.machine import this_machine
from engine.backends.openvino import OpenVinoEngine
from engine.compilation.compile import compile_engine
from engine.compilation.runtimes import open_compiled
from engine.compilation.sample_faces import portrait_views
from engine.compilation.source_graphs import pixel_graph
from engine.compilation.store import Accuracy, CompiledEngine, EngineStore
from engine.errors import ModelError
from engine.models.catalogue import load_model, shipped_models
from engine.models.package import ModelPackage
from engine.opening.select import find_compiled, open_engine
from engine.opening.verify import verify_engines
from engine.protocol import Engine
from engine.vision.embedder import FaceEmbedder

SHIPPED = [
    pytest.param(
        model.name, marks=pytest.mark.skipif(not model.installed, reason=f"no weights; {model.install}")
    )
    for model in shipped_models()
]
FOUR_VIEWS = slice(0, 48, 12)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    """A user's folder of faces."""
    folder = tmp_path_factory.mktemp("faces")
    for number, view in enumerate(portrait_views(portrait)[FOUR_VIEWS]):
        cv2.imwrite(str(folder / f"{number}.png"), view)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return embedder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


@pytest.fixture(scope="module")
def compiled_once(tiny: ModelPackage, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one engine, to be copied or not to be changed."""
    root = tmp_path_factory.mktemp("once") / "engines"
    compile_it(tiny, EngineStore(root), faces)
    return root


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyCUDA sees a GPU, sm86; TensorRT is the real one, or none."""
    for name, module in make_stand_in().modules.items():
        if name.startswith("pycuda"):
            monkeypatch.setitem(sys.modules, name, module)


def compile_it(package: ModelPackage, store: EngineStore, faces: Path, **options: Any) -> CompiledEngine:
    arguments = {"kind": "openvino", "detector": load_model("yunet"), "faces": faces} | options
    return compile_engine(package, store=store, **arguments)


def left_over(store: EngineStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir()) if store.root.exists() else []


def adds_int8_exactly() -> bool:
    return any(name.endswith(("_vnni", "dotprod", "asimddp")) for name in this_machine().features)


def has_bf16(package: ModelPackage) -> bool:
    try:
        OpenVinoEngine(pixel_graph(package), precision="bf16").close()
    except ModelError:
        return False
    return True


@pytest.mark.parametrize(
    "engine",
    [("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16")],
    ids="-".join,
)
@pytest.mark.parametrize("name", ["tiny", "sface", "yunet"])
def test_engines_of_the_processor(
    name: str, engine: tuple[str, str], tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    kind, precision = engine
    if precision == "bf16" and not has_bf16(tiny):
        pytest.skip("this processor does not compute in bf16")
    package = tiny if name == "tiny" else load_model(name)
    told: list[str] = []
    made = compile_it(
        package, store, faces, kind=kind, precision=precision, on_progress=lambda step, _: told.append(step)
    )
    assert made.verdict == "passed"
    assert made.parity is not None
    assert made.parity.samples == 4
    if package.task == "embedder":
        assert made.parity.least_cosine >= {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.999}[precision]
    else:
        assert made.parity.most_box_error_px <= 1
    assert (told[0], told[-1]) == ("reading", "judging")
    assert left_over(store) == [made.folder.name]
    assert store.engines() == [made]
    opened = open_compiled(made, threads=1)
    assert opened.precision == precision
    opened.close()


@pytest.mark.parametrize("name", ["mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet"])
def test_networks_of_a_detector(name: str, store: EngineStore, faces: Path) -> None:
    if not {model.name: model.installed for model in shipped_models()}[name]:
        pytest.skip("no weights of MTCNN")
    assert compile_it(load_model(name), store, faces).verdict == "passed"


@pytest.mark.parametrize(
    ("kind", "precision"), [("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("openvino", "int8")]
)
def test_precisions_that_must_be_compiled_are_opened_from_the_store(
    kind: str, precision: str, tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    if (kind, precision) == ("openvino", "int8") and not adds_int8_exactly():
        pytest.skip("this processor adds products of int8 in 16 bits, which overflow: the gate refuses that")
    command = f"run: facestream compile tiny --engine {kind} --precision {precision}"
    with pytest.raises(ModelError, match=f"no engine for {kind} in {precision} in .*; {command}$"):
        open_engine(tiny, kind=kind, precision=precision, store=store)
    made = compile_it(tiny, store, faces, kind=kind, precision=precision)
    assert made.verdict == "passed"
    assert made.read() != pixel_graph(tiny)
    engine = open_engine(tiny, kind=kind, precision=precision, store=store)
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    exact = open_engine(tiny, kind=kind, precision="fp32", store=store).infer({"pixels": crops})["embedding"]
    got = engine.infer({"pixels": crops})["embedding"]
    cosines = (got * exact).sum(axis=1) / np.linalg.norm(got, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.99
    assert (got != exact).any()


# --- the gate


def test_an_engine_that_fails_is_not_published(tmp_path: Path, store: EngineStore, faces: Path) -> None:
    with pytest.raises(ModelError) as failure:
        compile_it(embedder(tmp_path, "constant"), store, faces)
    assert str(failure.value) == (
        "tiny on openvino in fp32 fails the parity gate: the output is the same whatever the "
        "input; nothing was published: choose another precision, or --force"
    )
    assert left_over(store) == []


def test_an_engine_that_loses_too_much_is_not_published(
    tmp_path: Path, store: EngineStore, faces: Path
) -> None:
    package = embedder(tmp_path, "cancelling")
    if not has_bf16(package):
        pytest.skip("this processor does not compute in bf16")
    assert compile_it(package, store, faces, precision="fp32").verdict == "passed"
    with pytest.raises(ModelError, match=r"cosine to the reference is -?0\.\d+, bf16 needs 0\.999;"):
        compile_it(package, store, faces, precision="bf16")
    assert [engine.key.precision for engine in store.engines()] == ["fp32"]


def test_by_force_it_is_published_and_its_record_says_so(
    tmp_path: Path, store: EngineStore, faces: Path
) -> None:
    package = embedder(tmp_path, "nan")
    forced = compile_it(package, store, faces, force=True)
    record = json.loads((forced.folder / "manifest.json").read_text())
    assert record["forced"] is True
    assert record["parity"]["failures"] == ["100.0% of the numbers are not finite"]
    assert store.find(forced.key) == forced
    assert forced.verdict == "failed, forced"
    assert compile_it(package, store, faces, force=True) == forced
    with pytest.raises(ModelError, match="not finite; nothing was published"):
        compile_it(package, store, faces)
    assert store.engines() == [forced], "what was there is there still"


# --- what is there is taken, if it is good


def test_a_second_compilation_takes_what_is_there(
    tiny: ModelPackage, compiled_once: Path, faces: Path
) -> None:
    store = EngineStore(compiled_once)
    (engine,) = store.engines()
    written = engine.path.stat().st_mtime_ns
    told: list[str] = []
    again = compile_it(tiny, store, faces, on_progress=lambda step, _: told.append(step))
    assert again == engine
    assert told == []
    assert engine.path.stat().st_mtime_ns == written
    compile_it(tiny, store, faces, again=True)
    assert engine.path.stat().st_mtime_ns > written


def test_int8_is_built_again_for_other_faces(
    tiny: ModelPackage, store: EngineStore, faces: Path, tmp_path: Path, portrait: np.ndarray
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for number, view in enumerate(portrait_views(portrait)[1:4]):
        cv2.imwrite(str(others / f"{number}.png"), view)
    int8 = partial(compile_it, tiny, store, kind="onnxruntime", precision="int8")
    first = int8(faces)
    assert int8(faces).path.stat().st_mtime_ns == first.path.stat().st_mtime_ns
    second = int8(others)
    assert (second.key, second.calibration) == (first.key, "percentile")
    assert (second.parity.samples, store.find(first.key)) == (3, second)
    assert second.faces_sha256 != first.faces_sha256
    assert int8(None) == second, "no faces are named: what is there is taken"
    assert int8(others, calibration="minmax").calibration == "minmax"
    forget_the_faces(second)
    assert int8(others).faces_sha256 == second.faces_sha256, "an older record does not say on what"


def forget_the_faces(engine: CompiledEngine) -> None:
    manifest = engine.folder / "manifest.json"
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(raw | {"calibration": None, "faces_sha256": None}))


@pytest.mark.parametrize("victim", ["engine.bin", "manifest.json"])
def test_the_mending_command_mends(victim: str, tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    engine = compile_it(tiny, store, faces)
    flip_a_byte(engine.folder / victim) if victim == "engine.bin" else (engine.folder / victim).write_text(
        "{"
    )
    assert compile_it(tiny, store, faces) == engine
    assert engine.read()
    assert left_over(store) == [engine.folder.name]


def test_another_order_is_another_engine(tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    one = compile_it(tiny, store, faces)
    other = compile_it(tiny, store, faces, batches=(1, 2, 4))
    assert sorted(left_over(store)) == sorted([one.folder.name, other.folder.name])


def test_accuracy_is_measured_where_a_data_set_is_given(
    tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    def measure(candidate: Engine, reference: Engine) -> list[Accuracy]:
        crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
        one, other = (FaceEmbedder.from_package(tiny, e).embed(crops) for e in (candidate, reference))
        assert one == pytest.approx(other, abs=1e-4)
        return [Accuracy("made up", 0.75, 0.8)]

    compile_it(tiny, store, faces)
    compile_it(tiny, store, faces, measure=measure)
    (engine,) = store.engines()
    assert engine.accuracies == (Accuracy("made up", 0.75, 0.8),)


# --- stale, foreign and damaged engines


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_record(engine: CompiledEngine, **changes: Any) -> None:
    """Write other words into the record; its place stays."""
    path = engine.folder / "manifest.json"
    record = json.loads(path.read_text())
    record["key"] |= changes
    path.write_text(json.dumps(record))


def damaged(engine: CompiledEngine) -> None:
    flip_a_byte(engine.path)


def stale(engine: CompiledEngine) -> None:
    edit_record(engine, version="0.9")


def foreign(engine: CompiledEngine) -> None:
    edit_record(engine, targets=["sm80"])


UNFIT = [
    (damaged, r"the engine is damaged \(.*wrong SHA-256.*\)"),
    (stale, r"it was built by \S+ 0\.9, this machine has \S+"),
    (foreign, r"it was built for sm80, this machine has \S+"),
]


@pytest.mark.parametrize(("change", "reason"), UNFIT)
def test_an_engine_of_the_processor_that_does_not_fit_is_refused(
    change: Callable[[CompiledEngine], None], reason: str, tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    engine = compile_it(tiny, store, faces)
    change(engine)
    (engine,) = store.engines()
    command = (
        f"run: facestream compile tiny --engine openvino --precision fp32 --batch 1,8,32 -o {store.root}$"
    )
    with pytest.raises(ModelError, match=rf"^tiny\.openvino\S*: {reason}; {command}") as failure:
        open_compiled(engine)
    assert "\n" not in str(failure.value)


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed: pip install 'facestream[tensorrt-rtx]'")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("gpus", [("sm86",), ()], ids=["one", "all"])
@pytest.mark.parametrize("name", SHIPPED)
def test_plans_of_every_shipped_model(
    name: str,
    gpus: tuple[str, ...],
    store: EngineStore,
    faces: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Built without a GPU, and then refused, on a GPU that is made up, when they do not fit."""
    package = load_model(name)
    told: list[float] = []
    engine = compile_it(
        package,
        store,
        faces,
        kind="tensorrt-rtx",
        gpus=gpus,
        on_progress=lambda _, share: told.append(share),
    )
    assert (engine.verdict, engine.parity) == ("not yet run", None)
    assert "sm86" in engine.key.targets
    assert len(engine.key.targets) == 1 if gpus else len(engine.key.targets) > 3
    assert hashlib.sha256(engine.read()).hexdigest() == engine.sha256
    assert len(set(told)) > 20, "TensorRT's own progress comes through"

    request.getfixturevalue("gpu")
    assert find_compiled(package, "tensorrt-rtx", store=store) == engine
    for change, reason in UNFIT:
        kept = {path: path.read_bytes() for path in engine.folder.iterdir()}
        change(engine)
        (changed,) = store.engines()
        with pytest.raises(
            ModelError, match=rf"{reason}; run: facestream compile {package.name} "
        ) as failure:
            open_engine(package, kind="tensorrt-rtx", store=store)
        command = str(failure.value).split("run: ")[1]
        assert "--engine tensorrt-rtx --precision fp32" in command
        assert f"--gpu {'sm86' if change is foreign else ','.join(changed.key.targets)} " in command
        for path, data in kept.items():
            path.write_bytes(data)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("name", ["yunet", "sface"])
def test_plans_in_lower_precision(name: str, precision: str, store: EngineStore, faces: Path) -> None:
    options: dict[str, Any] = {"kind": "tensorrt-rtx", "gpus": ("sm86",)}
    exact = compile_it(load_model(name), store, faces, **options)
    lower = compile_it(load_model(name), store, faces, precision=precision, **options)
    assert lower.verdict == "not yet run"
    assert lower.read() != exact.read()
    if (name, precision) in {("sface", "fp16"), ("sface", "bf16")}:
        assert lower.path.stat().st_size < 0.6 * exact.path.stat().st_size, "the weights are half as large"


# --- what goes wrong in the middle of a build


@pytest.mark.parametrize("step", ["reading", "judging"])
def test_a_builder_that_is_killed(step: str, tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    def kill(told: str, _share: float) -> None:
        if told == step:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(ModelError) as failure:
        compile_it(tiny, store, faces, on_progress=kill)
    assert str(failure.value) == "the build process died (SIGKILL); nothing was kept"
    assert left_over(store) == []
    assert compile_it(tiny, store, faces).verdict == "passed", "the next one succeeds"


def test_ctrl_c_in_the_middle_leaves_nothing(tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    def interrupt(_step: str, _share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_it(tiny, store, faces, on_progress=interrupt)
    assert left_over(store) == []
    assert multiprocessing.active_children() == []


def test_a_disk_that_is_full_in_the_middle_of_a_build(
    tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    manifest = tiny.onnx_path.with_suffix(".json")
    size = tiny.onnx_path.stat().st_size
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stream.cli", "compile", str(manifest), "--engine", "openvino"),
            *("-o", str(store.root), "--faces", str(faces)),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
    )
    assert done.returncode == 1
    assert done.stderr == "error: cannot build: File too large; free space and try again\n"
    assert left_over(store) == []


# --- arguments


@pytest.mark.parametrize("batches", [(0, 1, 2), (2, 1, 3), (1, 4, 2)])
def test_batches_out_of_order(
    batches: tuple[int, int, int], tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    with pytest.raises(ValueError, match="batches: expected 1 <= least <= usual <= greatest"):
        compile_it(tiny, store, faces, batches=batches)


def test_gpus_are_for_rtx_only(tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    with pytest.raises(ModelError, match="openvino builds only for this machine; --gpu is for tensorrt-rtx"):
        compile_it(tiny, store, faces, gpus=("sm86",))


@pytest.mark.usefixtures("rtx")
def test_names_of_gpus(tiny: ModelPackage, store: EngineStore, faces: Path) -> None:
    engine = compile_it(tiny, store, faces, kind="tensorrt-rtx", gpus=("SM89", " sm86", "sm86"))
    assert engine.key.targets == ("sm86", "sm89")
    with pytest.raises(ModelError, match="does not build for sm90; expected --gpu of sm75,"):
        compile_it(tiny, store, faces, kind="tensorrt-rtx", gpus=("sm90",))
    assert left_over(store) == [engine.folder.name]


def test_tensorrt_needs_its_gpu(
    tiny: ModelPackage, store: EngineStore, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ModelError, match=r"^tensorrt cannot be used here: .*; run: pip install tensorrt"):
        compile_it(tiny, store, faces, kind="tensorrt")
    assert left_over(store) == []


def test_without_faces_there_is_nothing_to_judge_on(
    tiny: ModelPackage, store: EngineStore, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(ModelError, match=r"no face was found in the samples; give a folder .* \(--faces\)"):
        compile_it(tiny, store, tmp_path)
    assert left_over(store) == []


def test_a_damaged_package_is_not_compiled(
    tiny: ModelPackage, store: EngineStore, faces: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(tiny.onnx_path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="wrong SHA-256"):
        compile_it(dataclasses.replace(tiny, onnx_path=path), store, faces)
    assert left_over(store) == []


# --- verify


@pytest.mark.usefixtures("rtx")
def test_engines_are_verified_and_those_that_cannot_run_are_passed_over(
    tiny: ModelPackage, store: EngineStore, faces: Path
) -> None:
    whole = compile_it(tiny, store, faces, kind="onnxruntime")
    broken = compile_it(tiny, store, faces)
    flip_a_byte(broken.path)
    edit_record(compile_it(tiny, store, faces, batches=(1, 2, 2)), version="0.9")
    compile_it(tiny, store, faces, kind="tensorrt-rtx", gpus=("sm86",))
    verdicts = list(verify_engines(tiny, detector=load_model("yunet"), faces=faces, store=store))
    found = {(v.kind, v.precision): v for v in verdicts}
    assert found["onnxruntime", "fp32"].parity.passed
    assert found["openvino", "fp32"].parity.passed
    assert found["onnxruntime, compiled", "fp32"].parity == whole.parity
    assert found["openvino, compiled", "fp32"].parity is None
    assert "the engine is damaged" in found["openvino, compiled", "fp32"].reason
    assert len(verdicts) == 5


def test_an_engine_that_fails_at_work_is_told_and_the_others_are_verified(
    tiny: ModelPackage, store: EngineStore, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ModelError("OpenVINO failed: bus error")

    monkeypatch.setattr(OpenVinoEngine, "infer", fail)
    verdicts = list(verify_engines(tiny, detector=load_model("yunet"), faces=faces, store=store))
    assert [(v.kind, v.reason) for v in verdicts] == [
        ("onnxruntime", ""),
        ("openvino", "OpenVINO failed: bus error"),
        ("openvino", "OpenVINO failed: bus error"),
    ]
