"""Models and engines so small that tests can make them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from engine.graphs.builder import GraphBuilder
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import ModelPackage, Patch
from engine.protocol import Arrays, Done, TensorSpec

SIZE_PX = 112
EMBEDDING_SIZE = 16

Answer = Literal["faces", "constant", "nan", "cancelling"]


def embedder_onnx(answer: Answer = "faces", *, size_px: int = SIZE_PX, seed: int = 0) -> onnx.ModelProto:
    """An embedder of two convolutions and a matrix product.

    Args:
        answer: What it gives: for ``faces`` something of each its own; for ``cancelling`` the same in fp32,
            but by way of large numbers whose difference bf16 does not see.
        size_px: Side of its image; a multiple of 16.
        seed: Of its weights.
    """
    random = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    graph = GraphBuilder("tiny")
    offset = np.full(8, 3000.0 if answer == "cancelling" else 0.5, np.float32)
    x = graph.node("Conv", "image", weight(8, 3, 8, 8), offset, strides=[8, 8])
    x = graph.node("Relu", x)
    if answer == "cancelling":
        x = graph.node("Sub", x, offset[None, :, None, None])
    x = graph.node("Conv", x, weight(16, 8, 2, 2), weight(16), strides=[2, 2])
    x = graph.node("Flatten", x)
    features = 16 * (size_px // 16) ** 2
    y = graph.node("MatMul", x, weight(EMBEDDING_SIZE, features).T)
    if answer == "constant":
        y = graph.node("Mul", y, np.array(0, np.float32))
        y = graph.node("Add", y, np.ones(EMBEDDING_SIZE, np.float32))
    if answer == "nan":
        y = graph.node("Log", graph.node("Mul", graph.node("Abs", y), np.array(-1, np.float32)))
    graph.node("Identity", y, output="embedding")
    return graph.model(("n", 3, size_px, size_px), {"embedding": ("n", EMBEDDING_SIZE)}, image="image")


def embedder(folder: Path, answer: Answer = "faces", *, name: str = "tiny", seed: int = 0) -> ModelPackage:
    """The package of a small embedder, in a folder."""
    data = embedder_onnx(answer, seed=seed).SerializeToString()
    path = folder / f"{name}-{answer}.onnx"
    path.write_bytes(data)
    package = ModelPackage(
        name=name,
        task="embedder",
        onnx_path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        licence="MIT",
        provenance="made by a test",
        input_size_wh=(SIZE_PX, SIZE_PX),
        colour_order="rgb",
        mean=(127.5, 127.5, 127.5),
        scale=1 / 128,
        patches=(Patch(SIZE_PX, ARCFACE_TEMPLATE_XY),),
        embedding_size=EMBEDDING_SIZE,
    )
    package.save(path.with_suffix(".json"))
    return package


class FunctionEngine:
    """An engine that computes with a function: uint8 (N, H, W, 3) in, arrays out."""

    name = "function"
    inputs = (TensorSpec("pixels", (None, None, None, 3), np.dtype(np.uint8)),)
    outputs = (TensorSpec("y", (None, None), np.dtype(np.float32)),)

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        *,
        max_batch: int | None = None,
        precision: str = "fp32",
    ) -> None:
        self.max_batch = max_batch
        self.precision = precision
        self.batches: list[int] = []
        self.closed = False
        self._function = function

    def infer(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
        self.batches.append(len(feeds["pixels"]))
        return {"y": self._function(feeds["pixels"])}

    def submit(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Done:
        return Done(self.infer(feeds))

    def close(self) -> None:
        self.closed = True
