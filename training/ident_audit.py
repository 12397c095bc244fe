"""Propose names whose photographs and videos show different people, from faces that are embedded already."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.errors import DatasetError
from training.audit import Mismatch, propose_mismatches
from training.ident_bench import IdentFaces
from training.ident_faces import FaceSet
from training.identification import template
from training.verification import PairScores


def audit(faces: IdentFaces) -> list[Mismatch]:
    """Compare each person's photographs with every video, and propose as ``training.audit.RULE`` says.

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


def pictures(sets: tuple[FaceSet, ...], names: set[str]) -> dict[str, list[Path]]:
    """The images of some people, by name.

    Args:
        sets: Photographs, or videos.
        names: Of the people.
    """
    found: dict[str, list[Path]] = {name: [] for name in names}
    for each in sets:
        if each.person in names:
            found[each.person] += each.paths
    return found


def _templates(sets: list[FaceSet]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.stack([template(each.embeddings, each.qualities) for each in sets])
