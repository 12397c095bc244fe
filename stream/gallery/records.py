"""What a gallery holds: its model, people, templates, and all of it at one moment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import GalleryError
from engine.models.package import Likeness, ModelPackage
from stream.common.names import clean_name
from stream.events.event_types import EmbeddingModel, FaceEvent

Source: TypeAlias = Literal["photo", "track"]

MAX_NOTES: Final = 10_000
MAX_PHOTO_BYTES: Final = 32_000_000
MAX_FILE: Final = 255
"""Characters of a photograph's file name."""

_MAX_SIZE: Final = 8192
_UNIT_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class GalleryModel:
    """A model, as far as it matters to whether embeddings compare.

    Attributes:
        name: Of its package.
        sha256: Of its ONNX file.
        mirror: Whether the embedding of the mirrored face is added.
        size: Numbers of an embedding.
        likeness: Brings its cosines to the scale that all models share; does not make it another model.

    Raises:
        ValueError: A value is empty or out of range.
    """

    name: str
    sha256: str
    mirror: bool
    size: int
    likeness: Likeness = field(default=Likeness(), compare=False)

    def __post_init__(self) -> None:
        scale = (self.likeness.factor, self.likeness.shift)
        if not np.isfinite(scale).all() or not self.likeness.factor > 0:
            raise ValueError(f"likeness: expected finite numbers and a factor above 0, got {scale}")
        if not self.name or len(self.sha256) != 64 or not 1 <= self.size <= _MAX_SIZE:
            raise ValueError(
                f"expected a name, a SHA-256 and a size in 1..{_MAX_SIZE}, "
                f"got {self.name!r}, {self.sha256!r} and {self.size}"
            )

    @classmethod
    def of(cls, package: ModelPackage, *, mirror: bool) -> GalleryModel:
        """The model of an embedder's package.

        Raises:
            ValueError: The package is not an embedder's.
        """
        if package.task != "embedder" or package.embedding_size is None:
            raise ValueError(f"{package.name}: expected an embedder, got a {package.task}")
        likeness = Likeness.of(package.thresholds)
        return cls(package.name, package.sha256, mirror, package.embedding_size, likeness)

    @property
    def embedder(self) -> EmbeddingModel:
        """The model as events tell of it."""
        return EmbeddingModel.of(self.name, self.sha256, mirrored=self.mirror)

    def compares_with(self, event: FaceEvent) -> bool:
        """Whether a track's embedding is of this model, as far as its event tells."""
        return self.embedder.agrees(event.embedder) and len(event.embedding) == self.size

    def __str__(self) -> str:
        return str(self.embedder)


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One face of a person.

    Attributes:
        embedding: float32 (D,), unit length.
        quality: 0..1.
        source: A photograph or a track.
        origin: SHA-256 of the photograph's file, or the track's id.
        added: When, UTC; None for now.
        photo: The photograph's file, where it is kept.
        file: What the photograph's file was called; empty where that is not known.

    Raises:
        ValueError: The embedding is no finite unit vector, or another value is out of range.
    """

    embedding: npt.NDArray[np.float32]
    quality: float
    source: Source
    origin: str
    added: datetime | None = None
    photo: bytes | None = None
    file: str = ""

    def __post_init__(self) -> None:
        check_embedding(self.embedding)
        if self.file:
            clean_name(self.file, what="file", longest=MAX_FILE)
        if not 0 <= self.quality <= 1 or self.source not in {"photo", "track"} or not self.origin:
            raise ValueError(
                f"expected quality 0..1, source photo or track and an origin, "
                f"got {self.quality}, {self.source!r} and {self.origin!r}"
            )
        if self.photo is not None and len(self.photo) > MAX_PHOTO_BYTES:
            raise ValueError(f"photo: expected at most {MAX_PHOTO_BYTES} bytes, got {len(self.photo)}")


@dataclass(frozen=True, slots=True, eq=False)
class Negative:
    """A face that is not a person's, though it may look like it.

    Attributes:
        embedding: float32 (D,), unit length.
        origin: The track's id.
        added: When, UTC; None for now.
    """

    embedding: npt.NDArray[np.float32]
    origin: str
    added: datetime | None = None

    def __post_init__(self) -> None:
        check_embedding(self.embedding)


@dataclass(frozen=True, slots=True, eq=False)
class EnrolledFace:
    """One face of somebody, with what is needed to judge another one.

    Attributes:
        number: Higher than that of every face that was added before; never used again.
        name: Of the person.
        embedding: float32 (D,), unit length.
        origin: SHA-256 of the photograph's file, or the track's id.
    """

    number: int
    name: str
    embedding: npt.NDArray[np.float32]
    origin: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is enrolled.

    Attributes:
        id: Stands in events; never used again for somebody else.
        name: For people.
        notes: Anything.
        created: When, UTC.
        templates: How many.
        photos: How many of them with a photograph.
        negatives: How many faces are known not to be this person's.
    """

    id: str
    name: str
    notes: str
    created: datetime
    templates: int
    photos: int
    negatives: int


