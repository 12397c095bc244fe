"""Users without a home, or with one that is not theirs, as containers and services have them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 64_321
"""A number without an account."""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files that everybody may use: pytest's own are for the one who tests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def as_nobody(*words: str, home: str | None, temporary: Path) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if subprocess.run([*become, sys.executable, "-c", "import stream"], check=False, cwd="/").returncode:
        pytest.skip("the repository is in a folder that others may not enter")
    return subprocess.run(
        [*become, sys.executable, "-m", "stream.cli", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd="/",
        env={
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({} if home is None else {"HOME": home}),
        },
    )


def test_a_user_without_a_home(temporary: Path) -> None:
    done = as_nobody("run", "test://ball?frames=3", "--engine", "onnxruntime", home=None, temporary=temporary)
    assert done.returncode == 0, done.stderr
    assert '"facestream.camera.down.v1"' in done.stdout
    told, *others = (line for line in done.stderr.splitlines() if "[info" not in line)
    assert others == []
    assert f"caches kept in {temporary}/facestream-{NOBODY}/cache" in told
    assert "FACESTREAM_CACHE_DIR or --cache-dir" in told
    made = temporary / f"facestream-{NOBODY}"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (NOBODY, 0o700)


def test_another_users_home(temporary: Path) -> None:
    done = as_nobody("models", "show", "yunet", home="/root", temporary=temporary)
    assert done.returncode == 0, done.stderr
    assert "/root" in done.stderr
    assert list(temporary.glob(f"facestream-{NOBODY}/cache/models/*.onnx"))


def test_the_options_and_variables_name_every_folder(temporary: Path) -> None:
    cache = temporary / "named"
    words = ("--cache-dir", str(cache), "models", "show", "yunet")
    done = as_nobody(*words, home="/root", temporary=temporary)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "[info" not in line] == []
    assert list(cache.glob("models/*.onnx"))
    done = as_nobody("--cache-dir", "/root/cache", "models", "show", "yunet", home=None, temporary=temporary)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: FACESTREAM_CACHE_DIR: /root/cache cannot be written (")
