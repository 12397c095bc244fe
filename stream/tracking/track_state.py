"""The state of one person's track at one camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from engine.embeddings import unit_rows
from engine.faces import Faces, FloatArray, Image
from stream.events.event_types import EmbeddingModel, FaceEvent, TrackChange
from stream.video.frames import Frame

Box: TypeAlias = tuple[float, float, float, float]

_BETTER = 1.15
_LEAST_WEIGHT = 1e-3
_SHOT_MARGIN = 0.35
_SHOT_SIDE_PX = 160


class TrackState(Enum):
    """Whether the last look at the camera found a track's face."""

    IN_VIEW = "in view"
    LOST = "lost"


@dataclass(frozen=True, slots=True, eq=False)
class LiveTrack:
    """A track that has appeared and has not left, as it stands now.

    Attributes:
        track_id: The id that its events carry.
        number: Short form of it: 1 for the first of this run of the camera, and so on.
        box_xyxy: Where the face was seen last, pixels.
        score: Detector's confidence in that, 0..1.
        quality: Of the best face so far, 0..1.
        state: Whether it is in view.
        best_shot: The best face so far, uint8 (H, W, 3) BGR, at most 160 pixels high and wide.
    """

    track_id: str
    number: int
    box_xyxy: Box
    score: float
    quality: float
    state: TrackState
    best_shot: Image


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One face in one frame, without the pixels.

    Attributes:
        frame_number: Of the frame.
        time_s: Of the frame.
        captured_at: Of the frame.
        image_size_wh: Of the frame, pixels.
        box_xyxy: Pixels.
        landmarks_xy: float32 (5, 2), pixels.
        score: Detector's confidence, 0..1.
    """

    frame_number: int
    time_s: float
    captured_at: datetime
    image_size_wh: tuple[int, int]
    box_xyxy: Box
    landmarks_xy: FloatArray
    score: float

    @classmethod
    def of(cls, frame: Frame, faces: Faces, row: int) -> Sighting:
        """The face at ``row`` of ``faces``, which were found in ``frame``."""
        left, top, right, bottom = faces.boxes_xyxy[row].tolist()
        return cls(
            frame_number=frame.number,
            time_s=frame.time_s,
            captured_at=frame.captured_at,
            image_size_wh=frame.size_wh,
            box_xyxy=(left, top, right, bottom),
            landmarks_xy=faces.landmarks_xy[row],
            score=float(faces.scores[row]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFace:
    """A face that was embedded.

    Attributes:
        sighting: Where and when.
        quality: 0..1.
        embedding: float32 (D,), unit length.
        shot: The face with some surroundings, uint8 (H, W, 3) BGR.
    """

    sighting: Sighting
    quality: float
    embedding: FloatArray
    shot: Image


class FaceTrack:
    """Times, counts, best face and template of one person's track.

    The best face is chosen among those that were embedded and found to be this person's, so it cannot be
    somebody else's.

    Attributes:
        number: Public number; None until it is known that this is nobody who was seen before.
        first: The first sighting.
        last: The last sighting that was counted; ``first`` before any was.
        faces_seen: Sightings that were counted.
        embeddings_made: Faces in the template.
        best: Best embedded face; None before the first.
        verified_s: When the last face in the template was seen.
        due_s: When the template is due for another face.
        gap_s: When it was seen last before its last gap.
        blind_s: How long, since the last sighting, damaged pictures may have hidden it.
        is_split_off: Whether it began as a face that did not fit the track which it had been taken for.
    """

    def __init__(self, first: Sighting, *, is_split_off: bool = False) -> None:
        self.number: int | None = None
        self.first = first
        self.last = first
        self.faces_seen = 0
        self.embeddings_made = 0
        self.best: EmbeddedFace | None = None
        self.verified_s = -math.inf
        self.due_s = -math.inf
        self.gap_s = -math.inf
        self.blind_s = 0.0
        self.is_split_off = is_split_off
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._template: FloatArray | None = None
        self._sequence = 0
        self._told_s = -math.inf
        self._told_embeddings = 0
        self._told_quality = 0.0

    @property
    def quality(self) -> float:
        """Of the best face, 0..1; 0 before the first."""
        return self.best.quality if self.best else 0.0

    @property
    def template(self) -> FloatArray:
        """float32 (D,), unit length: the mean of the embeddings, weighted with their quality.

        Raises:
            ValueError: No face has been embedded yet.
        """
        if self._template is None:
            raise ValueError("expected a track with an embedding, got one without")
        return self._template

    def see(self, sighting: Sighting) -> None:
        """Count a face that is this track's, the first one too."""
        self.last = sighting
        self.blind_s = 0.0
        self.faces_seen += 1

    def wants(self, quality: float, time_s: float, *, min_quality: float, patience_s: float) -> bool:
        """Whether a face of this quality, or of this quality at best, is worth an embedding.

        It is when the track has none yet, when it is clearly better than the best one, or when the template
        is due. A poor face is good enough for a track that is as poor, or that has waited ``patience_s``
        for its first.
        """
        if self.best is None:
            return quality >= min_quality or time_s - self.first.time_s >= patience_s
        is_due = time_s >= self.due_s and quality >= min(min_quality, self.quality / 2)
        return is_due or quality > _BETTER * self.quality

    def similarity(self, embedding: FloatArray) -> float:
        """Cosine of the template with an embedding, -1..1."""
        return float(np.dot(self.template, embedding))

    def learn(self, face: EmbeddedFace) -> None:
        """Take a face into the template; its sighting is counted by ``see``."""
        self._add(max(face.quality, _LEAST_WEIGHT) * face.embedding.astype(np.float64), count=1)
        self.verified_s = max(self.verified_s, face.sighting.time_s)
        if self.best is None or face.quality > self.best.quality:
            self.best = face

    def absorb(self, other: FaceTrack, *, with_template: bool = True) -> None:
        """Take over what was seen as another track and turned out to be this one.

        Args:
            other: Not to be used afterwards.
            with_template: Take over its template and best face as well as its sightings.
        """
        if other.first.time_s < self.first.time_s:
            self.first = other.first
        if other.last.time_s > self.last.time_s:
            self.last = other.last
        self.faces_seen += other.faces_seen
        if not with_template or other.best is None:
            return
        self._add(other._sum, count=other.embeddings_made)
        self.verified_s = max(self.verified_s, other.verified_s)
        self.due_s = max(self.due_s, other.due_s)
        if other.quality > self.quality:
            self.best = other.best

    def _add(self, weighted: npt.NDArray[np.float64] | float, *, count: int) -> None:
        self._sum = self._sum + weighted
        self._template = unit_rows(np.asarray(self._sum))
        self.embeddings_made += count

    def has_news(self, time_s: float, *, update_every_s: float, hurry_s: float) -> bool:
        """Whether an ``updated`` event is called for.

        It is ``update_every_s`` after the last event when the template has a new face, and already after
        ``hurry_s`` when the best face is much better than the reported one.
        """
        if self.embeddings_made == self._told_embeddings:
            return False
        is_much_better = self.quality > _BETTER**2 * self._told_quality
        return time_s - self._told_s >= (hurry_s if is_much_better else update_every_s)

    def tell(
        self,
        change: TrackChange,
        at: datetime,
        time_s: float,
        *,
        camera_id: str,
        run_id: str,
        embedder: EmbeddingModel,
    ) -> FaceEvent:
        """The next event of this track.

        Raises:
            ValueError: The track is not public or has no embedding yet.
        """
        if self.number is None or self.best is None:
            raise ValueError("expected a track with a number and an embedding, got one without")
        best = self.best.sighting
        event = FaceEvent(
            change=change,
            sequence=self._sequence,
            camera_id=camera_id,
            run_id=run_id,
            track_id=track_id(run_id, self.number),
            at=at,
            frame_number=best.frame_number,
            media_time_s=best.time_s,
            captured_at=best.captured_at,
            image_size_wh=best.image_size_wh,
            box_xyxy=best.box_xyxy,
            landmarks_xy=best.landmarks_xy,
            detection_score=best.score,
            quality=self.quality,
            embedding=self.template,
            embedding_model=embedder.name,
            embedding_model_id=embedder.model_id,
            embedding_mirrored=embedder.mirrored,
            faces_seen=self.faces_seen,
            embeddings_made=self.embeddings_made,
            first_seen=self.first.captured_at,
            last_seen=self.last.captured_at,
            last_box_xyxy=self.last.box_xyxy,
        )
        self._sequence += 1
        self._told_s, self._told_embeddings, self._told_quality = time_s, self.embeddings_made, self.quality
        return event


