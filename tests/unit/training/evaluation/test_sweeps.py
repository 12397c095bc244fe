from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bench_stand_ins import PatternEmbedder, make_lfw, make_ytf, pattern_models
from hypothesis import given
from hypothesis import strategies as st

from engine.embeddings import unit_rows
from engine.errors import DatasetError, ModelError
from engine.models.alignment import align_faces
from engine.models.package import Patch
from training.data.embedding_reader import upright_landmarks
from training.data.model_setup import FaceModels
from training.data.results import BenchRun
from training.evaluation.latency_budget import (
    FruitsPoint,
    configurations_here,
    frontier,
    one_core,
    run_fruits,
)
from training.evaluation.lfw import run_lfw
from training.evaluation.sweeps import face_size, jpeg, main_directions, quantised, reduced, sweep
from training.evaluation.ytf import run_ytf


class Opened:
    """Opens the models that the tests make up, and remembers how."""

    def __init__(self, *, fails: str | None = None) -> None:
        self.options: list[dict[str, Any]] = []
        self._fails = fails

    @contextlib.contextmanager
    def __call__(self, **options: Any) -> Iterator[FaceModels]:
        self.options.append(options)
        if self._fails in options.values():
            raise ModelError(f"{self._fails}: not here")
        yield pattern_models(PatternEmbedder(random=options.get("embedder") == "random"))


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("lfw")
    return root, make_lfw(root)


def similarities(run: BenchRun) -> list[float]:
    return [pair.similarity for pair in run.pairs]


@pytest.mark.parametrize(
    ("kind", "settings", "names"),
    [
        ("jpeg", [5, 90], ["JPEG quality 5", "JPEG quality 90"]),
        ("size", [16, 65_536], ["16 pixels", "65536 pixels"]),
        ("quantisation", None, ["float32", "int8"]),
    ],
)
def test_a_choice_of_images_or_embeddings(
    kind: str, settings: list[int] | None, names: list[str], lfw: tuple[Path, Path]
) -> None:
    told = []
    runs = sweep(kind, partial(run_lfw, *lfw, rounds=1), Opened(), settings=settings, on_setting=told.append)
    assert [name for name, _ in runs] == told == names
    (_, worse), (_, better) = runs
    assert similarities(worse) != similarities(better)
    assert worse.protocol != better.protocol
    if kind == "quantisation":
        np.testing.assert_allclose(similarities(worse), similarities(better), atol=0.02)


def test_a_choice_of_models(lfw: tuple[Path, Path]) -> None:
    choices = (
        ("engine", "kind", 4),
        ("precision", "precision", 4),
        ("flip", "flip", 2),
        ("second-look", "second_look", 2),
    )
    for kind, option, count in choices:
        opened = Opened()
        runs = sweep(kind, partial(run_lfw, *lfw, rounds=1), opened)
        assert len(runs) == count
        assert [list(options) for options in opened.options] == [[option]] * count
    opened, skipped = Opened(fails="mtcnn"), []
    bench = partial(run_lfw, *lfw, rounds=1)
    with pytest.raises(ModelError, match="mtcnn: not here"):
        sweep("detector", bench, opened)
    runs = sweep("detector", bench, opened, on_skipped=lambda name, why: skipped.append((name, why)))
    assert [name for name, _ in runs] == ["yunet"]
    assert skipped == [("mtcnn", "mtcnn: not here")]


def test_frames_of_a_video(tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path)
    runs = sweep("frames", partial(run_ytf, tmp_path, pairs, rounds=1), Opened(), settings=[1, 2, None])
    assert [name for name, _ in runs] == ["1 frames", "2 frames", "all frames"]
    assert [run.data["frames taken"] for _, run in runs] == [36, 72, 108]


