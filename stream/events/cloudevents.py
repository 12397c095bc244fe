"""Events as CloudEvents 1.0 in structured JSON mode, and back; see kafka_record.py for the binary mode.

The contract is docs/events.md and the JSON Schemas in ``stream/events/schemas``; a golden-file test freezes
it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from stream.events.event_types import CameraEvent, Event
from stream.events.fields import event_fields, noun_of
from stream.events.parsing import EmbeddingEncoding, load_object, read_event

JSON: Final = "application/json"


def to_cloudevent(event: Event, *, encoding: EmbeddingEncoding = "float32-b64") -> dict[str, Any]:
    """An event as the JSON object of CloudEvents' structured mode (CloudEvents JSON format 1.0, section 3).

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written: ``float32-b64`` takes 4 bytes a value before base64 and is
            exact, ``int8-b64`` takes 1.

    Returns:
        Plain dicts, lists, strings and finite numbers.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    attributes = attributes_of(event, JSON)
    return {**attributes, "data": json_ready(event_fields(event, encoding))}


def from_cloudevent(envelope: Mapping[str, Any]) -> Event:
    """Read what ``to_cloudevent`` wrote; trusts nothing.

    Args:
        envelope: A decoded JSON object.

    Returns:
        The event, its numbers rounded as they were written. An embedding that was written as int8 comes
        back as the unit vector nearest to it.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    event, attributes = read_event(dict(envelope))
    subject = event.camera_id if isinstance(event, CameraEvent) else event.track_id
    expected = {"id": event.event_id, "source": _source(event.camera_id), "subject": subject}
    for name, value in expected.items():
        if attributes[name] != value:
            raise ValueError(f"not an event of facestream: {name}: does not agree with the data")
    return event


def to_json(event: Event, *, encoding: EmbeddingEncoding = "float32-b64") -> bytes:
    """An event in structured mode as one line of UTF-8 JSON, without the line's end.

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written: ``float32-b64`` or ``int8-b64``.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    return dump_json(to_cloudevent(event, encoding=encoding))


def from_json(raw: bytes | str) -> Event:
    """Read a line that ``to_json`` wrote; trusts nothing.

    Args:
        raw: UTF-8 JSON of at most ``stream.events.parsing.MAX_EVENT_BYTES``.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    return from_cloudevent(load_object(raw))


# Writing.


def attributes_of(event: Event, content_type: str) -> dict[str, str]:
    """The attributes of an event as CloudEvents has them, without the data.

    Args:
        event: Of a track, a camera or an identity.
        content_type: Of the data.

    Raises:
        ValueError: The event's time has no time zone.
    """
    noun = noun_of(event)
    return {
        "specversion": "1.0",
        "id": event.event_id,
        "source": _source(event.camera_id),
        "type": f"facestream.{noun}.{event.change.value}.v1",
        "subject": event.camera_id if isinstance(event, CameraEvent) else event.track_id,
        "time": timestamp(event.at),
        "datacontenttype": content_type,
        "dataschema": f"urn:facestream:schema:{noun}.v1",
    }


def json_ready(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of an event's data as JSON writes them: times as text, the embedding's bytes as base64.

    Args:
        fields: As ``stream.events.fields.event_fields`` gives them.

    Raises:
        ValueError: A time has no time zone.
    """
    tree = {key: timestamp(value) if isinstance(value, datetime) else value for key, value in fields.items()}
    if (embedding := fields.get("embedding")) is not None:
        tree["embedding"] = embedding | {"data": base64.b64encode(embedding["data"]).decode("ascii")}
    return tree


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and Z.

    Raises:
        ValueError: The time has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, got {at}")
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _source(camera_id: str) -> str:
    return f"/facestream/cameras/{quote(camera_id, safe='')}"


def dump_json(tree: dict[str, Any]) -> bytes:
    """JSON without spaces, UTF-8.

    Raises:
        ValueError: It holds a number that is not finite.
    """
    return json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
