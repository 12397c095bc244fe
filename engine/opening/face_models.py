"""Open a detector and an embedder together, for runs and benchmarks alike: what is measured is what runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.compilation.store import EngineStore
from engine.models.catalogue import load_detector, load_model
from engine.models.package import ModelPackage
from engine.opening.select import EngineKind, open_engines
from engine.protocol import Engine
from engine.vision.detection import Detector
from engine.vision.embedder import FaceEmbedder
from engine.vision.landmark_refinement import SecondLook
from engine.vision.open_detector import open_detector
from engine.vision.tiling import LargerLook
from engine.vision.upscaling import EnlargingDetector


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A detector and an embedder, where they run, and how faces are found.

    Attributes:
        detector: As ``engine.models.catalogue.load_detector`` takes it, or the packages of its networks.
        embedder: As ``engine.models.catalogue.load_model`` takes it, or a package.
        kind: Engine of the embedder.
        precision: Of the embedder.
        detector_kind: Engine of the detector; None takes the embedder's.
        detector_precision: The detector's precision; None takes the embedder's.
        engines_dir: Where compiled engines are; None takes the user's folder.
        threads: Of each engine, on CPUs; None takes one for each core.
        workers: Calls that may run at the same time, on CPUs; they share the threads.
        mirror: Add the embedding of the mirrored face.
        min_score: Faces below this confidence are left out, 0..1.
        long_side_px: Images are shrunk for the detector until their longer side has at most so many pixels.
        enlarge: Images are enlarged by this factor for the detector if they stay within ``long_side_px``.
        second_look: Find landmarks again in the upright face, with the same detector, before it is cut out.
        larger_look: Look at large images a second time, in tiles.
    """

    detector: str | Path | tuple[ModelPackage, ...] = "yunet"
    embedder: str | Path | ModelPackage = "sface"
    kind: EngineKind = "auto"
    precision: str = "auto"
    detector_kind: EngineKind | None = None
    detector_precision: str | None = None
    engines_dir: Path | None = None
    threads: int | None = None
    workers: int = 1
    mirror: bool = False
    min_score: float = 0.3
    long_side_px: int = 640
    enlarge: float | None = None
    second_look: bool = False
    larger_look: bool = False

    def load(self) -> tuple[tuple[ModelPackage, ...], ModelPackage]:
        """The packages of the detector's networks and of the embedder.

        Raises:
            ModelError: A model is missing or damaged.
        """
        detector, embedder = self.detector, self.embedder
        return (
            detector if isinstance(detector, tuple) else load_detector(detector),
            embedder if isinstance(embedder, ModelPackage) else load_model(embedder),
        )


@dataclass(frozen=True, slots=True, eq=False)
class OpenModels:
    """A detector and an embedder on their engines.

    Attributes:
        detector: Finds faces.
        embedder: Embeds them.
        detector_networks: Packages of the detector's networks with their engines.
        embedder_network: Package of the embedder with its engine.
    """

    detector: Detector
    embedder: FaceEmbedder
    detector_networks: tuple[tuple[ModelPackage, Engine], ...]
    embedder_network: tuple[ModelPackage, Engine]


@contextlib.contextmanager
def open_face_models(choice: ModelChoice) -> Iterator[OpenModels]:
    """A detector and an embedder on their engines, which are closed at the end.

    Args:
        choice: Which, and how they look at images.

    Raises:
        ModelError: A model is missing or damaged, or no engine can run it.
        ValueError: A number is out of range, or a model does another task.
    """
    found_by, embedded_by = choice.load()
    with contextlib.ExitStack() as stack:

        def opened(packages: Sequence[ModelPackage], kind: EngineKind, precision: str) -> list[Engine]:
            engines = open_engines(
                packages,
                kind=kind,
                precision=precision,
                threads=choice.threads,
                streams=choice.workers,
                store=EngineStore(choice.engines_dir),
            )
            for engine in engines:
                stack.callback(engine.close)
            return engines

        found_on = opened(
            found_by, choice.detector_kind or choice.kind, choice.detector_precision or choice.precision
        )
        stages = iter(found_on)
        detector = open_detector(
            found_by,
            open_engine=lambda _: next(stages),
            min_score=choice.min_score,
            long_side_px=choice.long_side_px,
        )
        (embedded_on,) = opened([embedded_by], choice.kind, choice.precision)
        embedder = FaceEmbedder.from_package(
            embedded_by,
            embedded_on,
            flip=choice.mirror,
            second_look=SecondLook(detector) if choice.second_look else None,
        )
        yield OpenModels(
            _looking_closer(detector, choice),
            embedder,
            tuple(zip(found_by, found_on, strict=True)),
            (embedded_by, embedded_on),
        )


def _looking_closer(detector: Detector, choice: ModelChoice) -> Detector:
    """The detector behind what enlarges small images and cuts large ones into tiles."""
    if choice.enlarge is not None:
        detector = EnlargingDetector(detector, factor=choice.enlarge, most_px=choice.long_side_px)
    return LargerLook(detector, tile_px=choice.long_side_px) if choice.larger_look else detector
