"""Make a model package from a user's own ONNX file with stated preprocessing, or say what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from engine.atomic_files import write_atomically
from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.compilation.preprocessing import Preprocessing, check_preprocessing
from engine.compilation.separation import People
from engine.errors import ModelError
from engine.graphs.edits import (
    fold_constants,
    free_shapes,
    image_input,
    parse_model,
    replace_items,
)
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.catalogue import MODEL_NAME, shipped_names
from engine.models.package import ModelPackage, Patch, Point, Threshold

_ARCFACE_SIZE_PX: Final = 112


def scaled_template(size_px: int) -> tuple[Point, ...]:
    """The ArcFace template in a crop of another size.

    Args:
        size_px: Side of the crop.

    Returns:
        Five points, pixels; pixel centres map to pixel centres.
    """
    factor = size_px / _ARCFACE_SIZE_PX
    points = [((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5) for x, y in ARCFACE_TEMPLATE_XY]
    return tuple(points)


def import_embedder(
    path: Path,
    *,
    name: str,
    preprocessing: Preprocessing,
    folder: Path,
    template_xy: tuple[Point, ...] | None = None,
    licence: str = "unknown",
    thresholds: tuple[Threshold, ...] = (),
    harmonic_with: tuple[str, ...] = (),
    replace: bool = False,
    people: Callable[[], People] | None = None,
) -> ModelPackage:
    """Make a model package of an ONNX embedder and keep it under a name.

    The file may take NCHW or NHWC float32 images and give (N, D), or (N, D, 1, 1); a batch of fixed size is
    freed. The model is run once on two different images.

    Args:
        path: The ONNX file.
        name: How to call it: small letters, digits, ``.``, ``_`` and ``-``.
        preprocessing: What the model was trained with.
        folder: Where packages are kept; ``name`` becomes a folder in it.
        template_xy: Where the five landmarks lie in an aligned face; by default the ArcFace template at the
            model's size.
        licence: SPDX name.
        thresholds: See ``ModelPackage``.
        harmonic_with: Name of an older model whose embeddings compare with this one's; None for none.
        replace: Overwrite a package of the same name.
        people: Gives faces on which the preprocessing is proved, once all else is known to be right; None
            takes it as it is stated.

    Raises:
        ModelError: The file is no model, or not one that is understood; the message says why. Or there is a
            model of this name. Or the model does not tell ``people`` apart with this preprocessing; the
            message names one with which it does.
        ValueError: The name or a number makes no sense.
    """
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(f"name: expected small letters, digits, '.', '_' and '-', got {name!r}")
    if name in shipped_names():
        raise ModelError(f"{name}: a model of this name is shipped; give another --name")
    place = folder / name
    if (place / "manifest.json").exists() and not replace:
        raise ModelError(f"{name}: a model of this name is there already; give another --name, or --replace")
    source = _read(path)
    model = understood(source, origin=str(path))
    size_px = _side(model, preprocessing.size_px, path)
    dims = _input_dims(model)
    dims[2].dim_value = dims[3].dim_value = size_px
    data = free_shapes(model, image_size=False).SerializeToString()
    package = ModelPackage(
        name=name,
        task="embedder",
        onnx_path=place / "model.onnx",
        sha256=hashlib.sha256(data).hexdigest(),
        licence=licence,
        provenance=f"imported from {path.name} (SHA-256 {hashlib.sha256(source).hexdigest()})",
        input_size_wh=(size_px, size_px),
        colour_order=preprocessing.colour_order,
        mean=(preprocessing.mean,) * 3,
        scale=preprocessing.scale,
        patches=(Patch(size_px, template_xy or scaled_template(size_px)),),
        embedding_size=_try(data, preprocessing, size_px, path),
        thresholds=thresholds,
        harmonic_with=harmonic_with,
    )
    if people is not None:
        check_preprocessing(package, data, people(), origin=str(path))
    write_atomically(package.onnx_path, data)
    package.save(place / "manifest.json")
    return package


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: cannot read the model file: {exc.strerror}; check the path") from exc


def understood(data: bytes, *, origin: str) -> onnx.ModelProto:
    """Bring an embedder to the form of a package: one float32 NCHW image in, (N, D) out, constants folded.

    Args:
        data: A serialised ONNX model.
        origin: Where it comes from, for the error message.

    Raises:
        ModelError: It is no model, or of another form.
    """
    model = fold_constants(parse_model(_channels_first(data), origin=origin))
    if len(model.graph.output) != 1:
        names = ", ".join(output.name for output in model.graph.output)
        raise ModelError(f"{origin}: expected one output, an embedding, got {names}; export that one alone")
    shape = model.graph.output[0].type.tensor_type.shape.dim
    if len(shape) == 4 and [dim.dim_value for dim in shape[2:]] == [1, 1]:
        _flatten_output(model)
    elif len(shape) != 2:
        raise ModelError(
            f"{origin}: expected an output (N, D), got {len(shape)} dimensions; export the embedding"
        )
    return model


def _channels_first(data: bytes) -> bytes:
    """Put a transposition before a model that takes NHWC, as TensorFlow's do; others stay as they are."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # noqa: BLE001 - the parser says what is wrong with it
        return data
    constants = {tensor.name for tensor in model.graph.initializer}
    images = [each for each in model.graph.input if each.name not in constants]
    if len(images) != 1:
        return data
    image = images[0]
    dims = image.type.tensor_type.shape.dim
    is_float = image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if not is_float or len(dims) != 4 or dims[3].dim_value != 3 or dims[1].dim_value == 3:
        return data
    batch, height, width, _ = (dim.dim_param or dim.dim_value for dim in dims)
    taken = f"{image.name}/nchw"
    transpose = helper.make_node("Transpose", [taken], [image.name], perm=[0, 2, 3, 1])
    first = helper.make_tensor_value_info(taken, onnx.TensorProto.FLOAT, [batch, 3, height, width])
    replace_items(model.graph.node, [transpose, *model.graph.node])
    replace_items(model.graph.input, [first, *(each for each in model.graph.input if each is not image)])
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _flatten_output(model: onnx.ModelProto) -> None:
    output = model.graph.output[0]
    flat = f"{output.name}/flat"
    model.graph.node.append(helper.make_node("Flatten", [output.name], [flat], axis=1))
    size = output.type.tensor_type.shape.dim[1].dim_value or "size"
    replace_items(
        model.graph.output, [helper.make_tensor_value_info(flat, onnx.TensorProto.FLOAT, ["batch", size])]
    )


