"""How far a command is: a bar on a terminal; elsewhere a line now and then, for logs and pipes."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from stream.console.terminal import open_console

EVERY_S: Final = 10.0
"""Seconds between lines where there is no terminal, and before the first one."""

_NEVER_S: Final = 30 * 86_400.0
"""A guess that is longer is none."""

_SURE_S: Final = 3.0
"""Seconds that a rate is watched before it is told how long the rest takes."""


class Progress:
    """Tells on standard error how far something is, while its block runs. Any thread may report.

    Args:
        what: What is done, such as ``enrolling``.
        total: How many there are; 1.0 where shares are reported; None where nobody knows.
        console: Where it is told; standard error when not given.
    """

    def __init__(self, what: str, *, total: float | None = None, console: Console | None = None) -> None:
        self._what, self._total, self._done = what, total, 0.0
        self._console = open_console(stderr=True) if console is None else console
        self._since_s = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._ended = threading.Event()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._since_s = time.monotonic()
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
            self._bar = Bar(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._task = self._bar.add_task(self._what, total=self._total, told="")
            self._bar.start()
        else:
            self._thread = threading.Thread(target=self._write_lines, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread is not None:
            self._thread.join()

    def advance(self, count: float = 1) -> None:
        """So many more are done."""
        self.update(done=self._done + count)

    def update(
        self, *, done: float | None = None, total: float | None = None, what: str | None = None
    ) -> None:
        """Report; what is not given stays as it was.

        Args:
            done: How many are done.
            total: Of how many.
            what: What is done now.
        """
        before = self._done, self._total
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        if self._total != before[1] or self._done < before[0]:
            self._first = None  # something else is counted
        if self._first is None and self._done > 0:
            self._first = time.monotonic(), self._done
        self._what = self._what if what is None else what
        if self._bar is not None:
            told = describe(self._done, self._total)
            self._bar.update(
                self._task, completed=self._done, total=self._total, description=self._what, told=told
            )

    def _write_lines(self) -> None:
        while not self._ended.wait(EVERY_S):
            seconds = time.monotonic() - self._since_s
            told = describe(self._done, self._total)
            parts = [told, f"{duration(seconds)} so far", self._left()]
            with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                line = f"{self._what}: {', '.join(part for part in parts if part)}"
                self._console.print(line, soft_wrap=True, highlight=False)

    def _left(self) -> str:
        """How long the rest may take, by what was done since the first: what comes before it takes longer."""
        if self._first is None:
            return ""
        first_s, first = self._first
        seconds = time.monotonic() - first_s
        return remaining(self._done - first, self._total and self._total - first, seconds)


def describe(done: float, total: float | None) -> str:
    """How far, such as ``120 of 5,749 (2 %)``.

    Args:
        done: So many.
        total: Of so many; up to 1 for shares; None where nobody knows.
    """
    if total is None:
        return f"{done:,.0f} done" if done else ""
    share = f"{min(done / total, 1.0) * 100:.0f} %" if total else ""
    return share if total <= 1 else f"{done:,.0f} of {total:,.0f} ({share})"


def remaining(done: float, total: float | None, seconds: float) -> str:
    """How long it may take yet, if it goes on so; empty where that cannot be said, or not yet."""
    if not total or not 0 < done < total or seconds < _SURE_S:
        return ""
    left_s = seconds * (total - done) / done
    return f"about {duration(left_s)} left" if left_s < _NEVER_S else ""


def duration(seconds: float) -> str:
    """A time for people: ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
