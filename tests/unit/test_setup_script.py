"""What the set-up script says while pip and apt are silent."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"


def patiently(command: str, *, every_s: float, venv: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as the script runs what takes long."""
    found = re.search(r"^patiently\(\) \{$.*?^\}$", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    script = (
        f"set -euo pipefail\nevery_s={every_s}\nvenv={venv}\n"
        f'say() {{ echo "$*"; }}\n{found[0]}\npatiently {command}\necho done\n'
    )
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_only_a_terminal_gets_escape_codes() -> None:
    found = re.search(r"^say\(\) \{$.*?^\}$", SCRIPT.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    command = ["bash", "-c", f"{found[0]}\nsay all is there"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=True).stdout == (
        b"[setup] all is there\n"
    )
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=theirs, timeout=60, check=True)
    assert b"\x1b[1m[setup]\x1b[0m all is there" in os.read(ours, 1000)
    os.close(ours)
    os.close(theirs)


def test_silence_is_broken_now_and_then(tmp_path: Path) -> None:
    done = patiently("sleep 1.5", every_s=0.3, venv=tmp_path)
    *told, last = done.stdout.splitlines()
    assert len(told) >= 2
    assert re.fullmatch(rf"still at it after \d+ s; {tmp_path} holds \d+ MB so far", told[0])
    assert (last, done.returncode, done.stderr) == ("done", 0, "")


def test_what_is_quick_is_not_spoken_of_and_failures_are_passed_on(tmp_path: Path) -> None:
    done = patiently("sh -c 'exit 7'", every_s=30, venv=tmp_path)
    assert (done.stdout, done.returncode) == ("", 7)
