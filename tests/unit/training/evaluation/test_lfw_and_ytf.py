from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from bench_stand_ins import (
    FACE_PX,
    SIDE_PX,
    PatternEmbedder,
    frame,
    make_lfw,
    make_ytf,
    pattern,
    pattern_models,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DatasetError, ModelError
from training.data.cache import VectorCache
from training.data.embedding_reader import Degradation, Target, read_sets
from training.data.results import BenchRun, load, save
from training.evaluation.accuracy_figures import verification_figures
from training.evaluation.fold_accuracy import PairScores
from training.evaluation.lfw import Projection, run_lfw
from training.evaluation.ytf import run_ytf

ROUNDS = 20


@pytest.fixture(scope="module")
def ytf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("ytf")
    return root, make_ytf(root)


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("lfw")
    return root, make_lfw(root)


def scores_of(run: BenchRun) -> PairScores:
    return PairScores(
        np.array([pair.similarity for pair in run.pairs]),
        np.array([pair.same for pair in run.pairs]),
        np.array([pair.fold for pair in run.pairs], np.intp),
    )


def similarities(run: BenchRun) -> np.ndarray:
    return scores_of(run).similarities


def test_lfw_from_folder_to_record(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    told = []
    run = run_lfw(
        *lfw,
        models=pattern_models(),
        rounds=ROUNDS,
        command=("facestream", "bench"),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(32, 36), (36, 36)]
    assert run.figures["accuracy"] == run.figures["auc"] == 1
    assert run.figures["tar@far=0.1"] == 1
    assert run.figures["tar@far=0.1 low"] == 1
    assert run.figures["tar@far=0.001"] is None
    assert any("0.001 needs at least 1,000 impostor pairs, got 162" in note for note in run.notes)
    assert run.data["pairs"] == len(run.pairs) == 198
    assert run.data["genuine"] == 36
    assert run.data["without face"] == run.data["missing"] == run.data["skipped"] == 0
    assert len(str(run.data["list_sha256"])) == 64
    assert run.protocol["images"] == "deepfunneled"
    assert run.protocol["embedder"] == "pattern"
    assert [fold["pairs"] for fold in run.folds] == [66, 66, 66]
    assert run.pairs[0].first == "Person_A/Person_A_0001.jpg"
    assert (lfw[0] / str(run.pairs[0].second_image)).is_file()
    assert run.seconds.keys() >= {"decode", "detect", "align", "embed", "score", "other"}
    assert run.figures["images looked at anew"] == 36
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == run


@pytest.mark.parametrize("score", ["all-pairs", "mean", "weighted", "nearest"])
def test_ytf_from_folder_to_record(ytf: tuple[Path, Path], score: str) -> None:
    run = run_ytf(*ytf, models=pattern_models(), score=score, balanced=True, rounds=ROUNDS)
    assert run.figures["accuracy"] == 1
    assert run.protocol["score"] == score
    assert run.data["videos"] == 36
    assert run.data["frames taken"] == run.data["frames"] == 108
    assert run.pairs[0].first == "Person_AA/0"
    assert run.pairs[0].first_image in {f"frame_images_DB/Person_AA/0/0.{n}.jpg" for n in (1, 2, 3)}
    hours = run.figures["hours for 3425 videos of 100 frames (extrapolated)"]
    rate = run.figures["images per second"]
    assert hours == pytest.approx(342_500 / rate / 3600)


def test_the_score_is_the_mean_over_all_pairs_of_frames(ytf: tuple[Path, Path]) -> None:
    models = pattern_models()
    run = run_ytf(*ytf, models=models, rounds=ROUNDS)
    pair = run.pairs[7]
    sides = []
    for video in (pair.first, pair.second):
        paths = sorted((ytf[0] / "frame_images_DB" / video).glob("*.jpg"))
        (faces,) = read_sets([[Target(path) for path in paths]], models).sets
        sides.append([face.embedding.astype(np.float64) for face in faces])
    every = [float(a @ b) for a in sides[0] for b in sides[1]]
    assert len(every) == 9
    assert pair.similarity == pytest.approx(np.mean(every), abs=1e-6)


def test_embeddings_that_know_nobody_give_half(tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path, people=30, frames=1)
    run = run_ytf(
        tmp_path, pairs, models=pattern_models(PatternEmbedder(random=True)), balanced=True, rounds=ROUNDS
    )
    assert abs(run.figures["accuracy"] - 0.5) < 0.08
    assert abs(run.figures["auc"] - 0.5) < 0.08


def test_shuffled_labels_give_half(ytf: tuple[Path, Path]) -> None:
    scores = scores_of(run_ytf(*ytf, models=pattern_models(), rounds=ROUNDS))
    accuracies = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        shuffled = dataclasses.replace(scores, same=scores.same[random.permutation(len(scores))])
        accuracies.append(verification_figures(shuffled, balanced=True, rounds=1)[0]["accuracy"])
    assert abs(np.mean(accuracies) - 0.5) < 0.02


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), fold=st.integers(1, 3))
def test_a_threshold_never_sees_its_own_fold(seed: int, fold: int) -> None:
    random = np.random.default_rng(seed)
    same = np.tile([True, False], 60)
    folds = np.repeat([1, 2, 3], 40)
    scores = PairScores(same * 0.3 + random.normal(0, 0.2, 120), same, folds)
    inside = folds == fold
    other = random.permutation(120)
    changed = PairScores(
        np.where(inside, random.uniform(-1, 1, 120), scores.similarities),
        np.where(inside, same[other] | (np.arange(120) % 20 == 0), same),
        folds,
    )
    _, before, _ = verification_figures(scores, rounds=1)
    _, after, _ = verification_figures(changed, rounds=1)
    assert before[fold - 1]["threshold"] == after[fold - 1]["threshold"]


