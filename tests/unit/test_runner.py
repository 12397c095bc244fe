from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from stream.runner import stop_on_signals

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def noted() -> Iterator[list[int]]:
    """Signals that reach whoever handled them before."""
    got: list[int] = []
    before = {each: signal.signal(each, lambda number, _frame: got.append(number)) for each in STOPPING}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_asks_for_an_end_in_order(number: signal.Signals, noted: list[int]):
    with stop_on_signals() as stopping:
        os.kill(os.getpid(), number)
        assert stopping.wait(60)
        assert not noted
    os.kill(os.getpid(), number)
    assert noted == [number]


@pytest.mark.parametrize("first", STOPPING[:3])
@pytest.mark.parametrize("second", STOPPING[:3])
def test_the_second_ends_at_once(first: signal.Signals, second: signal.Signals, noted: list[int]):
    with stop_on_signals():
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
        assert noted == [second]


def test_a_hangup_is_never_the_second(noted: list[int]):
    with stop_on_signals() as stopping:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert stopping.is_set()
        assert not noted


def test_a_hangup_that_was_ignored_stays_so():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_on_signals() as stopping:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stopping.is_set()
