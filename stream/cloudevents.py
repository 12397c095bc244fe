"""Events on the wire: CloudEvents 1.0 in structured JSON mode and in Kafka's binary mode, both ways.

The contract is docs/events.md and the JSON Schemas in ``stream/schemas``; a golden-file test freezes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from stream.events import CameraEvent, Event
from stream.fields import event_fields, noun_of
from stream.wire import EmbeddingEncoding, decode, load_object, read_event

_HEADER_PREFIX = "ce_"
CONTENT_TYPE_HEADER = "content-type"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """An event as a Kafka record (CloudEvents' Kafka binding 1.0, section 3.2, binary content mode).

    Attributes:
        key: The camera's id, so that a camera's events stay in order.
        value: The event's data, JSON or another format.
        headers: The event's attributes, each with the prefix ``ce_``, and ``content-type``.
    """

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


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
    attributes = attributes_of(event, _JSON)
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
    return _dump(to_cloudevent(event, encoding=encoding))


def from_json(raw: bytes | str) -> Event:
    """Read a line that ``to_json`` wrote; trusts nothing.

    Args:
        raw: UTF-8 JSON of at most ``stream.wire.MAX_EVENT_BYTES``.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    return from_cloudevent(load_object(raw))


def to_binary(event: Event, *, encoding: EmbeddingEncoding = "float32-b64") -> BinaryMessage:
    """An event as a Kafka record.

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written: ``float32-b64`` or ``int8-b64``.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    return binary_message(event, _JSON, _dump(json_ready(event_fields(event, encoding))))


def binary_message(event: Event, content_type: str, value: bytes) -> BinaryMessage:
    """An event as a Kafka record whose data some format has written.

    Args:
        event: Of a track, a camera or an identity.
        content_type: Of the data.
        value: The data.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    attributes = attributes_of(event, content_type)
    del attributes["datacontenttype"]
    headers = [(_HEADER_PREFIX + name, text.encode()) for name, text in attributes.items()]
    headers.append((CONTENT_TYPE_HEADER, content_type.encode()))
    return BinaryMessage(event.camera_id.encode(), value, headers)


def from_binary(headers: Iterable[tuple[str, bytes]], value: bytes) -> Event:
    """Read a Kafka record that ``to_binary`` made; trusts nothing.

    Args:
        headers: Of the record; those that do not begin with ``ce_`` are skipped.
        value: Of the record.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    return from_cloudevent({**read_attributes(headers), "data": load_object(value)})


def read_attributes(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """The attributes of CloudEvents that stand in a record's headers, by their names, unchecked.

    Args:
        headers: Of the record; those that do not begin with ``ce_`` are skipped, but for
            ``content-type``.

    Raises:
        ValueError: One appears twice, or is not UTF-8.
    """
    envelope: dict[str, str] = {}
    for name, text in headers:
        if name == CONTENT_TYPE_HEADER:
            key = "datacontenttype"
        elif name.startswith(_HEADER_PREFIX):
            key = name.removeprefix(_HEADER_PREFIX)
        else:
            continue
        if key in envelope or key == "data":
            raise ValueError(f"not an event of facestream: duplicate header {name}")
        envelope[key] = decode(text)
    return envelope


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
        fields: As ``stream.fields.event_fields`` gives them.

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


def _dump(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
