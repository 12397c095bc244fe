"""Totals of several workers: counts, and seconds by stage."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_STAGES: Final = ("read", "decode", "detect", "align", "embed", "cache")


class Tally:
    """Counts and times of all workers together.

    Attributes:
        counts: By name.
        unreadable: Damaged images, in the order in which they were met.
        faceless: Images in which nothing was detected.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.unreadable: list[Path] = []
        self.faceless: list[Path] = []

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage; ``set`` holds all others."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[stage] += time.perf_counter() - begin

    def add(self, **counts: int) -> None:
        """Add to counts."""
        with self._lock:
            self.counts.update(counts)

    def skip(self, path: Path) -> None:
        """Note a damaged image."""
        with self._lock:
            self.unreadable.append(path)

    def note_faceless(self, paths: Iterable[Path]) -> None:
        """Note images in which nothing was detected."""
        with self._lock:
            self.faceless += paths

    def stages(self) -> dict[str, float]:
        """Seconds, summed over the workers; ``other`` is what is left of the sets' time."""
        known = {stage: self._seconds[stage] for stage in _STAGES}
        return {**known, "other": max(0.0, self._seconds["set"] - sum(known.values()))}
