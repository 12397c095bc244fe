from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from engine.errors import ModelError
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import Likeness, ModelPackage, Patch, Threshold, canvas_wh

CONTENT = b"pretend that this is ONNX"
POINTS = [list(point) for point in ARCFACE_TEMPLATE_XY]


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    path = tmp_path / "model.onnx"
    path.write_bytes(CONTENT)
    return ModelPackage(
        name="facenet",
        task="embedder",
        onnx_path=path,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="MIT",
        provenance="made by a test",
        input_size_wh=(160, 160),
        colour_order="rgb",
        mean=(127.5, 127.5, 127.5),
        scale=1 / 128,
        patches=(Patch(160, ARCFACE_TEMPLATE_XY),),
        embedding_size=128,
        thresholds=(Threshold(0.4, far=1e-3), Threshold(0.5, far=1e-4)),
        training_run="run-7",
        harmonic_with=("ab" * 32,),
    )


def edit(manifest: Path, **changes: object) -> None:
    raw = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(raw | changes))


def test_a_package_survives_its_manifest(package: ModelPackage, tmp_path: Path) -> None:
    manifest = tmp_path / "facenet.json"
    package.save(manifest)
    assert ModelPackage.load(manifest) == package
    assert json.loads(manifest.read_text())["onnx_path"] == "model.onnx"
    assert package.read() == CONTENT


def test_a_folder_may_be_moved(package: ModelPackage, tmp_path: Path) -> None:
    package.save(tmp_path / "facenet.json")
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("facenet.json", "model.onnx"):
        (tmp_path / name).rename(moved / name)
    assert ModelPackage.load(moved / "facenet.json").onnx_path == moved / "model.onnx"


def test_a_changed_file_is_refused_in_one_line(package: ModelPackage, tmp_path: Path) -> None:
    package.save(tmp_path / "facenet.json")
    package.onnx_path.write_bytes(CONTENT + b"!")
    with pytest.raises(ModelError) as failure:
        ModelPackage.load(tmp_path / "facenet.json")
    message = str(failure.value)
    assert "model.onnx: wrong SHA-256, got " in message
    assert f"expected {package.sha256}; " in message
    assert "\n" not in message


def test_a_missing_file_is_named(package: ModelPackage, tmp_path: Path) -> None:
    package.save(tmp_path / "facenet.json")
    package.onnx_path.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx: cannot read the model file: No such file"):
        ModelPackage.load(tmp_path / "facenet.json")
    with pytest.raises(ModelError, match=r"nowhere\.json: cannot read the manifest: No such file"):
        ModelPackage.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "rgb"}, "unknown keys colour"),
        ({"format": "facestream-model/9"}, "facestream-model/1"),
        ({"task": "gender"}, "task: expected detector or detector-stage or embedder, got 'gender'"),
        ({"colour_order": "grb"}, "colour_order: expected bgr or rgb"),
        ({"sha256": "12"}, "sha256: expected 64"),
        ({"mean": [1, 2]}, "mean: expected 3 numbers"),
        ({"mean": ["1", 2, 3]}, "mean: expected 3 numbers"),
        ({"patches": [{"size_px": 112, "template_xy": [[10**400, 0]] * 5}]}, "not a valid model manifest"),
        ({"scale": "small"}, "scale: got"),
        ({"input_size_wh": [160, 112]}, "the patches fill (160, 160), got (160, 112)"),
        ({"input_size_wh": [160.5, 160.5]}, "input_size_wh: expected 2 numbers"),
        ({"patches": []}, "an embedder needs at least one"),
        ({"patches": [112]}, "patches: expected objects of size_px and template_xy, got 112"),
        ({"patches": [{"size_px": 160}]}, "patches: expected objects of size_px and template_xy"),
        ({"patches": [{"size_px": 1.5, "template_xy": []}]}, "patches: expected objects"),
        ({"patches": [{"size_px": 0, "template_xy": POINTS}]}, "size_px: expected at least 1"),
        ({"patches": [{"size_px": 160, "template_xy": [[1, 2]]}]}, "five points"),
        ({"patches": [{"size_px": 160, "template_xy": [1, 2, 3, 4, 5]}]}, "template_xy: expected 2 numbers"),
        ({"training_run": 7}, "training_run: got 7"),
        ({"harmonic_with": "sface"}, "harmonic_with: got"),
        ({"harmonic_with": ["sface"]}, "64 lower-case hexadecimal digits"),
        ({"embedding_size": 0}, "embedding_size: expected at least 1"),
        ({"thresholds": [{"similarity": 3}]}, "similarity: expected -1..1"),
        ({"thresholds": [{"cosine": 0.3}]}, "cosine"),
        ({"thresholds": {"similarity": 0.3}}, "thresholds: got"),
        ({"onnx_path": None}, "onnx_path: got null"),
        ({"name": 3}, "name: got 3"),
    ],
)
def test_manifests_that_make_no_sense(
    package: ModelPackage, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    manifest = tmp_path / "facenet.json"
    package.save(manifest)
    edit(manifest, **changes)
    with pytest.raises(ModelError, match=r"facenet\.json: not a valid model manifest: ") as failure:
        ModelPackage.load(manifest)
    assert message in str(failure.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", "\xff", '{"format": "facestream-model/1"}'])
def test_files_that_are_no_manifest(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "m.json"
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"m\.json: not a valid model manifest"):
        ModelPackage.load(manifest)


def test_patches_lie_side_by_side(package: ModelPackage) -> None:
    patches = (Patch(112, ARCFACE_TEMPLATE_XY), Patch(150, ARCFACE_TEMPLATE_XY))
    assert canvas_wh(patches) == (262, 150)
    assert dataclasses.replace(package, patches=patches, input_size_wh=(262, 150)).patches == patches


def test_a_folder_that_cannot_be_written_is_told(package: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot write"):
        package.save(tmp_path / "file" / "facenet.json")


def test_likeness_makes_equal_false_accept_rates_equal_similarities() -> None:
    dlib = (Threshold(0.9263, far=1e-3), Threshold(0.9396, far=1e-4))
    likeness = Likeness.of(dlib)
    assert likeness(0.9263) == pytest.approx(0.36)
    assert likeness(0.9396) == pytest.approx(0.416)
    sface = Likeness.of((Threshold(0.36, far=1e-3), Threshold(0.416, far=1e-4)))
    assert sface(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "thresholds", [(), (Threshold(0.5),), (Threshold(0.5, far=1e-3), Threshold(0.5, far=1e-4))]
)
def test_likeness_of_a_model_without_both_rates_changes_nothing(thresholds: tuple[Threshold, ...]) -> None:
    assert Likeness.of(thresholds)(0.7) == 0.7
