"""The tracks of events that were written earlier: the newest state of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.errors import SourceError
from stream.common.uris import redact_uri
from stream.events.event_types import Event, FaceEvent
from stream.kafka.address import parse_kafka
from stream.sinks.event_log import only_events, read_log, read_topic


def read_tracks(source: str) -> list[FaceEvent]:
    """The newest event of each track that there is now.

    Args:
        source: Path of a file of JSON Lines or SQLite, or ``jsonl:``, ``sqlite:`` or ``kafka://…`` as a sink
            has it.

    Returns:
        In the order in which the tracks were first seen; one at least.

    Raises:
        SourceError: It cannot be read, or holds no track.
        SinkError: The address means nothing, or no broker answers.
    """
    if source.startswith("kafka://"):
        entries = read_topic(parse_kafka(source))
    else:
        says_kind = source.startswith(("jsonl:", "sqlite:")) or Path(source).is_file()
        entries = read_log(source if says_kind else f"jsonl:{source}")
    tracks = newest_tracks(only_events(entries, redact_uri(source)))
    if not tracks:
        raise SourceError(f"{redact_uri(source)}: holds no event of a track; give what a --sink has written")
    return tracks


def newest_tracks(events: Iterable[Event]) -> list[FaceEvent]:
    """The last event of each track, in the order in which the tracks were first seen.

    Args:
        events: In any order; repeats do no harm, and what is no event of a track is skipped.
    """
    newest: dict[str, FaceEvent] = {}
    for event in events:
        if isinstance(event, FaceEvent):
            known = newest.get(event.track_id)
            if known is None or event.sequence > known.sequence:
                newest[event.track_id] = event
    return sorted(newest.values(), key=lambda event: (event.first_seen, event.track_id))
