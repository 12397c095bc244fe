"""Sweeps: one benchmark repeated with one setting changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

import cv2
import numpy as np

from engine.embeddings import Embeddings, dequantise_int8, quantise_int8, unit_rows
from engine.errors import DatasetError, ModelError
from engine.faces import FloatArray, Image
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from training.data.cache import VectorCache
from training.data.embedding_reader import Degradation, Target, read_sets
from training.data.model_setup import FaceModels
from training.data.results import BenchRun
from training.evaluation.lfw import Projection

SweepKind: TypeAlias = Literal[
    "jpeg", "size", "dim", "frames", "quantisation", "engine", "precision", "detector", "flip", "second-look"
]

SETTINGS: Final[dict[SweepKind, tuple[Any, ...]]] = {
    "jpeg": (10, 20, 30, 50, 70, 90),
    "size": (1_600, 6_400, 14_400, 25_600, 65_536),
    "dim": (8, 16, 32, 64, 128),
    "frames": (1, 2, 5, 10, 25, 50, 100, None),
    "quantisation": ("float32", "int8"),
    "engine": ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"),
    "precision": ("fp32", "bf16", "fp16", "int8"),
    "detector": ("yunet", "mtcnn"),
    "flip": (False, True),
    "second-look": (False, True),
}
"""What each sweep tries: JPEG quality and pixels of the face's crop as in FaceNet's table 4, numbers of an
embedding, frames of a video, and names."""

_CROP_PX: Final = 112
_IMAGES_OF_A_TASK: Final = 32


class Bench(Protocol):
    """A benchmark with its data bound: ``partial(run_lfw, root, pairs, cache=cache)``, or of ``run_ytf``."""

    def __call__(self, *, models: FaceModels, **options: Any) -> BenchRun:
        """Run it."""


class OpenModels(Protocol):
    """``training.data.model_setup.open_models``, with some of its options bound."""

    def __call__(self, **options: Any) -> AbstractContextManager[FaceModels]:
        """Open them with options changed."""


def sweep(
    kind: SweepKind,
    bench: Bench,
    open_models: OpenModels,
    *,
    settings: Sequence[Any] | None = None,
    fit_on: Path | None = None,
    cache: VectorCache | None = None,
    workers: int = 1,
    on_setting: Callable[[str], None] = lambda _setting: None,
    on_skipped: Callable[[str, str], None] | None = None,
) -> list[tuple[str, BenchRun]]:
    """Run a benchmark for each setting of one choice.

    Args:
        kind: The choice. ``frames`` needs ``run_ytf``. ``jpeg`` applies before detection; ``size`` after it,
            to the part of the image that ArcFace's crop shows, and never enlarges.
        bench: The benchmark.
        open_models: Opens its models; ``engine``, ``precision``, ``detector``, ``flip`` and
            ``second-look`` override it.
        settings: What to try instead of ``SETTINGS``.
        fit_on: For ``dim``: folder of images of other people, of which the main directions are taken, so
            that no pair of the benchmark is seen before it is judged.
        cache: For the images of ``fit_on``.
        workers: For the images of ``fit_on``.
        on_setting: Told what comes next.
        on_skipped: Told which setting cannot be tried on this machine, and why; without it that is an error.

    Returns:
        Each setting as text, and its run.

    Raises:
        DatasetError: As the benchmark says, or ``fit_on`` holds too few faces.
        ModelError: A model cannot be opened, or fails.
        ValueError: The kind is unknown, or ``fit_on`` is missing.
    """
    if kind not in get_args(SweepKind):
        raise ValueError(f"kind: expected {', '.join(get_args(SweepKind))}, got {kind!r}")
    if kind == "dim" and fit_on is None:
        raise ValueError("fit_on: the directions must come from other faces; give a folder of images")
    chosen = SETTINGS[kind] if settings is None else settings
    if kind in {"engine", "precision", "detector", "flip", "second-look"}:
        return list(
            _of_models(kind, chosen, bench, open_models, on_setting=on_setting, on_skipped=on_skipped)
        )
    with open_models() as models:
        directions = _main_directions(fit_on, models, cache, workers) if fit_on and kind == "dim" else None
        runs = []
        for setting in chosen:
            name = _text(kind, setting)
            on_setting(name)
            runs.append((name, bench(models=models, **_option(kind, setting, directions))))
    return runs


def _of_models(
    kind: SweepKind,
    settings: Sequence[Any],
    bench: Bench,
    open_models: OpenModels,
    *,
    on_setting: Callable[[str], None],
    on_skipped: Callable[[str, str], None] | None,
) -> Iterator[tuple[str, BenchRun]]:
    option = {"engine": "kind", "second-look": "second_look"}.get(kind, kind)
    for setting in settings:
        name = _text(kind, setting)
        on_setting(name)
        try:
            with open_models(**{option: setting}) as models:
                yield name, bench(models=models)
        except ModelError as exc:
            if on_skipped is None:
                raise
            on_skipped(name, str(exc))


def _text(kind: SweepKind, setting: Any) -> str:
    names: dict[SweepKind, str] = {
        "jpeg": f"JPEG quality {setting}",
        "size": f"{setting} pixels",
        "dim": f"{setting} numbers",
        "frames": "all frames" if setting is None else f"{setting} frames",
        "flip": "with the mirrored face" if setting else "without mirroring",
        "second-look": "with a second look" if setting else "without a second look",
    }
    return names.get(kind, str(setting))


def _option(kind: SweepKind, setting: Any, directions: FloatArray | None) -> dict[str, Any]:
    """What the benchmark is called with."""
    match kind:
        case "jpeg":
            return {"degradation": jpeg(setting)}
        case "size":
            return {"degradation": face_size(setting)}
        case "frames":
            return {"frames": setting}
        case "quantisation":
            return {"projection": quantised() if setting == "int8" else None}
        case "dim" if directions is not None:
            return {"projection": reduced(directions, setting)}
    raise ValueError(f"no setting of {kind}: {setting!r}")


def jpeg(quality: int) -> Degradation:
    """Compress each image again.

    Args:
        quality: 1..100, as libjpeg counts it.

    Raises:
        ValueError: It is out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1..100, got {quality}")

    def compress(image: Image) -> Image:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    return Degradation(f"JPEG quality {quality}", before=compress)


