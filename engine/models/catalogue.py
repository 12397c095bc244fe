"""Model packages by name: the pretrained models in a cache, users' own files as they are."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from engine import home_folders
from engine.errors import ModelError
from engine.graphs.edits import image_input, parse_model
from engine.models.cache import cached_package
from engine.models.fusion import fuse
from engine.models.package import ModelPackage, Task, read_verified
from engine.models.pretrained import FUSED, MTCNN_STAGES, PRETRAINED, SFACE, YUNET, PretrainedModel

__all__ = [
    "SFACE",
    "YUNET",
    "PretrainedModel",
    "ShippedModel",
    "is_known",
    "load_detector",
    "load_model",
    "shipped_models",
    "shipped_names",
]


MODEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What an imported model may be called: never a path."""

_FUSED_NAME: Final = "fused"
_MTCNN: Final = "mtcnn"
_SHORT_NAMES: Final = {model.name: name for name, model in PRETRAINED.items()}
"""Packages have longer names, which say which weights they hold."""


@dataclass(frozen=True, slots=True)
class ShippedModel:
    """A model that ``load_model`` knows by name.

    Attributes:
        name: What to give ``load_model``.
        task: What it does.
        licence: SPDX name.
        provenance: Where the weights come from.
        installed: Its file is here; whether it is the right one, loading tells.
        install: The command that installs it.
    """

    name: str
    task: Task
    licence: str
    provenance: str
    installed: bool
    install: str


def shipped_models() -> list[ShippedModel]:
    """The models that ``load_model`` knows by name, installed or not. Reads and imports none of them."""
    shipped = [
        ShippedModel(
            name=name,
            task=model.task,
            licence=model.licence,
            provenance=model.provenance,
            installed=model.wheel.locate(model.file) is not None,
            install=model.wheel.install,
        )
        for name, model in PRETRAINED.items()
    ]
    return [*shipped, _fused_of({model.name: model for model in shipped})]


def shipped_names() -> frozenset[str]:
    """All that ``load_model`` and ``load_detector`` take for a shipped model."""
    return frozenset({*PRETRAINED, *_SHORT_NAMES, _FUSED_NAME, FUSED.name, _MTCNN})


def is_known(name: str) -> bool:
    """Whether ``load_model`` takes this for a name, and not for the path of a file.

    Args:
        name: From anywhere: out of an event or a gallery, it must not choose what is read.
    """
    return name in shipped_names() - {_MTCNN} or _is_imported(name)


def _is_imported(name: str) -> bool:
    return MODEL_NAME.fullmatch(name) is not None and any(_imported_manifests(name))


def _imported_manifests(name: str) -> Iterator[Path]:
    """Those of imported models, by name or pattern; the one that counts last."""
    for folder in reversed(home_folders.readable("models")):
        yield from folder.glob(f"{name}/manifest.json")


def _fused_of(shipped: dict[str, ShippedModel]) -> ShippedModel:
    parts = [shipped[name] for name, _ in FUSED.parts]
    return ShippedModel(
        name=_FUSED_NAME,
        task="embedder",
        licence=" AND ".join(dict.fromkeys(part.licence for part in parts)),
        provenance=" and ".join(part.name for part in parts) + ", fused",
        installed=all(part.installed for part in parts),
        install=parts[-1].install,  # which brings the others
    )


def load_model(
    model: str | Path, *, cache_dir: Path | None = None, expected_sha256: str | None = None
) -> ModelPackage:
    """A model package by name or from a file, as plain float32 ONNX and checked.

    Conversion happens once; its result is kept in ``cache_dir``, and made again when it is damaged. Several
    processes may start at the same time.

    Args:
        model: A name that ``shipped_models`` or ``imported_models`` lists, a package's name, the path of a
            manifest (``.json``), or the path of an ONNX file (``.onnx``): one with YuNet's outputs is used as
            YuNet is, any other as SFace is, that is with RGB pixels 0..255 of its input size. Models with
            other preprocessing need a manifest.
        cache_dir: Where converted models are kept; by default the user's cache folder.
        expected_sha256: What the given file must have; None trusts an ONNX file as it is, and a name or a
            manifest has its own.

    Raises:
        ModelError: The model is unknown, missing, no valid ONNX, or has another hash.
    """
    if str(model) in {_FUSED_NAME, FUSED.name}:
        return _fused(cache_dir, expected_sha256)
    if pretrained := PRETRAINED.get(_SHORT_NAMES.get(str(model), str(model))):
        source = read_verified(pretrained.locate(), expected_sha256 or pretrained.sha256)
        return _converted(pretrained, source, origin=pretrained.name, cache_dir=cache_dir)
    path = [*_imported_manifests(str(model))][-1] if _is_imported(str(model)) else Path(model)
    match path.suffix.lower():
        case ".json":
            package = ModelPackage.load(path)
            if expected_sha256:
                read_verified(package.onnx_path, expected_sha256)
            return package
        case ".onnx" | ".dat" | ".pt":
            return _from_file(path, expected_sha256, cache_dir)
    raise ModelError(
        f"{model}: no such model; give {', '.join([*PRETRAINED, _FUSED_NAME])}, or a .onnx or .json file"
    )


