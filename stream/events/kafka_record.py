"""An event as a Kafka record: key, value, headers (CloudEvents' Kafka binding 1.0, binary content mode)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stream.events.cloudevents import JSON, attributes_of, dump_json, from_cloudevent, json_ready
from stream.events.event_types import Event
from stream.events.fields import event_fields
from stream.events.parsing import EmbeddingEncoding, decode, load_object

_CONTENT_TYPE: Final = "content-type"
_HEADER_PREFIX: Final = "ce_"


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


def to_binary(event: Event, *, encoding: EmbeddingEncoding = "float32-b64") -> BinaryMessage:
    """An event as a Kafka record.

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written: ``float32-b64`` or ``int8-b64``.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    return binary_message(event, JSON, dump_json(json_ready(event_fields(event, encoding))))


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
    headers.append((_CONTENT_TYPE, content_type.encode()))
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
        if name == _CONTENT_TYPE:
            key = "datacontenttype"
        elif name.startswith(_HEADER_PREFIX):
            key = name.removeprefix(_HEADER_PREFIX)
        else:
            continue
        if key in envelope or key == "data":
            raise ValueError(f"not an event of facestream: duplicate header {name}")
        envelope[key] = decode(text)
    return envelope
