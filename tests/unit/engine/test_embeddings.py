from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.embeddings import dequantise_int8, quantise_int8, similarity, unit_rows

numbers = st.floats(-1e3, 1e3, width=32)
vectors = hnp.arrays(np.float32, (4, 16), elements=numbers)


@given(vectors)
def test_rows_get_unit_length_and_keep_their_direction(rows: np.ndarray) -> None:
    units = unit_rows(rows)
    assert units.dtype == np.float32
    for row, unit in zip(rows.astype(float), units, strict=True):
        length = np.sqrt(sum(x * x for x in row))
        if length > 1e-3:
            assert unit == pytest.approx(row / length, abs=1e-5)


def test_a_row_of_zeros_stays_zero() -> None:
    assert not unit_rows(np.zeros((2, 8), np.float32)).any()


def test_a_single_vector_is_fine() -> None:
    assert unit_rows(np.array([3.0, 4.0])) == pytest.approx([0.6, 0.8])


@given(vectors, vectors)
def test_similarity_is_each_cosine_and_gives_the_distance(a: np.ndarray, b: np.ndarray) -> None:
    a, b = unit_rows(a + 2e3), unit_rows(b - 2e3)
    got = similarity(a, b)
    assert got.shape == (4, 4)
    for i in range(4):
        for j in range(4):
            assert 2 - 2 * got[i, j] == pytest.approx(((a[i] - b[j]) ** 2).sum(), abs=1e-4)


@given(hnp.arrays(np.float32, 128, elements=numbers))
def test_int8_is_within_half_a_step(vector: np.ndarray) -> None:
    values, scale = quantise_int8(vector)
    assert values.dtype == np.int8
    assert scale > 0
    assert -127 <= values.min() <= values.max() <= 127
    assert np.abs(values * scale - vector).max() <= scale * 0.501 + 1e-30


def test_int8_keeps_the_direction() -> None:
    units = unit_rows(np.random.default_rng(0).normal(size=(200, 128)))
    back = np.stack([dequantise_int8(*quantise_int8(unit)) for unit in units])
    assert np.linalg.norm(back, axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    assert (units * back).sum(axis=1).min() > 0.9995


def test_zero_survives_int8() -> None:
    values, scale = quantise_int8(np.zeros(8, np.float32))
    assert not dequantise_int8(values, scale).any()


@pytest.mark.parametrize("bad", [np.array([np.nan, 1]), np.array([np.inf, 1]), np.zeros((2, 2))])
def test_int8_refuses_what_is_no_embedding(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite vector of one dimension"):
        quantise_int8(bad.astype(np.float32))
