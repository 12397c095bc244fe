"""A camera for tests: a real RTSP server in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).resolve().parent / "rtsp_server.py"


class CameraProcess:
    """An RTSP server in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(SERVER), *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._process.stdout.close()
