"""The parity gate: whether an engine's output matches the trained model's.

The reference is ONNX Runtime in fp32 on the model as it is. An engine passes when it answers every sample
with finite numbers that differ from input to input, and comes as near to the reference as its precision must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.faces import Faces, Image
from engine.geometry import iou
from engine.protocol import Engine
from engine.vision.detection import Detector

LEAST_COSINE: Final = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.999, "int8": 0.995}
"""Least cosine of an embedding, or of a network's outputs, to the reference; by precision."""

MOST_BOX_ERROR_PX: Final = 1.0
"""Most that an edge of a box may lie from the reference's."""

_SURE_SCORE: Final = 0.6
"""A face of at least this score must be found by both, though the other may be less sure of it."""

_SAME_FACE_IOU: Final = 0.5
_CONSTANT_COSINE: Final = 0.999999
_BATCH: Final = 4


@dataclass(frozen=True, slots=True)
class Parity:
    """What a comparison with the reference found.

    Attributes:
        samples: Faces, or images, that were compared.
        least_cosine: Smallest cosine to the reference; None for detectors.
        mean_cosine: Mean cosine to the reference; None for detectors.
        most_box_error_px: Largest distance between an edge of a box and the reference's; None for embedders.
        failures: Why the engine does not pass; empty when it does.
    """

    samples: int
    least_cosine: float | None = None
    mean_cosine: float | None = None
    most_box_error_px: float | None = None
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the engine may serve."""
        return not self.failures

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{self.samples} samples"]
        if self.least_cosine is not None and self.mean_cosine is not None:
            parts.append(f"cosine at least {self.least_cosine:.5f}, {self.mean_cosine:.5f} on average")
        if self.most_box_error_px is not None:
            parts.append(f"boxes within {self.most_box_error_px:.2f} px")
        return "; ".join([*parts, *self.failures])


def compare_outputs(
    reference: Engine, candidate: Engine, pixels: npt.NDArray[np.uint8], *, precision: str
) -> Parity:
    """Compare all outputs of a network, flattened, sample by sample. For embedders that is the embedding.

    Args:
        reference: Trusted.
        candidate: What is judged.
        pixels: uint8 (N, H, W, 3), inputs of both.
        precision: What the candidate is held to; see ``LEAST_COSINE``.

    Raises:
        ModelError: An engine failed.
    """
    exact, got = run_flat(reference, pixels), run_flat(candidate, pixels)
    failures = _sanity(np.concatenate([got, run_flat(candidate, _noise(pixels.shape[1:]))]))
    cosines = _row_cosines(exact, got)
    least = float(cosines.min()) if np.isfinite(cosines).all() else -1.0
    limit = LEAST_COSINE[precision]
    if not failures and least < limit:
        failures.append(f"cosine to the reference is {least:.5f}, {precision} needs {limit}")
    return Parity(len(pixels), least, float(np.nan_to_num(cosines.mean(), nan=-1.0)), None, tuple(failures))


def compare_detectors(reference: Detector, candidate: Detector, images: Sequence[Image]) -> Parity:
    """Compare the faces that two detectors find: the same ones, their boxes within a pixel.

    Args:
        reference: Trusted; finds faces from scores of at most 0.5 on.
        candidate: What is judged; the same.
        images: uint8 (H, W, 3) BGR.

    Raises:
        ModelError: An engine failed.
    """
    failures: list[str] = []
    worst, faces = 0.0, 0
    for number, (exact, got) in enumerate(
        zip(reference.detect(images), candidate.detect(images), strict=True)
    ):
        if not _finite(got):
            failures.append(f"image {number}: numbers that are not finite")
            continue
        pairs, lonely = match_faces(exact, got)
        faces += len(pairs)
        if lonely:
            failures.append(f"image {number}: {lonely} faces that only one of the two finds")
        if len(pairs):
            error = np.abs(exact.boxes_xyxy[pairs[:, 0]] - got.boxes_xyxy[pairs[:, 1]]).max()
            worst = max(worst, float(error))
    if not faces and not failures:
        failures.append("no face was found in the samples, so nothing was compared")
    if worst > MOST_BOX_ERROR_PX:
        failures.append(f"a box is {worst:.2f} px off, at most {MOST_BOX_ERROR_PX:g} px is allowed")
    return Parity(len(images), None, None, worst, tuple(failures[:3]))


def match_faces(exact: Faces, got: Faces) -> tuple[npt.NDArray[np.intp], int]:
    """Pair the faces that lie on each other, and count the sure ones that stay alone.

    Args:
        exact: Faces of one image.
        got: Faces of the same image.

    Returns:
        intp (P, 2), rows of ``exact`` and of ``got``; and the number of faces of at least 0.6 that have no
        partner.
    """
    overlaps = iou(exact.boxes_xyxy, got.boxes_xyxy)
    rows = np.arange(len(exact))
    nearest = overlaps.argmax(axis=1) if len(got) else np.zeros(len(exact), np.intp)
    mutual = np.zeros(len(exact), np.bool_)
    if overlaps.size:
        mutual = (overlaps.argmax(axis=0)[nearest] == rows) & (overlaps[rows, nearest] >= _SAME_FACE_IOU)
    pairs = np.stack([rows[mutual], nearest[mutual]], axis=1).astype(np.intp)
    lonely = np.setdiff1d(np.flatnonzero(exact.scores >= _SURE_SCORE), pairs[:, 0]).size
    lonely += np.setdiff1d(np.flatnonzero(got.scores >= _SURE_SCORE), pairs[:, 1]).size
    return pairs, int(lonely)


def run_flat(engine: Engine, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Run a network in small batches.

    Args:
        engine: Of one input.
        pixels: uint8 (N, H, W, 3).

    Returns:
        float64 (N, F): all outputs of a sample, one after the other.
    """
    rows = []
    size = min(_BATCH, engine.max_batch or _BATCH)
    for start in range(0, len(pixels), size):
        batch = np.ascontiguousarray(pixels[start : start + size])
        outputs: dict[str, npt.NDArray[Any]] = engine.infer({engine.inputs[0].name: batch})
        flat = [outputs[name].reshape(len(batch), -1) for name in sorted(outputs)]
        rows.append(np.concatenate(flat, axis=1).astype(np.float64))
    return np.concatenate(rows)


def _noise(shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Two images of nothing, which no network answers with what it says of a face."""
    return np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)


def _row_cosines(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):  # infinity over infinity: NaN, which the callers look for
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines: npt.NDArray[np.float64] = (a * b).sum(axis=1) / np.maximum(norms, 1e-30)
    return cosines


def _sanity(rows: npt.NDArray[np.float64]) -> list[str]:
    if not np.isfinite(rows).all():
        share = 1 - np.isfinite(rows).mean()
        return [f"{share:.1%} of the numbers are not finite"]
    if not np.linalg.norm(rows, axis=1).all():
        return ["an output is all zero"]
    if len(rows) > 1 and _row_cosines(rows[:-1], rows[1:]).min() > _CONSTANT_COSINE:
        return ["the output is the same whatever the input"]
    return []


def _finite(faces: Faces) -> bool:
    return all(bool(np.isfinite(each).all()) for each in (faces.boxes_xyxy, faces.scores, faces.landmarks_xy))