def test_dimensions_are_learnt_from_other_people(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    make_ytf(tmp_path)
    bench = partial(run_lfw, *lfw, rounds=1)
    runs = sweep("dim", bench, Opened(), settings=[1, 8, 16], fit_on=tmp_path)
    whole = bench(models=pattern_models())
    np.testing.assert_allclose(similarities(runs[2][1]), similarities(whole), atol=1e-5)
    assert [run.figures["auc"] for _, run in runs] == sorted(run.figures["auc"] for _, run in runs)
    assert runs[0][1].figures["auc"] < 0.9 < runs[1][1].figures["auc"]
    with pytest.raises(ValueError, match="must come from other faces"):
        sweep("dim", bench, Opened())
    few = tmp_path / "frame_images_DB" / "Person_AA" / "0"
    with pytest.raises(DatasetError, match="expected at least 16 faces, got 3"):
        sweep("dim", bench, Opened(), fit_on=few)


def test_main_directions_are_those_of_the_singular_value_decomposition() -> None:
    rows = unit_rows(np.random.default_rng(1).normal(size=(50, 6)) * [5, 4, 3, 2, 1, 0.5])
    directions = main_directions(rows)
    _, _, oracle = np.linalg.svd(rows.astype(np.float64))
    np.testing.assert_allclose(np.abs(directions @ oracle.T), np.eye(6), atol=1e-4)
    few = reduced(directions, 2).apply(rows)
    np.testing.assert_allclose(np.linalg.norm(few, axis=1), 1, atol=1e-6)
    for numbers in (0, 7):
        with pytest.raises(ValueError, match=r"numbers: expected 1\.\.6"):
            reduced(directions, numbers)


def test_one_byte_a_number_is_near() -> None:
    rows = unit_rows(np.random.default_rng(1).normal(size=(5, 128)))
    assert (np.einsum("nd,nd->n", quantised().apply(rows), rows) > 0.9999).all()


@given(st.integers(100, 80_000), st.floats(40, 200), st.floats(100, 300), st.floats(100, 300))
def test_a_shrunk_face_has_so_many_pixels_and_keeps_its_place(
    pixels: int, side: float, x: float, y: float
) -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    landmarks = upright_landmarks(x, y, side)
    small, moved = face_size(pixels).after(image, landmarks)
    eyes = float(np.linalg.norm(moved[0, 1] - moved[0, 0]))
    crop = 112 * eyes / (73.5318 - 38.2946)
    before = 112 * 0.4 * side / (73.5318 - 38.2946)
    assert crop**2 == pytest.approx(min(pixels, before**2), rel=0.15)
    shares = (moved + 0.5) / [small.shape[1], small.shape[0]]
    np.testing.assert_allclose(shares, (landmarks + 0.5) / 400, atol=1e-4)


def test_a_shrunk_face_is_the_same_face(portrait: np.ndarray) -> None:
    landmarks = np.array([[[202, 110], [246, 108], [228, 134], [208, 156], [246, 154]]], np.float32)
    template = ((38.29, 51.7), (73.53, 51.5), (56.03, 71.74), (41.55, 92.37), (70.73, 92.2))
    before = align_faces(portrait, landmarks, [Patch(112, template)])[0].astype(float)
    differences = []
    for pixels in (1_000, 5_000, 12_000):
        after = align_faces(*face_size(pixels).after(portrait, landmarks), [Patch(112, template)])[0]
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95
        differences.append(np.abs(after - before).mean())
    assert differences == sorted(differences, reverse=True)


def test_jpeg_loses_more_at_lower_quality(portrait: np.ndarray) -> None:
    losses = [np.abs(jpeg(q).before(portrait).astype(float) - portrait).mean() for q in (10, 50, 90)]
    assert losses == sorted(losses, reverse=True)


def test_numbers_out_of_range() -> None:
    for wrong in (lambda: jpeg(0), lambda: face_size(0), lambda: sweep("colour", None, None)):
        with pytest.raises(ValueError, match="expected"):
            wrong()


def test_configurations_whose_models_are_lacking_are_told_before_anything_is_timed() -> None:
    here, lacking = configurations_here(
        {
            "good": {"detector": "yunet", "embedder": "sface", "flip": True},
            "blind": {"detector": "/nowhere/eyes.onnx", "embedder": "sface"},
            "dumb": {"detector": "yunet", "embedder": "/nowhere/words.onnx"},
        }
    )
    assert here == {"good": {"detector": "yunet", "embedder": "sface", "flip": True}}
    assert {name: reason.partition(":")[0] for name, reason in lacking.items()} == {
        "blind": "/nowhere/eyes.onnx",
        "dumb": "/nowhere/words.onnx",
    }


def test_the_best_within_the_limit(lfw: tuple[Path, Path]) -> None:
    images = sorted(lfw[0].glob("*/*.jpg"))[:10]
    now = iter([n * 0.001 for n in range(1000)])
    result = run_fruits(
        partial(run_lfw, *lfw, rounds=1),
        Opened(),
        images,
        limit_ms=1.5,
        configurations={"blind": {"embedder": "random"}, "good": {"embedder": "pattern"}},
        clock=lambda: next(now),
        gallery=10,
    )
    assert result.best == "good"
    assert result.images == 10
    for point in result.points:
        assert point.median_ms == pytest.approx(1)
        assert point.keeps_limit
        assert point.accuracy == point.run.figures["accuracy"]
    assert result.frontier == ("good",), "as fast and better"


def test_one_slow_image_breaks_the_limit_unless_the_percentile_lets_it(lfw: tuple[Path, Path]) -> None:
    images = sorted(lfw[0].glob("*/*.jpg"))[:20]
    for percentile, keeps in ((100.0, False), (90.0, True)):
        ticks = iter([t for n in range(20) for t in (n, n + (0.9 if n == 7 else 0.01))])
        result = run_fruits(
            partial(run_lfw, *lfw, rounds=1),
            Opened(),
            images,
            percentile=percentile,
            configurations={"good": {}},
            clock=lambda ticks=ticks: next(ticks),
            gallery=10,
        )
        (point,) = result.points
        assert point.keeps_limit == keeps
        assert point.slowest_ms == pytest.approx(900)
        assert result.best == ("good" if keeps else None)


def test_the_frontier() -> None:
    points = [
        FruitsPoint(str(ms), accuracy, 0, ms, ms, ms, True, None)
        for ms, accuracy in [(1, 0.8), (2, 0.7), (3, 0.9), (4, 0.9), (5, 0.95)]
    ]
    assert [point.name for point in frontier(points)] == ["1", "3", "5"]


def test_times_are_taken_on_one_core() -> None:
    import os

    before = os.sched_getaffinity(0), cv2.getNumThreads()
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
        assert cv2.getNumThreads() == 1
    assert (os.sched_getaffinity(0), cv2.getNumThreads()) == before


def test_limits_that_make_no_sense() -> None:
    for wrong in ({"limit_ms": 0}, {"percentile": 0}, {"percentile": 101}, {"gallery": 0}):
        with pytest.raises(ValueError, match="expected limit_ms above 0"):
            run_fruits(None, None, [Path("a.jpg")], **wrong)
    with pytest.raises(DatasetError, match="no images to time"):
        run_fruits(None, None, [])
