from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import DatasetError, ModelError
from engine.faces import Faces
from engine.models.alignment import align_faces
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.opening.select import open_engine
from engine.vision.embedder import FaceEmbedder
from engine.vision.yunet import FaceDetector
from training.data.face_crops import FaceCrops, faces_of, nearest_to, read_image
from training.data.lfw_files import locate_lfw, read_lfw_pairs
from training.data.pairs import ImagePairs
from training.evaluation.precision_cost import (
    compare,
    compare_on_lfw,
    embed_crops,
    score_pairs,
    verification_accuracy,
)

PEOPLE, SHOTS = 8, 3


@pytest.fixture(scope="module")
def sface() -> ModelPackage:
    return load_model("sface")


@pytest.fixture(scope="module")
def reference(sface: ModelPackage) -> FaceEmbedder:
    return FaceEmbedder.from_package(sface, open_engine(sface, kind="onnxruntime", precision="fp32"))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(open_engine(load_model("yunet"), kind="onnxruntime"))


def photograph(portrait: np.ndarray, person: int, shot: int) -> np.ndarray:
    """The portrait with the features of another person, who looks into a camera; uint8 (250, 250, 3)."""
    own = np.random.default_rng(person)
    y, x = np.mgrid[:512, :512].astype(np.float32)
    height, phase, pitch = (
        own.uniform(-5, 5, (2, 3)),
        own.uniform(0, 6, (2, 3)),
        own.uniform(0.03, 0.09, (2, 3)),
    )
    dx, dy = (
        (height[k] * np.sin(pitch[k] * along[..., None] + phase[k])).sum(axis=2, dtype=np.float32)
        for k, along in enumerate((y, x))
    )
    image = cv2.remap(portrait, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = np.clip(image * own.uniform(0.6, 1.4, 3), 0, 255).astype(np.uint8)
    now = np.random.default_rng([person, shot])
    matrix = cv2.getRotationMatrix2D((224, 130), now.uniform(-10, 10), now.uniform(0.8, 0.95))
    matrix[:, 2] += 125 - np.array([224, 130])
    return cv2.warpAffine(image, matrix, (250, 250), borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def lfw(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set in LFW's layout, and its list: 2 sets of 12 genuine and 12 impostor pairs."""
    root = tmp_path_factory.mktemp("lfw")
    names = [f"Person_{chr(65 + k)}" for k in range(PEOPLE)]
    for person, name in enumerate(names):
        (root / name).mkdir()
        for shot in range(1, SHOTS + 1):
            path = root / name / f"{name}_{shot:04d}.jpg"
            cv2.imwrite(str(path), photograph(portrait, person, shot), [cv2.IMWRITE_JPEG_QUALITY, 95])
    lines = ["2\t12"]
    for group in (names[:4], names[4:]):
        lines += [f"{name}\t{i}\t{j}" for name in group for i, j in ((1, 2), (1, 3), (2, 3))]
        others = [(a, b) for i, a in enumerate(group) for b in group[i + 1 :]]
        lines += [f"{a}\t{shot}\t{b}\t{shot}" for a, b in others for shot in (1, 2)]
    pairs = root / "pairs.txt"
    pairs.write_text("\n".join([*lines, ""]))
    return root, pairs


@pytest.fixture(scope="module")
def images(lfw: tuple[Path, Path]) -> ImagePairs:
    root, pairs = lfw
    return locate_lfw(read_lfw_pairs(pairs), root)


@pytest.fixture(scope="module")
def faces(images: ImagePairs, detector: FaceDetector, reference: FaceEmbedder) -> FaceCrops:
    return faces_of(images.paths, detector, reference.align)


class Counting:
    """A detector that counts the images that it is shown."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self.images = 0

    def detect(self, images: list[np.ndarray]) -> list[Faces]:
        self.images += len(images)
        return self._detector.detect(images)


def test_engines_are_compared_on_the_same_faces(
    lfw: tuple[Path, Path], sface: ModelPackage, reference: FaceEmbedder, detector: FaceDetector
) -> None:
    root, pairs = lfw
    # Another model: the same network, which sees blue as red.
    swapped = ModelPackage(**{f: getattr(sface, f) for f in sface.__slots__} | {"colour_order": "bgr"})
    candidates = {
        "openvino auto": FaceEmbedder.from_package(sface, open_engine(sface, kind="openvino")),
        "swapped": FaceEmbedder.from_package(sface, open_engine(swapped, kind="onnxruntime")),
    }
    counting, told = Counting(detector), []
    own, same, other = compare_on_lfw(
        root,
        pairs,
        reference,
        candidates,
        counting,
        reference_name="fp32",
        on_progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    count = PEOPLE * SHOTS
    assert counting.images == count
    assert told == [(stage, count, count) for stage in ("faces", "fp32", "openvino auto", "swapped")]

    assert (own.name, own.pairs, own.pairs_without_face) == ("fp32", 48, 0)
    assert (own.difference_points, own.p_value) == (0, 1)
    assert own.least_cosine == pytest.approx(1, abs=1e-6)
    assert own.accuracy >= 0.8
    assert own.val is None, "24 impostor pairs support no false accept rate of 1e-3"
    assert own.seconds > 0

    assert same.name == "openvino auto"
    assert 0.99 < same.least_cosine <= same.mean_cosine < 1.000001
    assert same.difference_points == pytest.approx(100 * (same.accuracy - own.accuracy))
    assert abs(same.difference_points) <= 100 * 2 / 48

    json.dumps([asdict(each) for each in (own, same, other)], allow_nan=False)
    assert other.least_cosine < 0.98
    assert other.mean_cosine < 0.99


def test_a_useless_embedder_is_found_out(
    images: ImagePairs, faces: FaceCrops, reference: FaceEmbedder
) -> None:
    class Noise:
        model, embedding_size = "noise", 128

        def embed(self, crops: np.ndarray) -> np.ndarray:
            random = np.random.default_rng(0).normal(size=(len(crops), 128)).astype(np.float32)
            return random / np.linalg.norm(random, axis=1, keepdims=True)

    good = verification_accuracy(reference, faces, images)
    bad = compare("noise", verification_accuracy(Noise(), faces, images), good)
    assert bad.accuracy < 0.7
    assert bad.difference_points < -10
    assert bad.p_value < 0.05
    assert abs(bad.mean_cosine) < 0.1


def test_embeddings_that_are_no_numbers_are_refused(faces: FaceCrops) -> None:
    class Broken:
        model, embedding_size = "broken", 4

        def embed(self, crops: np.ndarray) -> np.ndarray:
            embeddings = np.full((len(crops), 4), 0.5, np.float32)
            embeddings[1] = np.nan
            return embeddings

    with pytest.raises(ModelError, match=r"broken: 1 of 24 embeddings are not finite"):
        embed_crops(Broken(), faces)


def test_candidates_of_another_model_are_refused(
    lfw: tuple[Path, Path], reference: FaceEmbedder, detector: FaceDetector
) -> None:
    class Other:
        crop_shape, embedding_size = (150, 150, 3), 128

    with pytest.raises(ValueError, match=r"other: expected crops and embeddings of \(\(112, 112, 3\), 128\)"):
        compare_on_lfw(*lfw, reference, {"other": Other()}, detector)


def test_a_benchmark_without_faces_is_refused(lfw: tuple[Path, Path], reference: FaceEmbedder) -> None:
    class Blind:
        def detect(self, images: list[np.ndarray]) -> list[Faces]:
            return [Faces.none() for _ in images]

    with pytest.raises(DatasetError, match="no face was found in any of 24 images"):
        compare_on_lfw(*lfw, reference, {}, Blind())


def test_images_without_a_face_are_counted_and_never_accepted(
    images: ImagePairs, faces: FaceCrops, reference: FaceEmbedder, detector: FaceDetector, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.jpg"
    cv2.imwrite(str(blank), np.full((250, 250, 3), 90, np.uint8))
    paths = (blank, *images.paths[1:])
    crops = faces_of(paths, detector, reference.align)
    assert crops.found.tolist() == [False] + [True] * (len(paths) - 1)
    assert not crops.crops[0].any()
    np.testing.assert_array_equal(crops.crops[1:], faces.crops[1:])

    embeddings = embed_crops(reference, crops)
    assert not embeddings[0].any()
    touched = (images.first == 0) | (images.second == 0)
    similarities = score_pairs(embeddings, crops, images).similarities
    assert (similarities[touched] == -1).all()
    assert (similarities[~touched] > -1).all()
    result = verification_accuracy(reference, crops, images)
    assert result.pairs_without_face == touched.sum() > 0
    assert (result.accuracy.correct[touched] == ~images.same[touched]).all()


def test_crops_do_not_depend_on_who_else_is_in_the_batch(
    images: ImagePairs, faces: FaceCrops, detector: FaceDetector, sface: ModelPackage
) -> None:
    align = partial(align_faces, patches=sface.patches)
    alone = faces_of(images.paths[5:6], detector, align)
    assert np.abs(alone.crops[0].astype(int) - faces.crops[5]).max() <= 2
    told = []
    many = faces_of(
        images.paths[:1] * 40, detector, align, on_progress=lambda done, total: told.append((done, total))
    )
    assert len(many) == 40
    assert told == [(32, 40), (40, 40)]
    nobody = faces_of([], detector, align)
    assert nobody.crops.shape == (0, 112, 112, 3)


def test_the_face_nearest_to_the_centre_is_taken() -> None:
    boxes = np.array([[0, 0, 40, 40], [100, 90, 160, 150], [120, 0, 130, 10]], np.float32)
    found = Faces(boxes, np.array([0.9, 0.4, 0.8], np.float32), np.zeros((3, 5, 2), np.float32))
    assert nearest_to(found, 125, 125) == 1
    assert nearest_to(found, 0, 0) == 0
    assert nearest_to(found, 250, 0) == 2


def test_a_larger_face_aside_is_left(
    portrait: np.ndarray, detector: FaceDetector, reference: FaceEmbedder, tmp_path: Path
) -> None:
    picture = np.full((500, 500, 3), 60, np.uint8)
    picture[:300, :300] = cv2.resize(portrait, (300, 300), interpolation=cv2.INTER_AREA)
    picture[200:400, 150:350] = cv2.resize(portrait[:, ::-1], (200, 200), interpolation=cv2.INTER_AREA)
    path = tmp_path / "two.png"
    cv2.imwrite(str(path), picture)
    (found,) = detector.detect([picture])
    assert len(found) == 2
    (crop,) = faces_of([path], detector, reference.align).crops
    small = found[found.boxes_xyxy[:, 1] > 150]
    assert len(small) == 1
    np.testing.assert_array_equal(crop, reference.align(picture, small.landmarks_xy)[0])


def test_damaged_images_are_named(images: ImagePairs, tmp_path: Path) -> None:
    whole = images.paths[0].read_bytes()
    path = tmp_path / "face.jpg"
    for data, message in [
        (whole[:-2000], r"face\.jpg: it is cut off after [\d,]+ bytes \(JPEG\)"),
        (b"", r"face\.jpg: it is empty \(0 bytes\)"),
        (b"<html>not found</html>", "it is a web page, expected a picture"),
        (whole[:2] + b"\xff\xd9", "it is damaged"),
    ]:
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=message):
            read_image(path)
    path.write_bytes(whole + b"\n appended")
    assert read_image(path).shape == (250, 250, 3)
    with pytest.raises(DatasetError, match="cannot read the image: No such file"):
        read_image(tmp_path / "none.jpg")


def test_crops_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="crops: expected uint8"):
        FaceCrops(np.zeros((2, 4, 4), np.uint8), np.ones(2, bool))
    with pytest.raises(ValueError, match="found: expected bool"):
        FaceCrops(np.zeros((2, 4, 4, 3), np.uint8), np.ones(3, bool))


def test_scores_are_of_the_images_of_the_pairs(images: ImagePairs, faces: FaceCrops) -> None:
    with pytest.raises(ValueError, match="as many embeddings and crops as images"):
        score_pairs(np.zeros((3, 128), np.float32), faces, images)


@pytest.mark.faces
def test_sface_on_lfw(face_data: Path, sface: ModelPackage) -> None:
    embedder = FaceEmbedder.from_package(sface, open_engine(sface, kind="openvino"))
    detector = FaceDetector(open_engine(load_model("yunet")))
    pairs = face_data / "lfw_pairs_subset.csv"
    (result,) = compare_on_lfw(face_data / "lfw", pairs, embedder, {}, detector)
    assert result.pairs == 2655
    assert result.pairs_without_face == 0
    assert result.accuracy >= 0.992
    assert result.val >= 0.985
