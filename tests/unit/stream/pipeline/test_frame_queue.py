from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from stream.pipeline.frame_queue import FrameMux
from stream.video.frames import CameraState, CameraStatus, Frame

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def frame(camera_id: str, number: int) -> Frame:
    return Frame(camera_id, number, number / 25, NOW, np.zeros((2, 2, 3), np.uint8))


def numbers(items) -> list[tuple[str, int]]:
    return [(item.camera_id, item.number) for item in items if isinstance(item, Frame)]


def test_one_frame_of_each_camera_at_a_time_in_order():
    mux = FrameMux({"a": False, "b": False})
    for number in range(3):
        mux.put(frame("a", number))
    mux.put(frame("b", 0))
    assert numbers(mux.take(timeout_s=0)) == [("a", 0), ("b", 0)]
    assert numbers(mux.take(timeout_s=0)) == [("a", 1)]
    assert numbers(mux.take(timeout_s=0, frames_per_camera=5)) == [("a", 2)]
    assert mux.take(timeout_s=0) == []


def test_a_live_camera_keeps_only_its_newest_frame_but_every_change_of_state():
    mux = FrameMux({"a": True})
    up = CameraStatus("a", CameraState.UP, NOW)
    down = CameraStatus("a", CameraState.DOWN, NOW, "gone")
    mux.put_status(up)
    for number in range(4):
        mux.put(frame("a", number))
    mux.put_status(down)
    items = mux.take(timeout_s=0)
    assert numbers(items) == [("a", 3)]
    assert [item for item in items if isinstance(item, CameraStatus)] == [up, down]
    assert mux.dropped("a") == 3


def test_a_change_of_state_behind_the_next_frame_waits_for_its_turn():
    mux = FrameMux({"a": False})
    mux.put(frame("a", 0))
    mux.put(frame("a", 1))
    mux.put_status(CameraStatus("a", CameraState.ENDED, NOW))
    assert len(mux.take(timeout_s=0)) == 1
    assert len(mux.take(timeout_s=0)) == 2


def test_a_finite_source_waits_for_room_and_loses_nothing():
    mux = FrameMux({"a": False}, capacity=2)

    def produce() -> None:
        for number in range(50):
            mux.put(frame("a", number))
        mux.finish("a")

    producer = threading.Thread(target=produce)
    producer.start()
    seen: list[tuple[str, int]] = []
    while not mux.is_finished("a"):
        items = mux.take(timeout_s=5)
        assert len(items) <= 1
        seen += numbers(items)
    producer.join(timeout=60)
    assert seen == [("a", number) for number in range(50)]
    assert mux.dropped("a") == 0


def test_closing_frees_a_waiting_producer():
    mux = FrameMux({"a": False}, capacity=1)
    mux.put(frame("a", 0))
    results: list[bool] = []
    producer = threading.Thread(target=lambda: results.append(mux.put(frame("a", 1))))
    producer.start()
    mux.close()
    producer.join(timeout=60)
    assert results == [False]
    assert numbers(mux.take(timeout_s=0)) == [("a", 0)]


def test_taking_ends_at_once_when_all_cameras_have_ended():
    mux = FrameMux({"a": False, "b": True})
    mux.finish("a")
    mux.finish("b")
    assert mux.take(timeout_s=60) == []


def test_capacity_is_at_least_one():
    with pytest.raises(ValueError, match="1 or more"):
        FrameMux({}, capacity=0)