def track_id(run_id: str, number: int) -> str:
    """Unique everywhere, since the run's id is."""
    return f"{run_id}-{number}"


def cut_shot(image: Image, box_xyxy: Box) -> Image:
    """A small picture of a face with some of its surroundings.

    Args:
        image: uint8 (H, W, 3).
        box_xyxy: The face, pixels; may reach beyond the image.

    Returns:
        uint8 (h, w, 3), a copy, at most 160 pixels high and wide; square unless the image ends.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box_xyxy
    half = (0.5 + _SHOT_MARGIN) * max(right - left, bottom - top, 1.0)
    x, y = (left + right) / 2, (top + bottom) / 2
    x0, y0 = max(0, min(round(x - half), width - 1)), max(0, min(round(y - half), height - 1))
    x1, y1 = min(width, max(round(x + half), x0 + 1)), min(height, max(round(y + half), y0 + 1))
    shrink = min(1.0, _SHOT_SIDE_PX / max(x1 - x0, y1 - y0))
    if shrink == 1.0:
        return image[y0:y1, x0:x1].copy()
    size_wh = (max(1, round((x1 - x0) * shrink)), max(1, round((y1 - y0) * shrink)))
    return np.asarray(cv2.resize(image[y0:y1, x0:x1], size_wh, interpolation=cv2.INTER_AREA), np.uint8)
