"""Propose names, and single videos, that show somebody else, from faces that are embedded already."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from engine.errors import DatasetError
from training.data.person_faces import FaceSet
from training.evaluation.fold_accuracy import PairScores
from training.evaluation.identification.benchmark import IdentFaces
from training.evaluation.identification.rates import template
from training.evaluation.mislabelled import Mismatch, propose_mismatches


def audit(faces: IdentFaces) -> list[Mismatch]:
    """Compare each person's photographs with every video, and propose as ``mislabelled.RULE`` says.

    Args:
        faces: With photographs and videos.

    Returns:
        The least alike first.

    Raises:
        DatasetError: There are no photographs, or no videos with faces.
    """
    stills = [each for each in faces.stills if len(each.embeddings)]
    videos = [each for each in faces.videos if len(each.embeddings)]
    if not stills or not videos:
        raise DatasetError("an audit compares photographs with videos: give --stills and --videos with faces")
    similarities = _templates(stills) @ _templates(videos).T
    same = np.array([[still.person == video.person for video in videos] for still in stills])
    scores = PairScores(similarities.ravel(), same.ravel(), np.zeros(same.size, np.intp))
    return propose_mismatches(scores, [still.person for still in stills for _ in videos])


def audit_videos(faces: IdentFaces, *, leave_out: Collection[str] = ()) -> list[Mismatch]:
    """Compare each video with all photographs and other videos, and propose as ``mislabelled.RULE`` says.

    Args:
        faces: With videos; photographs tell which of two videos that differ is the right one.
        leave_out: People who are neither judged nor compared with, such as those whom ``audit`` proposes.

    Returns:
        Videos by name, the least alike first; none where nobody is left to compare with.
    """
    videos, stills = (
        [each for each in sets if len(each.embeddings) and each.person not in leave_out]
        for sets in (faces.videos, faces.stills)
    )
    shown = np.array([each.person for each in (*videos, *stills)], np.str_)
    same = shown[: len(videos), None] == shown
    others = ~np.eye(*same.shape, dtype=np.bool_)
    if not (same & others).any() or same.all():
        return []
    similarities = _templates(videos) @ _templates([*videos, *stills]).T
    scores = PairScores(similarities[others], same[others], np.zeros(int(others.sum()), np.intp))
    return propose_mismatches(scores, [video.name for video in videos for _ in shown[1:]])


def pictures(sets: tuple[FaceSet, ...], names: set[str]) -> dict[str, list[Path]]:
    """The images that belong to some names.

    Args:
        sets: Photographs, or videos.
        names: Of people, or of single videos as ``Some_Name/3``, to which all photographs of their person
            belong.
    """
    return {
        name: [
            path
            for each in sets
            if each.person == name or each.name in {name, name.partition("/")[0]}
            for path in each.paths
        ]
        for name in names
    }


def _templates(sets: list[FaceSet]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.stack([template(each.embeddings, each.qualities) for each in sets])
