from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching import batch_sizes


@given(st.integers(0, 500), st.integers(1, 64))
def test_batches_cover_everything_in_few_sizes(count: int, largest: int) -> None:
    sizes = batch_sizes(count, largest=largest)
    assert sum(sizes) == count
    assert sizes == sorted(sizes, reverse=True)
    assert all(size == largest or (size < largest and size.bit_count() == 1) for size in sizes)
    rest = [size for size in sizes if size != largest]
    assert len(rest) == len(set(rest))


def test_an_example() -> None:
    assert batch_sizes(11, largest=4) == [4, 4, 2, 1]


@pytest.mark.parametrize(("count", "largest"), [(-1, 4), (1, 0)])
def test_nonsense_is_refused(count: int, largest: int) -> None:
    with pytest.raises(ValueError, match="expected count"):
        batch_sizes(count, largest=largest)
