"""What tests of ``engine.compilation.child_process`` run in a process of its own, which must import it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from engine.compilation.child_process import Report
from engine.errors import ModelError


def double(number: int, report: Report) -> int:
    for step in range(3):
        report(f"step {step}", step / 2)
    return 2 * number


def fail(kind: str, report: Report) -> None:  # noqa: ARG001 - all jobs get it
    match kind:
        case "ModelError":
            raise ModelError("the model is odd")
        case "ValueError":
            raise ValueError("the number is odd")
        case "JSONDecodeError":
            json.loads("{")
        case "MemoryError":
            raise MemoryError
        case "OSError":
            raise OSError(28, "No space left on device")
        case "KeyError":
            raise KeyError("several\nlines")


def die(how: str, report: Report) -> None:
    report("dying", 0.5)
    match how:
        case "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(7)
        case "sys.exit":
            sys.exit(3)


def sleep(seconds: float, report: Report) -> None:
    report("sleeping", 0.0)
    time.sleep(seconds)


def wait_for(path: Path, report: Report) -> None:
    report("waiting", 0.0)
    while not path.exists():
        time.sleep(0.01)


def pid(report: Report) -> int:  # noqa: ARG001 - all jobs get it
    return os.getpid()
