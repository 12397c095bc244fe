"""Which decoded frames are analysed, with their numbers and times: arithmetic on timestamps, no video."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from stream.video.frames import SourceStats

_NS = 1_000_000_000
_TOLERANCE_NS = 1_000_000
"""Containers round timestamps to milliseconds; a frame may be due that much early."""
_USUAL_DURATION_NS = _NS // 25
_LEAST_STEP_S = 0.001
_MOST_STEP_OF_DAMAGED_NS = _NS
"""A timestamp that leaps further in a damaged stream is taken to be damaged itself."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the gate remembers of a frame that it let pass.

    Attributes:
        pts_ns: Presentation timestamp as the decoder gave it; None where it gave none.
        number: Position among all decoded frames of the run, from 0.
        media_s: Seconds since the first frame of this pipeline; strictly rising.
        is_damaged: Whether the decoder or the transport knows it to be damaged.
    """

    pts_ns: int | None
    number: int
    media_s: float
    is_damaged: bool = False


class FrameGate:
    """Counts every decoded frame and lets at most ``analysis_fps`` a second of media time pass.

    It stands between decoder and colour conversion, so that frames nobody looks at cost no conversion.
    ``admit`` is called in the decoder's thread, ``take`` in the consumer's. Frames that passed and were
    overwritten by a newer one before the consumer took them are counted as dropped.

    Args:
        analysis_fps: Most frames a second that pass; None lets all pass.
        capacity: Most frames between ``admit`` and ``take``; older ones are forgotten and count as dropped.

    Raises:
        ValueError: ``analysis_fps`` is not above 0.
    """

    def __init__(self, analysis_fps: float | None, *, capacity: int = 64) -> None:
        if analysis_fps is not None and not analysis_fps > 0:
            raise ValueError(f"analysis_fps: expected a number above 0 or None, got {analysis_fps}")
        self._interval_ns = 0 if analysis_fps is None else round(_NS / analysis_fps)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._tickets: deque[Ticket] = deque()
        self._decoded = self._skipped = self._dropped = self._damaged = 0
        self._first_ns: int | None = None
        self._last_ns = self._due_ns = 0
        self._step_ns = _USUAL_DURATION_NS

    @property
    def decoded(self) -> int:
        """Frames that came so far."""
        return self._decoded

    @property
    def in_flight(self) -> int:
        """Frames that passed and were not taken yet."""
        return len(self._tickets)

    @property
    def end_s(self) -> float:
        """Seconds from the first frame of this pipeline to the end of the latest one."""
        return (self._last_ns + self._step_ns) / _NS

    def stats(
        self, *, unreadable: int = 0, late: int = 0, reconnects: int = 0, abandoned: int = 0
    ) -> SourceStats:
        """Counts so far, with those that the gate cannot know added."""
        with self._lock:
            damaged = self._damaged + unreadable
            return SourceStats(
                decoded=self._decoded,
                skipped=self._skipped,
                dropped=self._dropped + late + damaged,
                reconnects=reconnects,
                abandoned=abandoned,
                damaged=damaged,
            )

    def restart(self) -> None:
        """A new pipeline begins: its timestamps start again; numbers continue."""
        with self._lock:
            self._dropped += len(self._tickets)
            self._tickets.clear()
            self._first_ns = None

    def admit(
        self,
        pts_ns: int | None,
        duration_ns: int | None,
        is_damaged: bool = False,
        *,
        whenever: bool = False,
    ) -> bool:
        """Count a decoded frame and say whether it is to be looked at.

        Args:
            pts_ns: Its timestamp. Where it is missing or does not rise (some GIFs have 0 throughout), the
                frame is taken to follow the one before by that one's duration.
            duration_ns: Its duration, where known.
            is_damaged: Whether it is known to be damaged.
            whenever: Let it pass also when it is not due.

        Returns:
            True when the frame passes.
        """
        with self._lock:
            number = self._decoded
            self._decoded += 1
            time_ns = self._media_ns(pts_ns, duration_ns, is_damaged=is_damaged)
            if time_ns + _TOLERANCE_NS < self._due_ns and not whenever:
                self._skipped += 1
                return False
            if self._interval_ns:
                # On a grid, so that the mean rate is met; restarted after a gap, to catch up on nothing.
                late = time_ns - self._due_ns > self._interval_ns
                self._due_ns = (time_ns if late else self._due_ns) + self._interval_ns
            if len(self._tickets) >= self._capacity:
                self._tickets.popleft()
                self._dropped += 1
            self._tickets.append(Ticket(pts_ns, number, time_ns / _NS, is_damaged))
            return True

    def take(self, pts_ns: int | None) -> Ticket:
        """The ticket of a frame that reached the consumer.

        Args:
            pts_ns: The frame's timestamp.

        Returns:
            Its ticket; the ones before it belong to frames that were overwritten.

        Raises:
            LookupError: No frame is on its way.
        """
        with self._lock:
            if not self._tickets:
                raise LookupError("a frame arrived that the gate never let pass")
            position = next((i for i, ticket in enumerate(self._tickets) if ticket.pts_ns == pts_ns), 0)
            for _ in range(position):
                self._tickets.popleft()
            self._dropped += position
            ticket = self._tickets.popleft()
            self._damaged += ticket.is_damaged
            return ticket

    def _media_ns(self, pts_ns: int | None, duration_ns: int | None, *, is_damaged: bool) -> int:
        if self._first_ns is None:
            self._first_ns = pts_ns or 0
            self._last_ns = self._due_ns = 0
            return 0
        time_ns = self._last_ns if pts_ns is None else pts_ns - self._first_ns
        leaps = is_damaged and time_ns - self._last_ns > _MOST_STEP_OF_DAMAGED_NS
        if time_ns <= self._last_ns or leaps:
            time_ns = self._last_ns + (duration_ns or _USUAL_DURATION_NS)
        self._step_ns = time_ns - self._last_ns
        self._last_ns = time_ns
        return time_ns


class LiveClock:
    """Turns the timestamps of successive connections into one time that never goes back.

    Within a connection the camera's timestamps count, since they are free of network jitter. They are
    anchored to the local clock when a connection begins, and again when both differ by more than
    ``tolerance_s``.

    Args:
        tolerance_s: Largest difference to the local clock that is still believed.
    """

    def __init__(self, *, tolerance_s: float = 2.0) -> None:
        self._tolerance_s = tolerance_s
        self._offset_s: float | None = None
        self._last_s = -_LEAST_STEP_S

    def restart(self) -> None:
        """A new connection begins."""
        self._offset_s = None

    def time_s(self, *, media_s: float, elapsed_s: float) -> float:
        """Time of a frame.

        Args:
            media_s: Its timestamp within the connection.
            elapsed_s: Local time since the source was opened, when the frame arrived.

        Returns:
            Seconds since the source was opened, above every result before.
        """
        if self._offset_s is None or abs(media_s + self._offset_s - elapsed_s) > self._tolerance_s:
            self._offset_s = elapsed_s - media_s
        self._last_s = max(media_s + self._offset_s, self._last_s + _LEAST_STEP_S)
        return self._last_s
