"""What happened in a run, told in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stream.common.printable import counted
from stream.events.event_types import CameraEvent, Event, FaceEvent, IdentityEvent, TrackChange
from stream.pipeline.pipeline import Batch
from stream.sinks.event_sink import EventSink
from stream.tracking.track_state import TrackState

_LEAST_ABSENCE_S = 1.0


@dataclass(slots=True)
class Visit:
    """One track, from its first sight to its last.

    Attributes:
        number: Of the track.
        from_s: Media time of its first sight.
        until_s: Of its last.
        answer: The last that was said about who it is; None without a gallery.
        absences_s: When it was out of view for more than a second and came back: from, to.
    """

    number: int
    from_s: float
    until_s: float
    answer: IdentityEvent | None = None
    absences_s: list[tuple[float, float]] = field(default_factory=list)


class Story:
    """A sink that remembers who came and went, on the way to another; it also watches a run's batches.

    Args:
        sink: Gets every event.
    """

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._visits: dict[str, Visit] = {}
        self._lost_s: dict[str, float] = {}
        self._counts: Counter[type[Event]] = Counter()

    @property
    def visits(self) -> list[Visit]:
        """In the order of their first sight."""
        return sorted(self._visits.values(), key=lambda visit: visit.from_s)

    def counts(self) -> str:
        """How many events there were of each kind, in words."""
        kinds = ((FaceEvent, "of tracks"), (IdentityEvent, "of identities"), (CameraEvent, "of the camera"))
        parts = [f"{self._counts[kind]:,} {what}" for kind, what in kinds if self._counts[kind]]
        return f"{counted(self._counts.total(), 'event')}: {', '.join(parts) or 'none'}"

    def emit(self, events: Sequence[Event]) -> None:
        """Remember some events and hand them on.

        Raises:
            SinkError: The sink does not take them.
        """
        self._sink.emit(events)
        self._counts.update(map(type, events))
        for event in events:
            if isinstance(event, FaceEvent):
                self._note_face(event)
            elif isinstance(event, IdentityEvent) and event.track_id in self._visits:
                self._visits[event.track_id].answer = event

    def close(self, timeout_s: float) -> None:
        """Close the sink.

        Raises:
            SinkError: It could not deliver everything.
        """
        self._sink.close(timeout_s)

    def watch(self, batch: Batch) -> None:
        """Note who is out of view, and who comes back."""
        for frame, tracks in zip(batch.frames, batch.tracks, strict=True):
            for track in tracks:
                if track.state is TrackState.LOST:
                    self._lost_s.setdefault(track.track_id, frame.time_s)
                    continue
                lost_s = self._lost_s.pop(track.track_id, frame.time_s)
                if frame.time_s - lost_s > _LEAST_ABSENCE_S and track.track_id in self._visits:
                    self._visits[track.track_id].absences_s.append((lost_s, frame.time_s))

    def _note_face(self, event: FaceEvent) -> None:
        visit = self._visits.get(event.track_id)
        if visit is None:
            number = int(event.track_id.rpartition("-")[2])
            visit = self._visits[event.track_id] = Visit(number, event.media_time_s, event.media_time_s)
        if event.change is TrackChange.LEFT:
            visit.from_s, visit.until_s = seen_from_to(event)


def seen_from_to(event: FaceEvent) -> tuple[float, float]:
    """Media time of a track's first and last sight, by any of its events, seconds."""
    from_s = event.media_time_s - (event.captured_at - event.first_seen).total_seconds()
    return from_s, from_s + (event.last_seen - event.first_seen).total_seconds()


def clock(time_s: float) -> str:
    """A media time, such as ``0:07.4``."""
    minutes, seconds = divmod(max(time_s, 0.0), 60)
    return f"{minutes:.0f}:{seconds:04.1f}"


def tell(visits: Sequence[Visit]) -> list[str]:
    """The story, a line for each visit.

    Args:
        visits: In the order of their first sight.
    """
    known: set[str] = set()
    lines = [
        f"{clock(visit.from_s)} to {clock(visit.until_s)}  {_who(visit, known)}{_absences(visit)}"
        for visit in visits
    ]
    return lines or ["nobody was seen"]


def _who(visit: Visit, known: set[str]) -> str:
    answer = visit.answer
    if answer is None:
        return f"person #{visit.number}"
    score = "" if answer.similarity is None else f"{answer.similarity:.2f}"
    if answer.person_name is None:
        nearest = f" (nearest {score}, needed {answer.threshold:.2f})" if score else ""
        return f"#{visit.number} is nobody who is enrolled{nearest}"
    again = " again" if answer.person_name in known else ""
    known.add(answer.person_name)
    return f"#{visit.number} is {answer.person_name}{again}, recognised with {score}"


def _absences(visit: Visit) -> str:
    away = " and ".join(f"{clock(from_s)} to {clock(until_s)}" for from_s, until_s in visit.absences_s)
    return f"; away {away}, and still the same track" if away else ""
