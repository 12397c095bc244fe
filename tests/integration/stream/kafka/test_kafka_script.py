"""The command that starts Kafka for tests, as far as it goes without Kafka."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[4] / "scripts" / "kafka" / "kafka"
COPIES = (
    'for each in "$@"; do case $each in -DoutputDirectory=*) out=${each#*=};; esac; done\nmkdir -p $out\n'
)


def run(cache: Path, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"XDG_CACHE_HOME": str(cache), "PATH": path}
    environment.pop("FACESTREAM_KAFKA_JARS", None)
    return subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def maven(folder: Path, script: str) -> str:
    """A PATH whose ``mvn`` does as told."""
    (folder / "mvn").write_text(f"#!/bin/sh\n{script}")
    (folder / "mvn").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_jars_come_into_the_cache_all_or_none(tmp_path: Path) -> None:
    jars = tmp_path / "facestream" / "kafka"
    broken = run(tmp_path, maven(tmp_path, COPIES + "touch $out/half.jar\nexit 1\n"), "fetch")
    assert (broken.returncode, "Maven could not fetch the jars" in broken.stderr) == (1, True)
    assert not list(jars.glob("*"))
    done = run(tmp_path, maven(tmp_path, COPIES + "touch $out/kafka-server-4.9.9.jar\n"), "fetch")
    assert (done.returncode, done.stderr) == (0, f"1 jars are in {jars / 'lib'}\n")
    assert [path.name for path in jars.iterdir()] == ["lib"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to("/usr/bin/python3")
    done = run(tmp_path, str(tmp_path), "fetch")
    if "python3" in done.stderr:
        pytest.skip("no /usr/bin/python3 of 3.11")
    assert (done.returncode, done.stderr) == (1, "kafka: Maven fetches the jars: apt-get install maven\n")
    done = run(tmp_path, os.environ["PATH"], "status", str(tmp_path / "nowhere"))
    assert (done.returncode, "holds no cluster; make one: kafka start" in done.stderr) == (1, True)
    done = run(tmp_path, os.environ["PATH"], "status")
    assert (done.returncode, "status needs DIR" in done.stderr) == (2, True)
