from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from bench_runs import made_run
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DatasetError
from training.data.results import BenchRun
from training.evaluation.compare import Comparison, compare, comparison_text
from training.evaluation.fold_accuracy import k_fold_accuracy
from training.evaluation.judged_pairs import judge, scores_of

RUN = made_run(per_kind=40, apart=0.4)


def with_pairs_wrong(run: BenchRun, rows: list[int]) -> BenchRun:
    """The run, but these pairs lie on the wrong side of their threshold and all others on the right one."""
    threshold = judge(run).thresholds
    pairs = tuple(
        dataclasses.replace(pair, similarity=threshold[row] + (0.1 if pair.same != (row in rows) else -0.1))
        for row, pair in enumerate(run.pairs)
    )
    return dataclasses.replace(run, pairs=pairs)


def test_pairs_are_judged_by_the_thresholds_of_their_folds() -> None:
    expected = k_fold_accuracy(scores_of(RUN))
    np.testing.assert_array_equal(judge(RUN).correct, expected.correct)
    without = dataclasses.replace(RUN, folds=())
    np.testing.assert_array_equal(judge(without).correct, expected.correct)
    turned = dataclasses.replace(RUN, folds=RUN.folds[::-1])
    np.testing.assert_array_equal(judge(turned).correct, expected.correct)


def test_margins_are_below_zero_where_the_judgement_is_wrong() -> None:
    judged = judge(with_pairs_wrong(RUN, [3, 50]))
    assert np.flatnonzero(judged.margins < 0).tolist() == [3, 50]
    assert np.flatnonzero(~judged.correct).tolist() == [3, 50]


def test_runs_whose_folds_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match="expected a threshold for each of the pairs' 4 folds, got 3"):
        judge(dataclasses.replace(RUN, folds=tuple({"threshold": 0.3} for _ in range(3))))
    with pytest.raises(DatasetError, match=r"folds are \[1, 2, 3\], its pairs' \[1, 2, 3, 4\]"):
        judge(dataclasses.replace(RUN, folds=RUN.folds[:3]))
    for run in (dataclasses.replace(RUN, pairs=()), dataclasses.replace(RUN, benchmark="ident")):
        with pytest.raises(DatasetError, match="does not hold all its pairs"):
            judge(run)


def test_a_run_equals_itself_in_any_order() -> None:
    turned = dataclasses.replace(RUN, pairs=RUN.pairs[::-1])
    found = compare(RUN, turned)
    assert (found.only_first, found.only_second, found.p_value) == (0, 0, 1)
    assert found.difference_points == found.standard_error_points == 0
    assert found.differences == ()
    assert not found.beyond_noise
    assert "both judge every pair alike" in comparison_text(found)


def test_a_difference_is_told_from_noise() -> None:
    good, bad, worse = (with_pairs_wrong(RUN, rows) for rows in ([0], [1, 2], list(range(1, 13))))
    near = compare(good, bad)
    assert (near.first_right, near.second_right) == (79, 78)
    assert (near.only_first, near.only_second) == (2, 1)
    assert near.difference_points == pytest.approx(-1.25)
    assert not near.beyond_noise
    assert "Verdict     within the noise" in comparison_text(near)
    far = compare(good, worse)
    assert far.p_value == pytest.approx(2 * (1 + 13) / 2**13)
    assert far.beyond_noise
    assert "A is better than B by more than the noise" in comparison_text(far)
    assert "after is better than before" in comparison_text(
        compare(worse, good), first="before", second="after"
    )


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_the_standard_error_is_that_of_paired_differences(first: int, second: int, both: int) -> None:
    count = first + second + both + 1
    found = Comparison(count, first + both, second + both, first, second, 1.0, ())
    unlike = np.repeat([-1.0, 1.0, 0.0], [first, second, both + 1])
    assert found.difference_points == pytest.approx(100 * unlike.mean())
    assert found.standard_error_points == pytest.approx(100 * unlike.std() / math.sqrt(count))


def test_what_differs_is_named() -> None:
    other = dataclasses.replace(
        RUN,
        protocol=RUN.protocol | {"mirror": True},
        models=(dataclasses.replace(RUN.models[0], precision="int8"),),
        machine={"processor": "Another\x1b[31m", "threads": 1},
    )
    text = comparison_text(compare(RUN, other))
    assert "protocol: mirror: False -> True" in text
    assert "models: embedder's precision: fp32 -> int8" in text
    assert "machine: cores: 2 -> not there" in text
    assert "sface" not in text, "the same in both"
    assert "\x1b" not in text, "names must not steer the terminal"
    many = dataclasses.replace(other, machine={str(number): number for number in range(30)})
    found = compare(RUN, many)
    assert len(found.differences) == 34
    text = comparison_text(found)
    assert len(text.splitlines()) <= 24
    assert text.splitlines()[-1] == "  and 20 more"
    assert len(comparison_text(found, most=None).splitlines()) == len(text.splitlines()) + 19


def test_runs_over_other_pairs_are_refused() -> None:
    def changed(**fields: object) -> BenchRun:
        return dataclasses.replace(RUN, pairs=(dataclasses.replace(RUN.pairs[0], **fields), *RUN.pairs[1:]))

    for other in (changed(first="Eve/1.jpg"), changed(fold=2), changed(same=False)):
        with pytest.raises(DatasetError, match=r"1 are only in the first run, such as Ann/Ann_0000\.jpg and"):
            compare(RUN, other)
    twice = dataclasses.replace(RUN, pairs=(*RUN.pairs, RUN.pairs[5]))
    with pytest.raises(
        DatasetError, match=r"\(80 by some_pairs\.txt, 81 by .*: 1 are only in the second run"
    ):
        compare(RUN, twice)
    assert compare(twice, twice).pairs == 81
    with pytest.raises(DatasetError, match="the first run is of lfw, the second of ytf"):
        compare(RUN, dataclasses.replace(RUN, benchmark="ytf"))
