"""Commands as a stranger to this machine would run them, with all that they say to others and write seen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_CALLS: Final = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link"
)
_NETWORK: Final = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_(?!NETLINK).*")
_NAME_SERVICE: Final = 'sun_path="/var/run/nscd/socket"'  # glibc's own cache of accounts, on this machine
_WRITTEN: Final = re.compile(r'\b(?:open|openat|creat|mkdir|mkdirat|rename\w*|link)\((?:[^"]*)"([^"]*)".*')
_OPENED: Final = re.compile(r"\bopen(at)?\(")
_FOR_WRITING: Final = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")


@dataclass(frozen=True, slots=True)
class Traced:
    """What a command did.

    Attributes:
        done: Its exit code and what it printed.
        spoke: Calls that addressed somebody.
        wrote: Files and folders that it made or opened for writing.
    """

    done: subprocess.CompletedProcess[str]
    spoke: list[str]
    wrote: set[str]

    def wrote_outside(self, *folders: Path) -> list[str]:
        own = tuple(f"{folder}/" for folder in (*folders, "/dev", "/proc"))
        return sorted(path for path in self.wrote if not f"{path}/".startswith(own))


def trace(
    *command: str | Path, home: Path, scratch: Path, environment: Mapping[str, str] | None = None
) -> Traced:
    """Run a command with nothing but a home in its environment; its children are traced as well.

    Args:
        command: Its words; ``facestream`` stands for the command.
        home: Of the user.
        scratch: Folder for temporary files, and the trace.
        environment: What else is in the environment.
    """
    if shutil.which("strace") is None:
        pytest.skip("tracing needs strace: apt-get install strace")
    log = scratch / "strace.txt"
    words = [str(word) for word in command]
    if words[0] == "facestream":
        words[:1] = [sys.executable, "-m", "stream.cli"]
    done = subprocess.run(
        ["strace", "--seccomp-bpf", "-f", "-qq", "-s", "300", "-e", f"trace={_CALLS}", "-o", log, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=scratch,
        env={
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TMPDIR": str(scratch),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        },
    )
    if not log.is_file() or "ptrace" in done.stderr:
        pytest.skip(f"this machine lets nobody trace: {done.stderr.strip()[:200]}")
    lines = log.read_text(errors="replace").splitlines()
    spoke = [line for line in lines if _NETWORK.search(line) and _NAME_SERVICE not in line]
    return Traced(done, spoke, {path for line in lines if (path := _written(line, scratch))})


def _written(line: str, folder: Path) -> str | None:
    found = _WRITTEN.search(line)
    if found is None or " = -1 " in line or (_OPENED.search(line) and not _FOR_WRITING.search(line)):
        return None
    return str(folder / found[1])