def imported_folder() -> Path:
    """Where the packages of imported models are kept.

    Raises:
        ConfigError: No folder for them can be written.
    """
    return home_folders.writable("models")


def imported_models() -> list[ModelPackage]:
    """The user's own models whose packages can be read, by name."""
    found = []
    manifests = {path.parent.name: path for path in _imported_manifests("*")}
    for manifest in sorted(manifests.values()):
        try:
            found.append(ModelPackage.load(manifest))
        except ModelError:
            continue  # loading it by name says what is wrong
    return found


def load_detector(model: str | Path, *, cache_dir: Path | None = None) -> tuple[ModelPackage, ...]:
    """The packages of a detector, as ``engine.vision.open_detector.open_detector`` takes them.

    Args:
        model: ``mtcnn``, which is made of three networks; or what ``load_model`` takes.
        cache_dir: Where converted models are kept; by default the user's cache folder.

    Raises:
        ModelError: There is no such model, or it is damaged or not installed.
    """
    names = MTCNN_STAGES if str(model) == _MTCNN else (model,)
    return tuple(load_model(name, cache_dir=cache_dir) for name in names)


def _fused(cache_dir: Path | None, expected_sha256: str | None) -> ModelPackage:
    parts = [(load_model(name, cache_dir=cache_dir), weight) for name, weight in FUSED.parts]
    package = fuse(parts, name=FUSED.name, folder=cache_dir, thresholds=FUSED.thresholds)
    if expected_sha256:
        read_verified(package.onnx_path, expected_sha256)
    return package


def _from_file(path: Path, expected_sha256: str | None, cache_dir: Path | None) -> ModelPackage:
    try:
        source = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot read the model file: {exc.strerror}; check the path") from exc
    sha256 = hashlib.sha256(source).hexdigest()
    if expected_sha256:
        source = read_verified(path, expected_sha256)
    for known in PRETRAINED.values():
        if known.sha256 == sha256:
            return _converted(known, source, origin=str(path), cache_dir=cache_dir)
    if path.suffix.lower() != ".onnx":
        files = ", ".join(Path(known.file).name for known in PRETRAINED.values())
        raise ModelError(
            f"{path}: expected one of the published files {files}, got another; give an ONNX file"
        )
    return _from_onnx(path, source, sha256, cache_dir)


def _from_onnx(path: Path, source: bytes, sha256: str, cache_dir: Path | None) -> ModelPackage:
    model = parse_model(source, origin=str(path))
    is_yunet = any(output.name == "cls_8" for output in model.graph.output)
    own = dataclasses.replace(
        YUNET if is_yunet else SFACE,
        name=f"{path.stem}-{sha256[:8]}",
        sha256=sha256,
        licence="unknown",
        provenance=str(path),
        embedding_size=None if is_yunet else _embedding_size(model, path),
        thresholds=(),
    )
    return _converted(own, source, origin=str(path), cache_dir=cache_dir)


def _embedding_size(model: onnx.ModelProto, path: Path) -> int:
    outputs: list[list[int]] = [
        [dim.dim_value for dim in o.type.tensor_type.shape.dim] for o in model.graph.output
    ]
    image = [dim.dim_value for dim in image_input(model).type.tensor_type.shape.dim[2:]]
    if image != list(SFACE.input_size_wh or ()) or [len(o) for o in outputs] != [2] or not outputs[0][1]:
        raise ModelError(
            f"{path}: expected YuNet's outputs, or an image of 112 by 112 pixels and one output (N, D), "
            f"got an image {image} and outputs {outputs}; describe other models in a manifest (.json)"
        )
    return outputs[0][1]


def _converted(
    pretrained: PretrainedModel, source: bytes, *, origin: str, cache_dir: Path | None
) -> ModelPackage:
    return cached_package(
        cache_dir,
        f"{pretrained.name}-{pretrained.sha256[:16]}",
        pretrained.package_fields(),
        lambda: pretrained.to_onnx(source, origin=origin),
    )
