"""Faces of different people, and whether a model tells them apart: the proof of its preprocessing.

A model that sees other pixels than it was trained on still gives embeddings, in which everybody resembles
everybody. So views of one face are held against faces of other people. The error is the equal error rate: the
share of views that are no nearer to their own face than as many of the strangers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.compilation.sample_faces import pictures_in, read_folder
from engine.embeddings import unit_rows
from engine.errors import ModelError
from engine.faces import FloatArray, Image
from engine.graphs.edits import ColourOrder
from engine.models.alignment import align_faces
from engine.models.package import Patch
from engine.protocol import Engine
from engine.vision.detection import Detector

MOST_ERROR: Final = 0.12
"""More, and a preprocessing is doubted. Right ones of SFace and dlib's ResNet stay below 0.04, those that
cost them next to nothing on other people's photographs below 0.07, those that break them above 0.18."""

HOPELESS_ERROR: Final = 0.3
"""From here on a model does not tell people apart; networks with random weights reach 0.37 to 0.5."""

_PEOPLE: Final = 40
_SIDE_PX: Final = 320
_FACE_PX: Final = 160
_MOST_A_PERSON: Final = 4
_BATCH: Final = 8

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Pictures of people, one face in each, at least two of each of some people.

    Attributes:
        images: uint8 (H, W, 3) BGR.
        landmarks_xy: float32 (N, 5, 2), pixels.
        person: intp (N,), the same number for the same person.
        folder: That a user gave, which may hold what it should not; None for the shipped ones.
    """

    images: Sequence[Image]
    landmarks_xy: FloatArray
    person: Indices
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.landmarks_xy) == len(self.person):
            raise ValueError("expected as many landmarks and numbers as images")
        if self.count < 2 or not (np.bincount(self.person) >= 2).any():
            raise ValueError("expected two people or more, and two pictures of one of them")

    @property
    def count(self) -> int:
        """Number of people."""
        return len(np.unique(self.person))

    def crops(self, patches: Sequence[Patch]) -> npt.NDArray[np.uint8]:
        """The faces as a model sees them, uint8 (N, canvas height, canvas width, 3) BGR."""
        faces = [
            align_faces(image, points[None], patches)
            for image, points in zip(self.images, self.landmarks_xy, strict=True)
        ]
        return np.concatenate(faces)


@dataclass(frozen=True, slots=True)
class Separation:
    """How well embeddings tell people apart.

    Attributes:
        people: How many there were.
        error: Equal error rate, 0..1.
        like: Mean cosine of two pictures of one person.
        unlike: Mean cosine of two people.
    """

    people: int
    error: float
    like: float
    unlike: float

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.people} people: equal error rate {self.error:.0%}, mean cosine {self.like:.2f} of one "
            f"person and {self.unlike:.2f} of different people"
        )


def shipped_people(detector: Detector) -> People:
    """Forty people of whom scikit-image ships a small grey face, each in two views.

    Args:
        detector: Finds the faces.

    Raises:
        ModelError: scikit-image is not installed, or a detector failed.
    """
    random = np.random.default_rng(2026)
    faces = _shipped_faces()
    views = [[_framed(face), _changed(_framed(face), random)] for face in faces]
    return _people(views, detector, most=_PEOPLE)


def people_in(folder: Path, detector: Detector) -> People | None:
    """The people of a folder that has a folder of photographs for each.

    Args:
        folder: Of folders; of at most 40 people, evenly picked. The surest face of each photograph counts,
            of at most four a person.
        detector: Finds the faces.

    Returns:
        None where it does not hold two people with two photographs each.

    Raises:
        ModelError: A detector failed.
    """
    if not folder.is_dir():
        raise ModelError(
            f"{folder}: no such folder; give one that has a folder of photographs for each person"
        )
    usable = [each for each in sorted(folder.iterdir()) if each.is_dir() and len(pictures_in(each)) >= 2]
    picked = [usable[row] for row in np.linspace(0, len(usable) - 1, min(_PEOPLE, len(usable))).astype(int)]
    try:
        found = _people([read_folder(each, most=_MOST_A_PERSON) for each in picked], detector, most=_PEOPLE)
        return replace(found, folder=folder)
    except ValueError:
        return None


def separation(embeddings: FloatArray, person: Indices) -> Separation:
    """How well embeddings tell people apart, over all pairs.

    Args:
        embeddings: float32 (N, D), of any length.
        person: intp (N,), the same number for the same person.

    Returns:
        An error of 1 where numbers are not finite.
    """
    people = len(np.unique(person))
    if not np.isfinite(embeddings).all():
        return Separation(people, 1.0, float("nan"), float("nan"))
    unit = unit_rows(embeddings)
    rows, columns = np.triu_indices(len(unit), 1)
    cosines = (unit @ unit.T)[rows, columns]
    same = person[rows] == person[columns]
    like, unlike = cosines[same], cosines[~same]
    return Separation(people, equal_error_rate(like, unlike), float(like.mean()), float(unlike.mean()))


def equal_error_rate(like: FloatArray, unlike: FloatArray) -> float:
    """The least error that both kinds of pair can be held below by one threshold.

    Args:
        like: Similarities of pairs of one person, at least one.
        unlike: Of pairs of two people, at least one.

    Returns:
        0 where a threshold parts them, 0.5 where they are alike, up to 1.
    """
    like, unlike = np.sort(like), np.sort(unlike)
    thresholds = np.concatenate([like, unlike])
    missed = np.searchsorted(like, thresholds, side="left") / len(like)
    taken = 1 - np.searchsorted(unlike, thresholds, side="left") / len(unlike)
    return float(np.maximum(missed, taken).min())


def embed_as(
    engine: Engine,
    crops: npt.NDArray[np.uint8],
    *,
    colour_order: ColourOrder,
    mean: Sequence[float],
    scale: float,
) -> FloatArray:
    """Run a model as it is on faces that are prepared in a way to try.

    Args:
        engine: Takes float32 (N, 3, H, W).
        crops: uint8 (N, H, W, 3) BGR.
        colour_order: Of the model's channels.
        mean: Subtracted from each channel.
        scale: Multiplies what is left.

    Returns:
        float32 (N, D).

    Raises:
        ModelError: The engine failed.
    """
    step = -1 if colour_order == "rgb" else 1
    rows = []
    for start in range(0, len(crops), _BATCH):
        pixels = crops[start : start + _BATCH, :, :, ::step].astype(np.float32)
        prepared = (pixels - np.asarray(mean, np.float32)) * np.float32(scale)
        feed = np.ascontiguousarray(prepared.transpose(0, 3, 1, 2))
        (output,) = engine.infer({engine.inputs[0].name: feed}).values()
        rows.append(output.reshape(len(feed), -1))
    return np.concatenate(rows)


def _people(pictures: Sequence[Sequence[Image]], detector: Detector, *, most: int) -> People:
    """Those people of whose pictures two or more show a face."""
    images: list[Image] = []
    landmarks: list[FloatArray] = []
    person: list[int] = []
    for views in pictures:
        if (number := person[-1] + 1 if person else 0) >= most:
            break
        found = [
            (image, faces.landmarks_xy[int(faces.scores.argmax())])
            for image, faces in zip(views, detector.detect(views), strict=True)
            if len(faces)
        ]
        if len(found) >= 2:
            images += [image for image, _ in found]
            landmarks += [points for _, points in found]
            person += [number] * len(found)
    points = np.stack(landmarks) if landmarks else np.empty((0, 5, 2), np.float32)
    return People(images, points.astype(np.float32), np.array(person, np.intp))


def _shipped_faces() -> npt.NDArray[np.uint8]:
    """uint8 (N, 25, 25): tight grey crops of people, of whom no two are the same."""
    spec = find_spec("skimage")  # which is not imported: it takes a second
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            faces = np.load(Path(folder) / "data" / "lfw_subset.npy", allow_pickle=False)[:100]
        except (OSError, ValueError):
            continue
        return np.asarray(np.clip(faces, 0, 1) * 255, np.uint8)
    raise ModelError("the faces that scikit-image ships are not installed; run: pip install scikit-image")


def _framed(face: npt.NDArray[np.uint8]) -> Image:
    """A face in the middle of a picture in which a detector finds it."""
    large = cv2.resize(face, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_CUBIC)
    edge = (_SIDE_PX - _FACE_PX) // 2
    framed = cv2.copyMakeBorder(large, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(framed, cv2.COLOR_GRAY2BGR), np.uint8)


def _changed(image: Image, random: np.random.Generator) -> Image:
    """The same face mirrored, turned, from another side, in other light and with noise."""
    middle = (_SIDE_PX / 2, _SIDE_PX / 2)
    size_wh = (_SIDE_PX, _SIDE_PX)
    turn = cv2.getRotationMatrix2D(middle, random.uniform(-20, 20), random.uniform(0.6, 1.1))
    view = cv2.warpAffine(cv2.flip(image, 1), turn, size_wh, borderMode=cv2.BORDER_REPLICATE)
    corners = np.array([[0, 0], [_SIDE_PX, 0], [_SIDE_PX, _SIDE_PX], [0, _SIDE_PX]], np.float32)
    moved = corners + random.uniform(-25, 25, (4, 2)).astype(np.float32)
    tilt = cv2.getPerspectiveTransform(corners, moved)
    view = cv2.warpPerspective(view, tilt, size_wh, borderMode=cv2.BORDER_REPLICATE)
    sideways = 1 + random.uniform(-0.4, 0.4) * np.linspace(-1, 1, _SIDE_PX)[None, :, None]
    lit = view * random.uniform(0.6, 1.2) * sideways + random.normal(0, 6, view.shape)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
