"""The main job: cameras to frames, frames to events, with each camera's failures isolated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby

from engine.errors import FacestreamError
from stream.common.logs import get_logger
from stream.common.printable import valid_text
from stream.events.event_types import CameraChange, CameraEvent, Event, FaceEvent
from stream.pipeline.frame_queue import FrameMux
from stream.pipeline.recognizer import Recognition, Recognizer
from stream.tracking.track_state import LiveTrack
from stream.video.frames import CameraState, CameraStatus, Frame, FrameSource, SourceStats

log = get_logger(__name__)

StatusListener = Callable[[CameraStatus], None]

_IDLE_S = 0.2
_CLOSE_TIMEOUT_S = 2.5
_NO_FRAMES = (CameraState.DOWN, CameraState.ENDED)


@dataclass(frozen=True, slots=True)
class Camera:
    """What the pipeline must know of a camera.

    Attributes:
        camera_id: Name in events.
        run_id: Which run of the camera this is; part of every event's id.
        uri: For events and people: without user name and password.
        open_source: Makes its source, given the listener that is told of changes of state.
        looks_apart_s: Least time between two frames that it gives out; 0 where none is set.
    """

    camera_id: str
    run_id: str
    uri: str
    open_source: Callable[[StatusListener], FrameSource]
    looks_apart_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One step of the pipeline.

    Attributes:
        frames: The frames looked at, in each camera's order; may be empty.
        events: What came of them, in each camera's order; may be empty.
        tracks: Beside each frame, the tracks of its camera that were open after it.
    """

    frames: Sequence[Frame]
    events: Sequence[Event]
    tracks: Sequence[Sequence[LiveTrack]] = ()


@dataclass(slots=True)
class CameraReport:
    """How a camera is doing, for people and metrics.

    Attributes:
        camera_id: Which camera.
        uri: Without user name and password.
        is_live: Whether it is live.
        state: Its state.
        reason: Why, when all is not well.
        source: The source's own counts.
        frames: Frames looked at.
        dropped: Frames lost because the recogniser was late, or damaged on the way.
        tracks: Tracks that have appeared.
        live_tracks: Tracks now in view; none while the camera is down.
        events: Events made.
        lag_s: Age of the newest frame when its events were made; None for a source that is not live, and
            once it is down.
        last_time_s: Media time of the newest frame.
        error: What ended the source, if anything did.
    """

    camera_id: str
    uri: str
    is_live: bool = False
    state: CameraState = CameraState.CONNECTING
    reason: str = ""
    source: SourceStats = field(default_factory=SourceStats)
    frames: int = 0
    dropped: int = 0
    tracks: int = 0
    live_tracks: int = 0
    events: int = 0
    lag_s: float | None = None
    last_time_s: float = 0.0
    error: FacestreamError | None = None


@dataclass(slots=True)
class _Lane:
    """The pipeline's memory of one camera."""

    camera: Camera
    source: FrameSource
    report: CameraReport
    thread: threading.Thread | None = None
    crash: BaseException | None = None
    camera_events: int = 0
    is_up: bool | None = None
    last_frame_at: float = 0.0
    last_captured_at: datetime | None = None
    closed: bool = False


