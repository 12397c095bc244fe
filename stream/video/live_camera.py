"""Live cameras: frames as they come, and patience when they do not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime

from engine.errors import SourceError
from stream.common.uris import NetworkStream, SourceAddress
from stream.video.camera_status import StatusListener, StatusReporter
from stream.video.frame_sampler import FrameGate, LiveClock
from stream.video.frames import CameraState, Frame, SourceStats
from stream.video.playback import AccessRefusedError, Credentials, Playback, StalledError
from stream.video.sampling_interval import Patience

_FIRST_BACKOFF_S = 0.5
_SLOWEST_ATTEMPT = 32
_FASTEST_POLL_S = 0.1


def backoff_s(attempt: int, *, most_s: float, draw: Callable[[], float]) -> float:
    """How long to wait before the next attempt: doubled each time, capped, and spread by up to a half.

    The spread keeps cameras that failed together from coming back together.

    Args:
        attempt: Attempts that have failed in a row, from 1.
        most_s: The cap.
        draw: Gives a random number, 0..1.

    Returns:
        Seconds, between half of the nominal time and all of it.
    """
    nominal_s = min(most_s, _FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, _SLOWEST_ATTEMPT))
    return nominal_s * (0.5 + 0.5 * draw())


class LiveSource:
    """A camera that is watched for ever: its newest frame wins, and when it fails it is tried again.

    A server may play a recording, whose end is told as what it is, and begin it again. One that gives a
    single picture and closes is asked for the next at the rate of analysis, and is up as long as it answers.

    Args:
        address: What to connect to.
        camera_id: Name in frames and reports.
        analysis_fps: Most frames a second of media time; None for all.
        credentials: For the server. While it refuses them, attempts keep to the slowest pace.
        open_timeout_s: How long the first frame of a connection may take.
        stall_timeout_s: How long each later one may take before the camera counts as down; longer for one
            that turns out to be slow.
        max_backoff_s: Longest wait between two attempts.
        video: Which of several videos, from 1.
        on_status: Told about changes of state, in the thread that iterates over ``frames()``.
        clock: Monotonic seconds.
        draw: Gives random numbers, 0..1.

    Raises:
        ValueError: A number is not above 0.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        camera_id: str,
        analysis_fps: float | None,
        credentials: Credentials,
        open_timeout_s: float,
        stall_timeout_s: float,
        max_backoff_s: float,
        video: int = 1,
        on_status: StatusListener | None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not min(open_timeout_s, stall_timeout_s, max_backoff_s) > 0:
            raise ValueError("open_timeout_s, stall_timeout_s, max_backoff_s: expected numbers above 0")
        self._address, self._camera_id, self._credentials = address, camera_id, credentials
        self._open_timeout_s, self._patience = open_timeout_s, Patience(stall_timeout_s)
        self._max_backoff_s, self._video = max_backoff_s, video
        self._clock, self._draw = clock, draw
        self._gate = FrameGate(analysis_fps)
        self._poll_s = max(_FASTEST_POLL_S, 1.0 / analysis_fps) if analysis_fps else _FASTEST_POLL_S
        self._live_clock = LiveClock()
        self._status = StatusReporter(camera_id, on_status)
        self._closing = threading.Event()
        self._playback: Playback | None = None
        self._begun = False
        self._connections = 0
        self._is_polling = False
        self._failed_attempts = 0

    @property
    def camera_id(self) -> str:
        """Which camera this is."""
        return self._camera_id

    @property
    def is_live(self) -> bool:
        """Always: a late consumer loses the older frames."""
        return True

    def frames(self) -> Iterator[Frame]:
        """Yield the frames that are to be looked at, in order, until ``close``.

        Raises:
            ValueError: It was called before.
        """
        if self._begun:
            raise ValueError("frames() may be called once; make another source")
        self._begun = True
        return self._frames()

    def stats(self) -> SourceStats:
        """Counts so far; may be read from any thread."""
        reconnects = max(0, self._connections - 1)
        return self._gate.stats(reconnects=reconnects, abandoned=self._status.abandoned)

    def close(self) -> None:
        """Stop and free everything; any thread, any time, also twice."""
        self._closing.set()
        if (playback := self._playback) is not None:
            playback.close()

    def _frames(self) -> Iterator[Frame]:
        opened_at_s = self._clock()
        self._status.tell(CameraState.CONNECTING)
        try:
            while not self._closing.is_set():
                slowest, begun_at_s, known = False, self._clock(), self._gate.decoded
                try:
                    reason = yield from self._connect(opened_at_s)
                except SourceError as exc:
                    if isinstance(exc, StalledError) and (frames := self._gate.decoded - known):
                        self._patience.note_stall(frames, self._clock() - begun_at_s)
                    reason, slowest = str(exc), isinstance(exc, AccessRefusedError)
                if self._closing.is_set():
                    return
                self._is_polling = reason is None
                if reason is None:
                    self._closing.wait(max(0.0, begun_at_s + self._poll_s - self._clock()))
                    continue
                self._failed_attempts += 1
                self._status.tell(CameraState.DOWN, reason=reason, attempt=self._failed_attempts)
                attempt = _SLOWEST_ATTEMPT if slowest else self._failed_attempts
                self._closing.wait(backoff_s(attempt, most_s=self._max_backoff_s, draw=self._draw))
        finally:
            self.close()
            self._status.tell(CameraState.ENDED)

    def _connect(self, opened_at_s: float) -> Generator[Frame, None, str | None]:
        """Yield the frames of one connection; return why it ended, None after a still picture."""
        self._live_clock.restart()
        playback = Playback(
            self._address,
            credentials=self._credentials,
            gate=self._gate,
            latest_only=True,
            at_clock_pace=None if _is_web_address(self._address) else False,
            video=self._video,
            on_abandoned=self._status.tell_abandoned,
            clock=self._clock,
        )
        self._playback = playback
        if self._closing.is_set():
            return "closed"
        is_up, duration_s = False, None
        frames = playback.frames(open_timeout_s=self._open_timeout_s, stall_timeout_s=self._patience.limit_s)
        with closing(frames):
            for ticket, image in frames:
                if not is_up:
                    is_up, duration_s = True, playback.duration_s()
                    self._connections += not self._is_polling
                    self._failed_attempts = 0
                    self._status.tell(CameraState.UP)
                time_s = self._live_clock.time_s(
                    media_s=ticket.media_s, elapsed_s=self._clock() - opened_at_s
                )
                yield Frame(
                    self._camera_id, ticket.number, time_s, datetime.now(UTC), image, ticket.is_damaged
                )
        if playback.was_still_picture():
            return None
        why = playback.why_it_ended()
        if duration_s is None or playback.was_cut_off():
            return why
        return f"{why}; the server announced {duration_s:.1f} s: set ends: true (--ends) for a recording"


def _is_web_address(address: SourceAddress) -> bool:
    return isinstance(address, NetworkStream) and address.scheme in ("http", "https")
