from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.models.package import Likeness
from engine.search.open_set_threshold import (
    Decisions,
    ImpostorTail,
    accept_threshold,
    decide,
    impostor_tail,
    person_scores,
)

TAIL = ImpostorTail(0.3, 0.37, 0.43)


def slow_scores(cosines: np.ndarray, owners: np.ndarray, people: int) -> np.ndarray:
    scores = np.full((len(cosines), people), -np.inf)
    for probe, row in enumerate(cosines.astype(np.float64)):
        for person in range(people):
            own = row[owners == person]
            if len(own):
                scores[probe, person] = math.log(sum(math.exp(10 * each) for each in own) / len(own)) / 10
    return scores


@given(st.data())
def test_scores_are_those_of_the_obvious_loop(data: st.DataObject) -> None:
    people = data.draw(st.integers(1, 5))
    owners = np.array(data.draw(st.lists(st.integers(0, people - 1), max_size=9)), np.intp)
    cosines = data.draw(
        hnp.arrays(np.float32, (3, len(owners)), elements=st.floats(-1, 1, width=32, allow_nan=False))
    )
    got = person_scores(cosines, owners, people)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, slow_scores(cosines, owners, people), atol=1e-5)


def test_score_of_one_template_is_its_cosine() -> None:
    cosines = np.array([[0.3, -0.2, 0.9]], np.float32)
    scores = person_scores(cosines, np.array([2, 0, 3], np.intp), 4)
    np.testing.assert_array_equal(scores, np.array([[-0.2, -np.inf, 0.3, 0.9]], np.float32))


def test_a_bad_photograph_costs_less_than_in_the_mean_and_a_chance_likeness_gives_less_than_the_best() -> (
    None
):
    score = float(person_scores(np.array([[0.7, 0.1]], np.float32), np.zeros(2, np.intp), 1)[0, 0])
    assert 0.4 < score < 0.7


def test_scores_refuse_what_does_not_fit() -> None:
    cosines = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="owners"):
        person_scores(cosines, np.zeros(3, np.intp), 1)
    with pytest.raises(ValueError, match="0 to 0, got 0 to 1"):
        person_scores(cosines, np.array([0, 1], np.intp), 1)


@pytest.mark.parametrize(("rate", "score"), [(1e-2, 0.3), (1e-3, 0.37), (1e-4, 0.43)])
def test_tail_goes_through_its_points(rate: float, score: float) -> None:
    assert TAIL.score_at(rate) == pytest.approx(score)


def test_tail_follows_a_generalised_pareto_distribution() -> None:
    shape, scale, start = -0.1, 0.03, 0.3
    points = [start + scale / shape * ((1e-2 / rate) ** shape - 1) for rate in (1e-2, 1e-3, 1e-4, 1e-5)]
    assert ImpostorTail(*points[:3]).score_at(1e-5) == pytest.approx(points[3])


def test_tail_is_exponential_where_its_steps_are_equal() -> None:
    assert ImpostorTail(0.3, 0.4, 0.5).score_at(1e-5) == pytest.approx(0.6)


