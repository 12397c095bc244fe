from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import child_jobs
import pytest

from engine.compilation.child_process import run_in_child
from engine.errors import ModelError


def test_the_result_and_the_progress_come_back_in_order() -> None:
    told: list[tuple[str, float]] = []
    got = run_in_child(child_jobs.double, 21, on_progress=lambda step, share: told.append((step, share)))
    assert got == 42
    assert told == [("step 0", 0.0), ("step 1", 0.5), ("step 2", 1.0)]


def test_it_is_another_process_and_it_is_gone_afterwards() -> None:
    child = run_in_child(child_jobs.pid)
    assert child != os.getpid()
    assert multiprocessing.active_children() == []
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("ModelError", ModelError, "^the model is odd$"),
        ("ValueError", ValueError, "^the number is odd$"),
        ("JSONDecodeError", ValueError, "^Expecting property name"),
        ("MemoryError", ModelError, "^not enough memory to build the engine; close other programs$"),
        ("OSError", ModelError, "^cannot build: No space left on device; free space and try again$"),
        ("KeyError", ModelError, r"^the build process failed: KeyError: 'several\\nlines'; nothing was"),
    ],
)
def test_what_the_function_raises_comes_back(
    kind: str, expected: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(expected, match=message) as failure:
        run_in_child(child_jobs.fail, kind)
    assert type(failure.value) is expected
    assert "\n" not in str(failure.value)
    assert capfd.readouterr().err == "", "the trace stays in the child"


@pytest.mark.parametrize(
    ("how", "cause"), [("signal", "SIGSEGV"), ("exit", "exit code 7"), ("sys.exit", "exit code 3")]
)
def test_a_child_that_dies_is_told_in_one_line(how: str, cause: str) -> None:
    told: list[str] = []
    with pytest.raises(ModelError) as failure:
        run_in_child(child_jobs.die, how, on_progress=lambda step, _: told.append(step))
    assert str(failure.value) == f"the build process died ({cause}); nothing was kept"
    assert told == ["dying"]


def test_a_child_that_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(ModelError, match="took more than 1 s and was stopped; nothing was kept"):
        run_in_child(child_jobs.sleep, 60.0, timeout_s=1.0)
    assert time.monotonic() - begun < 30
    assert multiprocessing.active_children() == []


def test_a_child_ends_with_the_report_that_fails() -> None:
    def stop(_step: str, _share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_child(child_jobs.sleep, 60.0, on_progress=stop)
    assert multiprocessing.active_children() == []


def test_ctrl_c_is_the_parents_affair(tmp_path: Path) -> None:
    """The terminal sends it to both; the child must not print a trace beside the parent's line."""

    sent = tmp_path / "sent"

    def interrupt(_step: str, _share: float) -> None:
        (child,) = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGINT)
        sent.touch()

    assert run_in_child(child_jobs.wait_for, sent, on_progress=interrupt) is None
