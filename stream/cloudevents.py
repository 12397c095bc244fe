"""Events on the wire: CloudEvents 1.0 in structured JSON mode and in Kafka's binary mode, both ways.

The contract is docs/events.md and the JSON Schemas in ``stream/schemas``; a golden-file test freezes it.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from engine.embeddings import quantise_int8
from stream.events import CameraEvent, Event, FaceEvent, IdentityEvent
from stream.wire import EmbeddingEncoding, decode, load_object, read_event

_HEADER_PREFIX = "ce_"
_CONTENT_TYPE_HEADER = "content-type"


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """An event as a Kafka record (CloudEvents' Kafka binding 1.0, section 3.2, binary content mode).

    Attributes:
        key: The camera's id, so that a camera's events stay in order.
        value: The event's data, JSON.
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
    match event:
        case CameraEvent():
            noun, subject, data = "camera", event.camera_id, _camera_data(event)
        case IdentityEvent():
            noun, subject, data = "identity", event.track_id, _identity_data(event)
        case FaceEvent():
            noun, subject, data = "track", event.track_id, _track_data(event, encoding)
    return {
        "specversion": "1.0",
        "id": event.event_id,
        "source": _source(event.camera_id),
        "type": f"facestream.{noun}.{event.change.value}.v1",
        "subject": subject,
        "time": _timestamp(event.at),
        "datacontenttype": "application/json",
        "dataschema": f"urn:facestream:schema:{noun}.v1",
        "data": data,
    }


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
        encoding: As in ``to_cloudevent``.

    Raises:
        ValueError: As in ``to_cloudevent``.
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
        encoding: As in ``to_cloudevent``.

    Raises:
        ValueError: As in ``to_cloudevent``.
    """
    envelope = to_cloudevent(event, encoding=encoding)
    data, content_type = envelope.pop("data"), envelope.pop("datacontenttype")
    headers = [(_HEADER_PREFIX + name, value.encode()) for name, value in envelope.items()]
    headers.append((_CONTENT_TYPE_HEADER, content_type.encode()))
    return BinaryMessage(event.camera_id.encode(), _dump(data), headers)


def from_binary(headers: Iterable[tuple[str, bytes]], value: bytes) -> Event:
    """Read a Kafka record that ``to_binary`` made; trusts nothing.

    Args:
        headers: Of the record; those that do not begin with ``ce_`` are passed over.
        value: Of the record.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    envelope: dict[str, Any] = {"data": load_object(value)}
    for name, text in headers:
        if name == _CONTENT_TYPE_HEADER:
            key = "datacontenttype"
        elif name.startswith(_HEADER_PREFIX):
            key = name.removeprefix(_HEADER_PREFIX)
        else:
            continue
        if key in envelope:
            raise ValueError(f"not an event of facestream: the header {name} stands there twice")
        envelope[key] = decode(text)
    return from_cloudevent(envelope)


# Writing.


def _track_data(event: FaceEvent, encoding: EmbeddingEncoding) -> dict[str, Any]:
    return {
        "camera_id": event.camera_id,
        "run_id": event.run_id,
        "track_id": event.track_id,
        "sequence": event.sequence,
        "frame_number": event.frame_number,
        "media_time_s": _rounded(event.media_time_s, 6),
        "captured_at": _timestamp(event.captured_at),
        "image_size_wh": [int(side) for side in event.image_size_wh],
        "box_xyxy": [_rounded(value, 2) for value in event.box_xyxy],
        "landmarks_xy": [[_rounded(x, 2), _rounded(y, 2)] for x, y in event.landmarks_xy.tolist()],
        "detection_score": _rounded(event.detection_score, 4),
        "quality": _rounded(event.quality, 4),
        "embedding": _embedding_data(event.embedding, event.embedding_model, encoding),
        "faces_seen": event.faces_seen,
        "embeddings_made": event.embeddings_made,
        "first_seen": _timestamp(event.first_seen),
        "last_seen": _timestamp(event.last_seen),
        "last_box_xyxy": [_rounded(value, 2) for value in event.last_box_xyxy],
    }


def _camera_data(event: CameraEvent) -> dict[str, Any]:
    return {
        "camera_id": event.camera_id,
        "run_id": event.run_id,
        "sequence": event.sequence,
        "uri": event.uri,
        "reason": event.reason,
    }


def _identity_data(event: IdentityEvent) -> dict[str, Any]:
    return {
        "camera_id": event.camera_id,
        "run_id": event.run_id,
        "track_id": event.track_id,
        "sequence": event.sequence,
        "person_id": event.person_id,
        "person_name": event.person_name,
        "similarity": None if event.similarity is None else _rounded(event.similarity, 6),
        "margin": None if event.margin is None else _rounded(event.margin, 6),
        "threshold": _rounded(event.threshold, 6),
        "false_accept_rate": _rounded(event.false_accept_rate, 9),
        "gallery_id": event.gallery_id,
        "gallery_version": event.gallery_version,
        "gallery_people": event.gallery_people,
        "embedding_model": event.embedding_model,
        "previous_person_id": event.previous_person_id,
        "reason": event.reason,
    }


def _embedding_data(
    embedding: npt.NDArray[np.float32], model: str, encoding: EmbeddingEncoding
) -> dict[str, Any]:
    if embedding.ndim != 1 or not np.isfinite(embedding).all():
        raise ValueError(f"embedding: expected a finite vector, got one of shape {embedding.shape}")
    if encoding == "int8-b64":
        values, exact_scale = quantise_int8(embedding)
        raw, scale = values.tobytes(), float(f"{exact_scale:.9g}")
    else:
        raw, scale = embedding.astype("<f4").tobytes(), 1.0
    return {
        "model": model,
        "dim": len(embedding),
        "encoding": encoding,
        "scale": scale,
        "data": base64.b64encode(raw).decode("ascii"),
    }


def _source(camera_id: str) -> str:
    return f"/facestream/cameras/{quote(camera_id, safe='')}"


def _timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and Z."""
    if at.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, got {at}")
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _rounded(value: float, digits: int) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return round(float(value), digits) + 0.0  # no -0.0


def _dump(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