@given(st.floats(1e-12, 1e-2), st.floats(1e-12, 1e-2))
def test_a_rarer_false_match_needs_no_lower_score(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert TAIL.score_at(low) >= TAIL.score_at(high) - 1e-12


def test_extrapolation_goes_on_with_the_slope_of_its_beginning_and_never_beyond_one() -> None:
    first = TAIL.score_at(1e-7) - TAIL.score_at(1e-6)
    assert TAIL.score_at(1e-8) - TAIL.score_at(1e-7) == pytest.approx(first)
    assert 0 < first < TAIL.score_at(1e-5) - TAIL.score_at(1e-4)
    assert TAIL.score_at(1e-300) == 1.0


def test_tail_is_fitted_to_scores() -> None:
    scores = np.random.default_rng(0).normal(0, 0.1, 1_000_000).astype(np.float32)
    tail = ImpostorTail.fitted(scores)
    assert (tail.at_1e2, tail.at_1e3, tail.at_1e4) == pytest.approx((0.2326, 0.3090, 0.3719), abs=0.004)
    with pytest.raises(ValueError, match="at least 100,000"):
        ImpostorTail.fitted(scores[:99_999])


def test_a_gallery_of_look_alikes_raises_the_tail_and_one_of_strangers_does_not_lower_it() -> None:
    raised = TAIL.raised_to(np.full(2000, 0.35, np.float32))
    assert raised.score_at(1e-3) == pytest.approx(0.42)
    assert TAIL.raised_to(np.zeros(2000, np.float32)) == TAIL
    assert TAIL.raised_to(np.full(999, 0.9, np.float32)) == TAIL
    assert TAIL.raised_to(np.ones(2000, np.float32)).at_1e4 == 1.0


@pytest.mark.parametrize("points", [(0.3, 0.3, 0.4), (0.4, 0.3, 0.5), (0.3, 0.4, 1.1), (math.nan, 0.3, 0.4)])
def test_tail_refuses_scores_that_do_not_rise(points: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="rise"):
        ImpostorTail(*points)


def test_threshold_keeps_its_promise_on_strangers_drawn_from_the_tail() -> None:
    random = np.random.default_rng(3)
    tail = ImpostorTail.fitted(random.normal(0, 0.1, 1_000_000).astype(np.float32))
    strangers = random.normal(0, 0.1, (20_000, 100)).astype(np.float32)
    named = decide(strangers, accept_threshold(tail, false_accept_rate=0.01, people=100)).known.mean()
    assert 0.005 < named < 0.015


def test_threshold_rises_with_the_gallery_and_with_strictness() -> None:
    at = [accept_threshold(TAIL, false_accept_rate=0.01, people=n) for n in (1, 10, 1000, 1_000_000)]
    assert at == sorted(at)
    assert at[0] == pytest.approx(TAIL.at_1e2)
    assert accept_threshold(TAIL, false_accept_rate=0.001, people=10) > at[1]
    assert accept_threshold(TAIL, false_accept_rate=0.01, people=0) == at[0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        accept_threshold(TAIL, false_accept_rate=0.0, people=10)


def test_a_model_that_was_not_measured_gets_the_tail_of_sface_on_its_scale() -> None:
    sface = impostor_tail("sface-2021dec", Likeness())
    assert impostor_tail("mine", Likeness()) == sface
    other = impostor_tail("mine", Likeness(2.0, -0.5))
    assert 2.0 * other.at_1e3 - 0.5 == pytest.approx(sface.at_1e3)


def test_decisions_name_the_nearest_from_the_threshold_on() -> None:
    scores = np.array([[0.5, 0.75], [0.5, 0.25], [-np.inf, -np.inf], [-np.inf, 0.5]], np.float32)
    found = decide(scores, 0.5)
    assert found.known.tolist() == [True, True, False, True]
    assert found.person.tolist() == [1, 0, -1, 1]
    assert found.score.tolist() == [0.75, 0.5, -math.inf, 0.5]
    assert found.margin.tolist() == [0.25, 0.25, math.inf, math.inf]
    strict = decide(scores, 0.6)
    assert strict.person.tolist() == [1, -1, -1, -1]
    assert strict.nearest.tolist() == [1, 0, -1, 1]


@pytest.mark.parametrize("people", [0, 1])
def test_decisions_of_a_gallery_of_nobody_or_one(people: int) -> None:
    found = decide(np.full((2, people), 0.9, np.float32), 0.5)
    assert found.known.tolist() == [bool(people)] * 2
    assert np.isinf(found.margin).all()


def test_decisions_refuse_nan_and_arrays_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="NaN"):
        decide(np.full((1, 1), np.nan, np.float32), 0.5)
    one = np.zeros(1, np.intp)
    with pytest.raises(ValueError, match="margin"):
        Decisions(np.zeros(1, np.bool_), one, one, np.zeros(1, np.float32), np.zeros(2, np.float32))
