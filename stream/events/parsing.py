"""Parse events from outside: bytes to JSON to validated models to events, trusting nothing."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.embeddings import dequantise_int8
from stream.common.printable import printable
from stream.events.event_types import (
    MODEL_ID_DIGITS,
    CameraChange,
    CameraEvent,
    Event,
    FaceEvent,
    IdentityChange,
    IdentityEvent,
    TrackChange,
)

EmbeddingEncoding: TypeAlias = Literal["float32-b64", "int8-b64"]

MAX_EVENT_BYTES = 1_000_000
"""Longest event that is read."""

_MAX_DIM = 8192
_MOST_SIMILARITY = 100.0  # a score that was normalised is no cosine
_UNIT_TOLERANCE = 1e-3
_MAX_COMPLAINTS = 3


def load_object(raw: bytes | str) -> dict[str, Any]:
    """Decode a JSON object: no repeated keys, no NaN, not too long, not too deep.

    Args:
        raw: UTF-8 JSON.

    Raises:
        ValueError: It is none.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise _refusal(f"longer than {MAX_EVENT_BYTES} bytes")
    text = decode(raw) if isinstance(raw, bytes) else raw
    try:
        tree = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated_keys)
    except (ValueError, RecursionError) as exc:
        raise _refusal(f"not valid JSON ({exc})") from exc
    if not isinstance(tree, dict):
        raise _refusal(f"expected a JSON object, got {type(tree).__name__}")
    return tree


def decode(raw: bytes | None) -> str:
    """Decode UTF-8.

    Raises:
        ValueError: It is not UTF-8, or nothing at all.
    """
    if raw is None:
        raise _refusal("expected text, got nothing")
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise _refusal("not valid UTF-8") from exc


def read_event(envelope: dict[str, Any]) -> tuple[Event, dict[str, str]]:
    """Check a CloudEvent of facestream and build the event that its data describes.

    Whether the attributes agree with the data is the caller's to check.

    Args:
        envelope: A decoded JSON object.

    Returns:
        The event, and the attributes of CloudEvents.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
    """
    kind = envelope.get("type")
    noun = ".".join(kind.split(".")[:2]) if isinstance(kind, str) else ""
    try:
        checked = _ENVELOPES.get(noun, _TrackEnvelope).model_validate(envelope)
        return checked.event(), checked.model_dump(exclude={"data"})
    except ValidationError as exc:
        raise _refusal(_complaints(exc)) from exc


def _refusal(reason: str) -> ValueError:
    return ValueError(f"not an event of facestream: {reason}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("duplicate key")
    return tree


def _complaints(error: ValidationError) -> str:
    """The first complaints of pydantic in one line that can be printed, without the values."""
    items = error.errors(include_url=False, include_input=False, include_context=False)
    texts = []
    for item in items[:_MAX_COMPLAINTS]:
        place = ".".join(str(part)[:40] for part in item["loc"]) or "event"
        texts.append(f"{place}: {item['msg'].removeprefix('Value error, ')}")
    if len(items) > _MAX_COMPLAINTS:
        texts.append(f"and {len(items) - _MAX_COMPLAINTS} more")
    return printable("; ".join(texts))


def _check_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("not valid Unicode") from exc
    return value


def _check_timestamp(text: str) -> str:
    datetime.fromisoformat(text)
    return text


_Text = Annotated[str, AfterValidator(_check_text)]
_Id = Annotated[str, Field(min_length=1), AfterValidator(_check_text)]
_Timestamp = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"),
    AfterValidator(_check_timestamp),
]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Positive = Annotated[int, Field(ge=1, lt=2**63)]
_Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
_Pixels = Annotated[float, Field(ge=-1e6, le=1e6)]
_Box = Annotated[list[_Pixels], Field(min_length=4, max_length=4)]
_Point = Annotated[list[_Pixels], Field(min_length=2, max_length=2)]


class _Strict(BaseModel):
    # Unknown fields are ignored: a later version may have added it (docs/events.md, "Versions").
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class _Embedding(_Strict):
    model: _Id
    model_id: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{MODEL_ID_DIGITS}}}$")] | None = None
    mirrored: bool | None = None
    dim: Annotated[int, Field(ge=1, le=_MAX_DIM)]
    encoding: EmbeddingEncoding
    scale: Annotated[float, Field(gt=0.0, le=1.0)]
    data: Annotated[str, Field(max_length=8 * _MAX_DIM)]

    def vector(self) -> npt.NDArray[np.float32]:
        try:
            raw = base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise _refusal("data.embedding.data: expected base64") from exc
        dtype = np.dtype("<f4") if self.encoding == "float32-b64" else np.dtype("i1")
        if len(raw) != self.dim * dtype.itemsize:
            raise _refusal(
                f"data.embedding.data: expected {self.dim * dtype.itemsize} bytes for {self.dim} values of "
                f"{self.encoding}, got {len(raw)}"
            )
        values = np.frombuffer(raw, dtype)
        if self.encoding == "int8-b64":
            vector = dequantise_int8(values.astype(np.int8), self.scale)
        else:
            vector = values.astype(np.float32)
        with np.errstate(invalid="ignore"):  # a signalling NaN
            length = float(np.linalg.norm(vector.astype(np.float64)))
        if not abs(length - 1.0) <= _UNIT_TOLERANCE:
            raise _refusal(f"data.embedding.data: expected a vector of length 1, got {length:.4g}")
        return vector


