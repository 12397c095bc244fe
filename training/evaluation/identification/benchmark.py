"""Identification of people in videos, as a benchmark: enrol photographs or a video, probe with videos."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias, get_args

from engine.errors import DatasetError
from engine.search.open_set_threshold import ImpostorTail
from training.data.cache import VectorCache
from training.data.face_crops import Progress
from training.data.model_setup import FaceModels, machine_facts
from training.data.names import read_names
from training.data.person_faces import (
    FaceSet,
    Frames,
    Stopwatch,
    WhichFace,
    embed_sets,
    find_stills,
    find_videos,
)
from training.data.results import BenchRun, ModelRecord, now_utc
from training.data.ytf_files import YtfImages
from training.evaluation.identification.scoring import (
    SCORES,
    Report,
    Scenario,
    SetUp,
    TemplateScore,
    alarms,
    confusions,
)

StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Is told the stage's name, how many sets are done, and of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class IdentFaces:
    """All faces that an identification benchmark looks at, embedded once for any number of trials.

    Attributes:
        stills: Photographs, one set a person; empty where none were given.
        videos: One set a video.
        root: The nearest folder that holds all images; pictures are named relative to it.
        protocol: How the images were looked at.
        data: What they are and how many.
        seconds: What each stage took.
    """

    stills: tuple[FaceSet, ...]
    videos: tuple[FaceSet, ...]
    root: Path
    protocol: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    data: Mapping[str, str | int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def load_ident(
    videos: Path,
    models: FaceModels,
    *,
    stills: Path | None = None,
    distractors: bool = False,
    images: YtfImages = "frame_images_DB",
    frames_per_video: int | None = 100,
    frames: Frames = "first",
    face: WhichFace = "centre",
    cache: VectorCache | None = None,
    workers: int = 1,
    skip_unreadable: bool = False,
    on_progress: StageProgress | None = None,
) -> IdentFaces:
    """Find and embed the faces.

    Args:
        videos: Folder of videos in YTF's layout.
        models: What the detector gives counts as a face; the embedder is judged.
        stills: Folder of photographs in LFW's layout; people are matched by name.
        distractors: Take also photographs of people of whom there is no video, to enlarge the gallery.
        images: Which of YTF's folders.
        frames_per_video: At most; None for all.
        frames: Which frames.
        face: Which of several faces in a frame; in photographs it is the one nearest to the centre.
        cache: Where embeddings are kept, so that a second run takes seconds; None keeps none.
        workers: Sets of images that are looked at at the same time.
        skip_unreadable: Leave damaged images out, counted; otherwise they are an error.
        on_progress: Called with the stage (``stills`` or ``videos``), how many sets are done, of how many.

    Raises:
        DatasetError: Folders are not of that layout, an image is damaged, or no face is found at all.
        ModelError: An engine failed.
        ValueError: A number is out of range.
    """
    watch = Stopwatch()
    clips = find_videos(videos, images=images)
    people = {clip.person for clip in clips}
    photographs = find_stills(stills) if stills is not None else ()
    embed = partial(
        embed_sets, models=models, cache=cache, workers=workers, skip_unreadable=skip_unreadable, watch=watch
    )
    faces_of_stills = embed(
        [each for each in photographs if distractors or each.person in people],
        on_progress=_stage(on_progress, "stills"),
    )
    faces_of_videos = embed(
        [clip for clip in clips if clip.paths],
        most=frames_per_video,
        frames=frames,
        face=face,
        on_progress=_stage(on_progress, "videos"),
    )
    if not any(len(each.qualities) for each in faces_of_videos):
        raise DatasetError(f"{videos}: no face was found in any video; check that they are YTF's")
    # Links are not followed: people's folders may be linked from elsewhere.
    folders = [os.path.normpath(folder.absolute()) for folder in (videos, stills) if folder is not None]
    root = Path(os.path.commonpath(folders))
    return IdentFaces(
        faces_of_stills,
        faces_of_videos,
        root,
        protocol={
            "images": images,
            "frames": frames,
            "frames per video": frames_per_video,
            "face": f"of several in a frame the one nearest to the {face}",
            "no face": "frames without one are left out; a video or person without any is never found",
            "distractors": distractors,
        },
        data={
            "root": root.name,
            "videos folder": videos.name,
            "stills folder": stills.name if stills else "",
            "videos without frames": sum(not clip.paths for clip in clips),
            **_counts(faces_of_stills, "stills"),
            **_counts(faces_of_videos, "frames"),
        },
        seconds=dict(watch.seconds),
    )


def _stage(on_progress: StageProgress | None, name: str) -> Progress | None:
    return None if on_progress is None else lambda done, total: on_progress(name, done, total)


def _counts(sets: Sequence[FaceSet], what: str) -> dict[str, int]:
    return {
        f"{what} looked at": sum(each.looked_at for each in sets),
        f"{what} without a face": sum(each.without_face for each in sets),
        f"{what} unreadable": sum(len(each.unreadable) for each in sets),
    }


def judge_ident(
    faces: IdentFaces,
    *,
    scenario: Scenario = "still-to-video",
    score: TemplateScore = "templates",
    openness: Sequence[float] = (0.5,),
    repetitions: int = 10,
    people: int | None = None,
    seed: int = 0,
    ranks: Sequence[int] = (1, 5),
    fars: Sequence[float] = (0.01, 0.001),
    leave_out: Collection[str] = (),
    rounds: int = 1000,
    worst: int = 20,
    tail: ImpostorTail | None = None,
    models: Sequence[ModelRecord] = (),
    command: Sequence[str] = (),
) -> BenchRun:
    """Identify people among those enrolled: closed set, then open sets.

    Args:
        faces: As ``load_ident`` gave them.
        scenario: What is enrolled.
        score: How sets of faces are compared.
        openness: Genuine by impostor probes of each open set, see
            ``training.evaluation.identification.trials``; none for the closed set alone.
        repetitions: Trials of each kind. The closed set has one where nothing in it is chosen by chance.
        people: So many are drawn for each trial; None takes all.
        seed: Of everything that is chosen by chance.
        ranks: Of which the rate is stated.
        fars: False alarm rates at which DIR is stated, at rank 1; one that a trial's impostors cannot support
            is refused by a text in its place.
        leave_out: Names of people who are neither enrolled nor probed, and of videos (``Ann_Lee/3``) that are
            not.
        rounds: Draws of people that the 95% intervals rest on.
        worst: So many mistaken probes are written out of each kind: as ``pairs``, in fold 0 probes of the
            first closed set that were taken for somebody else (a row of who won, a row of who lost), in fold
            1 the impostors of the first open set who were nearest to somebody enrolled.
        tail: Of the embedder's scores of different people, for the thresholds that
            ``engine.search.open_set_threshold.accept_threshold`` promises the ``fars`` at; None judges no
            promise.
        models: What took part, for the record.
        command: What was typed, for the record.

    Returns:
        Figures are means over the trials, with `` sd`` over them (n - 1) and `` low`` and `` high`` of the
        interval: ``rank-1``, ``rank-1 openness=0.5``, ``dir@far=0.01 openness=0.5``. At the threshold
        promised for a rate, ``strangers named@promise=0.01 openness=0.5`` and, of the mated probes,
        ``right@…`` and ``wrong name@…``. A fold is a trial.

    Raises:
        DatasetError: Nobody can be enrolled, or nobody is left to be an impostor.
        ValueError: A number is out of range.
    """
    if scenario not in get_args(Scenario) or score not in get_args(TemplateScore) or repetitions < 1:
        raise ValueError(
            f"expected {get_args(Scenario)}, {get_args(TemplateScore)} and repetitions of at least 1, "
            f"got {scenario!r}, {score!r} and {repetitions}"
        )
    watch = Stopwatch()
    with watch.time("score"):
        set_up = SetUp.of(faces.videos, faces.stills, scenario, score, frozenset(leave_out))
        by_chance = scenario != "still-to-video" or people is not None
        closed = [
            set_up.trial(None, [seed, trial], people) for trial in range(repetitions if by_chance else 1)
        ]
        opened = {
            ratio: [set_up.trial(ratio, [seed, trial], people) for trial in range(repetitions)]
            for ratio in openness
        }
        report = Report(rounds=rounds, tail=tail)
        report.add("", closed, ranks, ())
        for ratio, trials in opened.items():
            report.add(f" openness={ratio:g}", trials, ranks, fars)
        first_open = next(iter(opened.values()), None)
        pairs = confusions(closed[0], faces.root, worst)
        pairs += alarms(first_open[0], faces.root, worst) if first_open else []
    seconds = dict(faces.seconds)
    seconds["score"] = seconds.get("score", 0.0) + watch.seconds["score"]
    return BenchRun(
        benchmark="ident",
        protocol=dict(faces.protocol)
        | {
            "scenario": scenario,
            "score": SCORES[score],
            "openness": ", ".join(f"{ratio:g}" for ratio in openness),
            "repetitions": repetitions,
            "people per trial": people,
            "seed": seed,
            "split": "people in random order are enrolled until genuine by impostor probes is nearest to the "
            "openness; all others are impostors",
            "threshold": "the lowest that keeps the false alarm rate, no interpolation",
            "ties": "lost",
            "intervals": f"95%, bootstrap over people, {rounds} rounds",
        },
        models=tuple(models),
        data=dict(faces.data) | set_up.counts(),
        command=tuple(command),
        machine=machine_facts(),
        seconds=seconds,
        figures=report.figures,
        folds=tuple(report.folds),
        pairs=tuple(pairs),
        notes=(*set_up.notes(), *report.notes),
        measured_at=now_utc(),
    )


def run_ident(
    videos: Path,
    models: FaceModels,
    *,
    stills: Path | None = None,
    scenario: Scenario = "still-to-video",
    leave_out: Path | None = None,
    distractors: bool = False,
    images: YtfImages = "frame_images_DB",
    frames_per_video: int | None = 100,
    frames: Frames = "first",
    face: WhichFace = "centre",
    score: TemplateScore = "templates",
    openness: Sequence[float] = (0.5,),
    repetitions: int = 10,
    people: int | None = None,
    seed: int = 0,
    ranks: Sequence[int] = (1, 5),
    fars: Sequence[float] = (0.01, 0.001),
    skip_unreadable: bool = False,
    cache: VectorCache | None = None,
    workers: int = 1,
    rounds: int = 1000,
    worst: int = 20,
    command: Sequence[str] = (),
    on_progress: StageProgress | None = None,
) -> BenchRun:
    """Find and embed faces, then identify them: ``load_ident`` and ``judge_ident``, which explain the rest.

    For REP-YTF: scenario ``video-to-video`` or ``frame-to-video``, openness, fars, repetitions and people as
    in the constants ``REP_YTF_...`` of ``training.evaluation.identification.trials``.

    Args:
        videos: Folder of videos in YTF's layout.
        models: What the detector gives counts as a face; the embedder is judged.
        stills: Folder of photographs in LFW's layout, for ``still-to-video``.
        scenario: What is enrolled.
        leave_out: List of names to leave out, one a line, see ``training.data.names``.
        distractors: Enrol also people of whom there are photographs alone.
        images: Which of YTF's folders.
        frames_per_video: At most; None for all.
        frames: Which frames.
        face: Which of several faces in a frame.
        score: How sets of faces are compared.
        openness: Genuine by impostor probes of each open set.
        repetitions: Trials of each kind.
        people: So many are drawn for each trial; None takes all.
        seed: Of everything that is chosen by chance.
        ranks: Of which the rate is stated.
        fars: False alarm rates at which DIR is stated.
        cache: Where embeddings are kept, so that a second run takes seconds; None keeps none.
        workers: Sets of images that are looked at at the same time.
        skip_unreadable: Leave damaged images out, counted; otherwise they are an error.
        rounds: Draws of people that the intervals rest on.
        worst: So many mistaken probes are written out of each kind.
        command: What was typed, for the record.
        on_progress: Called with the stage, how many sets are done, of how many.

    Raises:
        DatasetError: Data is missing, damaged or not of that layout.
        ModelError: An engine failed.
        ValueError: An argument is out of range.
    """
    if (scenario == "still-to-video") != (stills is not None):
        raise ValueError(f"{scenario}: stills are for still-to-video, and needed there; got {stills}")
    names = read_names(leave_out) if leave_out is not None else frozenset()
    faces = load_ident(
        videos,
        models,
        stills=stills,
        distractors=distractors,
        images=images,
        frames_per_video=frames_per_video,
        frames=frames,
        face=face,
        cache=cache,
        workers=workers,
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    run = judge_ident(
        faces,
        scenario=scenario,
        score=score,
        openness=openness,
        repetitions=repetitions,
        people=people,
        seed=seed,
        ranks=ranks,
        fars=fars,
        leave_out=names,
        rounds=rounds,
        worst=worst,
        tail=models.tail,
        models=models.records,
        command=command,
    )
    run = dataclasses.replace(run, protocol=run.protocol | models.choices)
    if leave_out is None:
        return run
    digest = hashlib.sha256(leave_out.read_bytes()).hexdigest()
    listed: dict[str, str | int] = {"names left out list": leave_out.name, "names left out SHA-256": digest}
    return dataclasses.replace(run, data=run.data | listed)
