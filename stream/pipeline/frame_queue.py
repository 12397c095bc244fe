"""Frames of many cameras to one consumer, bounded, in each camera's order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from stream.video.frames import CameraStatus, Frame

Item: TypeAlias = Frame | CameraStatus


@dataclass(slots=True)
class _Lane:
    live: bool
    items: deque[Item] = field(default_factory=deque)
    frames: int = 0
    dropped: int = 0
    finished: bool = False


class FrameMux:
    """Meeting point of the cameras' threads and the recogniser's.

    A finite source waits until there is room, so no frame is lost. A live source never waits: its newest
    frame takes the place of the one that nobody has fetched yet, which counts as dropped. Changes of state
    keep their place between the frames and are never dropped.

    Args:
        live_by_camera: Which cameras there are, and whether each is live.
        capacity: Frames that a finite source may be ahead, 1 or more.
    """

    def __init__(self, live_by_camera: dict[str, bool], *, capacity: int = 8) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: expected 1 or more, got {capacity}")
        self._lanes = {camera_id: _Lane(live) for camera_id, live in live_by_camera.items()}
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; waits for room if the camera is finite.

        Returns:
            False when the mux was closed and the camera's thread should end.
        """
        with self._changed:
            lane = self._lanes[frame.camera_id]
            if lane.live:
                if lane.frames:
                    lane.items = deque(item for item in lane.items if not isinstance(item, Frame))
                    lane.dropped += lane.frames
                    lane.frames = 0
            else:
                self._changed.wait_for(lambda: self._closed or lane.frames < self._capacity)
            if self._closed:
                return False
            lane.items.append(frame)
            lane.frames += 1
            self._changed.notify_all()
            return True

    def put_status(self, status: CameraStatus) -> None:
        """Hand over a change of state; never waits."""
        with self._changed:
            self._lanes[status.camera_id].items.append(status)
            self._changed.notify_all()

    def finish(self, camera_id: str) -> None:
        """Say that nothing more comes from a camera."""
        with self._changed:
            self._lanes[camera_id].finished = True
            self._changed.notify_all()

    def take(self, *, timeout_s: float, frames_per_camera: int = 1) -> Sequence[Item]:
        """Fetch what has come: of each camera its changes of state and at most so many frames, in order.

        Args:
            timeout_s: How long to wait for the first item.
            frames_per_camera: 1 or more.

        Returns:
            The items; empty when the time passed or everything has been fetched.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._has_items() and not self._closed and not self._all_finished():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            taken: list[Item] = []
            for lane in self._lanes.values():
                frames_left = frames_per_camera
                while lane.items and (frames_left or not isinstance(lane.items[0], Frame)):
                    item = lane.items.popleft()
                    if isinstance(item, Frame):
                        frames_left -= 1
                        lane.frames -= 1
                    taken.append(item)
            if taken:
                self._changed.notify_all()
            return taken

    def is_finished(self, camera_id: str) -> bool:
        """Whether a camera has ended and all that it gave has been fetched."""
        with self._changed:
            lane = self._lanes[camera_id]
            return lane.finished and not lane.items

    def dropped(self, camera_id: str) -> int:
        """Frames of a live camera that a newer one replaced."""
        with self._changed:
            return self._lanes[camera_id].dropped

    def close(self) -> None:
        """Let waiting threads go. What has not been fetched can still be fetched."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_items(self) -> bool:
        return any(lane.items for lane in self._lanes.values())

    def _all_finished(self) -> bool:
        return all(lane.finished for lane in self._lanes.values())
