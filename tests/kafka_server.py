"""A real Apache Kafka for tests, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

START_TIMEOUT_S = 90


class KafkaServer:
    """One broker with its data in a folder of its own.

    Args:
        home: Folder with the start command.
        data: Empty folder; after ``kill``, ``start`` brings the same broker back.
    """

    def __init__(self, home: Path, data: Path) -> None:
        self._command, self._data = home / "kafka", data / "node"

    def start(self, *options: str) -> str:
        """Start it and wait until it answers; its HOST:PORT."""
        try:
            told = self._run("start", *options)
        except AssertionError as exc:
            # The id that is drawn for a new cluster may begin with "-", which Kafka's formatter takes for an
            # option. Nothing has been made then.
            if "argument --cluster-id" not in str(exc):
                raise
            shutil.rmtree(self._data, ignore_errors=True)
            told = self._run("start", *options)
        return told.strip().splitlines()[-1]

    def kill(self) -> None:
        """As if its power were cut."""
        self._run("kill")

    def stop(self) -> None:
        self._run("stop")

    def _run(self, verb: str, *options: str) -> str:
        done = subprocess.run(
            [self._command, verb, self._data, *options],
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"kafka {verb}: {done.stdout}{done.stderr}"
        return done.stdout
