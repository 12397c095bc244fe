from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from cuda_stand_in import MisuseError, StandIn
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tensorrt_stand_in import make_stand_in, plan_of

from engine import cuda, tensorrt_run
from engine.errors import ModelError
from engine.onnxruntime import OnnxRuntimeEngine
from engine.tensorrt import flavour_available, runtime_version
from engine.tensorrt_run import TensorRtEngine

FLOAT, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
PROFILE = {"pixels": ((1, 4, 4, 3), (2, 4, 4, 3), (8, 4, 6, 3))}


def tiny(*, output: str = "mean") -> bytes:
    """Takes pixels of any size, gives four means a picture and the pixels as they came."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["mixed"]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [output]),
    ]
    pixels = helper.make_tensor_value_info("pixels", UINT8, ["n", "h", "w", 3])
    ends = [
        helper.make_tensor_value_info(output, FLOAT, ["n", 4]),
        helper.make_tensor_value_info("nchw", FLOAT, ["n", 3, "h", "w"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [pixels], ends, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def pixels(seed: int, shape: tuple[int, ...] = (2, 4, 4, 3)) -> dict[str, np.ndarray]:
    return {"pixels": np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}


REFERENCE = OnnxRuntimeEngine(tiny(), threads=1)


def agrees(got: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> bool:
    wanted = REFERENCE.infer(feeds)
    return got.keys() == wanted.keys() and all(np.array_equal(got[name], wanted[name]) for name in wanted)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A fake GPU; after the test nothing may be held and nothing may have been misused."""
    stand_in = make_stand_in()
    for name, module in stand_in.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield stand_in
    held = stand_in.held()
    held.pop("logger", None)  # lives as long as the process
    assert (held, stand_in.faults, stand_in.stack) == ({}, [], [])


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest, gpu: StandIn) -> Iterator[TensorRtEngine]:
    opened = TensorRtEngine(plan_of(tiny(), PROFILE), flavour=request.param, precision="fp16", model="tiny")
    assert gpu.held()["context"] == 1
    yield opened
    opened.close()


def test_an_engine_says_what_it_is(engine: TensorRtEngine) -> None:
    assert engine.name in {"tensorrt", "tensorrt-rtx"}
    assert (engine.precision, engine.max_batch) == ("fp16", 8)
    (taken,), (given, _) = engine.inputs, engine.outputs
    assert (taken.name, taken.shape, taken.dtype) == ("pixels", (None, None, None, 3), np.uint8)
    assert (given.name, given.shape, given.dtype) == ("mean", (None, 4), np.float32)


def test_the_numbers_are_those_of_onnx_runtime(engine: TensorRtEngine) -> None:
    for seed, shape in enumerate([(2, 4, 4, 3), (1, 4, 5, 3), (8, 4, 6, 3), (1, 4, 4, 3)]):
        feeds = pixels(seed, shape)
        assert agrees(engine.infer(feeds), feeds)


def test_results_are_new_arrays(engine: TensorRtEngine) -> None:
    first = engine.infer(pixels(1))["mean"]
    kept = first.copy()
    engine.infer(pixels(2))
    engine.infer(pixels(3))
    assert (first == kept).all()


def test_two_calls_are_in_flight_and_the_third_waits_for_the_oldest(
    engine: TensorRtEngine, gpu: StandIn
) -> None:
    feeds = [pixels(seed, (1 + seed % 3, 4, 4, 3)) for seed in range(5)]
    pending = [engine.submit(feeds[0]), engine.submit(feeds[1])]
    assert "Event.synchronize" not in gpu.calls, "the second call began before the first had ended"
    assert len(gpu.alive("stream")) == 2
    pending += [engine.submit(f) for f in feeds[2:]]
    assert gpu.calls.count("Event.synchronize") == 3
    assert [call.done for call in pending] == [True, True, True, False, False]
    for call, feed in zip(reversed(pending), reversed(feeds), strict=True):
        assert agrees(call.result(), feed)
        assert agrees(call.result(), feed), "the same at each call"
    assert gpu.calls.count("Event.synchronize") == 5