def test_the_interval_holds_the_figure_and_more_rounds_narrow_nothing() -> None:
    random = np.random.default_rng(3)
    same = np.tile([True, False], 300)
    scores = PairScores(same * 0.5 + random.normal(0, 0.25, 600), same, np.repeat(np.arange(3), 200))
    figures, folds, notes = verification_figures(scores, rounds=200)
    for name in ("auc", "eer", "tar@far=0.1", "tar@far=0.01"):
        assert figures[f"{name} low"] < figures[name] < figures[f"{name} high"]
    assert verification_figures(scores, rounds=200)[0] == figures
    assert figures["accuracy"] == pytest.approx(np.mean([fold["accuracy"] for fold in folds]))
    assert figures["tar@far=0.0001"] is None
    assert len(notes) == 2


def test_a_second_run_asks_no_engine(ytf: tuple[Path, Path], tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache.db") as cache:
        first = run_ytf(*ytf, models=pattern_models(), cache=cache, score="weighted", rounds=ROUNDS)
        models = pattern_models()
        second = run_ytf(*ytf, models=models, cache=cache, score="weighted", rounds=ROUNDS)
        assert models.detector.images == models.embedder.faces == 0
        assert second.pairs == first.pairs
        assert second.figures["images looked at anew"] == 0
        assert second.figures["images per second"] is None
        other = dataclasses.replace(models, embedder_recipe="another network")
        run_ytf(*ytf, models=other, cache=cache, rounds=ROUNDS)
        assert (models.detector.images, models.embedder.faces) == (0, 108)
        aligned = dataclasses.replace(other, detector_recipe="another detector")
        run_ytf(*ytf, models=aligned, cache=cache, rounds=ROUNDS)
        assert (models.detector.images, models.embedder.faces) == (108, 108), "the same landmarks, though"


def test_an_interrupted_run_resumes(ytf: tuple[Path, Path], tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache.db") as cache:
        with pytest.raises(KeyboardInterrupt):
            run_ytf(*ytf, models=pattern_models(PatternEmbedder(fails_after=50)), cache=cache)
        models = pattern_models()
        run = run_ytf(*ytf, models=models, cache=cache, rounds=ROUNDS)
    assert models.embedder.faces == 108 - 48, "videos of 3 frames"
    assert run.pairs == run_ytf(*ytf, models=pattern_models(), rounds=ROUNDS).pairs


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_change_nothing(workers: int, ytf: tuple[Path, Path], lfw: tuple[Path, Path]) -> None:
    for run, data in ((run_ytf, ytf), (run_lfw, lfw)):
        alone = run(*data, models=pattern_models(), rounds=ROUNDS)
        together = run(*data, models=pattern_models(), workers=workers, rounds=ROUNDS)
        assert together.pairs == alone.pairs
        assert together.folds == alone.folds


def video_of(folder: Path, frames: list[np.ndarray]) -> list[Target]:
    for number, image in enumerate(frames):
        write(folder / f"{number:02d}.jpg", image)
    return [Target(path) for path in sorted(folder.iterdir())]


def test_the_first_faces_are_taken_and_the_rest_is_not_read(tmp_path: Path) -> None:
    shown = [None, pattern(1), None, pattern(1), pattern(1)] + [pattern(1)] * 40
    targets = video_of(tmp_path, [frame(face) for face in shown])
    models = pattern_models()
    seen = read_sets([targets], models, most=3)
    assert [face.row for face in seen.sets[0]] == [1, 3, 4]
    assert (seen.looked_at, seen.without_face) == (16, 2)
    assert models.detector.images == 16
    centred = read_sets([targets], pattern_models(), most=3, no_face="centre")
    assert [(face.row, face.detected) for face in centred.sets[0]] == [(0, False), (1, True), (2, False)]
    assert centred.sets[0][0].quality == 0


def test_the_best_faces_are_taken(tmp_path: Path) -> None:
    import cv2

    sharp = pattern(1)
    shown = [cv2.GaussianBlur(sharp, (0, 0), 1 + (n * 7 % 40) / 8) for n in range(40)]
    targets = video_of(tmp_path / "frames", [frame(face) for face in shown])
    sharpest = sorted(sorted(range(40), key=lambda n: n * 7 % 40)[:4])
    with VectorCache(tmp_path / "cache.db") as cache:
        models = pattern_models()
        seen = read_sets([targets], models, most=4, order="best", cache=cache)
        assert [face.row for face in seen.sets[0]] == sharpest
        assert models.embedder.faces == 4, "the others are judged, not embedded"
        again = read_sets([targets], models, most=4, order="best", cache=cache)
        assert [face.row for face in again.sets[0]] == sharpest
        assert (models.embedder.faces, models.detector.images, again.fresh) == (4, 40, 0)
        more = read_sets([targets], models, most=6, order="best", cache=cache)
        assert models.embedder.faces == 6
        assert more.fresh == 2
    qualities = [face.quality for face in more.sets[0]]
    assert min(qualities) > 0


def test_the_labelled_face_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "0.jpg"
    write(path, frame(pattern(1), aside=pattern(2)))
    half = FACE_PX / 2
    aside = (FACE_PX - half, SIDE_PX / 2 - half, FACE_PX + half, SIDE_PX / 2 + half)
    models = pattern_models()
    (labelled, centre), (alone,) = read_sets(
        [[Target(path, aside), Target(path)], [Target(path, None)]], models
    ).sets
    np.testing.assert_array_equal(centre.embedding, alone.embedding)
    assert labelled.embedding @ centre.embedding < 0.9


def test_videos_without_a_face_are_never_accepted_and_named(tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path)
    for path in (tmp_path / "frame_images_DB" / "Person_AB" / "1").iterdir():
        write(path, frame(None))
    run = run_ytf(tmp_path, pairs, models=pattern_models(), rounds=ROUNDS)
    touched = [pair for pair in run.pairs if "Person_AB/1" in {pair.first, pair.second}]
    assert len(touched) == 11
    assert {pair.similarity for pair in touched} == {-1}
    assert run.data["frames without face"] == 3
    assert run.data["videos without face"] == 1
    assert "never accepted, since no frame shows a face: Person_AB/1" in run.notes
    assert len(run.pairs) == 198


def test_damage_is_an_error_or_counted(tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path)
    folder = tmp_path / "frame_images_DB"
    (folder / "Person_AA" / "0" / "0.2.jpg").write_bytes(b"\xff\xd8 cut")
    for path in (folder / "Person_AB" / "2").iterdir():
        path.write_bytes(b"no image")
    for path in (folder / "Person_AE" / "0").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"1 of 36 videos have no frames: Person_AE/0"):
        run_ytf(tmp_path, pairs, models=pattern_models())
    run = run_ytf(tmp_path, pairs, models=pattern_models(), skip_missing=True, rounds=ROUNDS)
    assert run.data["frames unreadable"] == 4
    assert run.data["missing"] == 2
    assert run.data["skipped"] == 22 == run.data["listed pairs"] - len(run.pairs)
    notes = " ".join(run.notes)
    assert "skipped 2 x missing video: Person_AE/0, Person_AB/2" in notes
    assert "frame_images_DB/Person_AA/0/0.2.jpg" in notes
    make_ytf(tmp_path)
    (folder / "Person_AA" / "0" / "0.2.jpg").write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DatasetError, match=r"0\.2\.jpg: it is"):
        run_ytf(tmp_path, pairs, models=pattern_models(), workers=3)


