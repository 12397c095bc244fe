"""Signals that end a command: in order once it runs, at once while it gets ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """A signal came while a command got ready. No error, and nothing that handles errors may keep it."""


class Stopping(threading.Event):
    """Set by the first signal.

    Attributes:
        gives_up: Whether that raises ``Stopped`` in the main thread, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gives_up = False

    @contextmanager
    def getting_ready(self) -> Iterator[None]:
        """While models are loaded, and the like: what takes long, and can be left at any point.

        Raises:
            Stopped: A signal has come.
        """
        self.gives_up = True
        try:
            self._check()
            yield
            self._check()  # where it was raised, and nobody heard: in a callback of a library
        finally:
            self.gives_up = False

    def _check(self) -> None:
        if self.is_set():
            raise Stopped


@contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """An event that Ctrl-C, SIGTERM, SIGQUIT and the end of the terminal (SIGHUP) set.

    The second of the first three does what it would do without this. Hangups never count as the second: a
    shell that ends sends one of its own after the terminal's, and systemd one behind SIGTERM. Where
    they were ignored at the start, as under ``nohup``, they stay so.

    Only for the main thread.
    """
    stopping = Stopping()
    before: dict[int, Any] = {}

    def on_signal(number: int, _frame: FrameType | None) -> None:
        is_first = not stopping.is_set()
        stopping.set()
        if number != signal.SIGHUP:
            for each in set(before) - {signal.SIGHUP}:
                signal.signal(each, before[each])
        if is_first and stopping.gives_up:
            raise Stopped

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
            before[each] = signal.signal(each, on_signal)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