@dataclass(frozen=True, slots=True, eq=False)
class GallerySnapshot:
    """All that is needed to identify, at one moment; parallel arrays.

    Attributes:
        gallery_id: Which gallery.
        version: Every change of the gallery raises it.
        removals: How often something was removed from it; while it is the same, things were only added.
        model: Whose embeddings these are.
        people_keys: int64 (P,), number of each person; ascending, never used again.
        ids: Of the people.
        names: Of the people.
        keys: int64 (T,), number of each template; ascending, never used again.
        templates: float32 (T, D), unit rows.
        owners: intp (T,), row in ``ids`` of each template's person.
        negatives: float32 (N, D), unit rows.
        negative_owners: intp (N,), whose face each is not.
    """

    gallery_id: str
    version: int
    removals: int
    model: GalleryModel
    people_keys: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    names: tuple[str, ...]
    keys: npt.NDArray[np.int64]
    templates: Embeddings
    owners: npt.NDArray[np.intp]
    negatives: Embeddings
    negative_owners: npt.NDArray[np.intp]

    @classmethod
    def empty(cls, gallery_id: str, model: GalleryModel) -> GallerySnapshot:
        """Of a gallery of nobody."""
        keys, owners = np.empty(0, np.int64), np.empty(0, np.intp)
        nothing = np.empty((0, model.size), np.float32)
        return cls(gallery_id, 0, 0, model, keys, (), (), keys, nothing, owners, nothing, owners)

    def kept(self, people: npt.NDArray[np.int64], keys: npt.NDArray[np.int64]) -> GallerySnapshot:
        """What is left of it.

        Args:
            people: int64, numbers of the people who are left.
            keys: int64, numbers of the templates that are left, all of these people.
        """
        stay, there = np.isin(self.people_keys, people), np.isin(self.keys, keys)
        rows = np.flatnonzero(stay).tolist()
        return replace(
            self,
            people_keys=self.people_keys[stay],
            ids=tuple(self.ids[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            keys=self.keys[there],
            templates=self.templates[there],
            owners=(np.cumsum(stay) - 1)[self.owners[there]],
        )


def check_embedding(embedding: npt.NDArray[np.float32]) -> None:
    """Check that something is an embedding.

    Raises:
        ValueError: It is not float32 (D,), finite, and of length 1.
    """
    if embedding.ndim != 1 or embedding.dtype != np.float32 or not 1 <= len(embedding) <= _MAX_SIZE:
        raise ValueError(f"embedding: expected float32 (D,), got {embedding.dtype} {embedding.shape}")
    length = float(np.linalg.norm(embedding.astype(np.float64)))
    if not abs(length - 1) <= _UNIT_TOLERANCE:
        raise ValueError(f"embedding: expected a vector of length 1, got {length:.4g}")


def check_event(path: Path, model: GalleryModel, event: FaceEvent) -> None:
    """Check that a track's embedding compares with a gallery's, as far as its event tells.

    Args:
        path: Of the gallery.
        model: Of the gallery.
        event: Of the track.

    Raises:
        GalleryError: It does not.
    """
    if not model.compares_with(event):
        raise GalleryError(
            f"{path}: holds embeddings of {model}, not compatible with those of {event.embedder}; move it: "
            f"facestream gallery upgrade {shlex.quote(str(path))} --to {shlex.quote(event.embedding_model)}"
            + {None: "", True: " --mirror", False: " --no-mirror"}[event.embedding_mirrored]
        )
