from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.video.sampling_interval import Pace, Patience, stretched

SPACINGS_S = st.floats(0.01, 100.0)


def paced(times_s, *, least_s=0.0):
    pace = Pace(least_s=least_s)
    for time_s in times_s:
        pace.note(float(time_s))
    return pace.spacing_s


@given(SPACINGS_S, st.integers(2, 40), st.floats(0, 1e4))
def test_even_looks_are_as_far_apart_as_they_are(spacing_s, looks, start_s):
    assert paced(start_s + spacing_s * np.arange(looks)) == pytest.approx(spacing_s, rel=1e-6, abs=1e-9)


@given(st.lists(st.floats(0, 60), max_size=60), SPACINGS_S)
def test_it_lies_between_what_is_known_and_the_longest_step(steps_s, least_s):
    assert 0 <= paced(np.cumsum(steps_s)) <= max(steps_s, default=0) * (1 + 1e-9)
    assert paced(np.cumsum(steps_s), least_s=least_s) >= least_s
    assert paced([], least_s=least_s) == paced([7.0], least_s=least_s) == least_s


@given(st.floats(0.01, 0.5), st.integers(6, 30), st.floats(1.0, 600.0), st.integers(0, 30))
def test_an_outage_does_not_count(spacing_s, before, outage_s, after):
    times_s = np.concatenate([np.arange(before), np.arange(after) + before - 1]) * spacing_s
    times_s[before:] += outage_s
    assert paced(times_s) == pytest.approx(spacing_s, rel=1e-6)


@given(st.lists(st.floats(0.01, 10), min_size=3, max_size=40), st.floats(0.1, 10))
def test_in_another_unit_of_time_it_is_the_same_time(steps_s, factor):
    times_s = np.cumsum(steps_s)
    assert paced(times_s * factor) == pytest.approx(paced(times_s) * factor, rel=1e-6)


def test_pictures_in_pairs_are_as_slow_as_the_pairs():
    pairs_s = np.sort(np.concatenate([np.arange(10) * 5.0, np.arange(10) * 5.0 + 0.1]))
    assert paced(pairs_s) == pytest.approx(2.5, abs=0.1)


def test_frames_lost_now_and_then_do_no_harm():
    times_s = np.delete(np.arange(60) * 0.1, np.random.default_rng(0).choice(60, 15, replace=False))
    assert paced(times_s) <= 0.2


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_limit_is_stretched_only_where_a_missed_look_would_exceed_it(limit_s, spacing_s):
    got = stretched(limit_s, spacing_s)
    assert got >= limit_s
    assert got > 2 * spacing_s or spacing_s == 0
    if 2.5 * spacing_s <= limit_s:
        assert got == limit_s


@pytest.mark.parametrize("least_s", [-1.0, float("nan")])
def test_a_spacing_that_is_none(least_s):
    with pytest.raises(ValueError, match="least_s: expected a time of at least 0 s"):
        Pace(least_s=least_s)


@given(st.floats(0.1, 60), st.floats(1.0, 30.0))
def test_a_slow_camera_is_waited_for_after_a_few_attempts(limit_s, every_s):
    patience = Patience(limit_s)
    attempts = 0
    while patience.limit_s < every_s:
        patience.note_stall(1, patience.limit_s)
        attempts += 1
    assert attempts <= 1 + np.log2(30 / 0.1)
    assert limit_s <= patience.limit_s <= max(limit_s, 30)


@given(st.floats(0.1, 60), st.integers(3, 10_000), st.integers(0, 9))
def test_after_frames_that_came_fast_the_limit_is_the_set_one(limit_s, frames, stalls):
    patience = Patience(limit_s)
    for _ in range(stalls):
        patience.note_stall(2, patience.limit_s)
    slow_s = patience.limit_s
    patience.note_stall(frames, slow_s + frames * 0.9 * slow_s)
    assert patience.limit_s == (slow_s if 2.5 * 0.9 * slow_s > limit_s else limit_s)
    patience.note_stall(frames, patience.limit_s + frames * 0.01 * limit_s)
    assert patience.limit_s == limit_s
