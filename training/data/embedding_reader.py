"""From image files to one embedding each: found, aligned, judged and embedded, in parallel, and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import DatasetError, ModelError
from engine.faces import Faces, FloatArray, Image
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.vision.quality import face_quality
from training.data.cache import VectorCache, cache_key
from training.data.face_crops import Progress, decode_image, nearest_to, read_bytes
from training.data.model_setup import FaceModels
from training.data.worker_tally import Tally

NoFace: TypeAlias = Literal["leave-out", "centre"]
"""What becomes of an image in which nothing is detected: no embedding, or that of a crop of its centre (or of
the labelled box) as if there were an upright face."""

FaceOrder: TypeAlias = Literal["first", "best"]

_AT_ONCE: Final = 16
_NUMBERS_OF_FACE: Final = 15
_BOX_OF_IMAGE: Final = 1 / 2.2
"""Side of the face's box in a crop that was widened as YTF's are."""
_EYES_OF_BOX: Final = 0.4
"""Distance between the eyes, of the side of a face's box."""


@dataclass(frozen=True, slots=True)
class Target:
    """An image, and which of its faces is meant.

    Attributes:
        path: Of the image.
        box_xyxy: The labelled face, pixels; None takes the image's centre.
    """

    path: Path
    box_xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Degradation:
    """Makes images worse on purpose.

    Attributes:
        name: Says what it does; the same name must always do the same.
        before: Applied to each image before faces are sought.
        after: Applied to the image and the chosen landmarks (1, 5, 2) afterwards.
    """

    name: str
    before: Callable[[Image], Image] | None = None
    after: Callable[[Image, FloatArray], tuple[Image, FloatArray]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FaceSeen:
    """The face that was taken of an image.

    Attributes:
        row: Which image of the set.
        detected: False where it is the crop of the centre.
        quality: 0..1, as ``engine.vision.quality`` has it; 0 where nothing was detected.
        embedding: float32 (D,), unit length.
    """

    row: int
    detected: bool
    quality: float
    embedding: Embeddings


@dataclass(frozen=True, slots=True, eq=False)
class SetsSeen:
    """What was found in sets of images.

    Attributes:
        sets: For each set the faces that were taken, in the order of the images.
        looked_at: Images that were read.
        without_face: Of these, those in which nothing was detected.
        unreadable: Damaged images, which were skipped.
        seconds: Summed over the workers, for each stage.
        wall_s: What it took by the clock.
        fresh: Images that engines had to look at, since the cache did not know them.
        faceless: The images in which nothing was detected.
    """

    sets: tuple[tuple[FaceSeen, ...], ...]
    looked_at: int
    without_face: int
    unreadable: tuple[Path, ...]
    seconds: dict[str, float]
    wall_s: float
    fresh: int
    faceless: tuple[Path, ...] = ()


def read_sets(
    sets: Sequence[Sequence[Target]],
    models: FaceModels,
    *,
    cache: VectorCache | None = None,
    workers: int = 1,
    most: int | None = None,
    order: FaceOrder = "first",
    no_face: NoFace = "leave-out",
    degradation: Degradation | None = None,
    skip_unreadable: bool = False,
    on_progress: Progress | None = None,
) -> SetsSeen:
    """Embed one face of each image.

    Args:
        sets: Images by set: a video's frames, or any handful of photographs. A set is one worker's task.
        models: Of which calls from ``workers`` threads can run at the same time.
        cache: What is known already; None looks at everything.
        workers: Threads.
        most: Faces to take of each set; None takes all.
        order: The ``first`` faces, later images being left alone; or the ``best`` ones of all images.
        no_face: See ``NoFace``.
        degradation: Applied to each image.
        skip_unreadable: Leave out and count damaged images, otherwise they are an error.
        on_progress: Told the number of sets that are done, and of how many.

    Raises:
        DatasetError: An image is missing or damaged.
        ModelError: An engine failed, or gives embeddings that are not finite.
        ValueError: A number is out of range.
    """
    if workers < 1 or (most is not None and most < 1):
        raise ValueError(f"expected workers and most of at least 1, got {workers} and {most}")
    reader = _Reader(models, cache or VectorCache(None), no_face, degradation, skip_unreadable)
    begin = time.perf_counter()
    seen: list[tuple[FaceSeen, ...]] = []
    with ThreadPoolExecutor(workers) as pool:
        calls = [pool.submit(reader.read_set, targets, most, order) for targets in sets]
        try:
            for done, call in enumerate(calls, 1):
                seen.append(call.result())
                if on_progress is not None:
                    on_progress(done, len(calls))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    count = reader.tally.counts
    return SetsSeen(
        sets=tuple(seen),
        looked_at=count["looked_at"],
        without_face=count["without_face"],
        unreadable=tuple(sorted(reader.tally.unreadable)),
        seconds=reader.tally.stages(),
        wall_s=time.perf_counter() - begin,
        fresh=count["fresh"],
        faceless=tuple(sorted(reader.tally.faceless)),
    )


@dataclass(slots=True)
class _Work:
    """An image on its way; ``pixels`` are decoded when somebody first needs them."""

    row: int
    target: Target
    data: bytes
    sha256: bytes
    pixels: Image | None = None
    detected: bool = False
    score: float = 0.0
    landmarks_xy: FloatArray = field(default_factory=lambda: np.zeros((1, 5, 2), np.float32))
    quality: float = 0.0
    crop: npt.NDArray[np.uint8] | None = None
    key: bytes = b""
    embedding: Embeddings | None = None


class _Reader:
    def __init__(
        self,
        models: FaceModels,
        cache: VectorCache,
        no_face: NoFace,
        degradation: Degradation | None,
        skip_unreadable: bool,
    ) -> None:
        self.tally = Tally()
        self._models = models
        self._cache = cache
        self._no_face = no_face
        self._degradation = degradation or Degradation("")
        self._skip_unreadable = skip_unreadable

    def read_set(self, targets: Sequence[Target], most: int | None, order: FaceOrder) -> tuple[FaceSeen, ...]:
        """The faces of one set."""
        with self.tally.time("set"):
            taken: list[_Work] = []
            for start in range(0, len(targets), _AT_ONCE):
                if order == "first" and most is not None and len(taken) >= most:
                    break
                some = [(row, targets[row]) for row in range(start, min(start + _AT_ONCE, len(targets)))]
                taken += self._prepare(some, embed_all=order == "first")
                if order == "best":
                    taken.sort(key=lambda work: (-work.quality, work.row))
                del taken[len(taken) if most is None else most :]
                if order == "first":
                    self._embed(taken)
            self._embed(taken)
            return tuple(
                FaceSeen(work.row, work.detected, work.quality, work.embedding)
                for work in sorted(taken, key=lambda work: work.row)
                if work.embedding is not None
            )

    def _prepare(self, targets: Sequence[tuple[int, Target]], *, embed_all: bool) -> list[_Work]:
        """Read, find, choose and judge."""
        works = [work for row, target in targets if (work := self._read(row, target)) is not None]
        works = self._find(works)
        self.tally.add(looked_at=len(works), without_face=sum(not work.detected for work in works))
        self.tally.note_faceless(work.target.path for work in works if not work.detected)
        if self._no_face == "leave-out":
            works = [work for work in works if work.detected]
        self._judge(works, embed_all=embed_all)
        return works

    def _read(self, row: int, target: Target) -> _Work | None:
        try:
            with self.tally.time("read"):
                data = read_bytes(target.path)
                return _Work(row, target, data, hashlib.sha256(data).digest())
        except DatasetError:
            if not self._skip_unreadable:
                raise
            self.tally.skip(target.path)
            return None

    def _decode(self, work: _Work) -> Image:
        if work.pixels is None:
            with self.tally.time("decode"):
                work.pixels = decode_image(work.data, origin=work.target.path)
            self.tally.add(fresh=1)
            if self._degradation.before is not None:
                work.pixels = self._degradation.before(work.pixels)
        return work.pixels

    def _find(self, works: list[_Work]) -> list[_Work]:
        """Detect, or recall, and choose the face that is meant. Damaged images are left out."""
        recipe = (self._models.detector_recipe, self._degradation.name if self._degradation.before else "")
        keys = [cache_key(work.sha256, "faces", *recipe) for work in works]
        known = self._recall(keys)
        unknown, readable = [], []
        for work, key in zip(works, keys, strict=True):
            try:
                if key not in known:
                    self._decode(work)
                    unknown.append((work, key))
                readable.append((work, key))
            except DatasetError:
                if not self._skip_unreadable:
                    raise
                self.tally.skip(work.target.path)
        with self.tally.time("detect"):
            images = [work.pixels for work, _ in unknown if work.pixels is not None]
            found = self._models.detector.detect(images) if images else []
        new = {
            key: _pack(faces, image) for (_, key), faces, image in zip(unknown, found, images, strict=True)
        }
        self._keep(new)
        for work, key in readable:
            self._choose(work, *_unpack({**known, **new}[key]))
        return [work for work, _ in readable]

    def _choose(self, work: _Work, size_wh: tuple[float, float], faces: Faces) -> None:
        width, height = size_wh
        side = min(width, height) * _BOX_OF_IMAGE
        x, y = width / 2, height / 2
        if box := work.target.box_xyxy:
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            side = (box[2] - box[0] + box[3] - box[1]) / 2
        if len(faces):
            nearest = nearest_to(faces, x, y)
            work.landmarks_xy = faces.landmarks_xy[[nearest]]
            work.score = float(faces.scores[nearest])
            work.detected = True
        else:
            work.landmarks_xy = upright_landmarks(x, y, side)

    def _judge(self, works: Sequence[_Work], *, embed_all: bool) -> None:
        """Recall quality and embedding of each face; align those whose quality, or embedding, is wanted."""
        models, change = self._models, self._degradation.name
        names = [
            cache_key(w.sha256, "quality", models.align_recipe, change, w.landmarks_xy.tobytes())
            for w in works
        ]
        for work in works:
            landmarks = work.landmarks_xy.tobytes()
            work.key = cache_key(work.sha256, "embedding", models.embedder_recipe, change, landmarks)
        known = self._recall([*names, *(work.key for work in works)])
        new: dict[bytes, FloatArray] = {}
        for work, name in zip(works, names, strict=True):
            work.embedding = known.get(work.key)
            if name in known:
                work.quality = float(known[name][0])
            if name not in known or (embed_all and work.embedding is None):
                self._align(work)
                new[name] = np.array([work.quality], np.float32)
            work.pixels = None
        self._keep(new)

    def _align(self, work: _Work) -> None:
        image, landmarks = self._decode(work), work.landmarks_xy
        with self.tally.time("align"):
            if self._degradation.after is not None:
                image, landmarks = self._degradation.after(image, landmarks)
            crops = self._models.embedder.align(image, landmarks)
            work.crop = crops[0]
            if work.detected:
                box = np.zeros((1, 4), np.float32)
                face = Faces(box, np.array([work.score], np.float32), landmarks)
                work.quality = float(face_quality(face, self._models.embedder.portraits(crops))[0])

    def _embed(self, works: Sequence[_Work]) -> None:
        wanted = [work for work in works if work.embedding is None]
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            for work in some:
                if work.crop is None:
                    self._align(work)
            crops = np.stack([work.crop for work in some if work.crop is not None])
            with self.tally.time("embed"):
                embeddings = self._models.embedder.embed(crops)
            if not np.isfinite(embeddings).all():
                raise ModelError(
                    "the embedder gives embeddings that are not finite; compile it with a higher precision"
                )
            for work, embedding in zip(some, embeddings, strict=True):
                work.embedding, work.crop, work.pixels, work.data = embedding, None, None, b""
            self._keep({work.key: embedding for work, embedding in zip(some, embeddings, strict=True)})

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        with self.tally.time("cache"):
            return self._cache.get(keys)

    def _keep(self, vectors: dict[bytes, FloatArray]) -> None:
        with self.tally.time("cache"):
            self._cache.put(vectors)


def upright_landmarks(x: float, y: float, side: float) -> FloatArray:
    """Where the landmarks would be if an upright face looked out of a square box.

    Args:
        x: Centre of the box, pixels.
        y: Centre of the box, pixels.
        side: Of the box, pixels.

    Returns:
        float32 (1, 5, 2), pixels.
    """
    template = np.array(ARCFACE_TEMPLATE_XY, np.float32)
    scale = _EYES_OF_BOX * side / (template[1, 0] - template[0, 0])
    points = (template - template.mean(axis=0)) * scale + np.array([x, y], np.float32)
    return np.asarray(points[None], np.float32)


def _pack(faces: Faces, image: Image) -> FloatArray:
    """Width and height of the image, then the numbers of each face."""
    size = np.array([image.shape[1], image.shape[0]], np.float32)
    rows = [faces.boxes_xyxy, faces.scores[:, None], faces.landmarks_xy.reshape(-1, 10)]
    return np.concatenate([size, np.concatenate(rows, axis=1).ravel()])


def _unpack(vector: FloatArray) -> tuple[tuple[float, float], Faces]:
    rows = vector[2:].reshape(-1, _NUMBERS_OF_FACE)
    faces = Faces(rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2))
    return (float(vector[0]), float(vector[1])), faces
