"""Verify a log of events: gaps, order, duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from stream.events.event_types import CameraEvent, Event, IdentityEvent
from stream.events.fields import noun_of
from stream.sinks.event_log import Entry

MOST_FINDINGS = 20
"""Findings that are kept in words; more are only counted."""


@dataclass(slots=True)
class _Stream:
    """What came of one track, or of one camera's run."""

    first: int
    highest: int
    missing: set[int] = field(default_factory=set)


class LogCheck:
    """Looks at the entries of a log one after the other.

    A track's events are numbered from 0 without gaps, and so are a camera's within a run. A number that is
    left out is a gap, unless it comes later: then it is out of order. One that came before is a repeat, which
    delivery at least once allows. It remembers two numbers for each track.

    Args:
        whole: Whether the log begins at the beginning. When not, a track that begins with another number
            than 0 has begun before, and that is no gap.

    Attributes:
        events: Events that were read, by noun.
        repeats: Events that came before.
        late: Events that came behind one that follows them.
        unreadable: Entries that are no events.
        erased: Records without a value.
        begun_before: Tracks and runs whose beginning is not in the log.
        scattered: Cameras whose events are in several partitions, and so without order.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._streams: dict[str, _Stream] = {}
        self._answers: dict[tuple[str, str], tuple[int, int]] = {}
        self._partitions: dict[str, int] = {}
        self._findings: list[str] = []
        self.events = {"track": 0, "camera": 0, "identity": 0}
        self.repeats = self.late = self.unreadable = self.erased = self.begun_before = 0
        self.scattered: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Look at the next entry."""
        event = entry.event
        if event is None:
            self.erased += not entry.problem
            self.unreadable += bool(entry.problem)
            if entry.problem:
                self._find(f"{entry.place}: {entry.problem}")
            return
        self.events[noun_of(event)] += 1
        if self._partitions.setdefault(event.camera_id, entry.partition) != entry.partition:
            self.scattered.add(event.camera_id)
        if isinstance(event, IdentityEvent):
            self._add_answer(event)
        else:
            self._add_numbered(event, entry.place)

    @property
    def gaps(self) -> int:
        """Events that are missing."""
        return sum(len(stream.missing) for stream in self._streams.values())

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing, nothing is out of order, and everything can be read."""
        return not (self.gaps or self.late or self.unreadable or self.scattered)

    def findings(self) -> Iterator[str]:
        """What is wrong, a line each, at most ``MOST_FINDINGS`` of each sort."""
        yield from self._findings
        for camera_id in sorted(self.scattered)[:MOST_FINDINGS]:
            yield f"camera {camera_id}: its events are in several partitions, where they have no order"
        broken = ((name, stream) for name, stream in self._streams.items() if stream.missing)
        for _, (name, stream) in zip(range(MOST_FINDINGS), broken, strict=False):
            yield f"{name}: missing {_ranges(stream.missing)}"

    def _add_answer(self, event: IdentityEvent) -> None:
        """Answers are not numbered by themselves: the same evidence and gallery is a repeat."""
        key, number = (event.track_id, event.gallery_id), (event.sequence, event.gallery_version)
        if number <= self._answers.get(key, (-1, -1)):
            self.repeats += 1
        else:
            self._answers[key] = number

    def _add_numbered(self, event: Event, place: str) -> None:
        is_camera = isinstance(event, CameraEvent)
        name = f"camera {event.camera_id}, run {event.run_id}" if is_camera else f"track {_track(event)}"
        number = event.sequence
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = _Stream(number, number)
            if number and self._whole:
                stream.missing.update(_bounded(0, number))
            self.begun_before += bool(number) and not self._whole
        elif number > stream.highest:
            stream.missing.update(_bounded(stream.highest + 1, number))
            stream.highest = number
        elif number in stream.missing or (number < stream.first and not self._whole):
            stream.missing.discard(number)
            stream.first = min(stream.first, number)
            self.late += 1
            self._find(f"{place}: event {number} of {name} comes after a later one")
        else:
            self.repeats += 1

    def _find(self, finding: str) -> None:
        if len(self._findings) < MOST_FINDINGS:
            self._findings.append(finding)


def _bounded(begin: int, end: int) -> range:
    """Numbers that are missing; a number out of all proportion must not fill the memory."""
    return range(begin, min(end, begin + 100_000))


def _track(event: Event) -> str:
    return "" if isinstance(event, CameraEvent) else event.track_id


def _ranges(numbers: set[int]) -> str:
    """``3, 5 to 7, …`` of at most five parts."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    texts = [str(a) if a == b else f"{a} to {b}" for a, b in parts[:5]]
    return ", ".join(texts) + (", …" if len(parts) > 5 else "")
