from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.embeddings import Embeddings, unit_rows
from engine.search.faiss_scan import CompressedScan, can_scan
from engine.search.index import Store, TemplateIndex

needs_faiss = pytest.mark.skipif(not can_scan(128), reason="faiss is not installed: pip install faiss-cpu")


def people(count: int, size: int = 32, *, seed: int = 0) -> Embeddings:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, size)))


def noisy(embeddings: Embeddings, *, seed: int = 1) -> Embeddings:
    noise = np.random.default_rng(seed).standard_normal(embeddings.shape)
    return unit_rows(embeddings + noise / np.sqrt(embeddings.shape[1]))


def numbers(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int64)


@pytest.mark.parametrize("store", ["float32", "int8"])
def test_the_nearest_come_first_as_a_plain_sort_has_them(store: Store) -> None:
    templates, queries = people(500), people(7, seed=9)
    index = TemplateIndex(32, store=store)
    index.add(numbers(500, start=100), templates)
    keys, cosines = index.search(queries, 5)
    exact = queries @ templates.T
    tolerance = 1e-6 if store == "float32" else 0.01
    np.testing.assert_allclose(cosines, -np.sort(-exact, axis=1)[:, :5], atol=tolerance)
    np.testing.assert_allclose(np.take_along_axis(exact, keys - 100, axis=1), cosines, atol=tolerance)
    assert index.is_exact
    assert len(index) == 500


def test_what_is_not_there_has_the_key_minus_one() -> None:
    index = TemplateIndex(4)
    keys, cosines = index.search(people(2, 4), 3)
    assert keys.tolist() == [[-1] * 3] * 2
    assert cosines.tolist() == [[-1.0] * 3] * 2
    index.add(numbers(1), people(1, 4))
    assert index.search(people(1, 4), 3)[0].tolist() == [[0, -1, -1]]


def test_what_is_removed_is_not_found_and_its_numbers_are_gone() -> None:
    templates = people(100)
    index = TemplateIndex(32)
    index.add(numbers(100), templates)
    assert index.remove(np.array([7, 8, 4711])) == 2
    keys, _ = index.search(templates[7:8], 99)
    assert not set(keys.ravel().tolist()) & {7, 8}
    assert len(index) == 98
    assert not any((block == templates[7]).all(axis=1).any() for block in index._rows._values)
    index.add(np.array([7]), templates[7:8])
    assert index.search(templates[7:8], 1)[0].tolist() == [[7]]


@pytest.mark.parametrize(
    ("keys", "embeddings"),
    [
        (np.array([1, 1]), people(2)),
        (np.array([-1]), people(1)),
        (np.array([5]), people(1)),
        (np.array([9.0]), people(1)),
        (np.array([9]), people(2)),
        (np.array([9]), people(1, 8)),
        (np.array([9]), people(1).astype(np.float64)),
        (np.array([9]), np.full((1, 32), np.nan, np.float32)),
    ],
)
def test_what_does_not_fit_is_refused(keys: np.ndarray, embeddings: np.ndarray) -> None:
    index = TemplateIndex(32)
    index.add(numbers(6), people(6))
    with pytest.raises(ValueError, match=r"keys|embeddings"):
        index.add(keys, embeddings)
    assert len(index) == 6


@pytest.mark.parametrize(
    "arguments", [{"size": 0}, {"size": 4, "store": "int4"}, {"size": 4, "scan_from": 9}]
)
def test_settings_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TemplateIndex(**arguments)  # type: ignore[arg-type]


def test_queries_that_do_not_fit_are_refused() -> None:
    index = TemplateIndex(32)
    for queries, k in ((people(1, 8), 1), (people(1)[0], 1), (people(1), 0)):
        with pytest.raises(ValueError, match="queries"):
            index.search(queries, k)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40), st.sampled_from(["float32", "int8"])
)
def test_any_adding_and_removing_leaves_what_a_dict_has(
    changes: list[tuple[bool, int]], store: Store
) -> None:
    templates = people(31, 8)
    index, oracle = TemplateIndex(8, store=store), set[int]()
    for is_added, key in changes:
        one = np.array([key])
        if is_added and key not in oracle:
            index.add(one, templates[key : key + 1])
            oracle.add(key)
        elif not is_added:
            assert index.remove(one) == (key in oracle)
            oracle.discard(key)
    found = index.search(templates[:1], 40)[0]
    assert set(found[found >= 0].tolist()) == oracle
    assert len(index) == len(oracle)


@needs_faiss
@pytest.mark.parametrize("store", ["float32", "int8"])
def test_many_are_scanned_and_found_as_exactly_as_few(store: Store) -> None:
    templates = people(6_000)
    index = TemplateIndex(32, store=store, scan_from=5_000)
    index.add(numbers(4_000), templates[:4_000])
    assert index.is_exact
    index.add(numbers(2_000, start=4_000), templates[4_000:])
    assert not index.is_exact
    queries = noisy(templates[::60])
    keys, cosines = index.search(queries, 10)
    exact = queries @ templates.T
    assert np.mean(keys[:, 0] == exact.argmax(axis=1)) >= 0.99
    if store == "float32":
        np.testing.assert_allclose(cosines[:, 0], exact.max(axis=1), atol=1e-5)
    index.remove(keys[:, 0])
    assert not np.isin(index.search(queries, 10)[0], keys[:, 0]).any()


@needs_faiss
def test_so_many_removals_make_the_scan_anew_and_few_are_exact_again() -> None:
    templates = people(12_000, 8)
    index = TemplateIndex(8, scan_from=5_000)
    index.add(numbers(12_000), templates)
    scan = index._scan
    index.remove(numbers(9_000))
    assert index._scan is not scan
    assert index.is_exact
    assert index.search(templates[9_500:9_501], 1)[0].tolist() == [[9_500]]


@needs_faiss
def test_searches_go_on_while_others_add() -> None:
    templates = people(9_000)
    index = TemplateIndex(32, scan_from=4_000)
    index.add(numbers(2_000), templates[:2_000])
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for start in range(2_000, 9_000, 100):
                index.add(numbers(100, start), templates[start : start + 100])
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    writer = threading.Thread(target=add)
    writer.start()
    searches = 0
    while writer.is_alive() or not searches:
        keys, cosines = index.search(templates[:3], 1)
        assert keys.ravel().tolist() == [0, 1, 2]
        np.testing.assert_allclose(cosines, 1.0, atol=1e-5)
        searches += 1
    writer.join()
    assert failures == []
    assert len(index) == 9_000
    assert index.search(templates[-1:], 1)[0].tolist() == [[8_999]]


def test_an_odd_length_is_searched_exactly() -> None:
    assert not can_scan(3)
    index = TemplateIndex(3, scan_from=2_048)
    index.add(numbers(3_000), people(3_000, 3))
    assert index.is_exact


@needs_faiss
def test_a_scan_wants_enough_to_learn_from() -> None:
    with pytest.raises(ValueError, match="sample"):
        CompressedScan(people(10))
