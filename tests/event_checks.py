"""Events for tests, and the schemas that every event must meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from stream.events.event_types import (
    CameraChange,
    CameraEvent,
    FaceEvent,
    IdentityChange,
    IdentityEvent,
    TrackChange,
)

AT = datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC)
SCHEMAS = ("event.v1", "track.v1", "camera.v1", "identity.v1")


def schema(name: str) -> dict[str, Any]:
    return json.loads((files("stream.events") / "schemas" / f"{name}.json").read_text("utf-8"))


@cache
def validator(name: str = "event.v1") -> Draft202012Validator:
    resources = [Resource.from_contents(schema(each)) for each in SCHEMAS]
    registry = Registry().with_resources((resource.id(), resource) for resource in resources)
    return Draft202012Validator(
        schema(name), registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def validate_event(envelope: Mapping[str, Any]) -> None:
    """Raise jsonschema's ValidationError when a decoded JSON object is not an event of facestream."""
    validator().validate(envelope)


def face_event(**changes: Any) -> FaceEvent:
    """An event of a track with plain values, some of them changed."""
    vector = np.cos(np.arange(128, dtype=np.float32))
    values: dict[str, Any] = {
        "change": TrackChange.APPEARED,
        "sequence": 0,
        "camera_id": "door",
        "run_id": "door-7f3a",
        "track_id": "door-7f3a-1",
        "at": AT,
        "frame_number": 42,
        "media_time_s": 1.68,
        "captured_at": AT,
        "image_size_wh": (1280, 720),
        "box_xyxy": (301.25, 120.5, 398.75, 249.0),
        "landmarks_xy": np.array([[330, 170], [372, 171], [350, 196], [333, 221], [369, 222]], np.float32),
        "detection_score": 0.9312,
        "quality": 0.7421,
        "embedding": vector / np.linalg.norm(vector),
        "embedding_model": "sface",
        "faces_seen": 12,
        "embeddings_made": 2,
        "first_seen": AT,
        "last_seen": AT,
        "last_box_xyxy": (305.0, 121.0, 402.5, 250.25),
    }
    return FaceEvent(**values | changes)


def camera_event(**changes: Any) -> CameraEvent:
    """An event of a camera with plain values, some of them changed."""
    values: dict[str, Any] = {
        "change": CameraChange.DOWN,
        "sequence": 1,
        "camera_id": "door",
        "run_id": "door-7f3a",
        "at": AT,
        "uri": "rtsp://10.0.0.7/stream1",
        "reason": "no frame for 3 s",
    }
    return CameraEvent(**values | changes)


def identity_event(**changes: Any) -> IdentityEvent:
    """An answer to "who is it?" with plain values, some of them changed."""
    values: dict[str, Any] = {
        "change": IdentityChange.DECIDED,
        "sequence": 0,
        "camera_id": "door",
        "run_id": "door-7f3a",
        "track_id": "door-7f3a-1",
        "at": AT,
        "person_id": "p-000017",
        "person_name": "Ann Example",
        "similarity": 0.6123,
        "margin": 0.2511,
        "threshold": 0.47,
        "false_accept_rate": 0.01,
        "gallery_id": "g-5c1e",
        "gallery_version": 12,
        "gallery_people": 87,
        "embedding_model": "sface",
        "previous_person_id": None,
        "reason": "",
    }
    return IdentityEvent(**values | changes)
