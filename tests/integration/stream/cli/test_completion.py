"""Shells complete commands and options; the command says its version."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m stream.cli"
VARIABLE = "_FACESTREAM_COMPLETE"
TIMEOUT_S = 300


def answer(shell: str, **environment: str) -> str:
    return subprocess.run(
        COMMAND.split(),
        env=os.environ | environment | {VARIABLE: shell},
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    ).stdout


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder for PATH in which the command has its name."""
    command = tmp_path / "facestream"
    command.write_text(f'#!/bin/sh\nexec {COMMAND} "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands(bin_folder: Path) -> None:
    script = (
        'set -e; source <(facestream); unset "$1"; COMP_WORDS=(facestream events ta); COMP_CWORD=2; '
        "_facestream_completion facestream; echo ${COMPREPLY[@]}"
    )
    path = f"{bin_folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "bash", VARIABLE],
        env=os.environ | {VARIABLE: "source_bash", "PATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout == "tail\n", done.stderr


@pytest.mark.parametrize(
    ("shell", "action"),
    [("complete_zsh", {}), ("complete_fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"})],
)
def test_zsh_and_fish_are_answered(shell: str, action: dict[str, str]) -> None:
    assert "--metrics" in answer(shell, _TYPER_COMPLETE_ARGS="facestream run --met", **action)


def test_the_version_is_said() -> None:
    done = subprocess.run(
        [*COMMAND.split(), "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == f"facestream {importlib.metadata.version('facestream')}\n"
