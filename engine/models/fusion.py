"""Several embedders as one: each looks at its own view of the face, and their cosines are averaged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import compose, version_converter

from engine.errors import ModelError
from engine.graphs.builder import OPSET, GraphBuilder
from engine.graphs.edits import image_input, parse_model
from engine.models.cache import cached_package
from engine.models.package import ModelPackage, Threshold, canvas_wh

_CANVAS: Final = "canvas"
_EMBEDDING: Final = "embedding"
_SHORTEST: Final = 1e-6
"""Vectors shorter than this are not brought to unit length."""


def fuse(
    parts: Sequence[tuple[ModelPackage, float]],
    *,
    name: str,
    folder: Path | None,
    thresholds: tuple[Threshold, ...] = (),
) -> ModelPackage:
    """Make one embedder of several.

    Its image is the views of all parts side by side, RGB; each network runs on its own. The dot product of
    two fused unit vectors is the weighted mean of the parts' cosines.

    Args:
        parts: Embedders, each with the weight of its cosine, above 0; only their ratios matter.
        name: Of the new package.
        folder: Where it is kept, None for the cache; what is there already is taken.
        thresholds: Of the new package.

    Raises:
        ValueError: There is no part, one is no embedder, or a weight is not above 0.
        ModelError: A part's file is damaged, or the folder cannot be written.
    """
    _check(parts)
    patches = tuple(patch for package, _ in parts for patch in package.patches)
    fields: dict[str, Any] = {
        "name": name,
        "task": "embedder",
        "licence": " AND ".join(dict.fromkeys(package.licence for package, _ in parts)),
        "provenance": "; ".join(f"{weight:g} x {package.provenance}" for package, weight in parts),
        "input_size_wh": canvas_wh(patches),
        "colour_order": "rgb",
        "patches": patches,
        "embedding_size": sum(package.embedding_size or 0 for package, _ in parts),
        "thresholds": thresholds,
    }
    made_from = [(p.sha256, p.colour_order, p.mean, p.scale, weight) for p, weight in parts]
    digest = hashlib.sha256(repr(made_from).encode()).hexdigest()
    return cached_package(folder, f"{name}-{digest[:16]}", fields, lambda: fused_onnx(parts))


def fused_onnx(parts: Sequence[tuple[ModelPackage, float]]) -> onnx.ModelProto:
    """The graph of ``fuse``: slices, preprocesses and runs each part, and joins what they give.

    Args:
        parts: Embedders with their weights, above 0; at least one.

    Returns:
        ``canvas`` (N, 3, H, W), RGB, 0..255, as wide as all views and as high as the highest; gives
        ``embedding`` (N, D): the parts' vectors brought to unit length, times the root of their weight's
        share, one after the other.

    Raises:
        ValueError: There is no part, one is not an embedder, or a weight is not above 0.
        ModelError: A part's file is damaged, or no model of one image and one output.
    """
    _check(parts)
    models = [_read(package) for package, _ in parts]
    opset = max([OPSET, *(_opset(model) for model in models)])
    graph = GraphBuilder("fused", opset=opset)
    total = sum(weight for _, weight in parts)
    weighted: list[str] = []
    left = 0
    for number, ((package, weight), model) in enumerate(zip(parts, models, strict=True)):
        image = _preprocess(graph, package, left)
        vector = _include(graph, _raise_opset(model, opset, package), image, f"part{number}/")
        weighted.append(_weigh(graph, vector, math.sqrt(weight / total)))
        left += canvas_wh(package.patches)[0]
    graph.node("Concat", *weighted, output=_EMBEDDING, axis=1)
    width, height = canvas_wh([patch for package, _ in parts for patch in package.patches])
    size = sum(package.embedding_size or 0 for package, _ in parts)
    return graph.model(("batch", 3, height, width), {_EMBEDDING: ("batch", size)}, image=_CANVAS)


def _check(parts: Sequence[tuple[ModelPackage, float]]) -> None:
    if not parts:
        raise ValueError("parts: expected at least one embedder, got none")
    for package, weight in parts:
        if package.task != "embedder":
            raise ValueError(f"{package.name}: expected an embedder, got a {package.task}")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"{package.name}: expected a weight above 0, got {weight}")


def _read(package: ModelPackage) -> onnx.ModelProto:
    model = parse_model(package.read(), origin=str(package.onnx_path))
    if len(model.graph.output) != 1:
        found = [output.name for output in model.graph.output]
        raise ModelError(f"{package.name}: expected one output, got {found}; export the model that way")
    return model


def _opset(model: onnx.ModelProto) -> int:
    return max((int(opset.version) for opset in model.opset_import if not opset.domain), default=1)


def _raise_opset(model: onnx.ModelProto, opset: int, package: ModelPackage) -> onnx.ModelProto:
    """A graph has one opset, so the older part is converted to the newer part's."""
    if _opset(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as exc:
        reason = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
        raise ModelError(
            f"{package.name}: its opset {_opset(model)} cannot be raised to {opset} ({reason}); "
            f"export the model in opset {opset}"
        ) from exc


def _preprocess(graph: GraphBuilder, package: ModelPackage, left: int) -> str:
    """Cut the part's image out of the canvas, as that part was trained to see it."""
    width, height = canvas_wh(package.patches)
    starts, ends, axes = (np.array(v, np.int64) for v in ((0, left), (height, left + width), (2, 3)))
    x = graph.node("Slice", _CANVAS, starts, ends, axes)
    if package.colour_order == "bgr":
        x = graph.node("Gather", x, np.array([2, 1, 0], np.int64), axis=1)
    if any(package.mean):
        x = graph.node("Sub", x, np.array(package.mean, np.float32).reshape(1, 3, 1, 1))
    if package.scale != 1:
        x = graph.node("Mul", x, np.array(package.scale, np.float32))
    return x


def _include(graph: GraphBuilder, model: onnx.ModelProto, image: str, prefix: str) -> str:
    """Take a part's nodes in under new names; its input is ``image``.

    Returns:
        The name of its output.
    """
    named = compose.add_prefix_graph(model.graph, prefix)
    own_image = prefix + image_input(model).name
    for node in named.node:
        node.input[:] = [image if name == own_image else name for name in node.input]
    graph.include(named)
    return str(named.output[0].name)


def _weigh(graph: GraphBuilder, vector: str, factor: float) -> str:
    """Bring to unit length, then multiply."""
    squared = graph.node("ReduceSum", graph.node("Mul", vector, vector), np.array([1], np.int64), keepdims=1)
    length = graph.node("Max", graph.node("Sqrt", squared), np.array(_SHORTEST, np.float32))
    return graph.node("Mul", graph.node("Div", vector, length), np.array(factor, np.float32))
