from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from stream.console.signals import Stopped, stop_on_signals

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


@contextmanager
def something_open(closed: list[int]) -> Iterator[None]:
    try:
        yield
    finally:
        os.kill(
            os.getpid(), signal.SIGHUP
        )  # a shell's own, behind the terminal's; it keeps nothing from closing
        closed.append(1)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_leaves_what_gets_ready_at_once(number: signal.Signals, noted: list[int]):
    closed: list[int] = []
    with stop_on_signals() as stopping:
        with pytest.raises(Stopped), stopping.getting_ready(), something_open(closed):
            os.kill(os.getpid(), number)
        assert closed
        assert not noted


def test_nothing_gets_ready_after_a_signal():
    with stop_on_signals() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), stopping.getting_ready():
            pytest.fail("it began")


def test_a_signal_that_a_library_has_kept_to_itself_counts():
    with stop_on_signals() as stopping, pytest.raises(Stopped), stopping.getting_ready(), suppress(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_runs_ends_in_order():
    with stop_on_signals() as stopping:
        with stopping.getting_ready():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.is_set()
