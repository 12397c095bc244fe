"""A detector and an embedder with all that a benchmark must say about them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from engine.backends.machine import this_machine
from engine.compilation.runtimes import engine_version
from engine.models.package import Likeness, ModelPackage
from engine.opening.face_models import ModelChoice, OpenModels, open_face_models
from engine.opening.select import EngineKind
from engine.protocol import Engine
from engine.search.clustering import cluster_cut, stream_caution
from engine.search.open_set_threshold import ImpostorTail, impostor_tail
from engine.vision.detection import Detector
from engine.vision.embedder import Embedder
from training.data.results import ModelRecord

_SAME_RECIPE: Final = "1"
"""Counts up when the same models give other vectors: alignment, decoding or quality have changed."""


class BenchmarkEmbedder(Embedder, Protocol):
    """An embedder that says what caches must know of it, as ``engine.vision.embedder.FaceEmbedder`` does."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """Of an aligned face."""

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceModels:
    """A detector and an embedder, open.

    Attributes:
        detector: Finds faces.
        embedder: Embeds them.
        records: Of every model that takes part.
        choices: Of the protocol: which models, detection threshold, mirroring, alignment, engines.
        detector_recipe: Everything that a detection depends on beside the image.
        align_recipe: Everything that an aligned face depends on beside image and landmarks.
        embedder_recipe: Everything that an embedding depends on beside image and landmarks.
        tail: How rarely the embedder finds different people how alike; None where it is not known.
        cut: Similarity from which on groups of its faces are one person.
        caution: How much more alike young groups of a stream must be.
    """

    detector: Detector
    embedder: BenchmarkEmbedder
    records: tuple[ModelRecord, ...] = ()
    choices: dict[str, str | int | float | bool | None] = field(default_factory=dict)
    detector_recipe: str = ""
    align_recipe: str = ""
    embedder_recipe: str = ""
    tail: ImpostorTail | None = None
    cut: float = 0.5
    caution: float = 0.0


@contextlib.contextmanager
def open_models(
    *,
    detector: str | Path = "yunet",
    embedder: str | Path | ModelPackage = "sface",
    kind: EngineKind = "auto",
    precision: str = "auto",
    flip: bool = False,
    min_score: float = 0.3,
    long_side_px: int = 640,
    enlarge: float | None = None,
    second_look: bool = False,
    threads: int | None = None,
    workers: int = 1,
) -> Iterator[FaceModels]:
    """Open the models of a benchmark, and close them afterwards.

    Args:
        detector: As ``engine.models.catalogue.load_detector`` takes it.
        embedder: As ``engine.models.catalogue.load_model`` takes it, or a package.
        kind: Engine of the embedder, and of the detector where that has one of the kind and precision.
        precision: Of the embedder; the detector's is chosen by itself.
        flip: Add the embedding of the mirrored face.
        min_score: Faces below this confidence are none, 0..1.
        long_side_px: Images are shrunk for the detector until their longer side has so many pixels.
        enlarge: Show the detector images enlarged by so much, where they stay within ``long_side_px``.
        second_look: Find landmarks again in the upright face, with the same detector, before it is cut out.
        threads: Of each engine, on processors; None takes one for each core.
        workers: As many calls run at the same time; give the benchmark as many.

    Raises:
        ModelError: A model or an engine cannot be opened.
        ValueError: A number is out of range, or a model does another task.
    """
    choice = ModelChoice(
        detector=detector,
        embedder=embedder,
        kind=kind,
        precision=precision,
        detector_kind=kind if kind in {"openvino", "onnxruntime"} else "auto",
        detector_precision="auto",
        threads=threads,
        workers=workers,
        mirror=flip,
        min_score=min_score,
        long_side_px=long_side_px,
        enlarge=enlarge,
        second_look=second_look,
    )
    with open_face_models(choice) as models:
        yield _described(models, choice)


def _described(models: OpenModels, choice: ModelChoice) -> FaceModels:
    """The models with all that a benchmark must say about them."""
    package, _ = models.embedder_network
    found = tuple(_record(*network) for network in models.detector_networks)
    embedded = _record(*models.embedder_network)
    patches = [[patch.size_px, patch.template_xy] for patch in package.patches]
    template = hashlib.sha256(json.dumps(patches).encode()).hexdigest()[:16]
    look = f" looked at again {found}" if choice.second_look else ""
    likeness = Likeness.of(package.thresholds)
    return FaceModels(
        detector=models.detector,
        embedder=models.embedder,
        records=(*found, embedded),
        choices={
            "detector": " + ".join(each.name for each, _ in models.detector_networks),
            "min_score": choice.min_score,
            "long_side_px": choice.long_side_px,
            "enlarge": choice.enlarge,
            "second_look": choice.second_look,
            "embedder": package.name,
            "flip": choice.mirror,
            "alignment": f"similarity to 5 landmarks, template {template}",
        },
        detector_recipe=f"{_SAME_RECIPE} {found} {choice.min_score} {choice.long_side_px} {choice.enlarge}",
        align_recipe=f"{_SAME_RECIPE} {template}{look}",
        embedder_recipe=f"{_SAME_RECIPE} {embedded} {template} {choice.mirror}{look}",
        tail=impostor_tail(package.name, likeness),
        cut=cluster_cut(package.name, likeness),
        caution=stream_caution(likeness),
    )


def _record(package: ModelPackage, engine: Engine) -> ModelRecord:
    name = engine.name
    match name:
        case "openvino" | "onnxruntime" | "tensorrt" | "tensorrt-rtx":
            name = f"{name} {engine_version(name)}"
    return ModelRecord(package.name, package.sha256, name, engine.precision, package.task)


def machine_facts() -> dict[str, str | int]:
    """Where a benchmark runs, and with which versions."""
    machine = this_machine()
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        "features": " ".join(machine.features),
        "facestream": _version("facestream"),
        "opencv": _version("opencv-python-headless"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def file_facts(root: Path, listed: Path) -> dict[str, str | int]:
    """Names of the data set's folder and list, and the list's hash."""
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    return {"root": root.resolve().name, "list": listed.name, "list_sha256": digest}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
