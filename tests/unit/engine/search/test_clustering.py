from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from engine.embeddings import unit_rows
from engine.models.package import Likeness
from engine.search.clustering import StreamClusterer, cluster, cluster_cut, stream_caution


def people(count: int, faces: int, *, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    names = np.repeat(np.arange(count), faces)
    centres = random.normal(size=(count, 16))
    return unit_rows(centres[names] + spread * random.normal(size=(len(names), 16))), names


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def average_linkage(embeddings: np.ndarray, cut: float) -> np.ndarray:
    distances = 1 - embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform((distances + distances.T) / 2, checks=False), "average")
    return fcluster(tree, 1 - cut, "distance")


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.1, 1.5), st.floats(-0.2, 0.95))
def test_groups_are_those_of_average_linkage(seed: int, count: int, spread: float, cut: float) -> None:
    embeddings, _ = people(max(count // 3, 1), 3, spread=spread, seed=seed)
    assert partition(cluster(embeddings, cut)) == partition(average_linkage(embeddings, cut))


@given(st.integers(0, 10_000), st.lists(st.integers(1, 3), min_size=1, max_size=15), st.floats(0.0, 0.9))
def test_a_weight_counts_as_so_many_of_the_same(seed: int, weights: list[int], cut: float) -> None:
    embeddings = unit_rows(np.random.default_rng(seed).normal(size=(len(weights), 4)))
    weighted = cluster(embeddings, cut, weights=np.array(weights, np.float32))
    repeated = cluster(np.repeat(embeddings, weights, axis=0), cut)
    first = np.cumsum([0, *weights[:-1]])
    assert partition(weighted) == partition(repeated[first])


def test_groups_are_numbered_in_the_order_of_their_first_members() -> None:
    vectors = np.eye(3, dtype=np.float32)[[2, 0, 2, 1, 0]]
    assert cluster(vectors, 0.5).tolist() == [0, 1, 0, 2, 1]
    assert cluster(vectors[:0], 0.5).tolist() == []
    assert cluster(vectors[:1], 0.5).tolist() == [0]


def test_many_copies_of_one_face_end_in_one_group() -> None:
    assert not cluster(np.tile(unit_rows(np.ones((1, 7))), (200, 1)), 0.9).any()


def test_clustering_refuses_what_does_not_fit() -> None:
    for embeddings, weights, message in [
        (np.full((2, 3), np.nan, np.float32), None, "finite numbers"),
        (np.ones(3, np.float32), None, r"\(N, D\)"),
        (np.eye(2, dtype=np.float32), np.array([1.0, 0.0]), "above 0"),
        (np.eye(2, dtype=np.float32), np.ones(3), r"expected \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            cluster(embeddings, 0.5, weights=weights)


def follow(clusterer: StreamClusterer, batches: list[np.ndarray]) -> np.ndarray:
    groups: list[int] = []
    for batch in batches:
        found = clusterer.add(batch)
        for gone, kept in found.merged:
            groups = [kept if group == gone else group for group in groups]
        groups += found.groups.tolist()
    for gone, kept in clusterer.settle():
        groups = [kept if group == gone else group for group in groups]
    return np.array(groups)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_stream_of_people_who_are_far_apart_gives_the_groups_of_all_at_once(size: int) -> None:
    embeddings, names = people(12, 5, spread=0.25, seed=3)
    order = np.random.default_rng(0).permutation(len(embeddings))
    batches = [embeddings[order[start : start + size]] for start in range(0, len(order), size)]
    assert partition(follow(StreamClusterer(0.6), batches)) == partition(names[order])


@given(st.integers(0, 10_000), st.floats(0.0, 0.9))
def test_one_batch_gives_exactly_the_groups_of_all_at_once(seed: int, cut: float) -> None:
    embeddings, _ = people(6, 4, spread=0.8, seed=seed)
    found = StreamClusterer(cut).add(embeddings)
    np.testing.assert_array_equal(found.groups, cluster(embeddings, cut))
    assert found.merged == ()


def test_groups_that_turn_out_to_be_one_person_are_told_and_the_older_is_kept() -> None:
    angle = np.radians([0.0, 70.0, 35.0])
    left, right, between = (np.array([[np.cos(a), np.sin(a)]], np.float32) for a in angle)
    clusterer = StreamClusterer(0.55)
    assert clusterer.add(left).groups.tolist() == [0]
    assert clusterer.add(right).groups.tolist() == [1]
    found = clusterer.add(between)
    assert (found.groups.tolist(), found.merged) == ([0], ((1, 0),))
    assert len(clusterer) == 1
    assert clusterer.add(-left).groups.tolist() == [2], "ids are never used again"


def test_young_groups_wait_for_more_evidence_until_the_stream_settles() -> None:
    one, other = (np.array([[np.cos(a), np.sin(a)]], np.float32) for a in np.radians([0.0, 50.0]))
    clusterer = StreamClusterer(0.6, caution=0.1)
    clusterer.add(one)
    assert clusterer.add(other).groups.tolist() == [1], "0.64 - 0.1 - 0.1 is below the cut"
    assert clusterer.add(other, weights=np.array([9.0])).groups.tolist() == [1]
    assert clusterer.settle() == ((1, 0),)
    assert len(clusterer) == 1
    assert clusterer.settle() == ()
    with pytest.raises(ValueError, match="caution"):
        StreamClusterer(0.5, caution=-0.1)


def test_caution_is_on_the_scale_of_the_model() -> None:
    assert stream_caution(Likeness(2.0, -1.0)) == stream_caution(Likeness()) / 2


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_no_two_groups_are_left_that_should_be_one(seed: int, caution: float) -> None:
    embeddings, _ = people(8, 5, spread=1.0, seed=seed)
    order = np.random.default_rng(seed).permutation(len(embeddings))
    groups = follow(
        StreamClusterer(0.5, caution=caution), [embeddings[order[at : at + 3]] for at in range(0, 40, 3)]
    )
    means = np.stack([embeddings[order][groups == group].mean(axis=0) for group in np.unique(groups)])
    between = means @ means.T
    assert np.triu(between, 1).max() < 0.5 + 1e-6


def test_the_longest_untouched_group_is_forgotten() -> None:
    axes = np.eye(4, dtype=np.float32)
    clusterer = StreamClusterer(0.5, most_groups=2)
    clusterer.add(axes[:2])
    clusterer.add(axes[:1])
    found = clusterer.add(axes[2:3])
    assert (found.forgotten, len(clusterer)) == ((1,), 2)
    assert clusterer.add(axes[1:2]).groups.tolist() == [3]
    with pytest.raises(ValueError, match="expected 4 numbers"):
        clusterer.add(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="most_groups"):
        StreamClusterer(0.5, most_groups=0)


def test_an_empty_batch_changes_nothing() -> None:
    clusterer = StreamClusterer(0.5)
    assert clusterer.add(np.empty((0, 4), np.float32)).groups.tolist() == []
    clusterer.add(np.eye(4, dtype=np.float32))
    assert clusterer.add(np.empty((0, 4), np.float32)).groups.shape == (0,)
    assert len(clusterer) == 4


def test_models_that_were_not_measured_get_the_cut_of_sface_on_their_scale() -> None:
    assert cluster_cut("mine", Likeness()) == cluster_cut("sface-2021dec", Likeness(3.0, 1.0))
    assert 2 * cluster_cut("mine", Likeness(2.0, -0.5)) - 0.5 == pytest.approx(0.415)
