"""The benchmark on Labeled Faces in the Wild: from a folder and a list to a run's record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from engine.embeddings import Embeddings
from engine.errors import DatasetError
from training.data.array_types import BoolArray, Scores
from training.data.cache import VectorCache
from training.data.embedding_reader import Degradation, NoFace, SetsSeen, Target, read_sets
from training.data.face_crops import Progress
from training.data.lfw_files import locate_lfw, read_lfw_pairs
from training.data.model_setup import FaceModels, file_facts, machine_facts
from training.data.pairs import ImagePairs
from training.data.results import BenchRun, PairRecord, now_utc
from training.evaluation.accuracy_figures import Figures, verification_figures
from training.evaluation.fold_accuracy import NEVER_ACCEPTED, PairScores

LfwImages: TypeAlias = Literal["deepfunneled", "funneled", "original"]

_IMAGES_OF_A_TASK: Final = 32
_LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class Projection:
    """What is done with embeddings before they are compared.

    Attributes:
        name: Says what it does.
        apply: float32 (N, D), unit rows, to float32 (N, E), unit rows.
    """

    name: str
    apply: Callable[[Embeddings], Embeddings]


def run_lfw(
    root: Path,
    pairs: Path,
    *,
    models: FaceModels,
    images: LfwImages = "deepfunneled",
    no_face: NoFace = "leave-out",
    cache: VectorCache | None = None,
    workers: int = 1,
    skip_missing: bool = False,
    degradation: Degradation | None = None,
    projection: Projection | None = None,
    rounds: int = 1000,
    command: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> BenchRun:
    """Verify LFW's pairs: 10 folds, unrestricted with labelled outside data.

    Args:
        root: LFW's folder of images.
        pairs: Its ``pairs.txt``, or a table as ``training.data.lfw_files.read_lfw_pairs`` takes it.
        models: Detector and embedder; mirrored averaging is an option of ``open_models``.
        images: Which of LFW's sets it is, as the caller knows it: nothing in the files tells.
        no_face: What becomes of an image in which nothing is detected; when left out, its pairs are never
            accepted.
        cache: Where embeddings are kept.
        workers: Images that are looked at at the same time.
        skip_missing: Leave out pairs whose image is missing or damaged, and say so; otherwise it is an error.
        degradation: Makes the images worse.
        projection: Changes the embeddings.
        rounds: Of the bootstrap.
        command: What was typed, for the record.
        on_progress: Told how many images are done, and of how many.

    Raises:
        DatasetError: The list or the images are missing, damaged or contradict themselves.
        ModelError: An engine failed.
        ValueError: An argument is out of range.
    """
    begin = time.perf_counter()
    listed = read_lfw_pairs(pairs)
    benchmark = locate_lfw(listed, root, skip_missing=skip_missing)
    targets = [Target(path) for path in benchmark.paths]
    tasks = [targets[at : at + _IMAGES_OF_A_TASK] for at in range(0, len(targets), _IMAGES_OF_A_TASK)]
    seen = read_sets(
        tasks,
        models,
        cache=cache,
        workers=workers,
        no_face=no_face,
        degradation=degradation,
        skip_unreadable=skip_missing,
        on_progress=_in_images(on_progress, tasks),
    )
    benchmark = _without(benchmark, set(seen.unreadable))
    scoring = time.perf_counter()
    scores = PairScores(
        _cosines(seen, len(targets), benchmark, projection, models), benchmark.same, benchmark.folds
    )
    figures, folds, notes = verification_figures(scores, rounds=rounds)
    score_s = time.perf_counter() - scoring
    missing = [str(path.relative_to(root)) for path in benchmark.missing]
    damaged = [str(path.relative_to(root)) for path in seen.unreadable]
    return BenchRun(
        benchmark="lfw",
        protocol={
            "images": images,
            "face": "nearest to the image's centre",
            "score": "cosine",
            "balanced": False,
            **shared_choices(pairs, models, no_face, degradation, projection, rounds=rounds),
        },
        models=models.records,
        data={
            **file_facts(root, pairs),
            **pair_counts(benchmark.same, benchmark.skipped),
            "listed pairs": len(listed),
            "images": len(benchmark.paths),
            "missing": len(missing),
            "unreadable": len(damaged),
            "without face": seen.without_face,
        },
        command=tuple(command),
        machine=machine_facts(),
        seconds={**seen.seconds, "score": score_s},
        figures={**figures, **speed_figures(seen, time.perf_counter() - begin)},
        folds=folds,
        pairs=_records(benchmark, root, scores),
        notes=(*notes, *skip_notes(missing, "image"), *skip_notes(damaged, "unreadable image")),
        measured_at=now_utc(),
    )


def shared_choices(
    pairs: Path,
    models: FaceModels,
    no_face: NoFace,
    degradation: Degradation | None,
    projection: Projection | None,
    *,
    rounds: int,
) -> dict[str, str | int | float | bool | None]:
    """The choices that benchmarks of images and of videos have in common, for the record."""
    return {
        "protocol": "unrestricted with labelled outside data",
        "list": pairs.name,
        "label": "same name, same person",
        "no_face": no_face,
        "degradation": degradation.name if degradation else None,
        "projection": projection.name if projection else None,
        "bootstrap_rounds": rounds,
        **models.choices,
    }


def pair_counts(same: BoolArray, skipped: int) -> dict[str, str | int]:
    """How many pairs there are, of each kind, and left out."""
    genuine = int(same.sum())
    return {"pairs": len(same), "genuine": genuine, "impostors": len(same) - genuine, "skipped": skipped}


def _in_images(on_progress: Progress | None, tasks: Sequence[Sequence[Target]]) -> Progress | None:
    if on_progress is None:
        return None
    ends = np.cumsum([len(task) for task in tasks])
    return lambda done, total: on_progress(int(ends[done - 1]), int(ends[total - 1]))


def _without(benchmark: ImagePairs, unreadable: set[Path]) -> ImagePairs:
    """Leave out the pairs of damaged images."""
    bad = np.array([path in unreadable for path in benchmark.paths], np.bool_)
    kept = ~(bad[benchmark.first] | bad[benchmark.second])
    return replace(
        benchmark,
        first=benchmark.first[kept],
        second=benchmark.second[kept],
        same=benchmark.same[kept],
        folds=benchmark.folds[kept],
        skipped=benchmark.skipped + int((~kept).sum()),
    )


def _cosines(
    seen: SetsSeen, images: int, benchmark: ImagePairs, projection: Projection | None, models: FaceModels
) -> Scores:
    embeddings = np.zeros((images, models.embedder.embedding_size), np.float32)
    found = np.zeros(images, np.bool_)
    for task, faces in enumerate(seen.sets):
        for face in faces:
            row = task * _IMAGES_OF_A_TASK + face.row
            embeddings[row], found[row] = face.embedding, True
    if not found.any():
        raise DatasetError("no face was found in any image; check the data set, or lower min_score")
    if projection is not None:
        embeddings = projection.apply(embeddings)
    first, second = benchmark.first, benchmark.second
    cosines = np.einsum("nd,nd->n", embeddings[first], embeddings[second], dtype=np.float64)
    return np.where(found[first] & found[second], cosines, NEVER_ACCEPTED)


def _records(benchmark: ImagePairs, root: Path, scores: PairScores) -> tuple[PairRecord, ...]:
    names = [path.relative_to(root).as_posix() for path in benchmark.paths]
    rows = zip(benchmark.first, benchmark.second, scores.same, scores.folds, scores.similarities, strict=True)
    return tuple(
        PairRecord(
            first=names[a],
            second=names[b],
            same=bool(same),
            fold=int(fold),
            similarity=float(similarity),
            first_image=names[a],
            second_image=names[b],
        )
        for a, b, same, fold, similarity in rows
    )


def speed_figures(seen: SetsSeen, wall_s: float) -> Figures:
    """How fast a run was.

    Args:
        seen: What was read.
        wall_s: The whole run by the clock.

    Returns:
        ``wall seconds``; and of the images that the cache did not know ``images per second`` and
        ``share in engines and decoding``, None where it knew all.
    """
    total = sum(seen.seconds.values())
    engines = sum(seen.seconds[stage] for stage in ("decode", "detect", "embed"))
    fresh = seen.fresh > 0
    return {
        "wall seconds": wall_s,
        "images looked at anew": float(seen.fresh),
        "images per second": seen.fresh / seen.wall_s if fresh else None,
        "share in engines and decoding": engines / total if fresh and total else None,
    }


def skip_notes(names: Sequence[str], what: str) -> tuple[str, ...]:
    """What was left out, by name.

    Args:
        names: Of the things.
        what: They are.
    """
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return (f"skipped {len(names):,} x {what}: {', '.join(names[:_LISTED])}{more}",) if names else ()