def test_damaged_photographs_are_an_error_or_counted(tmp_path: Path) -> None:
    pairs = make_lfw(tmp_path)
    (tmp_path / "Person_C" / "Person_C_0002.jpg").write_bytes(b"")
    (tmp_path / "Person_F" / "Person_F_0001.jpg").unlink()
    with pytest.raises(DatasetError, match="1 of 36 images are missing"):
        run_lfw(tmp_path, pairs, models=pattern_models())
    run = run_lfw(tmp_path, pairs, models=pattern_models(), skip_missing=True, rounds=ROUNDS)
    assert (run.data["missing"], run.data["unreadable"], run.data["skipped"]) == (1, 1, 22)
    assert len(run.pairs) == 198 - 22
    assert run.figures["accuracy"] == 1
    notes = " ".join(run.notes)
    assert "Person_F/Person_F_0001.jpg" in notes
    assert "Person_C/Person_C_0002.jpg" in notes


def test_lists_and_roots_that_make_no_sense(ytf: tuple[Path, Path], tmp_path: Path) -> None:
    root, pairs = ytf
    models = pattern_models()
    with pytest.raises(DatasetError, match="not YTF's folder"):
        run_ytf(root / "frame_images_DB", pairs, models=models)
    wrong = tmp_path / "list.txt"
    wrong.write_text(pairs.read_text().replace("Person_AA/1", "Nobody/1"))
    with pytest.raises(DatasetError, match="the label disagrees with the names"):
        run_ytf(root, wrong, models=models)
    wrong.write_text("1, 1, Person_AA/0, Person_AA/9, 1\n2, 1, Person_AA/0, Person_AB/0, 0\n")
    with pytest.raises(DatasetError, match="1 of 3 videos have no frames: Person_AA/9"):
        run_ytf(root, wrong, models=models)
    with pytest.raises(ValueError, match="expected a choice of frames"):
        run_ytf(root, pairs, models=models, choice="last")


