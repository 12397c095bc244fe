#!/usr/bin/env python3
"""Run the tests in four parts side by side: those with Kafka mostly wait. Arguments are for one pytest."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from typing import IO

SLOWEST = ("--durations=20", "--durations-min=5")
LIVE = "tests/integration/stream"
SHOWN = ("-m", "not kafka", "--ignore=tests/unit", f"--ignore={LIVE}", *SLOWEST)
BESIDE = (("-m", "not kafka", "tests/unit"), ("-m", "not kafka", LIVE, *SLOWEST), ("-m", "kafka"))


def start(*arguments: str, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start pytest; what it says goes where ours goes, or to a file."""
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - what the developer typed


def main() -> int:
    """The exit code: 0 when all have passed."""
    if arguments := sys.argv[1:]:
        return start(*arguments).wait()
    with contextlib.ExitStack() as stack:
        told = [stack.enter_context(tempfile.TemporaryFile()) for _ in BESIDE]
        beside = [
            start(*part, "-p", "no:cacheprovider", output=file)
            for part, file in zip(BESIDE, told, strict=True)
        ]
        codes = [start(*SHOWN).wait()]
        for process, part, file in zip(beside, BESIDE, told, strict=True):
            codes.append(process.wait())
            file.seek(0)
            sys.stdout.buffer.write(f"\npytest {' '.join(part)}\n".encode() + file.read())
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
