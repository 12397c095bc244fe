"""A real PostgreSQL for tests, in a process of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

_TIMEOUT_S = 300


class PostgresServer:
    """A cluster that lives in a folder and listens at a socket there, and nowhere else.

    Args:
        folder: Empty; its path must be short, since a socket's path may have 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        if (command := shutil.which("postgres")) is None or shutil.which("initdb") is None:
            pytest.skip("no PostgreSQL on the PATH: apt-get install postgresql, and put its bin folder there")
        self._bin, self._folder = Path(command).resolve().parent, folder
        self._as_other: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL does not run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._as_other = [
                "setpriv",
                f"--reuid={nobody.pw_uid}",
                f"--regid={nobody.pw_gid}",
                "--clear-groups",
            ]

    @property
    def url(self) -> str:
        return f"postgresql:///postgres?host={self._folder}&user=tester"

    def start(self) -> None:
        data = self._folder / "data"
        self._run("initdb", "--auth=trust", "--username=tester", "--no-sync", "-D", str(data))
        options = f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "-D", str(data), "-o", options, "-l", log)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode=immediate", "-D", str(self._folder / "data"))

    def _run(self, command: str, *options: str) -> None:
        done = subprocess.run(
            [*self._as_other, self._bin / command, *options],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if command == "initdb" else subprocess.DEVNULL,  # the server keeps it open
            stderr=subprocess.STDOUT if command == "initdb" else subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {(done.stdout or b'').decode()}"
