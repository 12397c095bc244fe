"""The data of an event as plain fields, the same in every format: names, order, rounding."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import quantise_int8
from stream.events.event_types import CameraEvent, EmbeddingModel, Event, FaceEvent, IdentityEvent
from stream.events.parsing import EmbeddingEncoding

Noun: TypeAlias = Literal["track", "camera", "identity"]
"""What an event is about; each has a schema of its own."""

NOUNS: tuple[Noun, ...] = ("track", "camera", "identity")


def noun_of(event: Event) -> Noun:
    """What an event is about."""
    match event:
        case FaceEvent():
            return "track"
        case CameraEvent():
            return "camera"
        case IdentityEvent():
            return "identity"


def event_fields(event: Event, encoding: EmbeddingEncoding) -> dict[str, Any]:
    """The fields of an event's data, in the order of the schema.

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written.

    Returns:
        Strings, ints, rounded floats, lists of these, times with a time zone, and the embedding's values as
        bytes: what a format writes in its own way.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    match event:
        case FaceEvent():
            return _track_fields(event, encoding)
        case CameraEvent():
            return _camera_fields(event)
        case IdentityEvent():
            return _identity_fields(event)


def _track_fields(event: FaceEvent, encoding: EmbeddingEncoding) -> dict[str, Any]:
    return {
        "camera_id": event.camera_id,
        "run_id": event.run_id,
        "track_id": event.track_id,
        "sequence": event.sequence,
        "frame_number": event.frame_number,
        "media_time_s": _rounded(event.media_time_s, 6),
        "captured_at": _time(event.captured_at),
        "image_size_wh": [int(side) for side in event.image_size_wh],
        "box_xyxy": [_rounded(value, 2) for value in event.box_xyxy],
        "landmarks_xy": [[_rounded(x, 2), _rounded(y, 2)] for x, y in event.landmarks_xy.tolist()],
        "detection_score": _rounded(event.detection_score, 4),
        "quality": _rounded(event.quality, 4),
        "embedding": _embedding_fields(event.embedding, event.embedder, encoding),
        "faces_seen": event.faces_seen,
        "embeddings_made": event.embeddings_made,
        "first_seen": _time(event.first_seen),
        "last_seen": _time(event.last_seen),
        "last_box_xyxy": [_rounded(value, 2) for value in event.last_box_xyxy],
    }


def _camera_fields(event: CameraEvent) -> dict[str, Any]:
    return {
        "camera_id": event.camera_id,
        "run_id": event.run_id,
        "sequence": event.sequence,
        "uri": event.uri,
        "reason": event.reason,
    } | ({} if event.planned is None else {"planned": event.planned})


def _identity_fields(event: IdentityEvent) -> dict[str, Any]:
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


def _embedding_fields(
    embedding: npt.NDArray[np.float32], model: EmbeddingModel, encoding: EmbeddingEncoding
) -> dict[str, Any]:
    if embedding.ndim != 1 or not np.isfinite(embedding).all():
        raise ValueError(f"embedding: expected a finite vector, got one of shape {embedding.shape}")
    if encoding == "int8-b64":
        values, exact_scale = quantise_int8(embedding)
        raw, scale = values.tobytes(), float(f"{exact_scale:.9g}")
    else:
        raw, scale = embedding.astype("<f4").tobytes(), 1.0
    return {
        "model": model.name,
        "model_id": model.model_id,
        "mirrored": model.mirrored,
        "dim": len(embedding),
        "encoding": encoding,
        "scale": scale,
        "data": raw,
    }


def _time(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"expected a time with a time zone, got {at}")
    return at


def _rounded(value: float, digits: int) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return round(float(value), digits) + 0.0  # no -0.0
