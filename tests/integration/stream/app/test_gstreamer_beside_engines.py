"""Native libraries that must get along in one process, each tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

OPEN_YUNET = """
from engine.opening.select import open_engine
from engine.models.catalogue import load_model
open_engine(load_model("yunet"), kind="openvino").close()
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300, check=False
    )


def test_openvino_throws_and_catches_after_gstreamer_was_loaded() -> None:
    done = run_python("from stream.video.gstreamer.bindings import version; version()" + OPEN_YUNET)
    assert done.returncode == 0, done.stderr


def test_openvino_does_not_call_home() -> None:
    done = run_python(
        OPEN_YUNET + "import sys; print([n for n in sys.modules if n.startswith('openvino_tel')])"
    )
    assert done.stdout.strip() == "['openvino_telemetry']", done.stderr
    done = run_python(OPEN_YUNET + "import sys; print(sys.modules['openvino_telemetry'])")
    assert done.stdout.strip() == "None"
