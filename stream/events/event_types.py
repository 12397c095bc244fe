"""The events of facestream: of tracks, cameras and identities.

The field names here are the wire format (docs/events.md); a golden-file test holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

MODEL_ID_DIGITS: Final = 16
"""Digits of a SHA-256 that tell apart models of the same name."""


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """The model of an embedding, as far as the event says. Embeddings are comparable if these agree.

    Attributes:
        name: Of the model's package.
        model_id: First 16 hexadecimal digits of the SHA-256 of its ONNX file; None if unknown.
        mirrored: Whether the embedding of the mirrored face was added; None if unknown.
    """

    name: str
    model_id: str | None = None
    mirrored: bool | None = None

    @classmethod
    def of(cls, name: str, sha256: str | None, *, mirrored: bool) -> EmbeddingModel:
        """That of a package's name and the SHA-256 of its ONNX file."""
        return cls(name, sha256[:MODEL_ID_DIGITS] if sha256 else None, mirrored)

    def agrees(self, other: EmbeddingModel) -> bool:
        """Whether they agree in everything that is known of both."""
        return (
            self.name == other.name
            and (None in {self.model_id, other.model_id} or self.model_id == other.model_id)
            and (None in {self.mirrored, other.mirrored} or self.mirrored == other.mirrored)
        )

    def joined(self, other: EmbeddingModel) -> EmbeddingModel:
        """What is known of either of two that agree."""
        mirrored = other.mirrored if self.mirrored is None else self.mirrored
        return EmbeddingModel(self.name, self.model_id or other.model_id, mirrored)

    def __str__(self) -> str:
        mirrored = ", mirrored" if self.mirrored else ""
        return f"{self.name}{mirrored}" + (f" ({self.model_id[:8]})" if self.model_id else "")


class TrackChange(Enum):
    """What happened to a track."""

    APPEARED = "appeared"
    UPDATED = "updated"
    LEFT = "left"


@dataclass(frozen=True, slots=True, eq=False)
class FaceEvent:
    """Something happened to a person's track.

    The face described (frame number to quality) is the best one that the track has shown so far: crop
    this one from the video. ``last_box_xyxy`` is where the face was last seen.

    Attributes:
        change: What happened.
        sequence: Number of this event within its track, from 0; with the track id it is the event's id.
        camera_id: Which camera.
        run_id: Which run of that camera; the same file read again with the same settings has the same.
        track_id: Unique in the run and, since it holds the run's id, everywhere.
        at: When it happened, in the camera's clock, UTC.
        frame_number: Of the best face.
        media_time_s: Of the best face.
        captured_at: Of the best face, UTC.
        image_size_wh: Width and height of the frame in pixels.
        box_xyxy: Of the best face, pixels.
        landmarks_xy: float32 (5, 2), of the best face, pixels.
        detection_score: Of the best face, 0..1.
        quality: Of the best face, 0..1.
        embedding: float32 (D,), unit length: quality-weighted mean over the track so far.
        embedding_model: Name of the model that made it; embeddings of different models are not comparable.
        faces_seen: Detections of the track so far.
        embeddings_made: Faces that went into ``embedding``.
        first_seen: Capture time of the first detection, UTC.
        last_seen: Capture time of the last detection, UTC.
        last_box_xyxy: Of the last detection, pixels.
        embedding_model_id: First 16 hexadecimal digits of the SHA-256 of the model's ONNX file; None if
            the event does not say.
        embedding_mirrored: Whether the embedding of the mirrored face was added; None if the event does
            not say.
    """

    change: TrackChange
    sequence: int
    camera_id: str
    run_id: str
    track_id: str
    at: datetime
    frame_number: int
    media_time_s: float
    captured_at: datetime
    image_size_wh: tuple[int, int]
    box_xyxy: tuple[float, float, float, float]
    landmarks_xy: npt.NDArray[np.float32]
    detection_score: float
    quality: float
    embedding: npt.NDArray[np.float32]
    embedding_model: str
    faces_seen: int
    embeddings_made: int
    first_seen: datetime
    last_seen: datetime
    last_box_xyxy: tuple[float, float, float, float]
    embedding_model_id: str | None = None
    embedding_mirrored: bool | None = None

    @property
    def embedder(self) -> EmbeddingModel:
        """What made the embedding."""
        return EmbeddingModel(self.embedding_model, self.embedding_model_id, self.embedding_mirrored)

    @property
    def event_id(self) -> str:
        """Deterministic: a repeat of the same event has the same id."""
        return f"{self.track_id}.{self.sequence}"


class CameraChange(Enum):
    """What happened to a camera."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class CameraEvent:
    """A camera started or stopped delivering frames.

    Attributes:
        change: What happened.
        sequence: Number of this event within the camera's run, from 0.
        camera_id: Which camera.
        run_id: Which run of that camera.
        at: When, UTC.
        uri: Where its frames come from, without user name and password.
        reason: Why, in one line without secrets; empty for UP.
        planned: Of DOWN: True when nothing is wrong (the run was stopped, or the video ended), False for a
            fault. None if the event does not say.
    """

    change: CameraChange
    sequence: int
    camera_id: str
    run_id: str
    at: datetime
    uri: str
    reason: str = ""
    planned: bool | None = None

    @property
    def event_id(self) -> str:
        """Deterministic: a repeat of the same event has the same id."""
        return f"{self.run_id}.camera.{self.sequence}"


class IdentityChange(Enum):
    """What happened to the answer to "who is it?"."""

    DECIDED = "decided"
    CORRECTED = "corrected"


@dataclass(frozen=True, slots=True)
class IdentityEvent:
    """A track was identified as a person of a gallery or as nobody in it, or an earlier answer was corrected.

    Attributes:
        change: DECIDED is the track's first answer, CORRECTED replaces the previous one.
        sequence: Of the track's event that gave the evidence.
        camera_id: Which camera.
        run_id: Which run of that camera.
        track_id: Which track.
        at: When that evidence came, in the camera's clock, UTC.
        person_id: Who it is; None for unknown.
        person_name: Name of that person as the gallery has it; None for unknown.
        similarity: Score of the nearest person; None when the gallery has nobody.
        margin: How far the next person is behind; None when there is none.
        threshold: Minimum similarity at which a person is named.
        false_accept_rate: Share of strangers named as anybody, from which the threshold follows, 0..1.
        gallery_id: Which gallery.
        gallery_version: Version of the gallery; every change increments it.
        gallery_people: People in it.
        embedding_model: Name of the model that made the embeddings.
        previous_person_id: Of a correction: who it was before; None for unknown.
        reason: Of a correction: why, in one line; empty otherwise.
    """

    change: IdentityChange
    sequence: int
    camera_id: str
    run_id: str
    track_id: str
    at: datetime
    person_id: str | None
    person_name: str | None
    similarity: float | None
    margin: float | None
    threshold: float
    false_accept_rate: float
    gallery_id: str
    gallery_version: int
    gallery_people: int
    embedding_model: str
    previous_person_id: str | None = None
    reason: str = ""

    @property
    def event_id(self) -> str:
        """Deterministic: the same evidence against the same state of the gallery has the same id."""
        return f"{self.track_id}.{self.sequence}.identity.{self.gallery_id}.{self.gallery_version}"

    @property
    def known(self) -> bool:
        """Whether somebody is named."""
        return self.person_id is not None


Event: TypeAlias = FaceEvent | CameraEvent | IdentityEvent
