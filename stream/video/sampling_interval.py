"""Time between analysed frames of a camera, which rules in seconds have to take into account."""

from __future__ import annotations

from collections import deque
from statistics import median_low

_STEPS = 2
_ENOUGH_FRAMES = 3
_MEMORY = 9
_LOOKS_MISSED = 2.5
"""Time between looks that a limit always leaves: one look that finds nothing, and half a one of jitter."""


class Pace:
    """Measures the usual time between two looks.

    It is the median, over the latest looks, of the mean over two steps. So one outage does not count, and a
    camera that gives pictures in pairs is as slow as its pairs are.

    Args:
        least_s: Looks are known to be this far apart at least, as by the setting of their rate, >= 0.

    Raises:
        ValueError: ``least_s`` is negative or not a number.
    """

    def __init__(self, *, least_s: float = 0.0) -> None:
        if not least_s >= 0:
            raise ValueError(f"least_s: expected a time of at least 0 s, got {least_s}")
        self._least_s = least_s
        self._times_s: deque[float] = deque(maxlen=_STEPS + 1)
        self._spacings_s: deque[float] = deque(maxlen=_MEMORY)
        self._spacing_s = least_s

    @property
    def spacing_s(self) -> float:
        """Usual time between two looks; ``least_s`` before the second one."""
        return self._spacing_s

    def note(self, time_s: float) -> None:
        """Take in the time of a look, which is not before that of the last one."""
        self._times_s.append(time_s)
        steps = len(self._times_s) - 1
        if steps < 1:
            return
        mean_s = (time_s - self._times_s[0]) / steps
        if steps == _STEPS:
            self._spacings_s.append(mean_s)
        self._spacing_s = max(self._least_s, median_low(self._spacings_s or [mean_s]))


class Patience:
    """How long to wait for the next frame of a live camera before it counts as down.

    A camera may give a picture every five or twenty seconds and cannot say so. When a connection gave a frame
    or two and then none, the next one is given twice the time, up to half a minute; when frames came close
    together before they stopped, that was an outage, and the limit is the set one again.

    Args:
        limit_s: The least, > 0.
        most_s: The most, where ``limit_s`` is not more.
    """

    def __init__(self, limit_s: float, *, most_s: float = 30.0) -> None:
        self._least_s, self._most_s = limit_s, max(limit_s, most_s)
        self._limit_s = limit_s

    @property
    def limit_s(self) -> float:
        """Of the next connection, or of this one."""
        return self._limit_s

    def note_stall(self, frames: int, lasted_s: float) -> None:
        """A connection gave no frame for ``limit_s``.

        Args:
            frames: That it gave before, 1 or more.
            lasted_s: From its beginning to the end of the wait.
        """
        if frames < _ENOUGH_FRAMES:
            self._limit_s = min(2 * self._limit_s, self._most_s)
        elif _LOOKS_MISSED * (lasted_s - self._limit_s) / frames <= self._least_s:
            self._limit_s = self._least_s


def stretched(limit_s: float, spacing_s: float) -> float:
    """A limit in seconds, made so long that one look which finds nothing does not exceed it.

    Args:
        limit_s: As set, >= 0.
        spacing_s: Usual time between two looks, >= 0.

    Returns:
        ``limit_s`` wherever two looks and a half fit into it.
    """
    return max(limit_s, _LOOKS_MISSED * spacing_s)
