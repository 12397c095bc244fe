"""Hold every engine that runs on this machine against a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.detector import FaceDetector
from engine.errors import ModelError
from engine.gate import judge, open_reference
from engine.package import ModelPackage
from engine.parity import Parity
from engine.runtimes import open_compiled, why_unfit
from engine.samples import sample_images
from engine.select import open_engine
from engine.store import CompiledKind, EngineStore

_WITHOUT_COMPILING: Final[tuple[tuple[CompiledKind, str], ...]] = (
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "auto"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison of an engine with its model found.

    Attributes:
        kind: Of engine.
        precision: What it computes in, or was asked to.
        parity: What the gate found; None when it could not be opened.
        reason: Why it could not be opened.
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
    for kind, precision in _WITHOUT_COMPILING:
        try:
            engine = open_engine(package, kind=kind, precision=precision)
        except ModelError as exc:
            yield Verdict(kind, precision, None, str(exc))
            continue
        parity = judge(package, engine, images, detector=finder, reference=reference)
        yield Verdict(kind, engine.precision, parity)
        engine.close()
    for compiled in (store or EngineStore()).engines():
        if compiled.key.model_sha256 != package.sha256 or why_unfit(compiled.key) is not None:
            continue
        engine = open_compiled(compiled)
        parity = judge(
            package, engine, images, detector=finder, reference=reference, precision=compiled.key.precision
        )
        yield Verdict(f"{compiled.key.kind}, compiled", compiled.key.precision, parity)
        engine.close()
