"""Recognise duplicate events: delivery is at least once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from stream.events.event_types import CameraEvent, Event, IdentityEvent

MOST_STREAMS: Final = 100_000
"""Tracks and cameras that are remembered."""


class RepeatFilter:
    """Tells events that come again from those that are new.

    The events of a track come in order, and so do a camera's and the answers to who a track is. One number
    for each of them is therefore all that has to be remembered: the highest.

    Args:
        most_streams: Tracks and cameras that are remembered, at least 1; of more, those unheard of for
            longest are forgotten, and their repeats pass.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, *, most_streams: int = MOST_STREAMS) -> None:
        if most_streams < 1:
            raise ValueError(f"most_streams: expected at least 1, got {most_streams}")
        self._most_streams = most_streams
        self._highest: OrderedDict[tuple[str, ...], tuple[int, int]] = OrderedDict()

    def is_new(self, event: Event) -> bool:
        """Whether an event did not come before; it has from now on."""
        stream, number = _place(event)
        highest = self._highest.get(stream)
        if highest is not None and number <= highest:
            return False
        self._highest[stream] = number
        self._highest.move_to_end(stream)
        if len(self._highest) > self._most_streams:
            self._highest.popitem(last=False)
        return True


def _place(event: Event) -> tuple[tuple[str, ...], tuple[int, int]]:
    """In which stream of events it stands, and where there; the same parts as in its id."""
    match event:
        case CameraEvent():
            return ("camera", event.run_id), (event.sequence, 0)
        case IdentityEvent():
            return ("identity", event.track_id, event.gallery_id), (event.sequence, event.gallery_version)
        case _:
            return ("track", event.track_id), (event.sequence, 0)
