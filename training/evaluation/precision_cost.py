"""The accuracy cost of an engine or a precision: several embedders on the same faces and the same pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from engine.embeddings import Embeddings
from engine.errors import DatasetError, ModelError
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector
from training.data.face_crops import FaceCrops, Progress, faces_of
from training.data.lfw_files import locate_lfw, read_lfw_pairs
from training.data.pairs import ImagePairs
from training.evaluation.fold_accuracy import (
    NEVER_ACCEPTED,
    FoldAccuracy,
    PairScores,
    k_fold_accuracy,
    mcnemar,
)
from training.evaluation.roc import roc, tar_at_far

StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Is told the stage's name, how many are done, and of how many."""

VAL_FAR: Final = 1e-3
"""False accept rate of the papers' VAL."""

_CROPS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """What one embedder makes of a list of pairs.

    Attributes:
        embeddings: float32 (images, D), unit rows; zeros where no face was found.
        scores: Of the pairs.
        accuracy: By folds.
        val: True accept rate at a false accept rate of ``VAL_FAR``, 0..1; None where the list has too few
            impostor pairs to support it.
        pairs_without_face: Pairs of which a face was not found; they are never accepted, so genuine ones
            count as errors.
        seconds: Time that embedding took.
    """

    embeddings: Embeddings
    scores: PairScores
    accuracy: FoldAccuracy
    val: float | None
    pairs_without_face: int
    seconds: float


def embed_crops(
    embedder: FaceEmbedder, faces: FaceCrops, *, on_progress: Progress | None = None
) -> Embeddings:
    """Embed the faces that were found.

    Returns:
        float32 (N, D), unit rows; zeros where no face was found.

    Raises:
        ModelError: The engine failed, or its embeddings are not finite.
    """
    embeddings = np.zeros((len(faces), embedder.embedding_size), np.float32)
    rows = np.flatnonzero(faces.found)
    for start in range(0, len(rows), _CROPS_AT_ONCE):
        some = rows[start : start + _CROPS_AT_ONCE]
        embeddings[some] = embedder.embed(faces.crops[some])
        if on_progress is not None:
            on_progress(start + len(some), len(rows))
    if bad := int((~np.isfinite(embeddings).all(axis=1)).sum()):
        raise ModelError(
            f"{embedder.model}: {bad:,} of {len(rows):,} embeddings are not finite; "
            "compile the model with a higher precision"
        )
    return embeddings


def score_pairs(embeddings: Embeddings, faces: FaceCrops, pairs: ImagePairs) -> PairScores:
    """Cosine of each pair; ``NEVER_ACCEPTED`` where a face was not found, as no camera would accept it.

    Args:
        embeddings: float32 (images, D), unit rows.
        faces: Which were found.
        pairs: Of the same images.

    Raises:
        ValueError: There are not as many images in each.
    """
    if not len(embeddings) == len(faces) == len(pairs.paths):
        raise ValueError(
            f"expected as many embeddings and crops as images ({len(pairs.paths)}), "
            f"got {len(embeddings)} and {len(faces)}"
        )
    cosines = np.einsum("nd,nd->n", embeddings[pairs.first], embeddings[pairs.second], dtype=np.float64)
    found = faces.found[pairs.first] & faces.found[pairs.second]
    return PairScores(np.where(found, cosines, NEVER_ACCEPTED), pairs.same, pairs.folds)


def verification_accuracy(
    embedder: FaceEmbedder, faces: FaceCrops, pairs: ImagePairs, *, on_progress: Progress | None = None
) -> Verification:
    """Embed the faces and judge the pairs.

    Raises:
        DatasetError: The pairs have fewer than two folds, or one kind is missing.
        ModelError: The engine failed, or its embeddings are not finite.
        ValueError: The crops are not of the images of the pairs, or not what the embedder takes.
    """
    begun = time.perf_counter()
    embeddings = embed_crops(embedder, faces, on_progress=on_progress)
    seconds = time.perf_counter() - begun
    scores = score_pairs(embeddings, faces, pairs)
    found = faces.found[pairs.first] & faces.found[pairs.second]
    return Verification(
        embeddings, scores, k_fold_accuracy(scores), _val(scores), int((~found).sum()), seconds
    )


def _val(scores: PairScores) -> float | None:
    curve = roc(scores)
    try:
        return tar_at_far(curve, VAL_FAR).tar
    except DatasetError:
        return None


