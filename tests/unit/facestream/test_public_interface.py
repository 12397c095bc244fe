from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import facestream

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("module", ["facestream", "facestream.testing"])
def test_every_public_name_can_be_imported_and_is_documented(module: str) -> None:
    shown = importlib.import_module(module)
    assert list(shown.__all__) == sorted(shown.__all__)
    for name in shown.__all__:
        value = getattr(shown, name)
        assert not callable(value) or isinstance(value, typing._GenericAlias) or inspect.getdoc(value)


def test_type_checkers_see_the_names_that_programs_get() -> None:
    source = (ROOT / "facestream" / "__init__.py").read_text("utf-8")
    stated = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    for name, module in facestream._HOMES.items():
        block = stated[stated.index(f"from {module} import") :].split("\n    from ")[0]
        assert f" {name}" in block
    assert set(facestream._HOMES) == set(facestream.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(facestream, "EventsConsumer")
    assert "watch" in dir(facestream)


def test_reading_events_loads_no_engine_and_no_video() -> None:
    code = (
        "import sys, facestream\n"
        "assert not {'stream', 'engine'} & set(sys.modules)\n"
        "facestream.EventConsumer, facestream.FaceEvent\n"
        "print({'gi', 'openvino', 'onnxruntime', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
