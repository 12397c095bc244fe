"""From folders of photographs and videos to the faces of each, embedded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.detector import Detector
from engine.embeddings import Embeddings
from engine.errors import DatasetError, ModelError
from engine.faces import FloatArray, Image
from engine.quality import face_quality
from training.face_crops import Progress, nearest_to, read_image
from training.face_models import Embedder
from training.pairs import Indices
from training.ytf import YtfImages, all_videos, choose_frames

Frames: TypeAlias = Literal["first", "spread", "best"]
"""Which images of a set count: its first ones, ones spread evenly, or those whose face is worth the most."""

WhichFace: TypeAlias = Literal["centre", "labelled"]
"""Of several faces, the one nearest to the image's centre, or to the labelled box's where there is one."""

_IMAGES_AT_ONCE: Final = 16
_PICTURES: Final = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images of one person: a video's frames, or photographs.

    Attributes:
        name: ``Ann_Lee`` of photographs, ``Ann_Lee/3`` of a video.
        person: Whom they show.
        paths: In their order.
        boxes_xyxy: float32 (images, 4), pixels, the labelled faces, NaN where none is; None without labels.
    """

    name: str
    person: str
    paths: tuple[Path, ...]
    boxes_xyxy: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FaceSet:
    """The faces of an ``ImageSet``.

    Attributes:
        name: As there.
        person: As there.
        embeddings: float32 (n, D), unit rows.
        qualities: float32 (n,), 0..1.
        paths: The image of each face.
        looked_at: Images that were looked at.
        without_face: Those of them in which none was found.
        unreadable: Images that could not be read.
    """

    name: str
    person: str
    embeddings: Embeddings
    qualities: npt.NDArray[np.float32]
    paths: tuple[Path, ...]
    looked_at: int
    without_face: int
    unreadable: tuple[Path, ...] = ()

    @property
    def best(self) -> int | None:
        """Index of the face of the highest quality; None where there is none."""
        return int(self.qualities.argmax()) if len(self.qualities) else None

    def best_only(self) -> FaceSet:
        """The set with no other face than its best."""
        rows = slice(0, 0) if self.best is None else slice(self.best, self.best + 1)
        return FaceSet(
            self.name,
            self.person,
            self.embeddings[rows],
            self.qualities[rows],
            self.paths[rows],
            self.looked_at,
            self.without_face,
            self.unreadable,
        )


@dataclass(slots=True)
class Stopwatch:
    """Seconds that each stage took.

    Attributes:
        seconds: By the stage's name.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what the block takes to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begun


def find_stills(root: Path) -> tuple[ImageSet, ...]:
    """Photographs in LFW's layout, ``Name/Name_0001.jpg``: one set a person, by name.

    Raises:
        DatasetError: The folder is not there, or holds no photograph.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; give LFW's, which holds Name/Name_0001.jpg")
    sets = [
        ImageSet(person.name, person.name, pictures)
        for person in sorted(each for each in root.iterdir() if each.is_dir())
        if (pictures := tuple(sorted(p for p in person.glob("*.*") if p.suffix.lower() in _PICTURES)))
    ]
    if not sets:
        raise DatasetError(f"{root}: holds no photograph such as Name/Name_0001.jpg; give LFW's folder")
    return tuple(sets)


def find_videos(root: Path, *, images: YtfImages = "frame_images_DB") -> tuple[ImageSet, ...]:
    """Videos in YTF's layout: one set a video, by person and number.

    Raises:
        DatasetError: As for ``training.ytf.all_videos``.
    """
    return tuple(
        ImageSet(video.name, video.name.partition("/")[0], video.frames, video.boxes_xyxy)
        for video in all_videos(root, images=images)
    )


