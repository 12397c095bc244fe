"""A model and all that must travel with it: preprocessing, alignment, threshold, licence, provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from engine.atomic_files import write_atomically
from engine.errors import ModelError
from engine.graphs.edits import ColourOrder

Task: TypeAlias = Literal["detector", "detector-stage", "embedder"]
"""``detector-stage`` is one network of a detector that is made of several (MTCNN)."""

Point: TypeAlias = tuple[float, float]

_FORMAT = "facestream-model/1"
_COMMON_SCALE: Final = (0.36, 0.416)
"""SFace's similarities at false accept rates of 1e-3 and 1e-4."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A similarity from which on two embeddings count as one person.

    Attributes:
        similarity: Cosine, -1..1.
        far: False accept rate that it was set at, 0..1; None when it was not measured.
    """

    similarity: float
    far: float | None = None

    def __post_init__(self) -> None:
        if not -1 <= self.similarity <= 1:
            raise ValueError(f"similarity: expected -1..1, got {self.similarity}")
        if self.far is not None and not 0 <= self.far <= 1:
            raise ValueError(f"far: expected 0..1, got {self.far}")


@dataclass(frozen=True, slots=True)
class Patch:
    """An aligned view of the face that an embedder looks at.

    Attributes:
        size_px: Side of the square view.
        template_xy: Where the five landmarks lie in it, pixels, in the order of ``engine.faces.LANDMARKS``.

    Raises:
        ValueError: The size is below 1, or the template has not five points.
    """

    size_px: int
    template_xy: tuple[Point, ...]

    def __post_init__(self) -> None:
        if self.size_px < 1:
            raise ValueError(f"size_px: expected at least 1, got {self.size_px}")
        if np.shape(self.template_xy) != (5, 2):
            raise ValueError(f"template_xy: an embedder needs five points, got {self.template_xy}")


@dataclass(frozen=True, slots=True)
class Likeness:
    """Brings cosines of one model to a scale that all models share, SFace's.

    Networks differ in how they spread cosines: dlib's lie between 0.7 and 1. Rules that were set for one
    model hold for another once the similarities of equal false accept rates, 1e-3 and 1e-4, are made equal.

    Attributes:
        factor: Multiplies a cosine.
        shift: Is added to that.
    """

    factor: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, thresholds: Sequence[Threshold]) -> Likeness:
        """The scale of a model; that of SFace itself when it has no thresholds at both rates.

        Args:
            thresholds: The model's.
        """
        by_far = {each.far: each.similarity for each in thresholds}
        low, high = (by_far.get(far) for far in (1e-3, 1e-4))
        if low is None or high is None or low >= high:
            return cls()
        factor = (_COMMON_SCALE[1] - _COMMON_SCALE[0]) / (high - low)
        return cls(factor, _COMMON_SCALE[0] - factor * low)

    def __call__(self, cosine: float) -> float:
        """A cosine of the model on the common scale."""
        return self.factor * cosine + self.shift


def canvas_wh(patches: Sequence[Patch]) -> tuple[int, int]:
    """Width and height of the canvas on which patches lie side by side, their upper edges in line."""
    return sum(patch.size_px for patch in patches), max(patch.size_px for patch in patches)


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """An ONNX file and how it is to be used.

    The file takes one float32 NCHW image, ``(pixel - mean) * scale`` in ``colour_order``. An embedder's image
    is the face, aligned; or several aligned views of it side by side, where several networks are fused into
    one.

    Attributes:
        name: Of the model; embeddings of different names do not compare.
        task: ``detector`` (YuNet's outputs) or ``embedder`` (one output, (N, embedding_size)).
        onnx_path: Where the ONNX file is.
        sha256: Of the ONNX file, 64 hexadecimal digits.
        licence: SPDX name.
        provenance: Where the weights come from, in a sentence.
        input_size_wh: Width and height that it takes, pixels; None when it takes any (YuNet: multiples
            of 32).
        colour_order: Of the channels.
        mean: Of each channel, in the model's colour order, 0..255.
        scale: One factor for all channels.
        patches: The aligned views that an embedder's image holds, left to right; embedders only.
        embedding_size: Length of an embedding; embedders only.
        thresholds: Similarities from which two embeddings count as one person, each with the false accept
            rate that it was set at; the first is the default. Embedders only.
        training_run: Names the run that trained the weights, where that is known.
        harmonic_with: SHA-256 of older embedders whose embeddings compare with this one's, since it was
            trained for that (FaceNet, arXiv 1503.03832, appendix: harmonic embeddings).

    Raises:
        ValueError: Fields do not fit together.
    """

    name: str
    task: Task
    onnx_path: Path
    sha256: str
    licence: str
    provenance: str
    input_size_wh: tuple[int, int] | None = None
    colour_order: ColourOrder = "bgr"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    patches: tuple[Patch, ...] = ()
    embedding_size: int | None = None
    thresholds: tuple[Threshold, ...] = ()
    training_run: str | None = None
    harmonic_with: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise ValueError(f"task: expected {' or '.join(get_args(Task))}, got {self.task!r}")
        if self.colour_order not in get_args(ColourOrder):
            raise ValueError(f"colour_order: expected bgr or rgb, got {self.colour_order!r}")
        for digest in (self.sha256, *self.harmonic_with):
            if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ValueError(f"sha256: expected 64 lower-case hexadecimal digits, got {digest!r}")
        if len(self.mean) != 3:
            raise ValueError(f"mean: expected three numbers, got {self.mean}")
        if self.task == "embedder":
            self._check_embedder()

    def _check_embedder(self) -> None:
        if not self.patches:
            raise ValueError("patches: an embedder needs at least one")
        if self.embedding_size is None or self.embedding_size < 1:
            raise ValueError(f"embedding_size: expected at least 1, got {self.embedding_size}")
        if self.input_size_wh != canvas_wh(self.patches):
            raise ValueError(
                f"input_size_wh: the patches fill {canvas_wh(self.patches)}, got {self.input_size_wh}"
            )

    def read(self) -> bytes:
        """The ONNX file's bytes.

        Raises:
            ModelError: The file cannot be read, or its hash is not ``sha256``.
        """
        return read_verified(self.onnx_path, self.sha256)

    def save(self, manifest_path: Path) -> None:
        """Write the manifest. It names the ONNX file relative to itself where it can.

        Raises:
            ModelError: The file cannot be written.
        """
        manifest: dict[str, Any] = {"format": _FORMAT}
        for field in fields(self):
            value = getattr(self, field.name)
            match value:
                case Path():
                    value = _relative(value, manifest_path.parent)
                case tuple():
                    value = [asdict(each) if isinstance(each, Patch | Threshold) else each for each in value]
            manifest[field.name] = value
        write_atomically(manifest_path, (json.dumps(manifest, indent=2) + "\n").encode())

    @classmethod
    def load(cls, manifest_path: Path) -> ModelPackage:
        """Read a manifest and check the hash of its ONNX file.

        Raises:
            ModelError: The manifest cannot be read, has unknown or missing keys or values that do not fit,
                or the ONNX file is missing or has another hash.
        """
        try:
            raw = json.loads(manifest_path.read_bytes())
            package = _from_manifest(raw, manifest_path.parent)
        except OSError as exc:
            raise ModelError(f"{manifest_path}: cannot read the manifest: {exc.strerror}") from exc
        except (ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise ModelError(f"{manifest_path}: not a valid model manifest: {exc}") from exc
        package.read()
        return package


def read_verified(path: Path, sha256: str) -> bytes:
    """Read a file whose SHA-256 is known.

    Args:
        path: Of the file.
        sha256: 64 lower-case hexadecimal digits.

    Raises:
        ModelError: The file cannot be read or has another hash.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot read the model file: {exc.strerror}; check the path") from exc
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise ModelError(
            f"{path}: wrong SHA-256, got {got}, expected {sha256}; "
            "the file is damaged or another one: install or download it again, or correct the expected hash"
        )
    return data


def _from_manifest(raw: Any, folder: Path) -> ModelPackage:
    if not isinstance(raw, dict) or raw.pop("format", None) != _FORMAT:
        raise ValueError(f"expected an object with the format {_FORMAT!r}")
    known = {field.name for field in fields(ModelPackage)}
    if unknown := sorted(raw.keys() - known):
        raise ValueError(f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for key, kinds in _KINDS.items():
        if key in raw and not isinstance(raw[key], kinds):
            raise ValueError(f"{key}: got {json.dumps(raw[key])}")
    raw["onnx_path"] = folder / raw["onnx_path"] if "onnx_path" in raw else None
    if raw.get("input_size_wh") is not None:
        raw["input_size_wh"] = _numbers(raw["input_size_wh"], int, 2, "input_size_wh")
    if "mean" in raw:
        raw["mean"] = _numbers(raw["mean"], float, 3, "mean")
    raw["patches"] = tuple(_patch(each) for each in raw.get("patches", []))
    raw["thresholds"] = tuple(Threshold(**each) for each in raw.get("thresholds", []))
    raw["harmonic_with"] = tuple(map(str, raw.get("harmonic_with", [])))
    if raw["onnx_path"] is None:
        raise ValueError("onnx_path is missing")
    return ModelPackage(**raw)


_KINDS: dict[str, Any] = {
    "name": str,
    "task": str,
    "onnx_path": str,
    "sha256": str,
    "licence": str,
    "provenance": str,
    "input_size_wh": list | None,
    "colour_order": str,
    "mean": list,
    "scale": int | float,
    "patches": list,
    "embedding_size": int | None,
    "thresholds": list,
    "training_run": str | None,
    "harmonic_with": list,
}


def _patch(raw: Any) -> Patch:
    if (
        not isinstance(raw, dict)
        or raw.keys() != {"size_px", "template_xy"}
        or type(raw["size_px"]) is not int
    ):
        raise ValueError(f"patches: expected objects of size_px and template_xy, got {json.dumps(raw)}")
    points = tuple(_numbers(point, float, 2, "template_xy") for point in raw["template_xy"])
    return Patch(raw["size_px"], points)


def _numbers(values: Any, kind: type, count: int, key: str) -> Any:
    wanted = (int, float) if kind is float else (int,)
    if not isinstance(values, list) or len(values) != count or not all(type(v) in wanted for v in values):
        raise ValueError(f"{key}: expected {count} numbers, got {json.dumps(values)}")
    return tuple(kind(v) for v in values)


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