@dataclass(frozen=True, slots=True)
class AccuracyDelta:
    """One embedder beside the reference, on the same faces and pairs.

    Attributes:
        name: Of the embedder, as the caller named it.
        pairs: Number of pairs.
        pairs_without_face: Those of which a face was not found, the same for all.
        accuracy: Share of all pairs judged rightly, each fold at the threshold of the others, 0..1: the mean
            over the folds where these have one size, as LFW's have.
        standard_error: Of ``accuracy``.
        difference_points: ``accuracy`` less the reference's, in percentage points; below 0 is worse.
        p_value: McNemar's, of the pairs that only one of both judged rightly; small where they really differ.
        val: True accept rate at a false accept rate of 1e-3, 0..1; None where the pairs do not support it.
        least_cosine: Smallest cosine of a face's embedding to the reference's.
        mean_cosine: Mean cosine of a face's embedding to the reference's.
        seconds: Time that embedding took.
    """

    name: str
    pairs: int
    pairs_without_face: int
    accuracy: float
    standard_error: float
    difference_points: float
    p_value: float
    val: float | None
    least_cosine: float
    mean_cosine: float
    seconds: float


def compare(name: str, candidate: Verification, reference: Verification) -> AccuracyDelta:
    """Hold one embedder's result against the reference's.

    Args:
        name: Of the candidate.
        candidate: Its result.
        reference: The reference's result, on the same faces and pairs.
    """
    found = reference.embeddings.any(axis=1)
    cosines = np.einsum("nd,nd->n", candidate.embeddings, reference.embeddings, dtype=np.float64)[found]
    own, its = candidate.accuracy, reference.accuracy
    return AccuracyDelta(
        name=name,
        pairs=len(candidate.scores),
        pairs_without_face=candidate.pairs_without_face,
        accuracy=own.pooled,
        standard_error=own.pooled_standard_error,
        difference_points=100 * (own.pooled - its.pooled),
        p_value=mcnemar(own.correct, its.correct).p_value,
        val=candidate.val,
        least_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        seconds=candidate.seconds,
    )


def compare_on_lfw(
    root: Path,
    pairs: Path,
    reference: FaceEmbedder,
    candidates: Mapping[str, FaceEmbedder],
    detector: FaceDetector,
    *,
    reference_name: str = "reference",
    on_progress: StageProgress | None = None,
) -> list[AccuracyDelta]:
    """Accuracy on LFW of several engines or precisions of one model, against the reference.

    Faces are found and cut out once, so that nothing but the embedder differs.

    Args:
        root: LFW's folder of images.
        pairs: Its ``pairs.txt``, or a table as ``read_lfw_pairs`` takes it.
        reference: The model in fp32.
        candidates: The same model in other forms, by name.
        detector: Finds the faces, for all alike.
        reference_name: Name of the reference in the result and in ``on_progress``.
        on_progress: Called after each batch with the stage (``faces`` or an embedder's name).

    Returns:
        The reference, then the candidates in their order.

    Raises:
        DatasetError: The list or the images are missing, damaged or contradict themselves, or show no faces.
        ModelError: An engine failed, or gives embeddings that are not finite.
        ValueError: A candidate takes other crops, or gives embeddings of another size, than the reference.
    """
    for name, candidate in candidates.items():
        got, wanted = ((each.crop_shape, each.embedding_size) for each in (candidate, reference))
        if got != wanted:
            raise ValueError(f"{name}: expected crops and embeddings of {wanted}, got {got}")
    images = locate_lfw(read_lfw_pairs(pairs), root)
    faces = faces_of(images.paths, detector, reference.align, on_progress=_stage(on_progress, "faces"))
    if not faces.found.any():
        raise DatasetError(
            f"{root}: no face was found in any of {len(faces):,} images; "
            "check that they are LFW's, or lower the detector's min_score"
        )
    base = verification_accuracy(reference, faces, images, on_progress=_stage(on_progress, reference_name))
    deltas = [compare(reference_name, base, base)]
    for name, candidate in candidates.items():
        result = verification_accuracy(candidate, faces, images, on_progress=_stage(on_progress, name))
        deltas.append(compare(name, result, base))
    return deltas


def _stage(on_progress: StageProgress | None, name: str) -> Progress | None:
    return None if on_progress is None else lambda done, total: on_progress(name, done, total)