class _TrackData(_Strict):
    camera_id: _Id
    run_id: _Id
    track_id: _Id
    sequence: _Count
    frame_number: _Count
    media_time_s: float
    captured_at: _Timestamp
    image_size_wh: Annotated[list[_Positive], Field(min_length=2, max_length=2)]
    box_xyxy: _Box
    landmarks_xy: Annotated[list[_Point], Field(min_length=5, max_length=5)]
    detection_score: _Fraction
    quality: _Fraction
    embedding: _Embedding
    faces_seen: _Positive
    embeddings_made: _Positive
    first_seen: _Timestamp
    last_seen: _Timestamp
    last_box_xyxy: _Box


class _CameraData(_Strict):
    camera_id: _Id
    run_id: _Id
    sequence: _Count
    uri: _Text
    reason: _Text
    planned: bool | None = None


class _IdentityData(_Strict):
    camera_id: _Id
    run_id: _Id
    track_id: _Id
    sequence: _Count
    person_id: _Id | None
    person_name: _Id | None
    similarity: Annotated[float, Field(ge=-_MOST_SIMILARITY, le=_MOST_SIMILARITY)] | None
    margin: Annotated[float, Field(ge=0.0, le=2 * _MOST_SIMILARITY)] | None
    threshold: Annotated[float, Field(ge=-_MOST_SIMILARITY, le=_MOST_SIMILARITY)]
    false_accept_rate: _Fraction
    gallery_id: _Id
    gallery_version: _Count
    gallery_people: _Count
    embedding_model: _Id
    previous_person_id: _Id | None
    reason: _Text

    @model_validator(mode="after")
    def _names_somebody_or_nobody(self) -> _IdentityData:
        if (self.person_id is None) != (self.person_name is None):
            raise ValueError("person_id and person_name go together")
        return self


class _Envelope(_Strict):
    specversion: Literal["1.0"]
    id: _Id
    source: _Id
    subject: _Id
    time: _Timestamp
    datacontenttype: Literal["application/json"]


class _TrackEnvelope(_Envelope):
    type: Literal["facestream.track.appeared.v1", "facestream.track.updated.v1", "facestream.track.left.v1"]
    dataschema: Literal["urn:facestream:schema:track.v1"]
    data: _TrackData

    def event(self) -> Event:
        data = self.data
        return FaceEvent(
            change=TrackChange(self.type.split(".")[2]),
            sequence=data.sequence,
            camera_id=data.camera_id,
            run_id=data.run_id,
            track_id=data.track_id,
            at=datetime.fromisoformat(self.time),
            frame_number=data.frame_number,
            media_time_s=data.media_time_s,
            captured_at=datetime.fromisoformat(data.captured_at),
            image_size_wh=(data.image_size_wh[0], data.image_size_wh[1]),
            box_xyxy=_box(data.box_xyxy),
            landmarks_xy=np.array(data.landmarks_xy, np.float32),
            detection_score=data.detection_score,
            quality=data.quality,
            embedding=data.embedding.vector(),
            embedding_model=data.embedding.model,
            faces_seen=data.faces_seen,
            embeddings_made=data.embeddings_made,
            first_seen=datetime.fromisoformat(data.first_seen),
            last_seen=datetime.fromisoformat(data.last_seen),
            last_box_xyxy=_box(data.last_box_xyxy),
            embedding_model_id=data.embedding.model_id,
            embedding_mirrored=data.embedding.mirrored,
        )


class _CameraEnvelope(_Envelope):
    type: Literal["facestream.camera.up.v1", "facestream.camera.down.v1"]
    dataschema: Literal["urn:facestream:schema:camera.v1"]
    data: _CameraData

    def event(self) -> Event:
        return CameraEvent(
            change=CameraChange(self.type.split(".")[2]),
            at=datetime.fromisoformat(self.time),
            **self.data.model_dump(),
        )


class _IdentityEnvelope(_Envelope):
    type: Literal["facestream.identity.decided.v1", "facestream.identity.corrected.v1"]
    dataschema: Literal["urn:facestream:schema:identity.v1"]
    data: _IdentityData

    def event(self) -> Event:
        return IdentityEvent(
            change=IdentityChange(self.type.split(".")[2]),
            at=datetime.fromisoformat(self.time),
            **self.data.model_dump(),
        )


_ENVELOPES: dict[str, type[_TrackEnvelope | _CameraEnvelope | _IdentityEnvelope]] = {
    "facestream.track": _TrackEnvelope,
    "facestream.camera": _CameraEnvelope,
    "facestream.identity": _IdentityEnvelope,
}


def _box(values: list[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1
