"""A real Apache Kafka for tests, in processes of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

PATIENCE_S = 300


class KafkaServer:
    """One broker, or a few, with the data in a folder of their own.

    Args:
        home: Folder with the start command, ``scripts/kafka``.
        data: Empty folder; after ``kill``, ``start`` brings the same brokers back.
    """

    def __init__(self, home: Path, data: Path) -> None:
        self._command, self.folder = home / "kafka", data / "node"

    @property
    def tls(self) -> Path:
        """Folder of ca.crt, ca.key, client.crt, client.key and stranger-ca.crt, where it speaks TLS."""
        return self.folder / "tls"

    def start(self, *options: str) -> str:
        """Start it and wait until it answers; its HOST:PORT, or several."""
        return self._run("start", *options).strip().splitlines()[-1]

    def kill(self, *options: str) -> None:
        """As if its power were cut."""
        self._run("kill", *options)

    def freeze(self, *options: str) -> None:
        """It keeps its connections and does nothing."""
        self._run("freeze", *options)

    def thaw(self, *options: str) -> None:
        self._run("thaw", *options)

    def stop(self) -> None:
        """Without farewell: nobody needs its data."""
        if (self.folder / "cluster.json").exists():
            self._run("kill")

    def _run(self, verb: str, *options: str) -> str:
        done = subprocess.run(
            [self._command, verb, self.folder, *options],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"kafka {verb}: {done.stdout}{done.stderr}"
        return done.stdout
