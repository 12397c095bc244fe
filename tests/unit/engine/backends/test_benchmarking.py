from __future__ import annotations

import pytest

from engine.backends.benchmarking import SLICES, Timing, time_in_turns


class Clock:
    """Time that passes when a call says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_calls_are_timed_in_turns() -> None:
    clock, order = Clock(), []

    def takes(name: str, seconds: float) -> None:
        order.append(name)
        clock.now_s += seconds

    calls = {"quick": lambda: takes("quick", 0.25), "slow": lambda: takes("slow", 1.0)}
    turns: list[str] = []
    timings = time_in_turns(calls, seconds=5.0, clock=clock, on_slice=turns.append)
    assert set(timings["quick"].seconds) == {0.25}
    assert len(timings["quick"].seconds) == 4 * SLICES
    assert set(timings["slow"].seconds) == {1.0}
    assert len(timings["slow"].seconds) == SLICES
    assert turns == ["quick", "slow"] * SLICES
    warm_up = ["quick", "quick", "slow", "slow"]
    assert order == warm_up + (["quick"] * 5 + ["slow"] * 2) * SLICES, "the first of each turn is not counted"


def test_a_call_that_is_slower_than_its_time_is_still_timed() -> None:
    clock = Clock()

    def call() -> None:
        clock.now_s += 100

    assert len(time_in_turns({"it": call}, seconds=0.1, clock=clock)["it"].seconds) == SLICES


def test_what_a_timing_says() -> None:
    timing = Timing(tuple(n / 1000 for n in range(1, 201)))
    assert timing.least_ms == pytest.approx(1)
    assert timing.p50_ms == pytest.approx(100.5)
    assert timing.p99_ms == pytest.approx(199), "two of 200 are slower or as slow"
    assert timing.calls_per_s == pytest.approx(200 / 20.1)
    assert Timing((0.5, 0.1)).p99_ms == pytest.approx(500), "the slowest of few"
