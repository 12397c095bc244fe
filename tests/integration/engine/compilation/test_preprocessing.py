"""Whether a wrong preprocessing is found out, on a real model that is made to want each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import embedder_onnx

from engine.compilation.importing import import_embedder
from engine.compilation.parity_check import open_reference
from engine.compilation.preprocessing import PRESETS, Preprocessing, prove
from engine.compilation.separation import People, Separation, shipped_people
from engine.errors import ModelError
from engine.models.catalogue import load_model, shipped_models
from engine.vision.yunet import FaceDetector

UNIT = Preprocessing("rgb", 0.0, 1 / 255)


@pytest.fixture(scope="module")
def people() -> People:
    """A few, so that tests are quick."""
    detector = FaceDetector(open_reference(load_model("yunet")), min_score=0.6)
    everybody = shipped_people(detector)
    return People(everybody.images[:16], everybody.landmarks_xy[:16], everybody.person[:16])


def sface_that_wants(preprocessing: Preprocessing, path: Path) -> Path:
    """SFace, which takes pixels as they are, behind what undoes another preprocessing."""
    model = onnx.load(load_model("sface").onnx_path)
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == image else name for name in node.input]
    constants = {"undo_scale": 1 / preprocessing.scale, "undo_mean": preprocessing.mean}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.node.insert(0, helper.make_node("Add", ["scaled", "undo_mean"], ["pixels"]))
    model.graph.node.insert(0, helper.make_node("Mul", [image, "undo_scale"], ["scaled"]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("wanted", "stated", "named"),
    [
        (PRESETS["sface"], PRESETS["arcface"], "--preset sface"),
        (UNIT, PRESETS["sface"], "--colour-order rgb --mean 0 --scale 0.00392157"),
    ],
    ids=["pixels as -1..1", "0..1 as pixels"],
)
def test_a_wrong_preset_is_refused_and_the_right_one_named(
    wanted: Preprocessing, stated: Preprocessing, named: str, people: People, tmp_path: Path
) -> None:
    path = sface_that_wants(wanted, tmp_path / "mine.onnx")

    def imported(as_stated: Preprocessing) -> None:
        stated_here = dataclasses.replace(as_stated, size_px=112)
        folder = tmp_path / "models"
        import_embedder(path, name="mine", preprocessing=stated_here, folder=folder, people=lambda: people)

    with pytest.raises(ModelError, match="wrong preprocessing: 8 people: ") as failure:
        imported(stated)
    assert f"; give {named} (" in str(failure.value)
    assert str(failure.value).endswith("or --force to keep it as it is")
    assert not (tmp_path / "models").exists(), "nothing is kept"
    imported(wanted)


def test_presets_that_differ_by_next_to_nothing_both_pass(people: People, tmp_path: Path) -> None:
    data = sface_that_wants(PRESETS["arcface"], tmp_path / "mine.onnx").read_bytes()
    package = dataclasses.replace(load_model("sface"), mean=(127.5,) * 3, scale=1 / 128)
    assert prove(package, data, people).failure == ""


def test_a_network_that_knows_no_faces_is_refused(people: People, tmp_path: Path) -> None:
    path = tmp_path / "random.onnx"
    onnx.save(embedder_onnx(), path)
    with pytest.raises(ModelError, match=r"apart: [^;]* of different people; state the .*, or give --force"):
        import_embedder(
            path, name="random", preprocessing=PRESETS["arcface"], folder=tmp_path, people=lambda: people
        )


def test_folders_that_mix_people_may_be_at_fault(people: People) -> None:
    mixed = dataclasses.replace(people, person=people.person[::-1] % 2, folder=Path("mixed"))
    package = load_model("sface")
    assert ", unless folders of mixed show several people" in prove(package, package.read(), mixed).failure


@pytest.mark.parametrize("name", ["sface", "dlib", "fused"])
def test_shipped_models_pass(name: str, people: People) -> None:
    if not {model.name: model.installed for model in shipped_models()}[name]:
        pytest.skip(f"{name} is not installed")
    package = load_model(name)
    proof = prove(package, package.read(), people)
    assert proof.failure == ""
    assert proof.separation.error < 0.06


def test_what_is_stated_is_never_advised(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are tried on fewer faces, which may be easier."""
    errors = iter([0.2, 0.05, *[0.05] * 5])
    monkeypatch.setattr(
        "engine.compilation.preprocessing.separation",
        lambda *_: Separation(8, next(errors), like=0.9, unlike=0.8),
    )
    package = load_model("sface")
    assert prove(package, package.read(), people).failure == ""
