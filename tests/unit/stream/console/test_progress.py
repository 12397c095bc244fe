from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stream.console.progress import Progress, describe, duration, remaining


def log() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=80, markup=False), file


def wait_for(file: io.StringIO, text: str) -> None:
    end_s = time.monotonic() + 60
    while text not in file.getvalue():
        assert time.monotonic() < end_s, file.getvalue()
        time.sleep(0.005)


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.console.progress.EVERY_S", 0.01)
    console, file = log()
    monkeypatch.setattr("stream.console.progress._SURE_S", 0.0)
    with Progress("enrolling", total=5749, console=console) as progress:
        progress.advance(100)
        progress.advance(20)
        wait_for(file, "enrolling: 120 of 5,749 (2 %), ")
        progress.update(what="[b]writing", done=5749)
        wait_for(file, "[b]writing: 5,749 of 5,749 (100 %), ")
    lines = file.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(" so far" in line for line in lines)
    assert any("left" in line for line in lines)


def test_what_is_quick_writes_nothing_to_a_log() -> None:
    console, file = log()
    with Progress("enrolling", total=10, console=console) as progress:
        progress.advance()
    assert file.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    with Progress("enrolling", total=4, console=console) as progress:
        progress.advance(2)
    assert "enrolling" in file.getvalue()
    assert "2 of 4 (50 %)" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")


class Clock:
    """Time that a test sets."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("stream.console.progress.time", clock)
    return clock


def test_the_rest_is_reckoned_from_the_first_on(clock: Clock) -> None:
    progress = Progress("images", total=3534)
    clock.now_s += 15  # engines are chosen
    progress.update(done=32)
    clock.now_s += 1
    progress.update(done=96)
    assert progress._left() == "", "too soon"
    clock.now_s += 3
    progress.update(done=288)
    assert progress._left() == "about 51 s left", "64 a second"


def test_another_count_begins_anew(clock: Clock) -> None:
    progress = Progress("images")
    for what in ("images", "videos"):
        for done in range(1, 6):
            progress.update(what=what, done=done, total=10)
            clock.now_s += 2 if what == "images" else 20
            assert (progress._left() == "") == (done == 1), "of one nobody knows how long the next takes"
    assert progress._left() == "about 2 min 5 s left"
    progress.update(what="a name", done=6)
    assert progress._left() == "about 1 min 20 s left", "the count goes on"


def test_progress_is_told_in_words() -> None:
    assert describe(0, None) == ""
    assert describe(1200, None) == "1,200 done"
    assert describe(0.25, 1.0) == "25 %"
    assert remaining(10, 40, 20) == "about 1 min 0 s left"
    assert remaining(0, 40, 20) == remaining(5, None, 20) == remaining(1, 40, 0.5) == ""
    assert [duration(each) for each in (12.4, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 5 min"]


@given(st.floats(0, 1e9), st.none() | st.floats(0, 1e9), st.floats(0, 1e6))
def test_any_progress_can_be_told(done: float, total: float | None, seconds: float) -> None:
    assert describe(done, total).isprintable()
    assert remaining(done, total, seconds).isprintable()
