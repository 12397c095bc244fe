"""The data of events in Protobuf (proto3). The only file that uses the generated modules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from stream.events.fields import Noun
from stream.events.schemas.facestream_camera_v1_pb2 import Camera
from stream.events.schemas.facestream_identity_v1_pb2 import Identity
from stream.events.schemas.facestream_track_v1_pb2 import Embedding, Track

_MESSAGES: Final[Mapping[Noun, type[Any]]] = {"track": Track, "camera": Camera, "identity": Identity}
_WRITTEN: Final = {"float32-b64": Embedding.FLOAT32, "int8-b64": Embedding.INT8}
_READ: Final = {number: encoding for encoding, number in _WRITTEN.items()}


def write_protobuf(noun: Noun, fields: Mapping[str, Any]) -> bytes:
    """An event's data in Protobuf.

    Args:
        noun: What the event is about.
        fields: As ``stream.events.fields.event_fields`` gives them.

    Raises:
        ValueError: Protobuf cannot hold a value.
    """
    values = {
        key: _timestamp(value) if isinstance(value, datetime) else value for key, value in fields.items()
    }
    if noun == "track":
        embedding = fields["embedding"]
        values["embedding"] = embedding | {"encoding": _WRITTEN[embedding["encoding"]]}
        values["landmarks_xy"] = [{"x": x, "y": y} for x, y in fields["landmarks_xy"]]
    raw: bytes = _MESSAGES[noun](**values).SerializeToString(deterministic=True)
    return raw


def read_protobuf(noun: Noun, body: bytes) -> dict[str, Any]:
    """Read an event's data; trusts nothing. Fields that are not known are skipped.

    Args:
        noun: What the event says it is about.
        body: The data, without framing.

    Returns:
        Fields as ``stream.events.fields.event_fields`` gives them, their values unchecked; a message that is
        missing is missing here too.

    Raises:
        ValueError: It is not Protobuf, or a time is out of range.
    """
    try:
        message = _MESSAGES[noun].FromString(body)
    except DecodeError as exc:
        raise ValueError(f"not Protobuf of facestream.v1.{noun.capitalize()}") from exc
    return _plain(message)


def schema_id(schema: str) -> int:
    """The id of a schema where no registry gave it one: of its own content, so it never means another.

    Args:
        schema: Text of a .proto file.

    Returns:
        31 bits of its SHA-256.
    """
    return int.from_bytes(hashlib.sha256(schema.encode()).digest()[:4]) & 0x7FFF_FFFF


def _timestamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at.astimezone(UTC))
    return stamp


def _plain(message: Message) -> dict[str, Any]:
    """A message's fields as plain values; those with presence that are not set are None or missing."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            is_points = field.message_type is not None
            fields[field.name] = [[point.x, point.y] for point in value] if is_points else list(value)
        elif field.message_type is not None:
            if message.HasField(field.name):
                fields[field.name] = _plain_message(value)
        elif field.has_presence and not message.HasField(field.name):
            fields[field.name] = None
        else:
            fields[field.name] = value
    return fields


def _plain_message(value: Any) -> Any:
    if isinstance(value, Timestamp):
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError) as exc:
            raise ValueError("a time is out of range") from exc
    fields = _plain(value)
    return fields | {"encoding": _READ.get(fields["encoding"], "unspecified")}