def test_a_slot_that_is_idle_is_taken_first(engine: TensorRtEngine, gpu: StandIn) -> None:
    first, second = engine.submit(pixels(0)), engine.submit(pixels(1))
    assert agrees(second.result(), pixels(1))
    third = engine.submit(pixels(2))
    assert gpu.calls.count("Event.synchronize") == 1, "nobody waited for the first"
    assert agrees(first.result(), pixels(0))
    assert agrees(third.result(), pixels(2))


def test_one_call_after_the_other_needs_one_slot(engine: TensorRtEngine, gpu: StandIn) -> None:
    for seed in range(5):
        engine.infer(pixels(seed))
    assert len(gpu.alive("context")) == 1
    assert gpu.calls.count("mem_alloc") == 3, "memory is laid out once"


def test_feeds_may_be_changed_once_submit_returns(engine: TensorRtEngine) -> None:
    feeds = pixels(0)
    call = engine.submit(feeds)
    feeds["pixels"][:] = 0
    assert agrees(call.result(), pixels(0))


def test_threads_share_an_engine_and_one_retained_context(engine: TensorRtEngine, gpu: StandIn) -> None:
    feeds = [pixels(seed, (1 + seed % 8, 4, 4, 3)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for result, feed in zip(pool.map(engine.infer, feeds), feeds, strict=True):
            assert agrees(result, feed)
    assert gpu.retained == 1


@given(st.lists(st.one_of(st.just("submit"), st.integers(0, 5), st.just("close")), max_size=20))
def test_calls_end_in_any_order(actions: list[str | int]) -> None:
    gpu = make_stand_in()
    with patch.dict(sys.modules, gpu.modules):
        engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
        calls = []
        closed = False
        for number, action in enumerate(actions):
            if action == "close":
                engine.close()
                closed = True
            elif action == "submit" and not closed:
                feeds = pixels(number, (1 + number % 8, 4, 4, 3))
                calls.append((engine.submit(feeds), feeds))
            elif isinstance(action, int) and action < len(calls):
                call, feeds = calls[action]
                assert agrees(call.result(), feeds)
        engine.close()
        assert all(agrees(call.result(), feeds) for call, feeds in calls)
        assert (gpu.held().keys(), gpu.faults, gpu.stack) == ({"logger"}, [], [])


def test_closing_keeps_results_and_frees_all(engine: TensorRtEngine, gpu: StandIn) -> None:
    calls = [engine.submit(pixels(0)), engine.submit(pixels(1))]
    engine.close()
    engine.close()
    assert gpu.held().keys() == {"logger"}
    assert agrees(calls[0].result(), pixels(0))
    assert agrees(calls[1].result(), pixels(1))
    with pytest.raises(ModelError, match="closed; open a new one"):
        engine.infer(pixels(0))


def test_an_engine_is_closed_by_another_thread(engine: TensorRtEngine) -> None:
    engine.infer(pixels(0))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(engine.close).result()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "feeds: expected"),
        ({"pixels": np.zeros((2, 4, 4, 3), np.float32)}, "pixels: expected uint8"),
        (
            pixels(0, (9, 4, 4, 3)),
            r"built for shapes from \(1, 4, 4, 3\) to \(8, 4, 6, 3\), got \(9, 4, 4, 3\)",
        ),
        (pixels(0, (1, 3, 4, 3)), "compile it for this size"),
    ],
)
def test_feeds_that_do_not_fit(
    engine: TensorRtEngine, feeds: dict[str, np.ndarray], message: str, gpu: StandIn
) -> None:
    with pytest.raises(ValueError, match=message):
        engine.submit(feeds)
    assert "execute_async_v3" not in gpu.calls


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("set_input_shape", r"cannot take pixels of \(2, 4, 4, 3\)"),
        ("execute_async_v3", "cannot run: .*misaligned address"),
        ("Event.synchronize", "illegal memory access.*nvidia-smi"),
    ],
)
def test_a_call_that_fails_is_a_model_error_and_the_next_one_works(
    engine: TensorRtEngine, gpu: StandIn, refused: str, message: str
) -> None:
    gpu.refuse.add(refused)
    with pytest.raises(ModelError, match=message) as failure:
        engine.infer(pixels(0))
    assert "\n" not in str(failure.value)
    if refused != "Event.synchronize":
        assert not any(stream.work for stream in gpu.alive("stream")), "copies are under way"
    gpu.refuse.clear()
    assert agrees(engine.infer(pixels(1)), pixels(1))


