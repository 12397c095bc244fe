"""facestream within a program of somebody else, which alone decides what is printed and logged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WATCH = """
from stream.watch import watch
for event in watch("test://ball?frames=3"):
    print(event.change.value)
"""
IMPORTS = """
import logging, warnings
import stream.consumer, stream.async_consumer, stream.gallery.people, stream.watch
import stream.events.cloudevents, stream.gallery.enrolment.photos
import structlog
assert not structlog.is_configured()
assert logging.getLogger().handlers == []
assert logging.getLogger("facestream").handlers == []
assert logging.getLogger().level == logging.WARNING
"""


def host(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        ("", ()),
        ("import logging; logging.basicConfig(level='INFO', format='%(name)s %(message)s')", ("camera up",)),
    ],
)
def test_watch_prints_nothing_and_logs_as_its_host_asks(asks: str, expected: tuple[str, ...]) -> None:
    done = host(asks + WATCH)
    assert done.stdout == "up\ndown\n"
    lines = done.stderr.splitlines()
    assert [
        line for line in lines if line.startswith("facestream.stream.pipeline.pipeline camera up camera=")
    ] == [line for line in lines if "camera up" in line]
    assert bool(lines) == bool(expected)
    assert all(any(words in line for line in lines) for words in expected)


def test_imports_change_nothing() -> None:
    done = host(IMPORTS)
    assert (done.stdout, done.stderr) == ("", "")


def test_secrets_stay_out_of_the_logs_of_a_host(tmp_path: Path) -> None:
    asks = f"import logging; logging.basicConfig(filename={str(tmp_path / 'log')!r}, level='DEBUG')\n"
    code = "from stream.common.logs import get_logger; get_logger('x').info('to', uri='rtsp://me:geheim@h/')"
    host(asks + code)
    assert "geheim" not in (text := (tmp_path / "log").read_text())
    assert "rtsp://" in text