def embed_sets(
    sets: Sequence[ImageSet],
    detector: Detector,
    embedder: Embedder,
    *,
    most: int | None = None,
    frames: Frames = "first",
    face: WhichFace = "centre",
    skip_unreadable: bool = False,
    watch: Stopwatch | None = None,
    on_progress: Progress | None = None,
) -> tuple[FaceSet, ...]:
    """Find, cut out and embed one face of each image.

    Args:
        sets: The images.
        detector: What it gives counts as a face.
        embedder: Says how faces are cut out, too.
        most: Images of each set that are looked at; None for all. With ``best`` all are looked at, and so
            many faces are kept.
        frames: Which images.
        face: Which face of an image.
        skip_unreadable: Leave damaged images out and name them in the result; otherwise they are an error,
            since a smaller benchmark is another one.
        watch: Is given the seconds of the stages decode, detect, align, score (the faces' quality) and embed.
        on_progress: Called after each set.

    Raises:
        DatasetError: An image cannot be read.
        ModelError: An engine failed, or its embeddings are not finite.
        ValueError: An argument is out of range.
    """
    if frames not in {"first", "spread", "best"} or face not in {"centre", "labelled"}:
        raise ValueError(
            f"expected frames first, spread or best, face centre or labelled, got {frames!r}, {face!r}"
        )
    watch = watch or Stopwatch()
    look = _Look(detector, embedder, most, frames, face, skip_unreadable, watch)
    made = []
    for number, images in enumerate(sets, 1):
        made.append(look.at(images))
        if on_progress is not None:
            on_progress(number, len(sets))
    return tuple(made)


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """Faces cut out of some of a set's images: their rows in the set, their crops and qualities."""

    rows: Indices
    crops: npt.NDArray[np.uint8]
    qualities: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, cuts: Sequence[_Cut]) -> _Cut:
        return cls(
            np.concatenate([cut.rows for cut in cuts]),
            np.concatenate([cut.crops for cut in cuts]),
            np.concatenate([cut.qualities for cut in cuts]),
        )

    def best(self, most: int) -> _Cut:
        kept = np.sort(np.argsort(-self.qualities, kind="stable")[:most])
        return _Cut(self.rows[kept], self.crops[kept], self.qualities[kept])


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """How sets are looked at; the arguments of ``embed_sets``."""

    detector: Detector
    embedder: Embedder
    most: int | None
    frames: Frames
    face: WhichFace
    skip_unreadable: bool
    watch: Stopwatch

    def at(self, images: ImageSet) -> FaceSet:
        """The faces of a set."""
        best = self.frames == "best"
        rows = choose_frames(
            len(images.paths),
            most=None if best else self.most,
            how="spread" if self.frames == "spread" else "first",
        )
        cuts, faces, unreadable = [self._nothing()], 0, []
        for start in range(0, len(rows), _IMAGES_AT_ONCE):
            some, damaged = self._read(images, rows[start : start + _IMAGES_AT_ONCE])
            unreadable += damaged
            cuts.append(self._cut(images, some))
            faces += len(cuts[-1].rows)
            if best and self.most is not None:
                cuts = [_Cut.joined(cuts).best(self.most)]
        cut = _Cut.joined(cuts)
        with self.watch.time("embed"):
            embeddings = self.embedder.embed(cut.crops)
        if not np.isfinite(embeddings).all():
            raise ModelError(
                f"{self.embedder.model}: embeddings of {images.name} are not finite; "
                "compile the model with a higher precision"
            )
        return FaceSet(
            images.name,
            images.person,
            embeddings,
            cut.qualities,
            tuple(images.paths[row] for row in cut.rows.tolist()),
            looked_at=len(rows),
            without_face=len(rows) - len(unreadable) - faces,
            unreadable=tuple(unreadable),
        )

    def _nothing(self) -> _Cut:
        crops = np.empty((0, *self.embedder.crop_shape), np.uint8)
        return _Cut(np.empty(0, np.intp), crops, np.empty(0, np.float32))

    def _read(self, images: ImageSet, rows: Indices) -> tuple[list[tuple[int, Image]], list[Path]]:
        read, damaged = [], []
        with self.watch.time("decode"):
            for row in rows.tolist():
                try:
                    read.append((row, read_image(images.paths[row])))
                except DatasetError:
                    if not self.skip_unreadable:
                        raise
                    damaged.append(images.paths[row])
        return read, damaged

    def _cut(self, images: ImageSet, read: Sequence[tuple[int, Image]]) -> _Cut:
        with self.watch.time("detect"):
            found = self.detector.detect([image for _, image in read])
        cuts = [self._nothing()]
        for (row, image), faces in zip(read, found, strict=True):
            if not len(faces):
                continue
            nearest = nearest_to(faces, *self._where(images, row, image))
            chosen = faces[nearest : nearest + 1]
            with self.watch.time("align"):
                crop = self.embedder.align(image, chosen.landmarks_xy)
            with self.watch.time("score"):
                quality = face_quality(chosen, self.embedder.portraits(crop))
            cuts.append(_Cut(np.array([row], np.intp), crop, quality))
        return _Cut.joined(cuts)

    def _where(self, images: ImageSet, row: int, image: Image) -> tuple[float, float]:
        """The point to which the right face is nearest."""
        if self.face == "labelled" and images.boxes_xyxy is not None:
            left, top, right, bottom = images.boxes_xyxy[row].tolist()
            if np.isfinite([left, top, right, bottom]).all():
                return (left + right) / 2, (top + bottom) / 2
        return image.shape[1] / 2, image.shape[0] / 2
