"""A detector and an embedder with all that a benchmark must say about them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from engine.clustering import cluster_cut, stream_caution
from engine.detector import Detector
from engine.detectors import open_detector
from engine.embedder import FaceEmbedder
from engine.embeddings import Embeddings
from engine.enlarging import EnlargingDetector
from engine.faces import FloatArray, Image
from engine.machine import this_machine
from engine.open_set import ImpostorTail, impostor_tail
from engine.package import Likeness, ModelPackage
from engine.protocol import Engine
from engine.runtimes import engine_version
from engine.second_look import SecondLook
from engine.select import EngineKind, open_engines
from engine.zoo import load_detector, load_model
from training.results import ModelRecord

_SAME_RECIPE: Final = "1"
"""Counts up when the same models give other vectors: alignment, decoding or quality have changed."""


class Embedder(Protocol):
    """What a benchmark needs of ``engine.embedder.FaceEmbedder``."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def crop_shape(self) -> tuple[int, int, int]:
        """Of an aligned face."""

    @property
    def embedding_size(self) -> int:
        """Length of an embedding."""

    def align(self, image: Image, landmarks_xy: FloatArray) -> npt.NDArray[np.uint8]:
        """Cut out faces: landmarks (N, 5, 2) to crops (N, H, W, 3)."""

    def portraits(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The part of crops that ``engine.quality.face_quality`` judges."""

    def embed(self, crops: npt.NDArray[np.uint8]) -> Embeddings:
        """Crops (N, H, W, 3) to float32 (N, D), unit rows."""


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
    embedder: Embedder
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
        detector: As ``engine.zoo.load_detector`` takes it.
        embedder: As ``engine.zoo.load_model`` takes it, or a package.
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
    detector_kind: EngineKind = kind if kind in {"openvino", "onnxruntime"} else "auto"
    packages = load_detector(detector)
    package = embedder if isinstance(embedder, ModelPackage) else load_model(embedder)
    records: list[ModelRecord] = []
    with contextlib.ExitStack() as stack:

        def opened(these: Sequence[ModelPackage], kind: EngineKind, precision: str) -> list[Engine]:
            engines = open_engines(these, kind=kind, precision=precision, threads=threads, streams=workers)
            for each, engine in zip(these, engines, strict=True):
                stack.callback(engine.close)
                records.append(_record(each, engine))
            return engines

        stages = iter(opened(packages, detector_kind, "auto"))
        finder = open_detector(
            packages,
            open_engine=lambda _: next(stages),
            min_score=min_score,
            long_side_px=long_side_px,
        )
        again = SecondLook(finder) if second_look else None
        if enlarge is not None:
            finder = EnlargingDetector(finder, factor=enlarge, most_px=long_side_px)
        found = tuple(records)
        turner = FaceEmbedder.from_package(
            package, opened([package], kind, precision)[0], flip=flip, second_look=again
        )
        patches = [[patch.size_px, patch.template_xy] for patch in package.patches]
        likeness = Likeness.of(package.thresholds)
        template = hashlib.sha256(json.dumps(patches).encode()).hexdigest()[:16]
        look = f" looked at again {found}" if second_look else ""
        yield FaceModels(
            detector=finder,
            embedder=turner,
            records=tuple(records),
            choices={
                "detector": " + ".join(each.name for each in packages),
                "min_score": min_score,
                "long_side_px": long_side_px,
                "enlarge": enlarge,
                "second_look": second_look,
                "embedder": package.name,
                "flip": flip,
                "alignment": f"similarity to 5 landmarks, template {template}",
            },
            detector_recipe=f"{_SAME_RECIPE} {found} {min_score} {long_side_px} {enlarge}",
            align_recipe=f"{_SAME_RECIPE} {template}{look}",
            embedder_recipe=f"{_SAME_RECIPE} {records[-1]} {template} {flip}{look}",
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
