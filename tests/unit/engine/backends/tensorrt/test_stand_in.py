"""The stand-in itself: break what runs, and see that it is seen."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from cuda_stand_in import MisuseError, StandIn
from tensorrt_stand_in import PROFILE, make_stand_in, pixels, plan_of, tiny

from engine.backends import cuda
from engine.backends.tensorrt.runner import TensorRtEngine


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    stand_in = make_stand_in()
    for name, module in stand_in.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield stand_in
    # What a broken program leaves behind runs no more.
    for stream in stand_in.alive("stream"):
        stream.work.clear()


@pytest.mark.usefixtures("broken")
def test_it_sees_results_that_are_read_early(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    monkeypatch.setattr(cuda.Queue, "wait", lambda _: None)
    got = engine.infer(pixels(0))
    assert np.isnan(got["mean"]).all()


@pytest.mark.usefixtures("broken")
def test_it_sees_memory_that_is_filled_again_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    monkeypatch.setattr(TensorRtEngine, "_free_slot", lambda self: self._slots[0])
    engine.submit(pixels(0))
    slot = engine._slots[0]
    engine.submit(pixels(1))
    with engine._device.active():
        got = slot.finish()["nchw"]
    assert not (got == pixels(0)["pixels"].transpose(0, 3, 1, 2)).all()


def test_it_sees_calls_without_a_context(broken: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken.modules["pycuda.driver"].Context, "push", lambda _: None)
    monkeypatch.setattr(broken.modules["pycuda.driver"].Context, "pop", lambda _: None)
    with pytest.raises(MisuseError, match="no context is current"):
        TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")


@pytest.mark.usefixtures("broken")
def test_it_sees_wrong_addresses() -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    engine._slots[0]._context.set_tensor_address("mean", 4096)
    with pytest.raises(MisuseError, match="no live GPU memory holds 32 bytes at 0x1000"):
        engine.infer(pixels(0))


def test_it_sees_memory_that_is_too_small(broken: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = broken.modules["pycuda.driver"]
    real = driver.mem_alloc
    monkeypatch.setattr(driver, "mem_alloc", lambda nbytes: real(nbytes // 8))
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    with pytest.raises(MisuseError, match="no live GPU memory holds 96 bytes"):
        engine.infer(pixels(0))


def test_it_sees_copies_from_pageable_memory(broken: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = broken.modules["pycuda.driver"]
    real = driver.memcpy_htod_async
    monkeypatch.setattr(driver, "memcpy_htod_async", lambda d, s, q: real(d, s.copy(), q))
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    with pytest.raises(MisuseError, match="no live page-locked memory"):
        engine.infer(pixels(0))


@pytest.mark.usefixtures("broken")
def test_it_sees_use_after_free() -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    call = engine.submit(pixels(0))
    with engine._device.active():
        engine._slots[0]._buffers["mean"].free()
    with pytest.raises(MisuseError, match="no live"):
        call.result()


@pytest.mark.usefixtures("broken")
def test_it_sees_shapes_outside_of_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorRtEngine, "_check_range", lambda *_: None)
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    with pytest.raises(MisuseError, match="outside of the profile"):
        engine.infer(pixels(0, (9, 4, 4, 3)))


def test_it_sees_a_wrong_order_of_death(broken: StandIn) -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    engine._runtime = None
    engine._engine = None
    assert broken.faults == ["the runtime died before its engine", "an engine died before its contexts"]


def test_it_sees_streams_that_are_freed_without_a_context_or_at_work(broken: StandIn) -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    engine.submit(pixels(0))
    engine._slots[0]._queue.close()
    assert any("work under way" in fault for fault in broken.faults)
    assert any("no context is current" in fault for fault in broken.faults)


def test_it_sees_what_is_not_freed(broken: StandIn) -> None:
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    assert broken.held() == {
        "logger": 1, "runtime": 1, "engine": 1, "context": 1, "stream": 1, "memory": 6
    }  # fmt: skip
    assert engine.max_batch == 8


def test_it_sees_a_second_logger(broken: StandIn) -> None:
    trt = broken.modules["tensorrt"]
    first = trt.ILogger()
    with pytest.raises(MisuseError, match="second logger"):
        trt.ILogger()
    del first