def _input_dims(model: onnx.ModelProto) -> Any:
    return image_input(model).type.tensor_type.shape.dim


def _side(model: onnx.ModelProto, wanted: int | None, path: Path) -> int:
    height, width = (dim.dim_value for dim in list(_input_dims(model))[2:])
    if height != width:
        raise ModelError(f"{path}: expected a square image, got {width} by {height} pixels")
    if height and wanted and height != wanted:
        raise ModelError(
            f"{path}: the model takes {height} by {height} pixels, not {wanted}; give --size {height}"
        )
    side = height or wanted
    if not side:
        raise ModelError(
            f"{path}: the model takes images of any size; state the one it was trained on (--size)"
        )
    return int(side)


def _try(data: bytes, preprocessing: Preprocessing, size_px: int, path: Path) -> int:
    """Run it on two images; returns the embedding's size."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 3, size_px, size_px)).astype(np.float32)
    prepared = (pixels - np.float32(preprocessing.mean)) * np.float32(preprocessing.scale)
    try:
        engine = OnnxRuntimeEngine(data, precision="fp32")
        (output,) = engine.infer({engine.inputs[0].name: prepared}).values()
    except ModelError as exc:
        raise ModelError(f"{path}: cannot be run on two images at a time: {exc}") from exc
    engine.close()
    if output.ndim != 2 or len(output) != 2:
        raise ModelError(f"{path}: two images gave an output of shape {output.shape}, expected (2, D)")
    if not np.isfinite(output).all():
        raise ModelError(f"{path}: the output holds numbers that are not finite; the weights are damaged")
    if _same(output[0], output[1]):
        raise ModelError(f"{path}: two different images gave the same output; export the trained model")
    return int(output.shape[1])


def _same(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    return bool(np.allclose(a, b, rtol=1e-6, atol=1e-9))
