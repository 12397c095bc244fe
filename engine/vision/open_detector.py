"""Open a detector from its packages: the only place that knows how many networks each one has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.models.package import ModelPackage
from engine.protocol import Engine
from engine.vision.detection import Detector
from engine.vision.mtcnn import MtcnnDetector
from engine.vision.yunet import FaceDetector


def open_detector(
    packages: Sequence[ModelPackage],
    *,
    open_engine: Callable[[ModelPackage], Engine],
    min_score: float = 0.3,
    long_side_px: int = 640,
) -> Detector:
    """The detector that some packages make.

    Args:
        packages: As ``engine.models.catalogue.load_detector`` gives them: a detector, or the three stages of
            MTCNN.
        open_engine: Opens an engine for a package; whoever gives it closes the engines.
        min_score: Faces below this confidence are left out, 0..1.
        long_side_px: Images are shrunk, never enlarged, until their longer side has at most so many pixels.

    Raises:
        ValueError: The packages make no detector, or a number is out of range.
        ModelError: An engine cannot be opened.
    """
    match [package.task for package in packages]:
        case ["detector"]:
            engine = open_engine(packages[0])
            return FaceDetector(engine, min_score=min_score, long_side_px=long_side_px)
        case ["detector-stage", "detector-stage", "detector-stage"]:
            stages = [open_engine(package) for package in packages]
            return MtcnnDetector(*stages, min_score=min_score, long_side_px=long_side_px)
    found = [f"{package.name} ({package.task})" for package in packages]
    raise ValueError(f"packages: expected a detector, or the three stages of one, got {found}")
