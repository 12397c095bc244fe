from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.compilation.staging import open_workshop

HOLD = """
import sys, time
from pathlib import Path
from engine.compilation.staging import open_workshop
with open_workshop(Path(sys.argv[1])) as folder:
    (folder / "engine.bin").write_bytes(b"half")
    print(folder, flush=True)
    time.sleep(600)
"""


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def grow_old(path: Path) -> None:
    os.utime(path, (0, 0), follow_symlinks=False)


def test_a_killed_builders_folder_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as builder:
        try:
            assert builder.stdout is not None
            folder = Path(builder.stdout.readline().strip())
            grow_old(folder)
            with open_workshop(tmp_path) as ours:
                assert names(tmp_path) == {folder.name, ours.name}
            builder.send_signal(signal.SIGKILL)
            builder.wait(60)
            assert names(tmp_path) == {folder.name}
            with open_workshop(tmp_path) as ours:
                assert names(tmp_path) == {ours.name}
        finally:
            builder.kill()
    assert names(tmp_path) == set()


def test_a_folder_that_is_about_to_be_held_is_left(tmp_path: Path) -> None:
    (tmp_path / ".building-0123456789abcdef").mkdir()
    with open_workshop(tmp_path):
        pass
    assert names(tmp_path) == {".building-0123456789abcdef"}


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "sface.openvino.fp32.0123").mkdir()
    (root / ".building-file").touch()
    (root / ".building-link").symlink_to(elsewhere, target_is_directory=True)
    for path in root.iterdir():
        grow_old(path)
    with open_workshop(root):
        pass
    assert names(root) == {"sface.openvino.fp32.0123", ".building-file", ".building-link"}
    assert names(elsewhere) == {"precious"}


def test_a_place_that_cannot_hold_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), open_workshop(tmp_path / "file"):
        pass
