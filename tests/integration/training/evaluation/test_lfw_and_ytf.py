from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.models.catalogue import load_model
from training.data.cache import VectorCache
from training.data.face_crops import faces_of
from training.data.lfw_files import locate_lfw, read_lfw_pairs
from training.data.model_setup import open_models
from training.data.results import BenchRun
from training.evaluation.lfw import run_lfw
from training.evaluation.precision_cost import embed_crops, score_pairs
from training.evaluation.ytf import run_ytf


@pytest.fixture(scope="module")
def lfw(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folds of two people, one of them squeezed, whom nothing but the layout makes a data set."""
    root = tmp_path_factory.mktemp("lfw")
    rows = ["fold,name1,n1,name2,n2,same"]
    for fold in (1, 2):
        for name, width in (("Wide", 250), ("Thin", 190)):
            for shot in (1, 2):
                turn = cv2.getRotationMatrix2D((224, 130), 6.0 * shot * fold - 9, 0.9)
                turned = cv2.warpAffine(portrait, turn, (448, 300), borderMode=cv2.BORDER_REPLICATE)
                path = root / f"{name}_{fold}" / f"{name}_{fold}_{shot:04d}.jpg"
                path.parent.mkdir(exist_ok=True)
                cv2.imwrite(str(path), cv2.resize(turned, (width, 170)))
            rows.append(f"{fold},{name}_{fold},1,{name}_{fold},2,1")
        rows.append(f"{fold},Wide_{fold},1,Thin_{fold},1,0")
    pairs = root / "pairs.csv"
    pairs.write_text("\n".join(rows) + "\n")
    return root, pairs


def similarities(run: BenchRun) -> np.ndarray:
    return np.array([pair.similarity for pair in run.pairs])


@pytest.mark.parametrize("flip", [False, True])
def test_a_run_equals_the_plain_way(flip: bool, lfw: tuple[Path, Path], tmp_path: Path) -> None:
    root, pairs = lfw
    with VectorCache(tmp_path / "cache.db") as cache, open_models(flip=flip, workers=2) as models:
        run = run_lfw(root, pairs, models=models, cache=cache, workers=2, rounds=1)
        again = run_lfw(root, pairs, models=models, cache=cache, rounds=1)
        images = locate_lfw(read_lfw_pairs(pairs), root)
        faces = faces_of(images.paths, models.detector, models.embedder.align)
        plain = score_pairs(embed_crops(models.embedder, faces), faces, images)
    np.testing.assert_allclose(similarities(run), plain.similarities, atol=0.01)
    assert again.pairs == run.pairs
    assert again.figures["images looked at anew"] == 0
    assert run.protocol["flip"] is flip
    detector, embedder = run.models
    assert (detector.task, embedder.task) == ("detector", "embedder")
    assert embedder.sha256 == load_model("sface").sha256
    assert embedder.engine.split()[0] in {"openvino", "onnxruntime"}
    assert embedder.engine.split()[1][0].isdigit()
    assert run.machine["cores"] >= 1
    assert run.machine["facestream"] != "unknown"


def test_what_a_vector_depends_on_is_in_its_recipe() -> None:
    recipes = []
    for options in (
        {},
        {"flip": True},
        {"min_score": 0.6},
        {"long_side_px": 320},
        {"enlarge": 2.0},
        {"second_look": True},
        {"kind": "onnxruntime", "precision": "fp32"},
        {"kind": "openvino", "precision": "fp32"},
    ):
        with open_models(**{"kind": "onnxruntime", "precision": "auto", **options}) as models:
            recipes.append((models.detector_recipe, models.align_recipe, models.embedder_recipe))
    base, flip, score, side, large, again, same, other = recipes
    assert flip[2] != base[2]
    assert score[0] != base[0] != side[0]
    assert large[0] != base[0]
    assert again[0] == base[0]
    assert again[1] != base[1]
    assert again[2] != base[2]
    assert flip[:2] == base[:2]
    assert same[1:] == base[1:]
    assert other[2] != same[2]
    assert other[1] == same[1]


def some_folds(path: Path, folds: set[str], tmp_path: Path) -> Path:
    lines = path.read_text().splitlines()
    few = tmp_path / path.name
    few.write_text("\n".join(line for line in lines if line.split(",")[0] in {"fold", *folds}) + "\n")
    return few


@pytest.mark.faces
def test_a_part_of_lfw(face_data: Path, tmp_path: Path) -> None:
    pairs = some_folds(face_data / "lfw_pairs_subset.csv", {"1", "2", "3"}, tmp_path)
    with open_models(workers=2) as models:
        run = run_lfw(face_data / "lfw", pairs, models=models, workers=2, rounds=20)
    assert run.figures["accuracy pooled"] > 0.985
    assert run.data["without face"] == 0


@pytest.mark.faces
def test_a_part_of_ytf(face_data: Path, tmp_path: Path) -> None:
    pairs = some_folds(face_data / "ytf_pairs_balanced.txt", {"1", "2"}, tmp_path)
    with VectorCache(tmp_path / "cache.db") as cache, open_models(workers=2) as models:
        runs = {
            score: run_ytf(
                face_data / "ytf_frames", pairs, models=models, cache=cache, workers=2, score=score, rounds=20
            )
            for score in ("all-pairs", "mean", "weighted", "nearest")
        }
    for run in runs.values():
        assert run.figures["accuracy pooled"] > 0.94
        assert run.data["missing"] == run.data["skipped"] == 0
    assert runs["nearest"].figures["images looked at anew"] == 0
