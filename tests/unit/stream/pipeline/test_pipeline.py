from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

import numpy as np
import pytest
from one_face import OneFace, small_embedder

from engine.errors import SourceError
from facestream.testing import ListSource, SourceItem, frames_of
from stream.events import CameraChange, CameraEvent, Event, FaceEvent, TrackChange
from stream.pipeline.pipeline import Camera, Pipeline
from stream.pipeline.recognizer import Recognizer
from stream.testing import START
from stream.video.frames import CameraState, CameraStatus, Frame

BOUND_S = 60.0


def camera(items: Sequence[SourceItem], *, camera_id: str = "door", is_live: bool = False) -> Camera:
    return Camera(
        camera_id=camera_id,
        run_id=f"{camera_id}-1",
        uri=f"list:{camera_id}",
        open_source=lambda on_status: ListSource(
            items, camera_id=camera_id, is_live=is_live, on_status=on_status
        ),
    )


def pipeline(*cameras: Camera) -> Pipeline:
    return Pipeline(cameras, Recognizer(OneFace(), small_embedder()))


def all_events(running: Pipeline) -> list[Event]:
    return [event for batch in running.batches() for event in batch.events]


def status(state: CameraState, after_s: float, reason: str = "", camera_id: str = "door") -> CameraStatus:
    return CameraStatus(camera_id, state, START + timedelta(seconds=after_s), reason)


def changes(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.camera_id, event.change.value) for event in events]


@pytest.fixture
def frames(portrait: np.ndarray) -> list[Frame]:
    return frames_of([portrait] * 5, camera_id="door")


def test_a_person_appears_and_leaves_at_the_end(frames: list[Frame]) -> None:
    events = all_events(pipeline(camera(frames)))
    assert changes(events) == [("door", "appeared"), ("door", "left")]
    assert isinstance(events[0], FaceEvent)
    assert events[0].first_seen == START


def test_a_source_that_fails_ends_alone(frames: list[Frame], portrait: np.ndarray) -> None:
    broken = camera([*frames_of([portrait] * 2, camera_id="yard"), SourceError("cut off")], camera_id="yard")
    running = pipeline(camera(frames), broken)
    events = all_events(running)
    assert [change for name, change in changes(events) if name == "door"] == ["appeared", "left"]
    report = running.reports["yard"]
    assert (report.state, str(report.error)) == (CameraState.ENDED, "cut off")
    (down,) = [event for event in events if isinstance(event, CameraEvent)]
    assert (down.camera_id, down.change, down.reason, down.planned) == (
        "yard",
        CameraChange.DOWN,
        "cut off",
        False,
    )


def test_a_bug_in_a_source_is_raised_where_batches_are_taken(frames: list[Frame]) -> None:
    with pytest.raises(ZeroDivisionError):
        all_events(pipeline(camera([*frames, ZeroDivisionError("a bug")])))


def test_states_stand_between_the_frames_where_they_happened(frames: list[Frame]) -> None:
    items = [
        status(CameraState.UP, 0),
        *frames,
        status(CameraState.DOWN, 0.5, "no answer"),
        status(CameraState.DOWN, 0.6, "no answer"),
        status(CameraState.DOWN, 0.7, "wrong password"),
        status(CameraState.UP, 0.8),
    ]
    events = all_events(pipeline(camera(items)))
    assert changes(events) == [
        ("door", "up"),
        ("door", "appeared"),
        ("door", "down"),
        ("door", "down"),
        ("door", "up"),
        ("door", "left"),
        ("door", "down"),
    ]
    of_the_camera = [event for event in events if isinstance(event, CameraEvent)]
    assert [event.reason for event in of_the_camera[1:3]] == ["no answer", "wrong password"]
    assert [event.sequence for event in of_the_camera] == list(range(5))
    assert of_the_camera[-1].planned is True


def test_stopping_under_load_closes_tracks_and_sources(portrait: np.ndarray) -> None:
    sources: list[ListSource] = []

    def endless(name: str) -> Camera:
        def open_source(_: object) -> ListSource:
            frames = frames_of([portrait] * 2000, camera_id=name)
            sources.append(ListSource(frames, camera_id=name))
            return sources[-1]

        return Camera(camera_id=name, run_id=f"{name}-1", uri=f"list:{name}", open_source=open_source)

    running = pipeline(*(endless(f"camera-{number}") for number in range(4)))
    events: list[Event] = []
    deadline = time.monotonic() + BOUND_S
    with closing(running.batches()) as batches:
        for batch in batches:
            events += batch.events
            if any(event.change is TrackChange.APPEARED for event in events):
                running.stop()
            assert time.monotonic() < deadline
    appeared = {event.camera_id for event in events if event.change is TrackChange.APPEARED}
    left = {event.camera_id for event in events if event.change is TrackChange.LEFT}
    assert appeared
    assert left == appeared
    assert all(source.is_closed for source in sources)


def test_leaving_the_loop_closes_the_sources(frames: list[Frame]) -> None:
    made: list[ListSource] = []

    def open_source(_: object) -> ListSource:
        made.append(ListSource(frames, camera_id="door", is_live=True))
        return made[-1]

    running = pipeline(Camera(camera_id="door", run_id="door-1", uri="list:door", open_source=open_source))
    with closing(running.batches()) as batches:
        next(batches)
    assert made[0].is_closed


def test_two_cameras_of_one_name_are_refused(frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="different ids"):
        pipeline(camera(frames), camera(frames))
