"""What the documents tell users to type: every shell block of a page, run by a real shell as one script.

Programs are stand-ins that note how they were called. The shell itself judges quoting, variables, pipes, and
whether a program can be found: whether the page has activated the environment before.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples/README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)

IN_THE_ENVIRONMENT = ("facestream", "python", "pip")
"""Programs that are there once a page has activated the environment."""
ON_THE_SYSTEM = ("docker", "make", "jq", "sudo", "apt-get")

_NOTE = """#!/bin/bash
note="$NOTES/$EPOCHREALTIME"
printf '%s\\0' "${0##*/}" "$@" > "$note.argv"
env -0 > "$note.env"
"""


@dataclass(frozen=True)
class Call:
    """A program as a page calls it."""

    page: str
    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str]

    def __str__(self) -> str:
        return " ".join((self.program, *self.arguments))


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fenced(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block."""
    yield from re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def script_of(page: Path) -> str:
    """All shell blocks of a page, in order."""
    return "\n".join(text for language, text in fenced(page) if language == "sh")


def lay_out(checkout: Path) -> None:
    """Make a folder that looks like a fresh clone after ``make demo``, with stand-ins for programs."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    for name in ("configs", "examples", "compose.yaml", "Makefile", "constraints.txt", "pyproject.toml"):
        (checkout / name).symlink_to(ROOT / name)
    system = checkout.parent / "system"
    (checkout / "scripts" / "kafka").mkdir(parents=True)
    places = [checkout / ".venv" / "bin" / name for name in IN_THE_ENVIRONMENT]
    places += [system / name for name in ON_THE_SYSTEM] + [checkout / "scripts" / "kafka" / "kafka"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(_NOTE)
        place.chmod(0o755)
    (checkout / ".venv" / "bin" / "activate").write_text(f'PATH="{checkout}/.venv/bin:$PATH"\n')


def calls_of(page: Path, checkout: Path) -> list[Call]:
    """Run a page's shell blocks; what they called, in order.

    Raises:
        AssertionError: The shell refuses it: a variable that was not set, a program that is not there.
    """
    notes = checkout.parent / "notes" / page_id(page).replace("/", "-")
    notes.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script_of(page)],
        cwd=checkout,
        env={
            "PATH": f"{checkout.parent / 'system'}:/usr/bin:/bin",
            "HOME": str(checkout.parent / "home"),
            "NOTES": str(notes),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{page_id(page)}: {done.stderr}"
    return [_read_note(page, note) for note in sorted(notes.glob("*.argv"))]


def _read_note(page: Path, note: Path) -> Call:
    program, *arguments = note.read_bytes().decode().split("\0")[:-1]
    variables = note.with_suffix(".env").read_bytes().decode().split("\0")[:-1]
    environment = dict(each.split("=", 1) for each in variables)
    environment["PATH"] = os.environ["PATH"]
    return Call(page_id(page), program, tuple(arguments), environment)
