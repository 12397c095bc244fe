#!/usr/bin/env python3
"""Run the tests, those with Kafka, which mostly wait, beside the others. Arguments are for one pytest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import IO


def start(*arguments: str, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start pytest; what it says goes where ours goes, or to a file."""
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - what the developer typed


def main() -> int:
    """The exit code: 0 when all have passed."""
    if arguments := sys.argv[1:]:
        return start(*arguments).wait()
    with tempfile.TemporaryFile() as told:
        kafka = start("-m", "kafka", "-p", "no:cacheprovider", output=told)
        codes = [start("-m", "not kafka").wait(), kafka.wait()]
        told.seek(0)
        sys.stdout.buffer.write(b"\nThe tests with Kafka:\n" + told.read())
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