def face_size(pixels: int) -> Degradation:
    """Shrink each image until the part that ArcFace's crop shows has at most so many pixels.

    Args:
        pixels: Width times height, at least 1.

    Raises:
        ValueError: It is out of range.
    """
    if pixels < 1:
        raise ValueError(f"pixels: expected at least 1, got {pixels}")

    def shrink(image: Image, landmarks_xy: FloatArray) -> tuple[Image, FloatArray]:
        template = np.array(ARCFACE_TEMPLATE_XY, np.float32)
        side = _CROP_PX * _spread(landmarks_xy[0]) / _spread(template)
        factor = math.sqrt(pixels) / max(side, 1.0)
        if factor >= 1:
            return image, landmarks_xy
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # Pixels are squares: the centre of the first lies at a half.
        factors = np.array([width / image.shape[1], height / image.shape[0]], np.float32)
        return np.asarray(small, np.uint8), (landmarks_xy + np.float32(0.5)) * factors - np.float32(0.5)

    return Degradation(f"face of {pixels} pixels", after=shrink)


def _spread(points_xy: FloatArray) -> float:
    return float(np.sqrt(((points_xy - points_xy.mean(axis=0)) ** 2).sum(axis=1).mean()))


def quantised() -> Projection:
    """One byte a number, and back."""
    return Projection("int8", lambda rows: np.stack([dequantise_int8(*quantise_int8(row)) for row in rows]))


def main_directions(embeddings: Embeddings) -> FloatArray:
    """Directions along which embeddings are longest: principal components without centring.

    Without centring a dot product loses nothing while all directions are kept.

    Args:
        embeddings: float32 (N, D), of people who are not in the benchmark.

    Returns:
        float32 (D, D), a direction in each row, the longest first.
    """
    rows = embeddings.astype(np.float64)
    _, directions = np.linalg.eigh(rows.T @ rows)
    return np.asarray(directions.T[::-1], np.float32)


def reduced(directions: FloatArray, numbers: int) -> Projection:
    """Keep the first numbers of embeddings turned to the main directions.

    Args:
        directions: As ``main_directions`` gives them.
        numbers: How many, 1..D.

    Raises:
        ValueError: It is out of range.
    """
    if not 1 <= numbers <= len(directions):
        raise ValueError(f"numbers: expected 1..{len(directions)}, got {numbers}")
    kept = directions[:numbers].T
    return Projection(f"{numbers} main directions", lambda rows: unit_rows(rows @ kept))


def _main_directions(folder: Path, models: FaceModels, cache: VectorCache | None, workers: int) -> FloatArray:
    targets = [Target(path) for path in sorted(folder.rglob("*.jpg"))]
    tasks = [targets[at : at + _IMAGES_OF_A_TASK] for at in range(0, len(targets), _IMAGES_OF_A_TASK)]
    seen = read_sets(tasks, models, cache=cache, workers=workers)
    rows = [face.embedding for faces in seen.sets for face in faces]
    if len(rows) < models.embedder.embedding_size:
        raise DatasetError(
            f"{folder}: expected at least {models.embedder.embedding_size} faces, got {len(rows)}; "
            "give a folder of more images (.jpg)"
        )
    return main_directions(np.stack(rows))
