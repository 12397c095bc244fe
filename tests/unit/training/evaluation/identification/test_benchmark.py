from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.embeddings import unit_rows
from engine.errors import DatasetError, ModelError
from engine.faces import Faces
from engine.search.open_set_threshold import ImpostorTail
from training.data.cache import VectorCache
from training.data.model_setup import FaceModels
from training.data.person_faces import FaceSet, ImageSet, Stopwatch, embed_sets, find_stills, find_videos
from training.data.results import BenchRun, load, save
from training.evaluation.identification.benchmark import IdentFaces, judge_ident, load_ident, run_ident
from training.evaluation.identification.scoring import SCORES, SetUp
from training.evaluation.identification.trials import REP_YTF_FARS, REP_YTF_OPENNESS, make_trial

SIDE = 64
FACE = np.array([[22, 24], [42, 24], [32, 34], [25, 44], [39, 44]], np.float32)


class PlantedDetector:
    """Finds a face in the middle, and a second one at the edge, unless the image is black."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        return [self._two() if image.max() > 40 else Faces.none() for image in images]

    def _two(self) -> Faces:
        aside = FACE / 4 + np.array([SIDE - 18, 0], np.float32)
        boxes = np.array([[SIDE - 16, 0, SIDE, 16], [16, 16, 48, 48]], np.float32)
        return Faces(boxes, np.array([0.95, 0.9], np.float32), np.stack([aside, FACE]))


class PlantedEmbedder:
    """Embeds a grey value: who has the same one has the same direction. The face aside is another's."""

    model, embedding_size, crop_shape = "planted", 32, (8, 8, 3)

    def __init__(self, *, broken: bool = False) -> None:
        self._broken = broken
        self.crops = 0

    def align(self, image: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
        x, y = landmarks_xy.mean(axis=(0, 1)) if len(landmarks_xy) else (0, 0)
        pixel = image[int(y), int(x)].astype(np.uint8)
        return np.broadcast_to(pixel, (len(landmarks_xy), *self.crop_shape)).copy()

    def portraits(self, crops: np.ndarray) -> np.ndarray:
        return crops

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.crops += len(crops)
        # JPEG moves grey values by a little; people are 10 apart.
        people = np.rint(crops[:, 4, 4, 1] / 10).astype(int)
        vectors = np.stack([np.random.default_rng(person).normal(size=32) for person in people] or [[0] * 32])
        return unit_rows(vectors[: len(crops)]) * (np.nan if self._broken else 1)


def picture(path: Path, grey: int) -> None:
    """A face of one grey, with somebody else's in the corner."""
    image = np.full((SIDE, SIDE, 3), grey, np.uint8)
    if grey > 40:
        image[:16, SIDE - 16 :] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def person(number: int) -> str:
    return f"Person_{chr(65 + number)}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Fifteen people with two to four videos of three frames, and photographs; two more with those alone."""
    for number in range(17):
        name, grey = person(number), 60 + 10 * number
        for shot in range(1, 3):
            picture(tmp_path / "lfw" / name / f"{name}_{shot:04d}.jpg", grey)
        for video in range(2 + number % 3 if number < 15 else 0):
            for frame in (9, 10, 101):
                picture(
                    tmp_path / "ytf" / "frame_images_DB" / name / str(video) / f"{video}.{frame}.jpg", grey
                )
    return tmp_path


def run(data: Path, **options: object) -> BenchRun:
    chosen: dict[str, object] = {"stills": data / "lfw", "rounds": 50, "repetitions": 3, "fars": (0.1, 0.001)}
    return run_ident(data / "ytf", FaceModels(PlantedDetector(), PlantedEmbedder()), **(chosen | options))


def test_people_are_found_by_their_photographs(data: Path, tmp_path: Path) -> None:
    told = []
    result = run(data, on_progress=lambda stage, done, total: told.append((stage, done, total)))
    assert told[0] == ("stills", 1, 15)
    assert told[-1] == ("videos", 45, 45)
    assert result.benchmark == "ident"
    assert (result.data["people"], result.data["videos"], result.data["frames looked at"]) == (15, 45, 135)
    assert result.data["root"] == tmp_path.name
    for name in ("rank-1", "rank-1 openness=0.5", "dir@far=0.1 openness=0.5"):
        assert result.figures[name] == result.figures[f"{name} low"] == 1
    assert result.figures["dir@far=0.1 openness=0.5 sd"] == 0
    assert "rank-1 sd" not in result.figures, "nothing in it is chosen by chance"
    refused = result.figures["dir@far=0.001 openness=0.5"]
    assert refused.startswith("refused: ")
    assert refused.endswith(" impostor probes")
    assert any("needs at least 1,000 impostor probes" in note for note in result.notes)
    assert result.folds[0]["enrolled"] == 15
    for fold in result.folds[1:]:
        assert fold["genuine"] + fold["impostors"] == 45
        assert fold["genuine"] / fold["impostors"] == pytest.approx(0.5, abs=0.15)
    assert result.seconds.keys() >= {"decode", "detect", "align", "embed", "score"}
    save(result, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == result


def test_mistakes_are_shown_with_their_pictures(data: Path) -> None:
    # Photographs of A show B: a name's photographs and its videos are of different people.
    for shot in (1, 2):
        picture(data / "lfw" / person(0) / f"{person(0)}_{shot:04d}.jpg", 70)
    result = run(data, worst=3)
    assert result.figures["rank-1"] == pytest.approx(1 - (2 + 3) / 45), "B's videos tie, and a tie is lost"
    wrong = [pair for pair in result.pairs if pair.fold == 0]
    assert len(wrong) == 6
    won, lost = wrong[:2]
    assert won.first == lost.first == f"{person(0)}/0"
    assert (won.same, lost.same, lost.second) == (False, True, person(0))
    assert won.second != person(0)
    assert won.similarity > lost.similarity
    for pair in result.pairs:
        assert (data / pair.first_image).is_file()
        assert (data / pair.second_image).is_file()
    assert lost.second_image == f"lfw/{person(0)}/{person(0)}_0001.jpg"
    assert lost.first_image.startswith(f"ytf/frame_images_DB/{person(0)}/0/")
    alarms = [pair for pair in result.pairs if pair.fold == 1]
    assert len(alarms) == 3
    assert not any(pair.same for pair in alarms)
    nearest = [pair.similarity for pair in run(data, worst=45).pairs if pair.fold == 1]
    assert nearest[0] > nearest[-1]
    assert nearest == sorted(nearest, reverse=True)
    assert [pair.similarity for pair in alarms] == nearest[:3]

    names = data / "mismatches.txt"
    names.write_text(f"{person(0)}  # photographs of somebody else\nNot_There\n")
    without = run(data, leave_out=names)
    assert without.figures["rank-1"] == 1
    assert (without.data["people"], without.data["people left out"]) == (14, 1)
    assert without.data["names left out list"] == "mismatches.txt"
    assert len(without.data["names left out SHA-256"]) == 64
    assert f"left out by the list of names: 1: {person(0)}" in without.notes


def test_a_promised_rate_of_false_names_is_held_against_the_strangers(data: Path) -> None:
    models = FaceModels(PlantedDetector(), PlantedEmbedder(), tail=ImpostorTail(0.5, 0.6, 0.7))
    options = {"stills": data / "lfw", "rounds": 5, "repetitions": 3, "fars": (0.1,)}
    figures = run_ident(data / "ytf", models, **options).figures
    told = {name: figures[f"{name}@promise=0.1 openness=0.5"] for name in ("right", "wrong name")}
    assert told == {"right": 1, "wrong name": 0}
    strict = run_ident(data / "ytf", replace(models, tail=ImpostorTail(0.9, 0.95, 1.0)), **options)
    assert strict.figures["strangers named@promise=0.1 openness=0.5"] == 0
    assert strict.folds[1]["threshold@promise=0.1"] == 0.9, "five people at 0.1 ask for less than 1e-2"
    loose = run_ident(data / "ytf", replace(models, tail=ImpostorTail(-1.0, -0.9, -0.8)), **options)
    assert loose.figures["strangers named@promise=0.1 openness=0.5"] == 1
    assert not any("promise" in name for name in run(data).figures), (
        "nothing is known of the planted embedder"
    )


def test_photographs_are_templates_of_their_own(data: Path) -> None:
    # One photograph of A shows somebody else: it spoils the mean, but not the other photograph.
    picture(data / "lfw" / person(0) / f"{person(0)}_0001.jpg", 250)
    nearest = {}
    for score in ("templates", "mean"):
        faces = load_ident(
            data / "ytf", FaceModels(PlantedDetector(), PlantedEmbedder()), stills=data / "lfw"
        )
        result = judge_ident(faces, score=score, rounds=5, repetitions=1, fars=(), openness=())
        assert result.figures["rank-1"] == 1
        assert result.protocol["score"] == SCORES[score]
        nearest[score] = SetUp.of(faces.videos, faces.stills, "still-to-video", score, frozenset())
    own = {score: set_up.trial(None, [0], None).results.own.min() for score, set_up in nearest.items()}
    assert own["mean"] < 0.85 < own["templates"]


def test_single_videos_are_left_out(data: Path) -> None:
    names = data / "videos.txt"
    names.write_text(f"{person(0)}/1  # shows somebody else\n")
    result = run(data, leave_out=names)
    assert (result.data["people"], result.data["videos"]) == (15, 44)
    assert (result.data["people left out"], result.data["videos left out by themselves"]) == (0, 1)
    assert f"left out by the list of names: 1: {person(0)}/1" in result.notes


def test_a_second_run_takes_the_embeddings_from_the_cache(data: Path) -> None:
    embedder = PlantedEmbedder()
    models = FaceModels(PlantedDetector(), embedder)
    with VectorCache(data / "kept.sqlite") as cache:
        options = {"stills": data / "lfw", "cache": cache, "rounds": 5}
        first = run_ident(data / "ytf", models, workers=2, **options)
        embedded = embedder.crops
        assert embedded >= 15
        again = run_ident(data / "ytf", models, **options)
    assert embedder.crops == embedded
    assert first.figures == again.figures


def test_a_video_or_its_best_frame_is_enrolled(data: Path) -> None:
    for scenario in ("video-to-video", "frame-to-video"):
        result = run(data, stills=None, scenario=scenario, openness=REP_YTF_OPENNESS, fars=REP_YTF_FARS)
        assert result.figures["rank-1"] == 1
        assert result.figures["rank-1 sd"] == 0
        closed = result.folds[0]
        assert (closed["enrolled"], closed["genuine"], closed["impostors"]) == (15, 30, 0)
        assert result.protocol["scenario"] == scenario
        assert {f"rank-1 openness={ratio:g}" for ratio in REP_YTF_OPENNESS} <= result.figures.keys()


def test_the_seed_decides_who_is_enrolled(data: Path) -> None:
    first, again, other = (
        dataclasses.replace(run(data, seed=seed, openness=(0.2,)), seconds={}, measured_at=None)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.pairs != other.pairs


def test_distractors_enlarge_the_gallery(data: Path) -> None:
    result = run(data, distractors=True)
    assert result.data["distractors enrolled"] == 2
    assert result.folds[0]["enrolled"] == 17
    assert result.figures["rank-1"] == 1


def test_what_has_no_face_is_counted_and_never_found(data: Path) -> None:
    for frame in (9, 10, 101):
        picture(data / "ytf" / "frame_images_DB" / person(3) / "0" / f"0.{frame}.jpg", 10)
    picture(data / "ytf" / "frame_images_DB" / person(4) / "0" / "0.9.jpg", 10)
    (data / "ytf" / "frame_images_DB" / person(5) / "77").mkdir()
    result = run(data)
    assert result.data["frames without a face"] == 4
    assert result.data["videos without a face"] == 1
    assert result.data["videos without frames"] == 1
    assert result.figures["rank-1"] == result.figures["rank-5"] == pytest.approx(44 / 45)
    assert f"no face found, never identified: 1: {person(3)}/0" in result.notes
    assert not any(pair.first == f"{person(3)}/0" for pair in result.pairs if pair.fold == 0)


def test_damaged_images_are_an_error_or_counted(data: Path) -> None:
    path = data / "ytf" / "frame_images_DB" / person(3) / "0" / "0.10.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"0\.10\.jpg: it is cut off"):
        run(data)
    result = run(data, skip_unreadable=True)
    assert result.data["frames unreadable"] == 1
    assert result.data["frames looked at"] == 135
    assert result.figures["rank-1"] == 1
    assert "unreadable, skipped: 1: 0.10.jpg" in result.notes


def test_wrong_folders_and_arguments_are_refused(data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / "frame_images_DB").mkdir(parents=True)
    for videos, stills, message in [
        (data / "lfw", data / "lfw", "not YTF's folder"),
        (empty, data / "lfw", "holds no video such as"),
        (data / "ytf", empty, "holds no photograph such as"),
        (data / "ytf", data / "none", "no such folder"),
    ]:
        with pytest.raises(DatasetError, match=message):
            run_ident(videos, FaceModels(PlantedDetector(), PlantedEmbedder()), stills=stills)
    picture(tmp_path / "others" / "Zoe" / "Zoe_0001.jpg", 90)
    with pytest.raises(DatasetError, match="no name is both among the photographs and among the videos"):
        run(data, stills=tmp_path / "others")
    with pytest.raises(ValueError, match="video-to-video: stills are for still-to-video"):
        run(data, scenario="video-to-video")
    with pytest.raises(ValueError, match="stills are for still-to-video, and needed there; got None"):
        run(data, stills=None)
    with pytest.raises(ValueError, match="repetitions of at least 1"):
        run(data, repetitions=0)
    with pytest.raises(ValueError, match="openness: expected above 0"):
        run(data, openness=(0.0,))
    with pytest.raises(ValueError, match="frames first, spread or best"):
        run(data, frames="sharpest")
    with pytest.raises(ModelError, match="embeddings that are not finite"):
        load_ident(
            data / "ytf", FaceModels(PlantedDetector(), PlantedEmbedder(broken=True)), stills=data / "lfw"
        )


def test_a_folder_of_nobody_is_refused(data: Path) -> None:
    class Blind:
        def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
            return [Faces.none() for _ in images]

    with pytest.raises(DatasetError, match="no face was found in any video"):
        load_ident(data / "ytf", FaceModels(Blind(), PlantedEmbedder()))


def test_the_face_in_the_middle_or_the_labelled_one_is_taken(data: Path) -> None:
    folder = data / "ytf" / "frame_images_DB"
    (folder / f"{person(0)}.labeled_faces.txt").write_text(
        f"{person(0)}\\0\\0.9.jpg,0,{SIDE - 8},8,16,16,0,1\n"
    )
    (video, *_) = find_videos(data / "ytf")
    assert (video.name, video.person, len(video.paths)) == (f"{person(0)}/0", person(0), 3)
    embedder = PlantedEmbedder()
    (middle,) = embed_sets([video], FaceModels(PlantedDetector(), embedder))
    (labelled,) = embed_sets([video], FaceModels(PlantedDetector(), embedder), face="labelled")
    np.testing.assert_array_equal(middle.embeddings[1:], labelled.embeddings[1:])
    assert middle.embeddings[0] @ labelled.embeddings[0] < 0.9


def test_the_best_frames_are_those_of_the_highest_quality(data: Path) -> None:
    class Judging(PlantedDetector):
        def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
            faces = super().detect(images)
            scores = [image[32, 32, 1] / 255 for image in images]
            return [
                Faces(f.boxes_xyxy, np.full(len(f), score, np.float32), f.landmarks_xy)
                for f, score in zip(faces, scores, strict=True)
            ]

    class Textured(PlantedEmbedder):
        def portraits(self, crops: np.ndarray) -> np.ndarray:
            return np.random.default_rng(0).integers(0, 255, (len(crops), 112, 112, 3), np.uint8)

    greys = np.random.default_rng(1).permutation(np.arange(45, 245, 5))
    paths = []
    for number, grey in enumerate(greys.tolist()):
        paths.append(data / "many" / f"{number}.jpg")
        picture(paths[-1], grey)
    embedder = Textured()
    video = ImageSet("Ann/0", "Ann", tuple(paths))
    (best,) = embed_sets([video], FaceModels(Judging(), embedder), most=3, frames="best")
    assert embedder.crops == 3, "the others cost no embedding"
    assert best.paths == tuple(paths[row] for row in np.sort(np.argsort(greys)[-3:]))
    assert (best.looked_at, best.without_face) == (40, 0)
    assert best.paths[best.best] == paths[int(greys.argmax())]
    assert best.best_only().paths == (paths[int(greys.argmax())],)
    (spread,) = embed_sets([video], FaceModels(Judging(), embedder), most=3, frames="spread")
    assert spread.paths == (paths[0], paths[20], paths[39])
    (nobody,) = embed_sets([ImageSet("Bo/0", "Bo", ())], FaceModels(Judging(), embedder))
    assert nobody.best is None
    assert nobody.best_only().embeddings.shape == (0, 32)


def test_templates_are_made_as_the_score_and_the_scenario_say() -> None:
    ann, bo = np.eye(4, dtype=np.float32)[:2]

    def video(name: str, faces: list[np.ndarray], qualities: list[float]) -> FaceSet:
        paths = tuple(Path(f"{name}.{number}.jpg") for number in range(len(faces)))
        worth = np.array(qualities, np.float32)
        return FaceSet(name, name.partition("/")[0], np.stack(faces), worth, paths, len(faces), 0)

    # Ann's videos have two poor frames in which she looks like Bo.
    videos = (
        *(video(f"Ann/{number}", [ann, bo, bo], [0.9, 0.05, 0.05]) for number in range(2)),
        *(video(f"Bo/{number}", [bo], [0.9]) for number in range(2)),
    )
    nearest = {}
    for scenario in ("video-to-video", "frame-to-video"):
        for score in ("weighted", "mean"):
            result = judge_ident(
                IdentFaces((), videos, Path()),
                scenario=scenario,
                score=score,
                seed=0,
                rounds=5,
                repetitions=1,
                fars=(),
            )
            alarm = next(pair for pair in result.pairs if pair.fold == 1)
            assert (alarm.first[:2], alarm.second[:3]) == ("Bo", "Ann"), "whom seed 0 enrols"
            nearest[scenario, score] = alarm.similarity
    assert nearest["video-to-video", "weighted"] == pytest.approx(0.1 / np.hypot(0.9, 0.1))
    assert nearest["video-to-video", "mean"] == pytest.approx(2 / np.hypot(1, 2))
    assert nearest["frame-to-video", "weighted"] == nearest["frame-to-video", "mean"] == 0


def test_trials_split_people(data: Path) -> None:
    faces = load_ident(data / "ytf", FaceModels(PlantedDetector(), PlantedEmbedder()))
    videos = {
        name: [v for v in faces.videos if v.person == name] for name in {v.person for v in faces.videos}
    }
    for openness in (0.1, 0.2, 0.5, 0.9, 3.0):
        trial = make_trial(videos, None, openness=openness, seed=[4])
        enrolled = {each.person for each in trial.gallery}
        assert len(enrolled) == len(trial.gallery)
        names = [each.name for each in (*trial.gallery, *trial.probes)]
        assert len(names) == len(set(names)) == len(faces.videos), "each video has one part"
        genuine = sum(each.person in enrolled for each in trial.probes)
        assert genuine / (len(trial.probes) - genuine) == pytest.approx(openness, rel=0.35, abs=0.05)
    some = make_trial(videos, None, openness=0.5, seed=[4], people=6)
    assert len({each.person for each in (*some.gallery, *some.probes)}) == 6
    alone = {name: own[:1] for name, own in videos.items()}
    with pytest.raises(DatasetError, match="nobody can be enrolled"):
        make_trial(alone, None, openness=0.5, seed=[0])
    one = {person(0): videos[person(0)]}
    with pytest.raises(DatasetError, match="nobody is left to be an impostor"):
        make_trial(one, None, openness=0.5, seed=[0])
    mixed = alone | {person(1): videos[person(1)]}
    assert {each.person for each in make_trial(mixed, None, openness=9.0, seed=[0]).gallery} == {person(1)}


def test_stages_are_timed_even_if_they_fail() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.time("detect"):
        _ = 1 / 0
    assert watch.seconds["detect"] > 0


def test_photographs_are_found(data: Path) -> None:
    (data / "lfw" / person(0) / "Thumbs.db").touch()
    (data / "lfw" / "Empty").mkdir()
    sets = find_stills(data / "lfw")
    assert [each.person for each in sets] == [person(number) for number in range(17)]
    assert [path.name for path in sets[0].paths] == [f"{person(0)}_0001.jpg", f"{person(0)}_0002.jpg"]
