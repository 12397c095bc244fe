"""Tracks for tests: people who are random directions, seen again and again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from event_checks import AT, face_event
from people import vector

from stream.events.cloudevents import to_json
from stream.events.event_types import Event, FaceEvent, TrackChange
from stream.sinks.sqlite import SqliteSink


def track(number: int, person: int, **changes: Any) -> FaceEvent:
    """The newest event of a track: person ``n`` is seen near direction ``n``, track after track a minute."""
    first = AT + timedelta(minutes=number)
    values: dict[str, Any] = {
        "change": TrackChange.LEFT,
        "sequence": 2,
        "track_id": f"door-7f3a-{number}",
        "embedding": vector(1000 + number, near=vector(person), cosine=0.9),
        "embedding_model": "sface-2021dec",
        "first_seen": first,
        "captured_at": first,
        "last_seen": first + timedelta(seconds=20),
        "at": first + timedelta(seconds=25),
        "quality": 0.5 + 0.01 * number,
    }
    return face_event(**values | changes)


def four_tracks_of_two() -> list[FaceEvent]:
    """Tracks 0 and 2 are one person, 1 and 3 another."""
    return [track(0, 0), track(1, 1), track(2, 0), track(3, 1)]


def write_lines(path: Path, *events: Event) -> Path:
    path.write_bytes(b"".join(to_json(event) + b"\n" for event in events))
    return path


def write_sqlite(path: Path, *events: Event) -> Path:
    sink = SqliteSink(path)
    sink.emit(events)
    sink.close(1.0)
    return path
