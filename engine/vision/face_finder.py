"""Faces of single images: detected, judged and embedded; and how similar two of them are, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import PictureError
from engine.faces import Faces, FloatArray, Image
from engine.models.package import Threshold
from engine.vision.detection import Detector
from engine.vision.embedder import Embedder
from engine.vision.quality import face_quality

Pick: TypeAlias = Literal["largest", "centre"]

LEAST_SCORE: Final = 0.6
"""Of a face in a photograph: the detector's confidence."""

_SURE: Final = ((1e-4, "very likely"), (1e-3, "likely"))

_CLEARLY_SMALLER: Final = 0.6
"""Of the largest face's side: a face below this is in the background."""
_SMALLER: Final = 0.71
"""The same where the largest face is nearer to the image's centre: half the area."""
_CUT_SMALLER: Final = 0.9
"""The same where, besides, the other face is cut by the image's edge."""
_EDGE: Final = 0.02
"""Of a face's side: one that comes so near to the image's edge is taken for cut."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundFaces:
    """The faces of an image, as parallel arrays; the largest first.

    Attributes:
        faces: Boxes, scores and landmarks of N faces, in the image's pixels.
        qualities: float32 (N,), 0..1: how useful each is to the embedder.
        embeddings: float32 (N, D), unit rows; a dot product of two is their similarity.

    Raises:
        ValueError: The arrays do not fit together.
    """

    faces: Faces
    qualities: FloatArray
    embeddings: Embeddings

    def __post_init__(self) -> None:
        count = len(self.faces)
        if self.qualities.shape != (count,) or self.embeddings.ndim != 2 or len(self.embeddings) != count:
            raise ValueError(
                f"expected qualities and embeddings of {count} faces, got {self.qualities.shape} and "
                f"{self.embeddings.shape}"
            )

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Similarity of two faces.

    Attributes:
        similarity: Cosine of their embeddings, -1..1; higher is more similar.
        false_accept_rate: Share of the pairs of different people that reach the strictest of the model's
            thresholds that this pair reaches; None where it reaches none, or that rate was not measured.
        meaning: The rate in words.
        qualities: Of both faces, 0..1.
    """

    similarity: float
    false_accept_rate: float | None
    meaning: str
    qualities: tuple[float, float]


