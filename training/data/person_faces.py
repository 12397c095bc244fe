"""From folders of photographs and videos to the faces of each, embedded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import DatasetError
from engine.faces import FloatArray
from engine.vision.file_signatures import PICTURE_SUFFIXES
from training.data.cache import VectorCache
from training.data.embedding_reader import FaceSeen, Target, read_sets
from training.data.face_crops import Progress
from training.data.model_setup import FaceModels
from training.data.names import canonical
from training.data.ytf_files import YtfImages, all_videos, choose_frames

Frames: TypeAlias = Literal["first", "spread", "best"]
"""Which images of a set count: its first ones, ones spread evenly, or those whose face is worth the most."""

WhichFace: TypeAlias = Literal["centre", "labelled"]
"""Of several faces, the one nearest to the image's centre, or to the labelled box's where there is one."""


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

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was measured elsewhere.

        Args:
            seconds: By the stage's name.
        """
        for stage, more in seconds.items():
            self.seconds[stage] += more


def find_stills(root: Path) -> tuple[ImageSet, ...]:
    """Photographs in LFW's layout, ``Name/Name_0001.jpg``: one set a person, by name.

    Raises:
        DatasetError: The folder is not there, or holds no photograph.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; give LFW's, which holds Name/Name_0001.jpg")
    sets = [
        ImageSet(canonical(person.name), canonical(person.name), pictures)
        for person in sorted(each for each in root.iterdir() if each.is_dir())
        if (pictures := tuple(sorted(p for p in person.glob("*.*") if p.suffix.lower() in PICTURE_SUFFIXES)))
    ]
    if not sets:
        raise DatasetError(f"{root}: holds no photograph such as Name/Name_0001.jpg; give LFW's folder")
    return tuple(sets)


def find_videos(root: Path, *, images: YtfImages = "frame_images_DB") -> tuple[ImageSet, ...]:
    """Videos in YTF's layout: one set a video, by person and number.

    Raises:
        DatasetError: It is not YTF's folder, holds no video, or has an invalid file of labels.
    """
    return tuple(
        ImageSet(video.name, video.name.partition("/")[0], video.frames, video.boxes_xyxy)
        for video in all_videos(root, images=images)
    )


def embed_sets(
    sets: Sequence[ImageSet],
    models: FaceModels,
    *,
    most: int | None = None,
    frames: Frames = "first",
    face: WhichFace = "centre",
    cache: VectorCache | None = None,
    workers: int = 1,
    skip_unreadable: bool = False,
    watch: Stopwatch | None = None,
    on_progress: Progress | None = None,
) -> tuple[FaceSet, ...]:
    """Find, cut out and embed one face of each image.

    Args:
        sets: The images.
        models: What the detector gives counts as a face; the embedder says how faces are cut out, too.
        most: Images of each set that are looked at; None for all. With ``best`` all are looked at, and so
            many faces are kept.
        frames: Which images.
        face: Which face of an image.
        cache: Where embeddings are kept; None keeps none.
        workers: Sets that are looked at at the same time.
        skip_unreadable: Leave damaged images out and name them in the result; otherwise they are an error,
            since a smaller benchmark is another one.
        watch: Is given the seconds of the stages, summed over the workers.
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
    best = frames == "best"
    chosen = [
        choose_frames(
            len(each.paths), most=None if best else most, how="spread" if frames == "spread" else "first"
        ).tolist()
        for each in sets
    ]
    seen = read_sets(
        [[_target(each, row, face) for row in rows] for each, rows in zip(sets, chosen, strict=True)],
        models,
        cache=cache,
        workers=workers,
        most=most if best else None,
        order="best" if best else "first",
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    if watch is not None:
        watch.add(seen.seconds)
    damaged, faceless = frozenset(seen.unreadable), frozenset(seen.faceless)
    return tuple(
        _face_set(each, rows, faces, damaged=damaged, faceless=faceless, size=models.embedder.embedding_size)
        for each, rows, faces in zip(sets, chosen, seen.sets, strict=True)
    )


def _target(images: ImageSet, row: int, face: WhichFace) -> Target:
    """The image, and the labelled box where there is one and it is asked for."""
    if face == "labelled" and images.boxes_xyxy is not None:
        left, top, right, bottom = images.boxes_xyxy[row].tolist()
        if np.isfinite([left, top, right, bottom]).all():
            return Target(images.paths[row], (left, top, right, bottom))
    return Target(images.paths[row])


def _face_set(
    images: ImageSet,
    rows: Sequence[int],
    faces: Sequence[FaceSeen],
    *,
    damaged: frozenset[Path],
    faceless: frozenset[Path],
    size: int,
) -> FaceSet:
    """What was seen in the images of some rows; faces count them from the first of these."""
    paths = [images.paths[row] for row in rows]
    return FaceSet(
        images.name,
        images.person,
        np.stack([each.embedding for each in faces]) if faces else np.empty((0, size), np.float32),
        np.array([each.quality for each in faces], np.float32),
        tuple(paths[each.row] for each in faces),
        looked_at=len(paths),
        without_face=sum(path in faceless for path in paths),
        unreadable=tuple(path for path in paths if path in damaged),
    )
