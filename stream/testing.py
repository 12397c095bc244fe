"""Sources and sinks made of lists, for tests of programs that build on facestream, and for its own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from engine.errors import SinkError
from engine.faces import Image
from stream.events.event_types import Event
from stream.video.camera_status import StatusListener
from stream.video.frames import CameraStatus, Frame, SourceStats

SourceItem: TypeAlias = Frame | CameraStatus | BaseException
"""What happens next at a source: a frame, a change of state, or an error that ends it."""

START: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""When the first frame of ``frames_of`` was captured, unless told otherwise."""


def frames_of(
    images: Iterable[Image], *, camera_id: str = "camera", fps: float = 10.0, start_at: datetime = START
) -> list[Frame]:
    """Frames of some images, evenly spaced.

    Args:
        images: uint8 (H, W, 3) BGR.
        camera_id: The camera they come from.
        fps: Frames a second, above 0.
        start_at: When the first one was captured, with a time zone.

    Raises:
        ValueError: An image has another dtype or shape, or a number is out of range.
    """
    if not fps > 0:
        raise ValueError(f"fps: expected a number above 0, got {fps}")
    return [
        Frame(camera_id, number, number / fps, start_at + timedelta(seconds=number / fps), image)
        for number, image in enumerate(images)
    ]


class ListSource:
    """A ``FrameSource`` that plays a list: frames are yielded, states reported, errors raised.

    A live one stays open at the end of its list until it is closed, as a camera does.

    Args:
        items: What happens, in order.
        camera_id: Which camera this is.
        is_live: Whether a consumer that is late loses older frames.
        on_status: Told about the states in the list, in the thread that iterates over ``frames()``.
    """

    def __init__(
        self,
        items: Iterable[SourceItem],
        *,
        camera_id: str = "camera",
        is_live: bool = False,
        on_status: StatusListener | None = None,
    ) -> None:
        self._items = tuple(items)
        self._camera_id, self._is_live, self._on_status = camera_id, is_live, on_status
        self._closed = threading.Event()
        self._yielded = 0

    @property
    def camera_id(self) -> str:
        """Which camera this is."""
        return self._camera_id

    @property
    def is_live(self) -> bool:
        """Whether a consumer that is late loses older frames."""
        return self._is_live

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def frames(self) -> Iterator[Frame]:
        """Play the list.

        Yields:
            Its frames, until the end or until ``close`` is called.

        Raises:
            BaseException: An error of the list.
        """
        for item in self._items:
            if self.is_closed:
                return
            if isinstance(item, Frame):
                self._yielded += 1
                yield item
            elif isinstance(item, CameraStatus):
                if self._on_status is not None:
                    self._on_status(item)
            else:
                raise item
        if self._is_live:
            self._closed.wait()

    def stats(self) -> SourceStats:
        """Counts so far."""
        return SourceStats(decoded=self._yielded)

    def close(self) -> None:
        """End ``frames()``."""
        self._closed.set()


class ListSink:
    """An ``EventSink`` that keeps events in a list.

    Args:
        fails_after: Number of events that it takes; then it raises ``SinkError``. None takes all.

    Attributes:
        events: The events that it was given, in order.
        is_closed: Whether ``close`` was called.
    """

    def __init__(self, *, fails_after: int | None = None) -> None:
        self.events: list[Event] = []
        self.is_closed = False
        self._fails_after = fails_after

    def emit(self, events: Sequence[Event]) -> None:
        """Keep some events.

        Raises:
            SinkError: There would be more than ``fails_after``; none of them is kept.
        """
        if self._fails_after is not None and len(self.events) + len(events) > self._fails_after:
            raise SinkError(f"this sink fails after {self._fails_after} events")
        self.events += events

    def close(self, timeout_s: float) -> None:
        """Note that it was closed.

        Args:
            timeout_s: Ignored: nothing is left to deliver.
        """
        del timeout_s
        self.is_closed = True