def test_a_failure_is_told_at_each_call_of_result(engine: TensorRtEngine, gpu: StandIn) -> None:
    call = engine.submit(pixels(0))
    gpu.refuse.add("Event.synchronize")
    for _ in range(2):
        with pytest.raises(ModelError, match="illegal memory access"):
            call.result()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"", "refuses the plan: .*Version tag"),
        (b"damaged", "facestream compile tiny --engine tensorrt"),
        (plan_of(tiny(), PROFILE, version="10.9"), "refuses the plan: .*Version tag"),
        (plan_of(tiny(output="host_mean"), PROFILE), "host_mean is a shape, not data"),
    ],
)
@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.usefixtures("gpu")
def test_plans_that_cannot_be_used(plan: bytes, message: str, flavour: str) -> None:
    with pytest.raises(ModelError, match=message) as failure:
        TensorRtEngine(plan, flavour=flavour, model="tiny")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("mem_alloc", "out of memory; compile with a smaller --batch"),
        ("create_execution_context", "no room for the plan: .*OutOfMemory"),
        ("get_tensor_shape", "cannot tell the size of pixels before it runs"),
    ],
)
def test_opening_that_fails_holds_nothing(gpu: StandIn, refused: str, message: str) -> None:
    gpu.refuse.add(refused)
    with pytest.raises(ModelError, match=message):
        TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt", model="tiny")


@pytest.mark.usefixtures("gpu")
def test_kernels_that_rtx_compiled_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "kernels"
    for expected in (b"fresh kernels", b"kept fresh kernels"):
        TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt-rtx", runtime_cache=path).close()
        assert path.read_bytes() == expected
    path.write_bytes(b"of another GPU")
    TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt-rtx", runtime_cache=path).close()
    assert path.read_bytes() == b"fresh kernels"


def test_what_is_here(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flavour_available("tensorrt") is None
    assert runtime_version("tensorrt") == "11.4.0.106"
    assert cuda.device_architecture() == "sm86"
    assert cuda.CudaDevice().name == "stand-in"
    gpu.device_count = 0
    assert "has, none" in (flavour_available("tensorrt-rtx") or "")
    assert flavour_available("tensorrt-rtx", purpose="build") is None
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert "PyCUDA cannot be loaded" in (flavour_available("tensorrt") or "")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert (flavour_available("tensorrt") or "").endswith("run: pip install tensorrt-cu13")


# The stand-in itself: break what runs, and see that it is seen.


@pytest.fixture
def broken(gpu: StandIn) -> Iterator[StandIn]:
    yield gpu
    # What a broken program leaves behind is not to be held against it.
    for stream in gpu.alive("stream"):
        stream.work.clear()
    gpu.stack.append(None)
    gpu.objects.clear()
    gpu.memories.clear()
    gpu.faults.clear()
    gpu.stack.clear()


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
        assert not agrees(slot.finish(), pixels(0))


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


@pytest.mark.usefixtures("broken")
def test_it_sees_memory_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_run._Slot, "_nbytes", lambda *_: 8)
    engine = TensorRtEngine(plan_of(tiny(), PROFILE), flavour="tensorrt")
    with pytest.raises((MisuseError, ValueError)):
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
