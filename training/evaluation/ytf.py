"""The benchmark on YouTube Faces: from a folder and a list to a run's record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from engine.errors import DatasetError
from engine.faces import FloatArray
from training.data.array_types import Scores
from training.data.cache import VectorCache
from training.data.embedding_reader import Degradation, FaceSeen, NoFace, SetsSeen, Target, read_sets
from training.data.face_crops import Progress
from training.data.model_setup import FaceModels, file_facts, machine_facts
from training.data.results import BenchRun, PairRecord, now_utc
from training.data.ytf_files import VideoPairs, YtfImages, YtfVideo, choose_frames, locate_ytf, read_ytf_pairs
from training.evaluation.accuracy_figures import Figures, verification_figures
from training.evaluation.fold_accuracy import PairScores
from training.evaluation.lfw import Projection, pair_counts, shared_choices, skip_notes, speed_figures
from training.evaluation.set_scores import SetScore, score_sets

YtfFrames: TypeAlias = Literal["first", "spread", "best"]
"""Which frames of a video are taken: the first in which a face is found, as FaceNet does; evenly spread ones,
where those without a face are not replaced; or of all those whose face is best to see."""

YtfFace: TypeAlias = Literal["labelled", "centre"]

FULL_FRAMES: Final = 3425 * 100
"""Frames of the whole of YTF, the first hundred of each video."""


def run_ytf(
    root: Path,
    pairs: Path,
    *,
    models: FaceModels,
    images: YtfImages = "frame_images_DB",
    frames: int | None = 100,
    choice: YtfFrames = "first",
    score: SetScore = "all-pairs",
    face: YtfFace = "labelled",
    no_face: NoFace = "leave-out",
    balanced: bool = False,
    cache: VectorCache | None = None,
    workers: int = 1,
    skip_missing: bool = False,
    degradation: Degradation | None = None,
    projection: Projection | None = None,
    rounds: int = 1000,
    command: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> BenchRun:
    """Verify pairs of YouTube Faces' videos, each split at the threshold of the others.

    Args:
        root: Folder that holds ``frame_images_DB`` or ``aligned_images_DB``.
        pairs: ``splits.txt``, ``splits_corrected.txt``, or a list like them.
        models: Detector and embedder; mirrored averaging is an option of ``open_models``.
        images: Which folder is looked at.
        frames: Most frames of each video; None takes all.
        choice: Which of them.
        score: Of two sets of faces.
        face: Of several in a frame: the one nearest to the ``labelled`` box, or to the frame's ``centre``,
            which is taken as well where no box is labelled.
        no_face: What becomes of a frame in which nothing is detected. A video of which no face is left is
            never accepted.
        balanced: Accuracy weighs genuine and impostor pairs alike; for lists that have more of one kind.
        cache: Where embeddings are kept.
        workers: Videos that are looked at at the same time.
        skip_missing: Leave out missing videos, and damaged frames, and say so; otherwise they are an error.
        degradation: Makes the frames worse.
        projection: Changes the embeddings.
        rounds: Of the bootstrap.
        command: What was typed, for the record.
        on_progress: Told how many videos are done, and of how many.

    Raises:
        DatasetError: The list or the frames are missing, damaged or contradict themselves.
        ModelError: An engine failed.
        ValueError: An argument is out of range.
    """
    if choice not in get_args(YtfFrames) or face not in get_args(YtfFace):
        raise ValueError(f"expected a choice of frames and of faces, got {choice!r} and {face!r}")
    begin = time.perf_counter()
    listed = read_ytf_pairs(pairs)
    located = locate_ytf(listed, root, images=images, skip_missing=skip_missing)
    targets = [_targets(video, frames, choice, face) for video in located.videos]
    seen = read_sets(
        targets,
        models,
        cache=cache,
        workers=workers,
        most=frames,
        order="best" if choice == "best" else "first",
        no_face=no_face,
        degradation=degradation,
        skip_unreadable=skip_missing,
        on_progress=on_progress,
    )
    benchmark = _without_damaged(located, targets, seen)
    scoring = time.perf_counter()
    scores = PairScores(_score(seen, benchmark, score, projection, models), benchmark.same, benchmark.folds)
    figures, folds, notes = verification_figures(scores, balanced=balanced, rounds=rounds)
    score_s = time.perf_counter() - scoring
    return BenchRun(
        benchmark="ytf",
        protocol={
            "images": images,
            "frames": frames,
            "frame_choice": choice,
            "score": score,
            "face": "nearest to the labelled box" if face == "labelled" else "nearest to the frame's centre",
            "balanced": balanced,
            **shared_choices(pairs, models, no_face, degradation, projection, rounds=rounds),
        },
        models=models.records,
        data={**file_facts(root, pairs), "listed pairs": len(listed), **_counts(benchmark, targets, seen)},
        command=tuple(command),
        machine=machine_facts(),
        seconds={**seen.seconds, "score": score_s},
        figures={**figures, **_speed(seen, time.perf_counter() - begin)},
        folds=folds,
        pairs=_records(benchmark, root, targets, seen, scores),
        notes=(*notes, *_notes(benchmark, root, targets, seen)),
        measured_at=now_utc(),
    )


def _targets(video: YtfVideo, frames: int | None, choice: YtfFrames, face: YtfFace) -> list[Target]:
    """The frames that may be looked at; the first faces, or the best ones, are found in all of them."""
    rows = choose_frames(len(video.frames), most=frames if choice == "spread" else None, how="spread")
    boxes = video.boxes_xyxy if face == "labelled" else None
    return [
        Target(video.frames[row], None if boxes is None or np.isnan(boxes[row]).any() else _box(boxes[row]))
        for row in rows
    ]


def _box(numbers: FloatArray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(number) for number in numbers)
    return left, top, right, bottom


def _without_damaged(located: VideoPairs, targets: Sequence[Sequence[Target]], seen: SetsSeen) -> VideoPairs:
    """Leave out the pairs of videos of which every frame is damaged: they count as missing."""
    unreadable = set(seen.unreadable)
    gone = np.array([all(t.path in unreadable for t in each) for each in targets], np.bool_)
    kept = ~(gone[located.first] | gone[located.second])
    names = tuple(video.name for video, bad in zip(located.videos, gone, strict=True) if bad)
    return replace(
        located,
        first=located.first[kept],
        second=located.second[kept],
        same=located.same[kept],
        folds=located.folds[kept],
        missing=(*located.missing, *names),
        skipped=located.skipped + int((~kept).sum()),
    )


def _score(
    seen: SetsSeen,
    benchmark: VideoPairs,
    score: SetScore,
    projection: Projection | None,
    models: FaceModels,
) -> Scores:
    if not any(seen.sets):
        raise DatasetError("no face was found in any video; check the data set, or lower min_score")
    none = np.empty((0, models.embedder.embedding_size), np.float32)
    sets = [np.stack([face.embedding for face in faces]) if faces else none for faces in seen.sets]
    if projection is not None:
        sets = [projection.apply(each) for each in sets]
    qualities = [np.array([face.quality for face in faces], np.float32) for faces in seen.sets]
    return score_sets(sets, benchmark.first, benchmark.second, how=score, qualities=qualities)


def _counts(
    benchmark: VideoPairs, targets: Sequence[Sequence[Target]], seen: SetsSeen
) -> dict[str, str | int]:
    return {
        **pair_counts(benchmark.same, benchmark.skipped),
        "videos": len(benchmark.videos),
        "frames": sum(len(each) for each in targets),
        "frames looked at": seen.looked_at,
        "frames without face": seen.without_face,
        "frames taken": sum(len(faces) for faces in seen.sets),
        "frames unreadable": len(seen.unreadable),
        "videos without face": sum(not faces for faces in seen.sets),
        "missing": len(benchmark.missing),
    }


def _speed(seen: SetsSeen, wall_s: float) -> Figures:
    figures = speed_figures(seen, wall_s)
    rate = figures["images per second"]
    hours = FULL_FRAMES / rate / 3600 if isinstance(rate, float) and rate > 0 else None
    return {**figures, "hours for 3425 videos of 100 frames (extrapolated)": hours}


def _records(
    benchmark: VideoPairs,
    root: Path,
    targets: Sequence[Sequence[Target]],
    seen: SetsSeen,
    scores: PairScores,
) -> tuple[PairRecord, ...]:
    shown = [_shown(each, faces, root) for each, faces in zip(targets, seen.sets, strict=True)]
    rows = zip(benchmark.first, benchmark.second, scores.same, scores.folds, scores.similarities, strict=True)
    return tuple(
        PairRecord(
            first=benchmark.videos[a].name,
            second=benchmark.videos[b].name,
            same=bool(same),
            fold=int(fold),
            similarity=float(similarity),
            first_image=shown[a],
            second_image=shown[b],
        )
        for a, b, same, fold, similarity in rows
    )


def _shown(targets: Sequence[Target], faces: Sequence[FaceSeen], root: Path) -> str | None:
    """The frame whose face is best to see; the first one where none was found."""
    row = max(faces, key=lambda face: face.quality).row if faces else 0
    return targets[row].path.relative_to(root).as_posix() if targets else None


def _notes(
    benchmark: VideoPairs, root: Path, targets: Sequence[Sequence[Target]], seen: SetsSeen
) -> tuple[str, ...]:
    faceless = [video.name for video, faces in zip(benchmark.videos, seen.sets, strict=True) if not faces]
    unlabelled = sum(target.box_xyxy is None for each in targets for target in each)
    notes = list(skip_notes(benchmark.missing, "missing video"))
    notes += skip_notes([path.relative_to(root).as_posix() for path in seen.unreadable], "unreadable frame")
    gone = [name for name in faceless if name not in benchmark.missing]
    if gone:
        notes.append(f"never accepted, since no frame shows a face: {', '.join(gone)}")
    if unlabelled:
        notes.append(
            f"in {unlabelled:,} frames no box is taken from labels: there the face nearest to the centre"
        )
    return tuple(notes)
