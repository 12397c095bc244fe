"""A detector and an embedder of a few lines each, for tests of what stands around them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine.faces import Faces, Image
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import Patch
from engine.protocol import Arrays, Done, TensorSpec
from engine.vision.embedder import FaceEmbedder

SIDE = 24


class OneFace:
    """Finds the face of the portrait in every image."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        box = np.array([[165, 55, 285, 205]], np.float32)
        points = np.array([[[202, 104], [245, 104], [226, 130], [206, 150], [242, 150]]], np.float32)
        return [Faces(box, np.array([0.9], np.float32), points) for _ in images]


class Small:
    """Embeds a face as itself, small and without its mean."""

    name, precision, max_batch = "numpy", "fp32", None
    inputs = (TensorSpec("pixels", (None, 112, 112, 3), np.dtype(np.uint8)),)
    outputs = (TensorSpec("embedding", (None, SIDE * SIDE), np.dtype(np.float32)),)

    def infer(self, inputs: Arrays) -> Arrays:
        small = [cv2.resize(crop[..., 1], (SIDE, SIDE)).ravel() for crop in inputs["pixels"]]
        rows = np.array(small, np.float32)
        return {"embedding": rows - rows.mean(axis=1, keepdims=True)}

    def submit(self, inputs: Arrays) -> Done:
        return Done(self.infer(inputs))

    def close(self) -> None:
        pass


def small_embedder() -> FaceEmbedder:
    """The embedder on that engine."""
    return FaceEmbedder(Small(), model="small", patches=[Patch(112, ARCFACE_TEMPLATE_XY)])
