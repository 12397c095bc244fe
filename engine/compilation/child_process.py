"""Run a function in a child process, so that a crash of a compiler stays there."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias, TypeVar

from engine.errors import ModelError

T = TypeVar("T")
Report: TypeAlias = Callable[[str, float], None]
"""Told of the step that is under way, and how much of it is done, 0..1."""

_POLL_S: Final = 0.2
_END_S: Final = 5.0


def run_in_child(
    function: Callable[..., T], *arguments: Any, on_progress: Report | None = None, timeout_s: float = 3600.0
) -> T:
    """Call ``function(*arguments, report)`` in a new process and wait for what it returns.

    Args:
        function: On the top level of a module. What it takes and returns must be picklable; nothing is read
            from elsewhere than from this child of ours.
        arguments: For it.
        on_progress: Gets what the function reports.
        timeout_s: The child is ended after so long.

    Returns:
        What the function returned.

    Raises:
        ModelError: The function raised it or something unforeseen, the child died, or the time was over.
        ValueError: The function raised it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(theirs, function, arguments), daemon=True)
    child.start()
    theirs.close()
    try:
        returned: T = _listen(ours, child, on_progress or (lambda _step, _share: None), timeout_s)
        return returned
    finally:
        ours.close()
        if child.is_alive():
            child.kill()
        child.join(_END_S)


def _listen(pipe: Connection, child: Any, on_progress: Report, timeout_s: float) -> Any:
    ends_at = time.monotonic() + timeout_s
    while time.monotonic() < ends_at:
        if not pipe.poll(_POLL_S):
            continue
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionError):
            child.join(_END_S)
            raise ModelError(f"the build process died ({_cause(child.exitcode)}); nothing was kept") from None
        match kind:
            case "progress":
                on_progress(*value)
            case "failed":
                raise value
            case _:
                return value
    raise ModelError(f"the build process took more than {timeout_s:.0f} s and was stopped; nothing was kept")


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


def _work(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    try:
        result = function(*arguments, lambda step, share: pipe.send(("progress", (step, share))))
    except Exception as exc:  # noqa: BLE001 - whatever it is, the parent must say it in one line
        pipe.send(("failed", _told(exc)))
    else:
        pipe.send(("done", result))


def _told(exc: Exception) -> Exception:
    """What the parent raises for an exception of the function."""
    match exc:
        case ModelError():
            return ModelError(str(exc))
        case ValueError():
            return ValueError(str(exc))  # its subclasses need not be picklable
        case MemoryError():
            return ModelError("not enough memory to build the engine; close other programs")
        case OSError():
            return ModelError(f"cannot build: {exc.strerror or exc}; free space and try again")
    reason = " ".join(str(exc).split())
    return ModelError(f"the build process failed: {type(exc).__name__}: {reason}; nothing was kept")