class Pipeline:
    """Runs cameras through a recogniser.

    Each camera has a thread of its own that fetches frames; ``batches`` runs the recogniser in the caller's
    thread. A camera that cannot be read ends alone; its error stands in its report.

    Args:
        cameras: What to watch; ids differ.
        recognizer: Shared by all cameras.
        frames_per_step: Frames of one finite source that may go into one detector batch, 1 or more.

    Raises:
        ValueError: No camera, or two with the same id.
    """

    def __init__(
        self, cameras: Sequence[Camera], recognizer: Recognizer, *, frames_per_step: int = 1
    ) -> None:
        ids = [camera.camera_id for camera in cameras]
        if not ids or len(set(ids)) != len(ids):
            raise ValueError(f"expected one or more cameras with different ids, got {ids}")
        self._recognizer = recognizer
        self._frames_per_step = frames_per_step
        self._stopping = threading.Event()
        self._lanes: dict[str, _Lane] = {}
        for camera in cameras:
            source = camera.open_source(self._on_status)
            report = CameraReport(camera.camera_id, camera.uri, is_live=source.is_live)
            self._lanes[camera.camera_id] = _Lane(camera, source, report)
        self._mux = FrameMux({name: lane.source.is_live for name, lane in self._lanes.items()})

    @property
    def reports(self) -> Mapping[str, CameraReport]:
        """How each camera is doing, by id."""
        return {name: lane.report for name, lane in self._lanes.items()}

    def stop(self) -> None:
        """Ask ``batches`` to end soon; any thread or signal handler may call it."""
        self._stopping.set()

    def batches(self) -> Generator[Batch, None, None]:
        """Run until all sources have ended or ``stop`` is called; then close every open track.

        Yields:
            At least five batches a second, also empty ones, so that the caller can look around.
        """
        for lane in self._lanes.values():
            camera = lane.camera
            self._recognizer.open_camera(camera.camera_id, camera.run_id, looks_apart_s=camera.looks_apart_s)
            lane.thread = threading.Thread(
                target=self._pump, args=(lane,), name=f"camera-{lane.camera.camera_id}", daemon=True
            )
            lane.thread.start()
        try:
            while not self._stopping.is_set() and not self._all_closed():
                yield self._step()
            yield self._finish()
        finally:
            self._shut_down()

    def _step(self) -> Batch:
        items = self._mux.take(timeout_s=_IDLE_S, frames_per_camera=self._frames_per_step)
        frames: list[Frame] = []
        events: list[Event] = []
        tracks: list[Sequence[LiveTrack]] = []
        for is_frame, group in groupby(items, key=lambda item: isinstance(item, Frame)):
            if is_frame:
                pending = [item for item in group if isinstance(item, Frame)]
                recognition = self._recognise(pending)
                frames += pending
                events += self._count(recognition.events)
                tracks += recognition.tracks
            else:
                for item in group:
                    events += self._note_status(item) if isinstance(item, CameraStatus) else []
        for lane in self._lanes.values():
            events += self._advance(lane)
            if not lane.closed and self._mux.is_finished(lane.camera.camera_id):
                events += self._close(lane)
            self._update_report(lane)
        return Batch(frames, events, tracks)

    def _recognise(self, frames: Sequence[Frame]) -> Recognition:
        for frame in frames:
            lane = self._lanes[frame.camera_id]
            lane.last_frame_at = time.monotonic()
            lane.last_captured_at = frame.captured_at
            lane.report.frames += not frame.is_damaged
            lane.report.last_time_s = frame.time_s
        recognition = self._recognizer.process(frames)
        for frame in frames:
            lane = self._lanes[frame.camera_id]
            if lane.source.is_live:
                lane.report.lag_s = (datetime.now(UTC) - frame.captured_at).total_seconds()
        return recognition

    def _note_status(self, status: CameraStatus) -> Sequence[Event]:
        """A change between up and down, or of the reason why a camera is down, as an event."""
        lane = self._lanes[status.camera_id]
        is_news = status.reason != lane.report.reason
        lane.report.state = status.state
        lane.report.reason = status.reason
        if status.state in _NO_FRAMES:
            lane.report.lag_s = None
        is_up = {CameraState.UP: True, CameraState.DOWN: False}.get(status.state)
        if is_up is None or (is_up == lane.is_up and (is_up or not is_news)):
            return []
        planned = None if is_up else False
        return [self._camera_event(lane, is_up=is_up, at=status.at, reason=status.reason, planned=planned)]

    def _camera_event(
        self, lane: _Lane, *, is_up: bool, at: datetime, reason: str, planned: bool | None = None
    ) -> CameraEvent:
        was_down, lane.is_up = lane.is_up is False, is_up
        event = CameraEvent(
            change=CameraChange.UP if is_up else CameraChange.DOWN,
            sequence=lane.camera_events,
            camera_id=lane.camera.camera_id,
            run_id=lane.camera.run_id,
            at=at,
            uri=valid_text(lane.camera.uri),
            reason=valid_text(reason),
            planned=planned,
        )
        lane.camera_events += 1
        lane.report.events += 1
        _log_change(event, is_live=lane.source.is_live, was_down=was_down)
        return event

    def _advance(self, lane: _Lane) -> Sequence[Event]:
        """Let time pass for a live camera that gives no frames, so that its tracks can leave."""
        idle_s = time.monotonic() - lane.last_frame_at
        if lane.closed or not lane.source.is_live or lane.last_captured_at is None or idle_s < _IDLE_S:
            return []
        time_s = lane.report.last_time_s + idle_s
        at = lane.last_captured_at + timedelta(seconds=idle_s)
        return self._count(self._recognizer.advance(lane.camera.camera_id, time_s, at))

    def _close(self, lane: _Lane) -> Sequence[Event]:
        """Close a camera's tracks once nothing more comes from it."""
        lane.closed = True
        if lane.crash is not None and not isinstance(lane.crash, FacestreamError):
            raise lane.crash
        events = list(self._count(self._recognizer.close_camera(lane.camera.camera_id)))
        lane.report.state, lane.report.lag_s = CameraState.ENDED, None
        if isinstance(lane.crash, FacestreamError):
            lane.report.error = lane.crash
            lane.report.reason = str(lane.crash)
        never_up = lane.is_up is None and lane.report.error is not None
        if lane.is_up or never_up:
            at = lane.last_captured_at or datetime.now(UTC)
            reason = lane.report.reason or "end of the video"
            planned = lane.report.error is None
            events.append(self._camera_event(lane, is_up=False, at=at, reason=reason, planned=planned))
        return events

    def _finish(self) -> Batch:
        events: list[Event] = []
        for lane in self._lanes.values():
            if not lane.closed:
                lane.report.reason = lane.report.reason or "facestream was stopped"
                events += self._close(lane)
                self._update_report(lane)
        return Batch([], events)

    def _count(self, events: Sequence[Event]) -> Sequence[Event]:
        for event in events:
            report = self._lanes[event.camera_id].report
            report.events += 1
            if isinstance(event, FaceEvent) and event.sequence == 0:
                report.tracks += 1
        return events

    def _update_report(self, lane: _Lane) -> None:
        name = lane.camera.camera_id
        lane.report.source = lane.source.stats()
        lane.report.dropped = self._mux.dropped(name) + lane.report.source.dropped
        is_blind = lane.report.state in _NO_FRAMES
        lane.report.live_tracks = 0 if is_blind else len(self._recognizer.live_tracks(name))

    def _all_closed(self) -> bool:
        return all(lane.closed for lane in self._lanes.values())

    def _on_status(self, status: CameraStatus) -> None:
        self._mux.put_status(status)

    def _pump(self, lane: _Lane) -> None:
        """Body of a camera's thread."""
        try:
            for frame in lane.source.frames():
                if not self._mux.put(frame):
                    break
        except BaseException as exc:  # noqa: BLE001 - handed to the owner, who raises it in its own thread
            lane.crash = exc
        finally:
            self._mux.finish(lane.camera.camera_id)

    def _shut_down(self) -> None:
        """Close all sources side by side, and wait for their threads together, no longer than is promised."""
        self._mux.close()
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        closers = [
            threading.Thread(target=lane.source.close, name=f"close-{name}", daemon=True)
            for name, lane in self._lanes.items()
        ]
        for closer in closers:
            closer.start()
        for closer, lane in zip(closers, self._lanes.values(), strict=True):
            closer.join(max(0.0, deadline - time.monotonic()))
            if lane.thread is not None:
                lane.thread.join(max(0.0, deadline - time.monotonic()))
                if lane.thread.is_alive():
                    log.error("camera thread did not end", camera=lane.camera.camera_id)


def _log_change(event: CameraEvent, *, is_live: bool, was_down: bool) -> None:
    """Say that a camera is up or down; why a finite source ended is the caller's to say, from its report."""
    if event.change is CameraChange.UP:
        log.info("camera up", camera=event.camera_id)
    elif event.planned and is_live:
        log.info("camera closed", camera=event.camera_id, reason=event.reason)
    elif is_live:
        log.warning(
            "camera still down" if was_down else "camera down", camera=event.camera_id, reason=event.reason
        )
