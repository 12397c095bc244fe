from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from engine.errors import SinkError, SourceError
from facestream.testing import ListSink, ListSource, frames_of
from stream.testing import START
from stream.video.frames import CameraState, CameraStatus

IMAGE = np.zeros((4, 6, 3), np.uint8)
DOWN = CameraStatus("camera", CameraState.DOWN, START, "no answer")


def test_frames_are_evenly_spaced() -> None:
    first, second = frames_of([IMAGE, IMAGE], camera_id="door", fps=4)
    assert (first.camera_id, first.number, first.time_s, first.captured_at) == ("door", 0, 0.0, START)
    assert (second.number, second.time_s) == (1, 0.25)
    assert second.captured_at == START + timedelta(seconds=0.25)


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_senseless_rate_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        frames_of([IMAGE], fps=fps)


def test_a_source_plays_its_list() -> None:
    told: list[CameraStatus] = []
    first, second = frames_of([IMAGE, IMAGE])
    source = ListSource([first, DOWN, second, SourceError("gone")], on_status=told.append)
    frames = source.frames()
    assert next(frames) is first
    assert told == []
    assert next(frames) is second
    assert told == [DOWN]
    with pytest.raises(SourceError, match="gone"):
        next(frames)
    assert source.stats().decoded == 2


def test_a_closed_source_ends() -> None:
    source = ListSource(frames_of([IMAGE] * 3), is_live=True)
    frames = source.frames()
    next(frames)
    source.close()
    assert list(frames) == []
    assert source.is_closed


def test_a_sink_keeps_events_until_it_is_to_fail() -> None:
    sink = ListSink(fails_after=2)
    sink.emit(["one", "two"])  # type: ignore[list-item]  # any object will do
    with pytest.raises(SinkError, match="after 2"):
        sink.emit(["three"])  # type: ignore[list-item]
    sink.close(1.0)
    assert (sink.events, sink.is_closed) == (["one", "two"], True)
