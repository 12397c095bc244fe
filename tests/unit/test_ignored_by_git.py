"""What README's commands make in the checkout does not come up as new files: galleries, events, faces."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = re.compile(
    r"(?:--sink (?:sqlite:|jsonl:)|--render |--report |--json |gallery create |> )([\w./-]+\.(?!com)\w+)"
)


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="needs a checkout")
def test_what_readme_s_commands_make_is_ignored() -> None:
    made = set(MADE.findall((ROOT / "README.md").read_text()))
    assert {"facestream.key", "people.db", "people.html", "events.jsonl", "seen.mp4", "lfw.html"} <= made
    made |= {"events.jsonl.clusters.json", "people.db-wal"}
    told = subprocess.run(
        ["git", "check-ignore", "--no-index", *made], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert made - set(told.stdout.split()) == set()
