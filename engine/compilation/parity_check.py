"""Run the parity gate before an engine may serve: the right comparison for each kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.backends.onnxruntime import OnnxRuntimeEngine
from engine.compilation.source_graphs import reference_graph
from engine.compilation.tolerances import Parity, compare_detectors, compare_outputs
from engine.errors import ModelError
from engine.faces import Image
from engine.models.alignment import align_faces
from engine.models.package import ModelPackage
from engine.protocol import Engine
from engine.vision.yunet import FaceDetector, is_yunet

_USUAL_SIZE_WH: Final = (640, 384)
"""Of the images that a model sees which takes any: a camera's picture, shrunk for the detector."""


def open_reference(package: ModelPackage) -> Engine:
    """ONNX Runtime in fp32 on the model as it is, but for taking uint8 pixels.

    Raises:
        ModelError: The package is damaged.
    """
    return OnnxRuntimeEngine(reference_graph(package), precision="fp32")


def model_inputs(
    package: ModelPackage, images: Sequence[Image], *, detector: FaceDetector
) -> npt.NDArray[np.uint8]:
    """What a model is to see of images with faces.

    Args:
        package: The model.
        images: uint8 (H, W, 3) BGR.
        detector: Finds the faces that an embedder sees, the surest one of each image.

    Returns:
        uint8 (N, H, W, 3): aligned faces for an embedder, whole images of one size for others.

    Raises:
        ModelError: There is no face in any of the images, or a detector failed.
    """
    if package.task != "embedder":
        size_wh = package.input_size_wh or _USUAL_SIZE_WH
        resized = [cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA) for image in images]
        return np.stack(resized).astype(np.uint8)
    crops = [
        align_faces(image, faces[:1].landmarks_xy, package.patches)
        for image, faces in zip(images, detector.detect(images), strict=True)
        if len(faces)
    ]
    if not crops:
        raise ModelError("no face was found in the samples; give a folder of images with faces (--faces)")
    return np.concatenate(crops)


def judge(
    package: ModelPackage,
    candidate: Engine,
    images: Sequence[Image],
    *,
    detector: FaceDetector,
    reference: Engine | None = None,
    precision: str | None = None,
) -> Parity:
    """Compare an engine with its model.

    Args:
        package: The model.
        candidate: An engine that was made of it.
        images: Faces, uint8 (H, W, 3) BGR.
        detector: Finds the faces that an embedder sees, the surest one of each image.
        reference: What to compare with; by default ``open_reference``.
        precision: What the engine is held to; by default what it says that it computes in.

    Raises:
        ModelError: The package is damaged, no face is in the images, or an engine failed.
    """
    exact = reference or open_reference(package)
    try:
        if package.task == "detector" and is_yunet(candidate):
            return compare_detectors(FaceDetector(exact), FaceDetector(candidate), images)
        pixels = model_inputs(package, images, detector=detector)
        return compare_outputs(exact, candidate, pixels, precision=precision or candidate.precision)
    finally:
        if reference is None:
            exact.close()
