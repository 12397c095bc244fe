from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import DatasetError
from training.data.person_faces import FaceSet
from training.evaluation.fold_accuracy import NEVER_ACCEPTED, PairScores
from training.evaluation.identification.audit import audit, audit_videos, pictures
from training.evaluation.identification.benchmark import IdentFaces
from training.evaluation.mislabelled import Mismatch, propose_mismatches
from training.report.contact_sheet import write_contact_sheet

PEOPLE = [f"Person_{number}" for number in range(40)]


def still_to_video(namesakes: set[str], *, seed: int = 0) -> tuple[PairScores, list[str]]:
    """Two stills of each person against three videos of each; namesakes' videos show somebody else."""
    random = np.random.default_rng(seed)
    names, similarities, same = [], [], []
    for still in PEOPLE:
        for video in PEOPLE:
            alike = still == video and still not in namesakes
            names += [still] * 6
            same += [still == video] * 6
            similarities += random.normal(0.6 if alike else 0.05, 0.1, 6).tolist()
    return PairScores(np.array(similarities), np.array(same), np.zeros(len(same), np.intp)), names


@pytest.mark.parametrize("count", [0, 1, 6, 15])
def test_names_that_show_two_people_are_proposed(count: int) -> None:
    namesakes = set(PEOPLE[3 : 3 + count])
    found = propose_mismatches(*still_to_video(namesakes))
    assert {each.name for each in found} == namesakes
    assert [each.median for each in found] == sorted(each.median for each in found)
    for each in found:
        assert each.pairs == 6
        assert each.median < each.threshold
        assert 0.1 < each.threshold < 0.6
        assert 3 <= each.below <= 6


def test_a_bad_pair_does_not_condemn_a_name() -> None:
    scores, names = still_to_video(set())
    own = [row for row, name in enumerate(names) if name == PEOPLE[0] and scores.same[row]]
    similarities = scores.similarities.copy()
    similarities[own[:2]] = 0.0
    assert propose_mismatches(PairScores(similarities, scores.same, scores.folds), names) == []
    similarities[own[:4]] = 0.0
    (found,) = propose_mismatches(PairScores(similarities, scores.same, scores.folds), names)
    assert (found.name, found.below) == (PEOPLE[0], 4)


def test_pairs_without_a_face_say_nothing() -> None:
    scores, names = still_to_video({PEOPLE[9]})
    similarities = scores.similarities.copy()
    similarities[[row for row, name in enumerate(names) if name == PEOPLE[0]]] = NEVER_ACCEPTED
    found = propose_mismatches(PairScores(similarities, scores.same, scores.folds), names)
    assert [each.name for each in found] == [PEOPLE[9]]


def test_what_cannot_be_audited() -> None:
    scores, names = still_to_video(set())
    with pytest.raises(ValueError, match=r"names: expected 9600, one for each pair, got 3"):
        propose_mismatches(scores, names[:3])
    with pytest.raises(DatasetError, match="genuine and impostor pairs"):
        propose_mismatches(scores[scores.same], [n for n, s in zip(names, scores.same, strict=True) if s])


def test_the_contact_sheet_shows_both_sides(tmp_path: Path) -> None:
    picture = tmp_path / "<b>.jpg"
    cv2.imwrite(str(picture), np.full((300, 200, 3), 90, np.uint8))
    proposed = [Mismatch("Ann_<script>", 0.1, 0.3, 6, 5), Mismatch("Bob", 0.2, 0.3, 1, 1)]
    path = tmp_path / "sheet.html"
    write_contact_sheet(proposed, {"Ann_<script>": [picture]}, {"Ann_<script>": [picture] * 30}, path)
    page = path.read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o600, "it holds faces"
    assert "<script" not in page
    assert "Ann &lt;script&gt;" in page
    assert page.count("<img") == 1 + 8
    assert "frames of videos: 30, 8 shown" in page
    assert "5 of 6 pairs below it" in page
    assert page.index("Ann ") < page.index("Bob")
    write_contact_sheet([], {}, {}, path)
    assert "No name is proposed." in path.read_text("utf-8")


def planted(name: str, shows: str) -> FaceSet:
    """Three faces of a person under some name, alike as photographs of one person are."""
    of_person = np.random.default_rng(PEOPLE.index(shows)).normal(size=64)
    random = np.random.default_rng([*name.encode()])
    rows = of_person + 0.6 * random.normal(size=(3, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    paths = tuple(Path(name, f"{number}.jpg") for number in range(3))
    worth = np.ones(3, np.float32)
    return FaceSet(name, name.partition("/")[0], rows.astype(np.float32), worth, paths, 3, 0)


def faces_of_people(shown: dict[str, str]) -> IdentFaces:
    """A still and two videos of each person, of whom some videos show somebody else."""
    videos = [f"{name}/{number}" for name in PEOPLE for number in range(2)]
    return IdentFaces(
        tuple(planted(name, name) for name in PEOPLE),
        tuple(planted(name, shown.get(name, name.partition("/")[0])) for name in videos),
        Path(),
    )


def test_single_videos_of_somebody_else_are_proposed() -> None:
    wrong = {"Person_3/0": PEOPLE[7], "Person_20/1": PEOPLE[4], "Person_30/0": PEOPLE[31]}
    faces = faces_of_people(wrong)
    found = audit_videos(faces)
    assert {each.name for each in found} == set(wrong)
    assert {each.pairs for each in found} == {2}
    assert [each.median for each in found] == sorted(each.median for each in found)
    assert audit(faces) == []
    names = {"Person_3/0", "Person_5"}
    videos, stills = pictures(faces.videos, names), pictures(faces.stills, names)
    assert [len(each) for each in (videos["Person_3/0"], videos["Person_5"])] == [3, 6]
    assert {path.parent.name for path in stills["Person_3/0"]} == {"Person_3"}
    assert len(stills["Person_5"]) == 3


def test_videos_of_people_who_are_left_out_are_not_judged() -> None:
    faces = faces_of_people({"Person_3/0": PEOPLE[7], "Person_9/0": PEOPLE[8], "Person_9/1": PEOPLE[8]})
    (namesake,) = audit(faces)
    assert namesake.name == "Person_9"
    assert [each.name for each in audit_videos(faces, leave_out={"Person_9"})] == ["Person_3/0"]
    assert audit_videos(faces, leave_out=set(PEOPLE)) == []
    assert audit_videos(faces, leave_out=set(PEOPLE[1:])) == []
    assert audit_videos(IdentFaces(faces.stills, (), Path())) == []
