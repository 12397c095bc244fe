"""Preprocessing of aligned faces: presets of published models, and a check that it fits the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.compilation.separation import HOPELESS_ERROR, MOST_ERROR, People, Separation, embed_as, separation
from engine.errors import ModelError
from engine.graphs.edits import ColourOrder, parse_model, without_prelu
from engine.models.package import ModelPackage


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to an aligned face before a model sees it: ``(pixel - mean) * scale``.

    Attributes:
        colour_order: Of the channels.
        mean: Of every channel, 0..255.
        scale: A factor.
        size_px: Side of the aligned face; None to take it from the model.

    Raises:
        ValueError: A number makes no sense.
    """

    colour_order: ColourOrder
    mean: float
    scale: float
    size_px: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= 255:
            raise ValueError(f"mean: expected 0..255, got {self.mean}")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"scale: expected a number other than 0, got {self.scale}")
        if self.size_px is not None and self.size_px < 1:
            raise ValueError(f"size_px: expected at least 1, got {self.size_px}")


PRESETS: Final = {
    # InsightFace's recognition models, ArcFace among them (arXiv 1801.07698; from their code).
    "arcface": Preprocessing("rgb", 127.5, 1 / 127.5, 112),
    # FaceNet as davidsandberg/facenet and facenet-pytorch prepare it ("fixed image standardisation").
    "facenet": Preprocessing("rgb", 127.5, 1 / 128, 160),
    # The OpenCV Zoo's SFace: pixels as they are.
    "sface": Preprocessing("rgb", 0.0, 1.0, 112),
}

_OTHERS: Final = (
    # Models that were exported with pixels from 0 to 1, or with ImageNet's usual mean and deviation.
    Preprocessing("rgb", 0.0, 1 / 255),
    Preprocessing("rgb", 116.0, 1 / 58),
)
_TRIED: Final = 40
"""Faces, of the first people, on which other ways than the stated one are tried."""

_AS_GOOD: Final = 0.01
"""Errors that differ by less are the same; the one that says less is named."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a model makes of people with the preprocessing that is stated.

    Attributes:
        separation: How well it tells them apart.
        failure: Why the preprocessing is not believed; empty where it is.
        advice: What to give instead; empty where nothing that is known is better.
    """

    separation: Separation
    failure: str = ""
    advice: str = ""


def prove(package: ModelPackage, data: bytes, people: People) -> Proof:
    """Check whether a model tells people apart with the preprocessing that its package states.

    The order of the colours cannot be told in this way: it costs little, and nothing on grey faces.

    Args:
        package: An embedder's.
        data: Its model, serialised.
        people: Faces.

    Raises:
        ModelError: The model cannot be run.
    """
    crops = people.crops(package.patches)
    graph = without_prelu(parse_model(data, origin=package.name)).SerializeToString()
    engine = OnnxRuntimeEngine(graph, precision="fp32")

    def tried(way: Preprocessing | ModelPackage, *, most: int | None = None) -> Separation:
        mean = way.mean if isinstance(way, ModelPackage) else (way.mean,) * 3
        faces = crops[:most]
        vectors = embed_as(engine, faces, colour_order=way.colour_order, mean=mean, scale=way.scale)
        return separation(vectors, people.person[:most])

    try:
        got = tried(package)
        if got.error <= MOST_ERROR:
            return Proof(got)
        stated = tried(package, most=_TRIED).error  # on the same faces as the others
        others = [(words, tried(each, most=_TRIED)) for words, each in _candidates(crops.shape[1])]
    finally:
        engine.close()
    least = min(other.error for _, other in others)
    words, best = next(each for each in others if each[1].error <= least + _AS_GOOD)
    if best.error <= stated / 2:
        return Proof(got, f"wrong preprocessing: {got}", f"{words} (equal error rate {best.error:.0%})")
    if got.error >= HOPELESS_ERROR:
        doubt = f", unless folders of {people.folder} show several people" if people.folder else ""
        return Proof(got, f"it does not tell people apart: {got}{doubt}")
    return Proof(got)


def check_preprocessing(package: ModelPackage, data: bytes, people: People, *, origin: str) -> None:
    """Refuse a preprocessing with which a model does not tell people apart.

    Args:
        package: An embedder's.
        data: Its model, serialised.
        people: Faces of different people.
        origin: Where the model comes from, for the message.

    Raises:
        ModelError: It does not, or cannot be run; the message names a preprocessing with which it does.
    """
    proof = prove(package, data, people)
    if proof.failure:
        if proof.advice:
            mend = f"give {proof.advice}, or --force to keep it as it is"
        else:
            mend = (
                "state the preprocessing and alignment that it was trained with, or give --force to keep it "
                "as it is"
            )
        raise ModelError(f"{origin}: {proof.failure}; {mend}")


def _candidates(size_px: int) -> Iterator[tuple[str, Preprocessing]]:
    """The options that state each, and what they state; presets of the model's size first."""
    ordered = sorted(PRESETS.items(), key=lambda item: item[1].size_px != size_px)
    for name, preset in ordered:
        yield f"--preset {name}" + ("" if preset.size_px == size_px else f" --size {size_px}"), preset
    for other in _OTHERS:
        options = f"--colour-order {other.colour_order} --mean {other.mean:g} --scale {other.scale:.6g}"
        yield options, other
