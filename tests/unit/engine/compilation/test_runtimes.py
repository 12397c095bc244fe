from __future__ import annotations

import dataclasses
import hashlib
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from tensorrt_stand_in import PROFILE, VERSION, make_stand_in, plan_of, tiny
from tensorrt_stand_in import pixels as some_pixels

from engine.backends.machine import processor_key
from engine.compilation.runtimes import (
    check_available,
    engine_version,
    open_compiled,
    stored_precision,
    this_target,
    why_unavailable,
    why_unfit,
)
from engine.compilation.store import CompiledEngine, EngineKey
from engine.compilation.tolerances import Parity
from engine.errors import ModelError

KINDS = ["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake GPU, sm86."""
    for name, module in make_stand_in().modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def key_of(kind: str, precision: str = "fp32") -> EngineKey:
    """Of an engine that fits this machine."""
    return EngineKey(
        model="tiny",
        model_sha256="0" * 64,
        kind=kind,
        version=engine_version(kind),
        targets=(this_target(kind),),
        precision=precision,
        batches=(1, 8, 32),
    )


def stored(key: EngineKey, folder: Path, data: bytes) -> CompiledEngine:
    (folder / "engine.bin").write_bytes(data)
    return CompiledEngine(key, folder, hashlib.sha256(data).hexdigest(), Parity(1, 1.0, 1.0))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_made_here_fits_and_others_do_not(kind: str, tmp_path: Path) -> None:
    key = key_of(kind)
    assert why_unfit(key) is None
    data = plan_of(tiny(), PROFILE) if kind.startswith("tensorrt") else tiny()
    engine = open_compiled(stored(key, tmp_path, data))
    assert engine.infer(some_pixels(0))["mean"].shape == (2, 4)
    engine.close()

    several = dataclasses.replace(key, targets=("another", *key.targets))
    assert why_unfit(several) is None
    stale = dataclasses.replace(key, version="0.1")
    assert why_unfit(stale) == f"it was built by {kind} 0.1, this machine has {engine_version(kind)}"
    foreign = dataclasses.replace(key, targets=("another", "and one"))
    assert why_unfit(foreign) == f"it was built for another, and one, this machine has {this_target(kind)}"
    for unfit in (stale, foreign):
        reason = why_unfit(unfit)
        with pytest.raises(ModelError) as failure:
            open_compiled(stored(unfit, tmp_path, data))
        message = str(failure.value)
        assert message.startswith(f"{tmp_path.name}: {reason}; run: facestream compile tiny --engine {kind} ")
        assert "another" not in message.split("run: ")[1], "the command makes one for this machine"
        if kind == "tensorrt-rtx":
            assert "--gpu sm86 " in message


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_engine_is_not_loaded(kind: str, tmp_path: Path) -> None:
    engine = stored(key_of(kind), tmp_path, tiny())
    data = bytearray(tiny())
    data[len(data) // 2] ^= 1
    engine.path.write_bytes(data)
    with pytest.raises(ModelError, match=f"is damaged .* run: facestream compile tiny --engine {kind}"):
        open_compiled(engine)


def test_processors_are_told_by_one_key() -> None:
    assert processor_key() == this_target("openvino") == this_target("onnxruntime")


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_told() -> None:
    assert this_target("tensorrt") == this_target("tensorrt-rtx") == "sm86"
    assert engine_version("tensorrt") == VERSION
    assert [why_unavailable(kind, purpose="run") for kind in KINDS] == [None] * 4


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in make_stand_in().modules.items():
        monkeypatch.setitem(sys.modules, name, None if name.startswith("pycuda") else module)
    assert why_unavailable("tensorrt-rtx", purpose="build") is None
    assert "PyCUDA is" in (why_unavailable("tensorrt-rtx", purpose="run") or "")
    with pytest.raises(ModelError, match=r"^tensorrt cannot be used here: PyCUDA is ") as failure:
        check_available("tensorrt", purpose="build")
    assert "\n" not in str(failure.value)


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(ModelError, match=r"openvino cannot be used here: .*run: pip install openvino"):
        check_available("openvino", purpose="run")


@pytest.mark.parametrize(
    ("kind", "precision", "stored_as"),
    [
        ("openvino", "fp32", "fp32"),
        ("openvino", "bf16", "fp32"),
        ("openvino", "int8", "int8"),
        ("onnxruntime", "fp32", "fp32"),
        ("onnxruntime", "int8", "int8"),
        *[("tensorrt", precision, precision) for precision in ("fp32", "fp16", "bf16", "int8")],
        *[("tensorrt-rtx", precision, precision) for precision in ("fp32", "fp16", "bf16", "int8")],
    ],
)
def test_precisions_of_graphs(kind: str, precision: str, stored_as: str) -> None:
    key = EngineKey("m", "0" * 64, kind, "1", (), precision, (1, 1, 1))
    assert stored_precision(key) == stored_as


@pytest.mark.parametrize(("kind", "precision"), [("onnxruntime", "bf16"), ("tensorrt", "fp4")])
def test_precisions_that_are_not_there(kind: str, precision: str) -> None:
    with pytest.raises(ModelError, match="use fp32, fp16"):
        stored_precision(EngineKey("m", "0" * 64, kind, "1", (), precision, (1, 1, 1)))


def test_numbers_are_the_reference_s(tmp_path: Path) -> None:
    got = [
        open_compiled(stored(key_of(kind), tmp_path, tiny())).infer(some_pixels(3))["mean"]
        for kind in ("openvino", "onnxruntime")
    ]
    assert got[0] == pytest.approx(got[1], abs=1e-3)
    assert np.abs(got[0]).max() > 1