class FaceFinder:
    """Finds the faces of images, and compares two. May be used by several threads.

    Args:
        detector: Finds faces.
        embedder: Embeds them.
        thresholds: The model's, which give similarities their meaning.
        min_score: Faces with a lower detection score are left out, 0..1.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        *,
        thresholds: Sequence[Threshold] = (),
        min_score: float = LEAST_SCORE,
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._thresholds = tuple(thresholds)
        self._min_score = min_score

    def find(self, image: Image) -> FoundFaces:
        """The faces of an image.

        Args:
            image: uint8 (H, W, 3) BGR, upright; see ``engine.vision.image_decoding`` for files.

        Returns:
            Each with quality and embedding, the largest first; none where there is none.

        Raises:
            ValueError: The image has another dtype or shape, or no pixels.
            ModelError: An engine failed.
        """
        faces = self._detector.detect([image])[0]
        faces = faces[faces.scores >= self._min_score]
        return self._embedded(image, faces[np.argsort(-face_sides(faces), kind="stable")])

    def compare(self, first: Image, second: Image, *, pick: Pick | None = None) -> Comparison:
        """How alike the faces of two images are.

        Args:
            first: uint8 (H, W, 3) BGR.
            second: The image to compare it with, of the same form.
            pick: Which face of several is meant; see ``subject``.

        Raises:
            PictureError: There is no face in an image, or it is unclear which one is meant.
            ValueError: An image has another dtype or shape, or no pixels.
            ModelError: An engine failed.
        """
        one, other = (self.find_subject(image, pick=pick) for image in (first, second))
        return self.compared(one, other)

    def find_subject(self, image: Image, *, pick: Pick | None = None) -> FoundFaces:
        """The one face of an image that it is of; see ``FaceFinder.compare``."""
        faces = self._detector.detect([image])[0]
        faces = faces[faces.scores >= self._min_score]
        chosen = subject(faces, image, pick=pick)
        return self._embedded(image, faces[chosen : chosen + 1])

    def compared(self, one: FoundFaces, other: FoundFaces) -> Comparison:
        """How alike two faces are that were found before.

        Args:
            one: Its first face counts.
            other: The face to compare it with.

        Raises:
            ValueError: One of them has no face.
        """
        if not (len(one) and len(other)):
            raise ValueError(f"expected a face or more of each image, got {len(one)} and {len(other)}")
        similarity = float(one.embeddings[0] @ other.embeddings[0])
        rate, meaning = meaning_of(similarity, self._thresholds)
        return Comparison(similarity, rate, meaning, (float(one.qualities[0]), float(other.qualities[0])))

    def _embedded(self, image: Image, faces: Faces) -> FoundFaces:
        crops = self._embedder.align(image, faces.landmarks_xy)
        qualities = face_quality(faces, self._embedder.portraits(crops))
        return FoundFaces(faces, qualities, self._embedder.embed(crops))


def face_sides(faces: Faces) -> FloatArray:
    """The longer side of each face's box, pixels.

    Returns:
        float32 (N,).
    """
    return np.asarray((faces.boxes_xyxy[:, 2:] - faces.boxes_xyxy[:, :2]).max(axis=1, initial=0), np.float32)


def subject(faces: Faces, image: Image, *, pick: Pick | None = None) -> int:
    """Which face a photograph is of.

    It is the largest one, where every other is less than 0.6 times as large; or is further from the image's
    centre and has less than half the area, or is smaller and cut by the image's edge. Of 3,661 photographs of
    LFW, of which 638 show several faces, it can tell in all but 210, and in all 294 in which others of the
    person's photographs show who is meant it is right (they centre the person, which helps).

    Args:
        faces: Of the image.
        image: uint8 (H, W, 3).
        pick: Take the largest one, or the one nearest to the image's centre, in any case.

    Returns:
        Its row.

    Raises:
        PictureError: There is no face, or it is unclear which one is meant.
    """
    if not len(faces):
        raise PictureError("no face was found in it")
    boxes, sides = faces.boxes_xyxy, face_sides(faces)
    centre = np.array([image.shape[1], image.shape[0]]) / 2
    away = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - centre, axis=1)
    if pick == "centre":
        return int(away.argmin())
    largest = int(sides.argmax())
    cut = _cut(faces, image)
    limits = np.where(cut & ~cut[largest], _CUT_SMALLER, _SMALLER)
    limits = np.where(away > away[largest], limits, _CLEARLY_SMALLER)
    several = int((sides >= limits * sides[largest]).sum())  # with the largest itself
    if pick is None and several > 1:
        raise PictureError(f"it shows {several} faces; crop it to the right one, or choose with --pick")
    return largest


def _cut(faces: Faces, image: Image) -> npt.NDArray[np.bool_]:
    """Whether each face reaches beyond the image."""
    near = _EDGE * face_sides(faces)
    left, top, right, bottom = faces.boxes_xyxy.T
    height, width = image.shape[:2]
    cut = (left <= near) | (top <= near) | (right >= width - near) | (bottom >= height - near)
    return np.asarray(cut, np.bool_)


def meaning_of(similarity: float, thresholds: Sequence[Threshold]) -> tuple[float | None, str]:
    """What a similarity of two single photographs says, as far as the model's thresholds tell.

    Args:
        similarity: Cosine.
        thresholds: The model's.

    Returns:
        The false accept rate of the strictest threshold that is reached, None where there is none, and words.
    """
    if not thresholds:
        return None, "not known: the model has no thresholds"
    reached = [each for each in thresholds if similarity >= each.similarity]
    if not reached:
        least = min(each.similarity for each in thresholds)
        return None, f"different people, as far as this shows (one person: {least:g} or more)"
    strictest = max(reached, key=lambda each: each.similarity)
    if strictest.far is None:
        return (
            None,
            f"the same person by the model's threshold of {strictest.similarity:g}, rate not measured",
        )
    sure = next((words for rate, words in _SURE if strictest.far <= rate), "possibly")
    pairs = f"1 in {round(1 / strictest.far):,} pairs" if strictest.far else "no pair"
    return strictest.far, f"{sure} the same person ({pairs} of different people is as alike)"
