from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bench_stand_ins import frame, make_ytf, pattern_models, write
from hypothesis import given
from hypothesis import strategies as st

from engine.embeddings import unit_rows
from engine.errors import DatasetError, ModelError
from training.data.person_faces import FaceSet
from training.data.results import load, save
from training.evaluation.cluster_agreement import Agreement, b_cubed, pairwise
from training.evaluation.clustering import judge_clusters, run_cluster, stream_groups

LABELS = st.integers(1, 25).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 5), min_size=n, max_size=n) for _ in range(2)))
)


def slow_b_cubed(groups: list[int], people: list[int]) -> Agreement:
    items = range(len(groups))
    precision = recall = 0.0
    for item in items:
        group = [i for i in items if groups[i] == groups[item]]
        person = [i for i in items if people[i] == people[item]]
        common = len(set(group) & set(person))
        precision += common / len(group)
        recall += common / len(person)
    return Agreement(precision / len(groups), recall / len(groups))


def slow_pairwise(groups: list[int], people: list[int]) -> Agreement:
    pairs = [(i, j) for i in range(len(groups)) for j in range(i)]
    joined = {(i, j) for i, j in pairs if groups[i] == groups[j]}
    own = {(i, j) for i, j in pairs if people[i] == people[j]}
    right = len(joined & own)
    return Agreement(right / len(joined) if joined else 1.0, right / len(own) if own else 1.0)


@given(LABELS)
def test_agreement_is_that_of_the_obvious_loops(labels: tuple[list[int], list[int]]) -> None:
    arrays = [np.array(each, np.intp) for each in labels]
    for fast, slow in ((b_cubed, slow_b_cubed), (pairwise, slow_pairwise)):
        got, expected = fast(*arrays), slow(*labels)
        assert (got.precision, got.recall) == pytest.approx((expected.precision, expected.recall))


def test_agreement_of_right_groups_is_whole_and_of_one_heap_is_not() -> None:
    people = np.array([0, 0, 1, 1], np.intp)
    assert b_cubed(people + 7, people) == pairwise(people + 7, people) == Agreement(1.0, 1.0)
    heap = b_cubed(np.zeros(4, np.intp), people)
    assert (heap.precision, heap.recall, heap.f) == (0.5, 1.0, pytest.approx(2 / 3))
    assert Agreement(0.0, 0.0).f == 0.0
    with pytest.raises(ValueError, match="as many groups as people"):
        b_cubed(people, people[:3])


def video(number: int, person: int, spread: float) -> FaceSet:
    centre = np.random.default_rng(person).normal(size=16)
    vector = unit_rows(centre[None] + spread * np.random.default_rng([person, number]).normal(size=(1, 16)))
    name = f"Person_{person}"
    return FaceSet(f"{name}/{number}", name, vector, np.ones(1, np.float32), (Path("a.jpg"),), 1, 0)


def test_videos_of_people_who_are_far_apart_are_grouped_by_all() -> None:
    pytest.importorskip("sklearn")
    sets = [video(number, person, 0.1) for person in range(9) for number in range(3)]
    figures = judge_clusters(sets, cut=0.75, orders=2)
    assert (figures["groups"], figures["people"]) == (9, 9)
    for suffix in ("", " stream", " dbscan", " hdbscan"):
        assert figures[f"b-cubed f{suffix}"] == figures[f"pairwise f{suffix}"] == 1
    assert figures["b-cubed f best cut"] == 1
    worse = judge_clusters(sets, cut=0.999, orders=0, rivals=False)
    assert worse["b-cubed precision"] == 1
    assert worse["b-cubed recall"] < 0.5
    assert not any(name.endswith(("stream", "dbscan")) for name in worse)


def test_videos_are_grouped_from_folder_to_record(tmp_path: Path) -> None:
    make_ytf(tmp_path, people=6, videos=3, frames=2, noise=5.0)
    names = tmp_path / "names.txt"
    names.write_text("Person_AA\nPerson_AB/2  # shows somebody else\n")
    told: list[tuple[int, int]] = []
    run = run_cluster(
        tmp_path,
        pattern_models(),
        cut=0.8,
        caution=0.01,
        leave_out=names,
        rivals=False,
        orders=2,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (14, 14)
    assert (run.data["people"], run.data["videos"], run.data["frames looked at"]) == (5, 14, 28)
    assert run.figures["b-cubed f"] == run.figures["b-cubed f stream"] == 1
    assert (run.protocol["cut"], run.protocol["caution"], run.protocol["embedder"]) == (0.8, 0.01, "pattern")
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == run


def test_videos_without_a_face_are_counted_or_told_of(tmp_path: Path) -> None:
    make_ytf(tmp_path, people=3, videos=2, frames=1)
    write(tmp_path / "frame_images_DB" / "Person_AA" / "0" / "0.1.jpg", frame(None))
    run = run_cluster(tmp_path, pattern_models(), cut=0.8, rivals=False, orders=0)
    assert (run.data["videos"], run.data["videos without a face"]) == (5, 1)
    for path in (tmp_path / "frame_images_DB").rglob("*.jpg"):
        write(path, frame(None))
    with pytest.raises(DatasetError, match="no face was found in any video"):
        run_cluster(tmp_path, pattern_models(), cut=0.8)


def test_a_stream_is_followed_through_its_merges() -> None:
    vectors = np.concatenate(
        [video(number, person, 0.25).embeddings for number in range(40) for person in (1, 2)]
    )
    groups = stream_groups(vectors, 0.6, 0.1)
    assert len(np.unique(groups)) == 2
    assert b_cubed(groups, np.tile([0, 1], 40)).f == 1


def test_rivals_that_are_not_installed_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ModelError, match=r"'facestream\[bench\]', or leave them out \(--no-rivals\)"):
        judge_clusters([video(0, 0, 0.1), video(1, 0, 0.1)], cut=0.5)
