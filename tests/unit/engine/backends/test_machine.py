from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends import machine
from engine.backends.machine import Machine, processor_key, this_machine

XEON = Machine("Intel(R) Xeon(R) 6972P", 4, ("avx512_bf16", "amx_bf16"), ("BF16", "FP32"))

CPUINFO = """processor\t: 0
model name\t: Made Up(R) Processor
flags\t\t: fpu sse avx2 avx512f avx512_bf16 amx_tile amx_bf16 fma

processor\t: 1
model name\t: Made Up(R) Processor
"""


def test_this_machine_has_a_name_and_cores() -> None:
    here = this_machine()
    assert here.processor
    assert here.cores >= 1
    assert "FP32" in here.precisions


def test_a_key_is_a_file_name_and_the_same_each_time() -> None:
    assert re.fullmatch(r"[a-z0-9-]+", processor_key())
    assert processor_key() == processor_key(this_machine())
    assert re.fullmatch(r"intel-r-xeon-r-6972p-[0-9a-f]{12}", processor_key(XEON))


@pytest.mark.parametrize(
    "change",
    [{"processor": "Intel R Xeon R 6972P"}, {"cores": 2}, {"features": ()}, {"precisions": ("FP32",)}],
)
def test_keys_of_different_processors_differ(change: dict[str, object]) -> None:
    assert processor_key(replace(XEON, **change)) != processor_key(XEON)


def test_without_openvino_linux_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(CPUINFO)
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setitem(sys.modules, "engine.backends.openvino", None)
    here = this_machine()
    assert here.processor == "Made Up(R) Processor"
    assert here.features == ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    assert here.precisions == ()


def test_without_any_of_it_there_is_still_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    monkeypatch.setitem(sys.modules, "engine.backends.openvino", None)
    assert this_machine().features == ()
    assert processor_key()
