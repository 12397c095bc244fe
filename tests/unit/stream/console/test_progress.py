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
    with Progress("enrolling", total=5749, console=console) as progress:
        progress.advance(120)
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


def test_progress_is_told_in_words() -> None:
    assert describe(0, None) == ""
    assert describe(1200, None) == "1,200 done"
    assert describe(0.25, 1.0) == "25 %"
    assert remaining(10, 40, 20) == "about 1 min 0 s left"
    assert remaining(0, 40, 20) == remaining(5, None, 20) == ""
    assert [duration(each) for each in (12.4, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 5 min"]


@given(st.floats(0, 1e9), st.none() | st.floats(0, 1e9), st.floats(0, 1e6))
def test_any_progress_can_be_told(done: float, total: float | None, seconds: float) -> None:
    assert describe(done, total).isprintable()
    assert remaining(done, total, seconds).isprintable()
