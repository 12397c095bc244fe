"""Who is in a photograph: the faces of single pictures, named from a gallery, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from engine.atomic_files import write_atomically
from engine.errors import ModelError, SinkError
from engine.faces import Image
from engine.vision.face_finder import FoundFaces
from stream.gallery.identification.matcher import Matcher
from stream.gallery.records import GallerySnapshot
from stream.video.drawing import Label, draw_labels, plain_letters


@dataclass(frozen=True, slots=True)
class Naming:
    """Who a face is, as ``facestream.identity.decided.v1`` says it of a track.

    Attributes:
        person_id: Of the gallery; None if it is nobody enrolled, or the quality is too low.
        name: Of that person; None where ``person_id`` is.
        similarity: Score of the nearest person, known or not; None where nobody is enrolled.
        margin: By how much the runner-up is behind; None where there is none.
        threshold: Minimum score at which somebody is named.
        is_poor: Whether the face's quality is too low to name it.
    """

    person_id: str | None
    name: str | None
    similarity: float | None
    margin: float | None
    threshold: float
    is_poor: bool


class Namer:
    """Identifies faces as people or as nobody enrolled, with the rules for cameras.

    Args:
        snapshot: The gallery.
        false_accept_rate: Share of strangers who may be named as anybody, between 0 and 1.
        min_quality: Faces of lower quality are not named, 0..1.

    Raises:
        ValueError: The rate is out of range.
    """

    def __init__(
        self, snapshot: GallerySnapshot, *, false_accept_rate: float = 0.01, min_quality: float = 0.2
    ) -> None:
        self._matcher = Matcher(snapshot, false_accept_rate=false_accept_rate)
        self._min_quality = min_quality

    def name(self, found: FoundFaces) -> list[Naming]:
        """Who each face is.

        Args:
            found: Of the gallery's model.
        """
        if not len(found):
            return []
        decisions, snapshot = self._matcher.match(found.embeddings), self._matcher.snapshot
        namings = []
        for row, quality in enumerate(found.qualities.tolist()):
            is_poor = quality < self._min_quality
            person = -1 if is_poor else int(decisions.person[row])
            namings.append(
                Naming(
                    person_id=None if person < 0 else snapshot.ids[person],
                    name=None if person < 0 else snapshot.names[person],
                    similarity=_finite(decisions.score[row]),
                    margin=_finite(decisions.margin[row]),
                    threshold=self._matcher.threshold,
                    is_poor=is_poor,
                )
            )
        return namings


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def describe_faces(found: FoundFaces, namings: Sequence[Naming] | None) -> list[dict[str, Any]]:
    """Faces for programs: what JSON can hold, without embeddings.

    Args:
        found: The faces.
        namings: Who each is; None where no gallery was asked.
    """
    described = []
    for row in range(len(found)):
        face: dict[str, Any] = {
            "box_xyxy": [round(value, 1) for value in found.faces.boxes_xyxy[row].tolist()],
            "landmarks_xy": [[round(x, 1), round(y, 1)] for x, y in found.faces.landmarks_xy[row].tolist()],
            "score": round(float(found.faces.scores[row]), 4),
            "quality": round(float(found.qualities[row]), 4),
        }
        if namings is not None:
            naming = namings[row]
            face["identity"] = {
                "known": naming.person_id is not None,
                "person_id": naming.person_id,
                "person_name": naming.name,
                "similarity": _rounded(naming.similarity),
                "margin": _rounded(naming.margin),
                "threshold": _rounded(naming.threshold),
                "too_poor": naming.is_poor,
            }
        described.append(face)
    return described


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def draw_faces(image: Image, found: FoundFaces, namings: Sequence[Naming] | None) -> Image:
    """A copy of a photograph with its faces framed, numbered and named.

    Args:
        image: uint8 (H, W, 3) BGR.
        found: Its faces.
        namings: Who each is; None where no gallery was asked.
    """
    labels = []
    for row, box in enumerate(found.faces.boxes_xyxy.tolist()):
        text = f"{row + 1}  quality {found.qualities[row]:.2f}"
        if namings is not None:
            naming = namings[row]
            similarity = "" if naming.similarity is None else f"  {naming.similarity:.2f}"
            who = plain_letters(naming.name or "unknown") or str(naming.person_id)
            text = f"{row + 1}  {who}{similarity}"
        labels.append(Label((box[0], box[1], box[2], box[3]), text, row))
    return draw_labels(image, labels)


def save_private(image: Image, path: Path) -> None:
    """Write a picture of people's faces, readable by its owner only.

    Args:
        image: uint8 (H, W, 3) BGR.
        path: Ends in ``.png`` or ``.jpg``; overwritten.

    Raises:
        SinkError: It cannot be written.
    """
    _, data = cv2.imencode(path.suffix.lower(), image)
    try:
        write_atomically(path, data.tobytes(), private=True)
    except ModelError as exc:
        reason = exc.__cause__.strerror if isinstance(exc.__cause__, OSError) else exc
        raise SinkError(f"{path}: cannot write the picture ({reason}); choose another place") from exc
