from __future__ import annotations

import itertools
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("stream", "engine", "training")
FOLDERS = sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")})
MOST_MODULES = 15


def modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("__"))


def test_the_drawing_of_the_rooms_shows_the_imports() -> None:
    spec = spec_from_file_location("rooms", ROOT / "scripts" / "rooms.py")
    assert spec
    assert spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert written == script.page(), "run: .venv/bin/python scripts/rooms.py"
    assert "stream.cli --> " in written


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_small_and_its_floor_plan_names_all_that_is_in_it(folder: Path) -> None:
    names = modules(folder)
    assert len(names) <= MOST_MODULES
    plan = (folder / "__init__.py").read_text("utf-8")
    rooms = [path.parent.name for path in folder.glob("*/__init__.py")]
    assert [name for name in (*names, *rooms) if not re.search(rf"\b{name}\b", plan)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_in_a_room_differ_by_more_than_an_ending(folder: Path) -> None:
    for one, other in itertools.combinations(modules(folder), 2):
        assert not other.startswith(one), f"{one} and {other}"
