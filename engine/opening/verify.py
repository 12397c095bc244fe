"""Hold every engine that runs on this machine against a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from engine.compilation.parity_check import judge, open_reference
from engine.compilation.preprocessing import Proof, prove
from engine.compilation.runtimes import open_compiled, why_unavailable, why_unfit
from engine.compilation.sample_faces import sample_images
from engine.compilation.separation import people_in, shipped_people
from engine.compilation.store import CompiledEngine, CompiledKind, EngineStore
from engine.compilation.tolerances import Parity
from engine.errors import ModelError
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.protocol import Engine
from engine.vision.yunet import FaceDetector

_WITHOUT_COMPILING: Final[tuple[tuple[CompiledKind, str], ...]] = (
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "auto"),
)


def verify_preprocessing(
    package: ModelPackage, *, detector: ModelPackage, faces: Path | None = None
) -> Proof | None:
    """Prove on faces of different people that an embedder sees what it was trained on.

    Args:
        package: The model; its file's hash is checked.
        detector: Package of the detector that finds the faces.
        faces: Folder with a folder of photographs for each person. Without one, or where it has none, small
            faces that scikit-image ships.

    Returns:
        None for a model that is no embedder.

    Raises:
        ModelError: The package is damaged, or there are no faces.
    """
    if package.task != "embedder":
        return None
    finder = FaceDetector(open_reference(detector), min_score=0.6)
    people = None if faces is None else people_in(faces, finder)
    return prove(package, package.read(), people or shipped_people(finder))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison of an engine with its model found.

    Attributes:
        kind: Of engine.
        precision: What it computes in, or was asked to.
        parity: What the gate found; None when it could not be opened or failed.
        reason: Why.
    """

    kind: str
    precision: str
    parity: Parity | None
    reason: str = ""


def verify_engines(
    package: ModelPackage,
    *,
    detector: ModelPackage,
    faces: Path | None = None,
    store: EngineStore | None = None,
) -> Iterator[Verdict]:
    """Judge the processor's engines, and the compiled ones that fit this machine, one after the other.

    Args:
        package: The model; its file's hash is checked.
        detector: Package of the detector that finds the faces.
        faces: Folder of images; None for views of one portrait.
        store: Where compiled engines are; the user's cache by default.

    Raises:
        ModelError: The package is damaged, or there are no faces.
    """
    images = sample_images(faces)
    finder = FaceDetector(open_reference(detector), min_score=0.6)
    reference = open_reference(package)

    def verdict(kind: str, precision: str, open_it: Callable[[], Engine], held_to: str | None) -> Verdict:
        try:
            engine = open_it()
        except ModelError as exc:
            return Verdict(kind, precision, None, str(exc))
        try:
            parity = judge(package, engine, images, detector=finder, reference=reference, precision=held_to)
            return Verdict(kind, held_to or engine.precision, parity)
        except ModelError as exc:
            return Verdict(kind, precision, None, str(exc))
        finally:
            engine.close()

    told = set()
    for kind, precision in _WITHOUT_COMPILING:
        found = verdict(kind, precision, partial(open_engine, package, kind=kind, precision=precision), None)
        if (found.kind, found.precision) not in told:  # "auto" may be one of those that were named
            yield found
        told.add((found.kind, found.precision))
    for compiled in (store or EngineStore()).engines():
        if _runs_here(compiled, package):
            key = compiled.key
            yield verdict(
                f"{key.kind}, compiled", key.precision, partial(open_compiled, compiled), key.precision
            )
    reference.close()


def _runs_here(compiled: CompiledEngine, package: ModelPackage) -> bool:
    key = compiled.key
    return (
        key.model_sha256 == package.sha256
        and why_unavailable(key.kind, purpose="run") is None
        and why_unfit(key) is None
    )
