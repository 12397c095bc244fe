"""Cameras, recogniser and events together: real RTSP servers, real engines."""

from __future__ import annotations

import io
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_process import CameraProcess
from real_time import in_real_time
from rich.console import Console

from engine.errors import SourceError
from stream.app.metrics import serve_metrics
from stream.app.settings import RunSettings, override_settings
from stream.app.wiring import open_pipeline
from stream.console.live_table import camera_table, describe_event
from stream.events.event_types import CameraChange, CameraEvent, Event, FaceEvent, TrackChange
from stream.pipeline.pipeline import Pipeline
from stream.video.frames import CameraState
from stream.video.sources import open_source
from stream.watch import watch

WAIT_S = 120.0


class Watched:
    """A pipeline that runs in a thread of its own, and what it has said."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.events: list[Event] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for batch in self.pipeline.batches():
            with self._changed:
                self.events += batch.events
                self._changed.notify_all()

    def wait_for(self, what: Callable[[Event], bool], *, after: int = 0) -> int:
        """Position behind the first such event from position ``after`` on."""

        def position() -> int:
            return next((i + 1 for i, event in enumerate(self.events) if i >= after and what(event)), 0)

        with self._changed:
            assert self._changed.wait_for(position, WAIT_S), [describe_event(event) for event in self.events]
            return position()

    def stop(self) -> None:
        self.pipeline.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def run() -> Iterator[Callable[[RunSettings], Watched]]:
    ending = []

    def start(settings: RunSettings) -> Watched:
        context = open_pipeline(settings)
        watched = Watched(context.__enter__())
        ending.append((watched, context))
        return watched

    yield start
    for watched, context in ending:
        watched.stop()
        context.__exit__(None, None, None)
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("camera-")]


def is_camera(camera_id: str, change: CameraChange) -> Callable[[Event], bool]:
    return lambda e: isinstance(e, CameraEvent) and (e.camera_id, e.change) == (camera_id, change)


def is_track(camera_id: str, change: TrackChange) -> Callable[[Event], bool]:
    return lambda e: isinstance(e, FaceEvent) and (e.camera_id, e.change) == (camera_id, change)


def settings(**uris: str) -> RunSettings:
    cameras = [{"id": name, "uri": uri, "stall_timeout_s": 3.0} for name, uri in uris.items()]
    return RunSettings.model_validate({"cameras": cameras, "tracking": {"leave_after_s": 1.0}})


@in_real_time
@pytest.mark.parametrize("trouble", [signal.SIGKILL, signal.SIGSTOP])
def test_a_camera_that_fails_says_so_and_comes_back_and_another_does_not_notice(
    trouble: signal.Signals, portrait_clip: Path, run: Callable[[RunSettings], Watched]
) -> None:
    door, yard = CameraProcess("--file", str(portrait_clip)), CameraProcess()
    try:
        port = door.port
        watched = run(
            settings(door=f"rtsp://127.0.0.1:{port}/live", yard=f"rtsp://127.0.0.1:{yard.port}/live")
        )
        watched.wait_for(is_camera("yard", CameraChange.UP))
        position = watched.wait_for(is_track("door", TrackChange.APPEARED))
        door.signal(trouble)
        down = watched.wait_for(is_camera("door", CameraChange.DOWN), after=position)
        left = watched.wait_for(is_track("door", TrackChange.LEFT), after=position)
        event = watched.events[down - 1]
        assert isinstance(event, CameraEvent)
        assert event.reason
        if trouble is signal.SIGSTOP:
            door.signal(signal.SIGCONT)
        else:
            door.kill()
            door = CameraProcess("--file", str(portrait_clip), "--port", str(port))
        up = watched.wait_for(is_camera("door", CameraChange.UP), after=down)
        again = watched.wait_for(is_track("door", TrackChange.APPEARED), after=max(up, left))
        first, second = watched.events[position - 1], watched.events[again - 1]
        assert isinstance(first, FaceEvent)
        assert isinstance(second, FaceEvent)
        assert second.track_id != first.track_id
        assert watched.pipeline.reports["door"].source.reconnects == 1
        frames = watched.pipeline.reports["yard"].frames
        deadline = time.monotonic() + WAIT_S
        while watched.pipeline.reports["yard"].frames == frames:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        of_yard = [event for event in watched.events if event.camera_id == "yard"]
        assert [event.change for event in of_yard] == [CameraChange.UP]
    finally:
        door.kill()
        yard.kill()


def test_the_newest_reason_stands_and_nothing_stale_beside_it(
    portrait_clip: Path, run: Callable[[RunSettings], Watched], caplog: pytest.LogCaptureFixture
) -> None:
    camera = CameraProcess("--file", str(portrait_clip))
    try:
        watched = run(settings(door=f"rtsp://viewer:geheim@127.0.0.1:{camera.port}/live"))
        report = watched.pipeline.reports["door"]
        position = watched.wait_for(is_track("door", TrackChange.APPEARED))
        assert report.lag_s is not None
        camera.kill()
        position = watched.wait_for(is_camera("door", CameraChange.DOWN), after=position)
        camera = CameraProcess("--user", "viewer", "--password", "right", "--port", str(camera.port))
        position = watched.wait_for(
            lambda event: isinstance(event, CameraEvent) and "password" in event.reason, after=position
        )
        event = watched.events[position - 1]
        assert isinstance(event, CameraEvent)
        assert (event.change, event.planned) == (CameraChange.DOWN, False)
        assert (report.state, report.reason) == (CameraState.DOWN, event.reason)
        assert (report.lag_s, report.live_tracks) == (None, 0)
        table = Console(file=io.StringIO(), width=80)
        table.print(camera_table([report], {}, width=80))
        assert "password" in table.file.getvalue()
        text = scrape(watched)
        assert 'facestream_camera_down{camera="door",reason=' in text
        assert "refused the user name or password" in text
        assert 'facestream_lag_seconds{camera="door"}' not in text
        watched.stop()
        of_camera = [event for event in watched.events if isinstance(event, CameraEvent)]
        assert [event.sequence for event in of_camera] == list(range(len(of_camera)))
        assert "geheim" not in f"{watched.events}{report}"
        said = [line for line in caplog.messages if "still down" in line]
        assert sum("refused the user name" in line for line in said) == 1
    finally:
        camera.kill()


def scrape(watched: Watched) -> str:
    with (
        serve_metrics(watched.pipeline.reports, host="127.0.0.1", port=0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as answer,
    ):
        return answer.read().decode()


def test_metrics_of_a_run(portrait_clip: Path, run: Callable[[RunSettings], Watched]) -> None:
    watched = run(settings(door=str(portrait_clip)))
    watched.wait_for(is_camera("door", CameraChange.DOWN))
    text = scrape(watched)
    assert 'facestream_frames_decoded_total{camera="door"} 600.0' in text
    assert 'facestream_tracks_total{camera="door"}' in text
    assert 'facestream_camera_up{camera="door"} 0.0' in text
    for reason in ("late", "damaged"):
        assert f'facestream_frames_dropped_total{{camera="door",reason="{reason}"}} 0.0' in text
    assert 'facestream_camera_pipelines_abandoned_total{camera="door"} 0.0' in text
    assert camera_table(watched.pipeline.reports.values(), {}).row_count == 1


def test_watch_iterates_over_events(portrait_clip: Path) -> None:
    changes = [event.change for event in watch(str(portrait_clip))]
    assert changes[:2] == [CameraChange.UP, TrackChange.APPEARED]
    assert changes[-2:] == [TrackChange.LEFT, CameraChange.DOWN]


def tracks_left(*sources: object, analysis_fps: float = 10.0) -> list[FaceEvent]:
    given = override_settings(
        None, sources=[str(each) for each in sources], sinks=[], environment={}, analysis_fps=analysis_fps
    )
    events = list(watch(settings=given))
    return [e for e in events if isinstance(e, FaceEvent) and e.change is TrackChange.LEFT]


@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_of_a_few_pictures_shows_who_is_in_it(
    portrait: np.ndarray, tmp_path: Path, count: int
) -> None:
    for number in range(count):
        picture = np.roll(portrait, 40 * number, axis=1)  # in another place in each
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    (track,) = tracks_left(tmp_path)
    assert track.faces_seen == count


def test_who_is_there_is_seen_below_one_look_a_second(portrait_clip: Path) -> None:
    """The clip shows one person, who leaves and comes back, and is small for a while.

    Small, in two looks, she resembles herself so little (cosine 0.35 to 0.44) that how the clip happened to
    be encoded decides whether these are joined to the track before or are one or two of their own.
    """
    found = tracks_left(portrait_clip, analysis_fps=0.8)
    assert 2 <= len(found) <= 4
    assert sum(track.faces_seen for track in found) >= 10


def test_a_camera_slower_than_its_limit_stays_up_after_a_few_attempts() -> None:
    source = open_source(camera_id="slow", uri="test://ball?fps=4", stall_timeout_s=0.1)
    with closing(source), closing(source.frames()) as frames:
        for _ in range(7):
            next(frames)
        assert source.stats().reconnects <= 4


def test_watch_may_be_left_at_any_time(portrait_clip: Path) -> None:
    for event in watch("test://ball", str(portrait_clip)):
        if event.change is TrackChange.APPEARED:
            break
    deadline = time.monotonic() + WAIT_S
    while [t for t in threading.enumerate() if t.name.startswith("camera-")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_watch_raises_what_ended_a_source_after_the_events_of_the_others(tmp_path: Path) -> None:
    found: list[Event] = []
    with pytest.raises(SourceError, match="no such file"):
        found.extend(watch(str(tmp_path / "missing.mp4"), "test://ball?frames=20"))
    assert {event.camera_id for event in found} == {"missing", "test-ball"}
