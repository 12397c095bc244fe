"""Under time constraints, after FRUITS: how accurate is the whole way from file to decision within a limit?

Zhu and others, "WebFace260M: A Benchmark Unveiling the Power of Million-Scale Deep Face Recognition", CVPR
2021, section 5: detection, alignment, embedding and matching on one core, at most 100, 500 or 1,000 ms.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from engine.backends import machine
from engine.errors import DatasetError, ModelError
from engine.models.catalogue import load_detector, load_model
from training.data.face_crops import nearest_to, read_image
from training.data.model_setup import FaceModels
from training.data.results import BenchRun
from training.evaluation.sweeps import Bench, OpenModels

CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    f"{detector} {embedder}{' mirrored' if flip else ''}": {
        "detector": detector,
        "embedder": embedder,
        "flip": flip,
    }
    for detector in ("yunet", "mtcnn")
    for embedder in ("sface", "dlib", "fused")
    for flip in (False, True)
}
"""What is tried: options of ``training.data.model_setup.open_models``."""

_WARM_UP: Final = 70
"""Images before the clock runs: engines make a program of their own for a shape that is seen 64 times."""


@dataclass(frozen=True, slots=True)
class FruitsPoint:
    """A configuration, how good and how fast it is.

    Attributes:
        name: Of the configuration.
        accuracy: Of the benchmark, mean of the folds, 0..1.
        standard_error: Of that.
        median_ms: Of one image: read, decode, detect, align, embed, match.
        at_percentile_ms: What the stated share of the images stays below.
        slowest_ms: The image that took longest.
        keeps_limit: ``at_percentile_ms`` is at most the limit.
        run: The benchmark's record.
    """

    name: str
    accuracy: float
    standard_error: float
    median_ms: float
    at_percentile_ms: float
    slowest_ms: float
    keeps_limit: bool
    run: BenchRun


@dataclass(frozen=True, slots=True)
class Fruits:
    """Outcome for one limit.

    Attributes:
        limit_ms: The limit.
        percentile: Of the images' times that must keep it; 100 means every image.
        images: That were timed, one at a time.
        gallery: Embeddings that each face was matched with.
        points: All configurations, fastest first.
        best: The most accurate that keeps the limit; of equal ones the faster; None when none keeps it.
        frontier: Those that no other one beats in both accuracy and time, fastest first.
    """

    limit_ms: float
    percentile: float
    images: int
    gallery: int
    points: tuple[FruitsPoint, ...]
    best: str | None
    frontier: tuple[str, ...]


def configurations_here(
    configurations: Mapping[str, dict[str, Any]] = CONFIGURATIONS,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Part the configurations whose models are installed from the others.

    Args:
        configurations: Options of ``open_models`` by name, with ``detector`` and ``embedder``.

    Returns:
        Those that can be tried, and of the others the name and why not.
    """
    lacking = {name: reason for name, options in configurations.items() if (reason := _lacking(options))}
    return {name: options for name, options in configurations.items() if name not in lacking}, lacking


def _lacking(options: Mapping[str, Any]) -> str | None:
    """Why the models of a configuration cannot be had; None where they can."""
    try:
        load_detector(options["detector"])
        load_model(options["embedder"])
    except ModelError as exc:
        return str(exc)
    return None


def run_fruits(
    bench: Bench,
    open_models: OpenModels,
    images: Sequence[Path],
    *,
    limit_ms: float = 500.0,
    percentile: float = 100.0,
    gallery: int = 10_000,
    configurations: dict[str, dict[str, Any]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_configuration: Callable[[str], None] = lambda _name: None,
) -> Fruits:
    """Time each configuration on one core, and measure its accuracy.

    Args:
        bench: The benchmark that measures the accuracy, on any number of cores.
        open_models: Opens the models.
        images: What is timed, one image at a time.
        limit_ms: For an image, all stages together.
        percentile: Share of the images that must keep it, above 0 and at most 100.
        gallery: Embeddings that each face is matched with.
        configurations: Options of ``open_models`` by name; None takes ``CONFIGURATIONS``.
        clock: Seconds.
        on_configuration: Told what comes next.

    Raises:
        DatasetError: There are no images, or the benchmark says so.
        ModelError: A model cannot be opened, or fails.
        ValueError: A number is out of range.
    """
    if not limit_ms > 0 or not 0 < percentile <= 100 or gallery < 1:
        raise ValueError(
            f"expected limit_ms above 0, percentile in 0..100 and a gallery, "
            f"got {limit_ms}, {percentile} and {gallery}"
        )
    if not images:
        raise DatasetError("no images to time; give some of the benchmark's")
    points = []
    for name, options in (CONFIGURATIONS if configurations is None else configurations).items():
        on_configuration(name)
        with one_core(), open_models(**options, threads=1, workers=1) as models:
            times_ms = _times_ms(images, models, gallery, clock)
        with open_models(**options) as models:
            run = bench(models=models)
        at = float(np.percentile(times_ms, percentile, method="higher"))
        points.append(
            FruitsPoint(
                name=name,
                accuracy=_number(run, "accuracy"),
                standard_error=_number(run, "standard_error"),
                median_ms=float(np.median(times_ms)),
                at_percentile_ms=at,
                slowest_ms=max(times_ms),
                keeps_limit=at <= limit_ms,
                run=run,
            )
        )
    points.sort(key=lambda point: (point.at_percentile_ms, -point.accuracy))
    keeping = [point for point in points if point.keeps_limit]
    return Fruits(
        limit_ms=limit_ms,
        percentile=percentile,
        images=len(images),
        gallery=gallery,
        points=tuple(points),
        best=max(keeping, key=lambda point: point.accuracy).name if keeping else None,
        frontier=tuple(point.name for point in frontier(points)),
    )


def frontier(points: Sequence[FruitsPoint]) -> list[FruitsPoint]:
    """Those that none beats: each is more accurate than all that are as fast.

    Args:
        points: Fastest first, of equal times the most accurate first.
    """
    found: list[FruitsPoint] = []
    for point in points:
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def _number(run: BenchRun, name: str) -> float:
    value = run.figures[name]
    assert isinstance(value, float)
    return value


def _times_ms(
    images: Sequence[Path], models: FaceModels, gallery: int, clock: Callable[[], float]
) -> list[float]:
    """What each image takes, one after the other, once the engines are warm."""
    random = np.random.default_rng(0).normal(size=(gallery, models.embedder.embedding_size))
    known = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)
    for path in islice(cycle(images), _WARM_UP):
        _recognise(path, models, known)
    times = []
    for path in images:
        begin = clock()
        _recognise(path, models, known)
        times.append(1000 * (clock() - begin))
    return times


def _recognise(path: Path, models: FaceModels, known: np.ndarray[Any, np.dtype[np.float32]]) -> int | None:
    """The nearest of a gallery; None where no face is found."""
    image = read_image(path)
    (faces,) = models.detector.detect([image])
    if not len(faces):
        return None
    nearest = nearest_to(faces, image.shape[1] / 2, image.shape[0] / 2)
    crops = models.embedder.align(image, faces.landmarks_xy[[nearest]])
    return int((known @ models.embedder.embed(crops)[0]).argmax())


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """One core for this thread, those that it starts, and OpenCV, which counts its threads itself."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with machine.one_core():
            yield
    finally:
        cv2.setNumThreads(threads)
