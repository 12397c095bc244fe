"""A frame, where frames come from, and how a camera is doing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from engine.faces import Image


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture that is to be looked at.

    Attributes:
        camera_id: Which camera it comes from.
        number: Position among all frames that the source decoded in this run, from 0; frames that were
            dropped or skipped are counted, so numbers may have gaps but never repeat.
        time_s: Media time in seconds. Never goes back within a run, also not across a reconnection.
        captured_at: Wall-clock time of it, UTC.
        image: uint8 (H, W, 3) BGR, owned by the frame.
        is_damaged: Whether parts of the picture were lost on the way: it tells where faces are, not how they
            look.

    Raises:
        ValueError: ``captured_at`` has no time zone, or the image is not uint8 (H, W, 3).
    """

    camera_id: str
    number: int
    time_s: float
    captured_at: datetime
    image: Image
    is_damaged: bool = False

    def __post_init__(self) -> None:
        if self.captured_at.tzinfo is None:
            raise ValueError("captured_at: expected a time with a time zone")
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != "uint8":
            raise ValueError(f"image: expected uint8 (H, W, 3), got {self.image.dtype} {self.image.shape}")

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


class CameraState(Enum):
    """How a camera is doing."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A change of a camera's state.

    Attributes:
        camera_id: Which camera.
        state: Its new state.
        at: When, UTC.
        reason: Why, in one line without secrets; empty when all is well.
        attempt: Connection attempts since it was last up.
    """

    camera_id: str
    state: CameraState
    at: datetime
    reason: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class SourceStats:
    """Counts since the source was opened.

    Attributes:
        decoded: Decoded frames.
        skipped: Frames skipped on purpose, to analyse no more than ``analysis_fps`` a second.
        dropped: Frames lost because the consumer was late (live only) or because they were damaged.
        reconnects: Times that a live source came back.
        abandoned: Pipelines that did not stop in time and were abandoned, with their threads and memory.
        damaged: Those of the dropped ones that were damaged. A picture with a part missing is given out, as
            damaged; one that cannot be read is not.
    """

    decoded: int = 0
    skipped: int = 0
    dropped: int = 0
    reconnects: int = 0
    abandoned: int = 0
    damaged: int = 0


class FrameSource(Protocol):
    """Frames of one camera, file or folder.

    Contract: ``frames()`` is called once and blocks while it waits for the next frame. It ends when the
    media ends or after ``close()``, which any thread may call at any time, also twice, and which returns
    within two seconds. A finite source that cannot be read raises SourceError; a live source never ends by
    itself: it reports state changes to the listener that it was made with and tries again.
    """

    @property
    def camera_id(self) -> str:
        """Which camera this is."""

    @property
    def is_live(self) -> bool:
        """True when frames come at their own pace and a late consumer loses the older ones."""

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are to be looked at, in order."""

    def stats(self) -> SourceStats:
        """Counts so far; may be read from any thread."""

    def close(self) -> None:
        """Stop and free everything."""
