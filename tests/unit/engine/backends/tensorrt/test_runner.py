from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from cuda_stand_in import StandIn
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_in import PROFILE, make_stand_in, pixels, plan_of, tiny

from engine.backends import cuda
from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.backends.tensorrt.bindings import flavour_available, runtime_version
from engine.backends.tensorrt.runner import TensorRtEngine
from engine.errors import ModelError

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
    assert "PyCUDA is" in (flavour_available("tensorrt") or "")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert (flavour_available("tensorrt") or "").endswith("run: pip install tensorrt-cu13")


def test_for_rtx_there_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    said = flavour_available("tensorrt-rtx", purpose="build") or ""
    assert "run: pip install" in said
    assert said.endswith("'facestream[tensorrt-rtx]'")
    extras = tomllib.loads((Path(__file__).parents[5] / "pyproject.toml").read_text())["project"]
    assert "tensorrt-rtx" in extras["optional-dependencies"]