def test_no_face_at_all_is_an_error(tmp_path: Path) -> None:
    pairs = make_lfw(tmp_path / "lfw")
    for path in (tmp_path / "lfw").glob("*/*.jpg"):
        write(path, frame(None))
    with pytest.raises(DatasetError, match="no face was found in any image"):
        run_lfw(tmp_path / "lfw", pairs, models=pattern_models())


def test_embeddings_that_are_no_numbers_are_refused(lfw: tuple[Path, Path]) -> None:
    class Broken(PatternEmbedder):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return np.full((len(crops), 16), np.nan, np.float32)

    with pytest.raises(ModelError, match="not finite"):
        run_lfw(*lfw, models=pattern_models(Broken()))


def test_degraded_images_are_other_images(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    grey = Degradation("grey", before=lambda image: np.where(image > 0, 100, 0).astype(np.uint8))
    flat = Degradation("flat", after=lambda image, points: (np.full_like(image, 90), points))
    one = Projection("one number", lambda embeddings: np.sign(embeddings[:, :1]))
    with VectorCache(tmp_path / "cache.db") as cache:
        runs = [
            run_lfw(*lfw, models=pattern_models(), cache=cache, rounds=ROUNDS, degradation=each)
            for each in (None, grey, flat, None)
        ]
        projected = run_lfw(*lfw, models=pattern_models(), cache=cache, rounds=ROUNDS, projection=one)
    assert runs[0].pairs == runs[3].pairs
    assert (similarities(runs[1]) > 0.99).all()
    assert (similarities(runs[2]) > 0.99).all()
    assert [run.protocol["degradation"] for run in runs] == [None, "grey", "flat", None]
    assert set(similarities(projected)) == {-1, 1}
    assert projected.protocol["projection"] == "one number"


def test_quality_is_that_of_the_degraded_image(lfw: tuple[Path, Path], tmp_path: Path) -> None:
    import cv2

    blur = Degradation("blur", before=lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 4)))
    targets = [[Target(path) for path in sorted(lfw[0].glob("*/*.jpg"))[:6]]]
    with VectorCache(tmp_path / "cache.db") as cache:
        sharp, blurred = (
            read_sets(targets, pattern_models(), cache=cache, degradation=each).sets[0]
            for each in (None, blur)
        )
    for before, after in zip(sharp, blurred, strict=True):
        assert after.quality < before.quality - 0.02


@pytest.mark.parametrize("choice", ["first", "spread", "best"])
def test_so_many_frames_of_each_video(choice: str, tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path, people=6, videos=2, frames=5)
    models = pattern_models()
    run = run_ytf(tmp_path, pairs, models=models, frames=2, choice=choice, rounds=1)
    assert (run.protocol["frames"], run.protocol["frame_choice"]) == (2, choice)
    assert run.data["frames taken"] == models.embedder.faces == 24
    assert run.data["frames"] == (24 if choice == "spread" else 60)


def test_the_data_sets_own_crops(tmp_path: Path) -> None:
    pairs = make_ytf(tmp_path)
    for path in sorted((tmp_path / "frame_images_DB").glob("*/*/*.jpg")):
        person, video = path.parent.parent.name, path.parent.name
        aligned = tmp_path / "aligned_images_DB" / person / video / f"aligned_detect_{path.name}"
        aligned.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aligned)
    run = run_ytf(tmp_path, pairs, models=pattern_models(), images="aligned_images_DB", rounds=1)
    assert run.figures["accuracy"] == 1
    assert run.protocol["images"] == "aligned_images_DB"
    assert any("no box is taken from labels" in note for note in run.notes)
