from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_page_about_events_says_what_the_schemas_say():
    spec = spec_from_file_location("event_docs", ROOT / "scripts" / "event_docs.py")
    assert spec
    assert spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "docs" / "events.md").read_text("utf-8")
    assert written == script.page(), "run: .venv/bin/python scripts/event_docs.py"
    assert "{{" not in written
