"""Who was recognised in a run, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from stream.common.printable import counted, printable
from stream.events.event_types import Event, FaceEvent, IdentityEvent, TrackChange
from stream.sinks.event_sink import EventSink

_MOST_NAMES: Final = 20


class Attendance:
    """A sink that counts the tracks of each person, on the way to another.

    A track counts when it leaves, as whom it was taken for then. Kept are the people who were recognised and
    the tracks in view.

    Args:
        sink: Gets every event.
    """

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._names: dict[str, str] = {}
        self._in_view: dict[str, str | None] = {}
        self._tracks: Counter[str] = Counter()
        self._strangers = 0

    def emit(self, events: Sequence[Event]) -> None:
        """Hand events on and count.

        Raises:
            SinkError: The sink does not take them.
        """
        self._sink.emit(events)
        for event in events:
            if isinstance(event, IdentityEvent):
                self._in_view[event.track_id] = event.person_id
                if event.person_id is not None:
                    self._names[event.person_id] = event.person_name or event.person_id
        for event in events:  # the last answer about a track comes behind its end
            if isinstance(event, FaceEvent) and event.change is TrackChange.LEFT:
                self._count(event.track_id)

    def close(self, timeout_s: float) -> None:
        """Close the sink.

        Raises:
            SinkError: It could not deliver everything.
        """
        self._sink.close(timeout_s)

    def told(self) -> str:
        """One line, such as ``recognised: Ann (2 tracks), Bob (1 track); nobody enrolled: 3 tracks``."""
        found = [
            f"{printable(self._names[who])} ({counted(count, 'track')})"
            for who, count in self._tracks.most_common()
        ]
        more = f" and {len(found) - _MOST_NAMES:,} more people" if len(found) > _MOST_NAMES else ""
        recognised = ", ".join(found[:_MOST_NAMES]) or "nobody"
        return f"recognised: {recognised}{more}; nobody who is enrolled: {counted(self._strangers, 'track')}"

    def _count(self, track_id: str) -> None:
        if track_id not in self._in_view:
            return
        person = self._in_view.pop(track_id)
        if person is None:
            self._strangers += 1
        else:
            self._tracks[person] += 1
