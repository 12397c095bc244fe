from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from people import vector

from engine.errors import PictureError
from engine.faces import Faces
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import Threshold
from engine.vision.face_finder import FaceFinder, FoundFaces, meaning_of, subject

IMAGE = np.zeros((400, 600, 3), np.uint8)
SFACE = (Threshold(0.36, far=1e-3), Threshold(0.416, far=1e-4))


def faces_at(*places: tuple[float, float, float]) -> Faces:
    """Faces by centre and side."""
    boxes = np.float32([[x - side / 2, y - side / 2, x + side / 2, y + side / 2] for x, y, side in places])
    landmarks = np.stack([np.array(ARCFACE_TEMPLATE_XY) * side / 112 for *_, side in places])
    return Faces(boxes, np.full(len(places), 0.9, np.float32), landmarks.astype(np.float32))


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        ([(50, 50, 40)], 0),
        ([(300, 200, 100), (500, 200, 55)], 0),  # less than 0.6 times as large, wherever it is
        ([(500, 200, 100), (300, 200, 55)], 0),
        ([(500, 200, 69), (310, 200, 100)], 1),  # half the area, and further from the middle
        ([(60, 60, 60), (300, 200, 100), (550, 350, 65)], 1),
        ([(580, 200, 85), (310, 200, 100)], 1),  # cut by the edge, smaller, and further from the middle
    ],
)
def test_the_clear_subject_of_a_photograph(places, chosen: int) -> None:
    assert subject(faces_at(*places), IMAGE) == chosen


@pytest.mark.parametrize(
    ("places", "count"),
    [
        ([(300, 200, 100), (500, 200, 90)], 2),  # too much alike
        ([(500, 200, 100), (300, 200, 65)], 2),  # smaller, but nearer to the middle
        ([(300, 200, 100), (500, 200, 90), (100, 200, 20)], 2),
        ([(300, 200, 100), (590, 200, 95)], 2),  # cut by the edge, but as large
        ([(20, 200, 100), (590, 200, 85)], 2),  # both are cut
        ([(200, 200, 100), (400, 200, 100), (300, 200, 100)], 3),
    ],
)
def test_without_a_clear_subject_one_is_to_be_named(places, count: int) -> None:
    with pytest.raises(PictureError, match=f"shows {count} faces; .*--pick"):
        subject(faces_at(*places), IMAGE)
    assert subject(faces_at(*places), IMAGE, pick="largest") == 0


def test_the_one_in_the_middle_may_be_meant() -> None:
    assert subject(faces_at((100, 100, 100), (310, 190, 20)), IMAGE, pick="centre") == 1


def test_no_face_is_said() -> None:
    with pytest.raises(PictureError, match="no face was found"):
        subject(Faces.none(), IMAGE)


@pytest.mark.parametrize(
    ("similarity", "rate", "words"),
    [
        (0.9, 1e-4, "very likely the same person (1 in 10,000 pairs"),
        (0.416, 1e-4, "very likely"),
        (0.41, 1e-3, "likely the same person (1 in 1,000 pairs of different people is as alike)"),
        (0.35, None, "different people, as far as this shows (one person: 0.36 or more)"),
        (-0.2, None, "different people"),
    ],
)
def test_a_similarity_has_a_meaning(similarity: float, rate: float | None, words: str) -> None:
    found, meaning = meaning_of(similarity, SFACE)
    assert found == rate
    assert meaning.startswith(words)


def test_a_model_may_not_know_what_a_similarity_means() -> None:
    assert meaning_of(0.9, ()) == (None, "not known: the model has no thresholds")
    assert meaning_of(0.9, (Threshold(0.5),))[1].endswith("threshold of 0.5, rate not measured")
    assert meaning_of(0.9, (Threshold(0.5, far=0.0),)) == (
        0.0,
        "very likely the same person (no pair of different people is as alike)",
    )
    assert meaning_of(0.9, (Threshold(0.5, far=0.05),))[1].startswith("possibly")


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_more_alike_is_never_less_sure(one: float, other: float) -> None:
    rates = [meaning_of(each, SFACE)[0] or 1.0 for each in sorted((one, other))]
    assert rates[0] >= rates[1]


class Detector:
    def __init__(self, faces: Faces) -> None:
        self._faces = faces

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        return [self._faces for _ in images]


class Embedder:
    """Embeds crops in their order."""

    def align(self, _image: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 255, (len(landmarks_xy), 112, 112, 3), np.uint8)

    def portraits(self, crops: np.ndarray) -> np.ndarray:
        return crops

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.array([vector(seed) for seed in range(len(crops))], np.float32).reshape(-1, 128)


def test_faces_come_with_quality_and_embedding_the_largest_first() -> None:
    found = FaceFinder(Detector(faces_at((100, 100, 60), (300, 200, 100))), Embedder()).find(IMAGE)
    assert len(found) == 2
    assert found.faces.boxes_xyxy[0].tolist() == [250, 150, 350, 250]
    assert found.qualities.shape == (2,)
    assert (found.qualities > 0.5).all()
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)


def test_faces_that_the_detector_is_not_sure_of_are_left_out() -> None:
    faces = faces_at((100, 100, 60), (300, 200, 100))
    unsure = Faces(faces.boxes_xyxy, np.float32([0.9, 0.5]), faces.landmarks_xy)
    assert len(FaceFinder(Detector(unsure), Embedder()).find(IMAGE)) == 1
    assert not len(FaceFinder(Detector(Faces.none()), Embedder()).find(IMAGE))


def test_two_images_are_compared() -> None:
    finder = FaceFinder(Detector(faces_at((300, 200, 100))), Embedder(), thresholds=SFACE)
    result = finder.compare(IMAGE, IMAGE)
    assert result.similarity == pytest.approx(1, abs=1e-5)
    assert result.false_accept_rate == 1e-4
    assert result.meaning.startswith("very likely the same person")
    assert min(result.qualities) > 0.5
    nobody = FaceFinder(Detector(Faces.none()), Embedder()).find(IMAGE)
    with pytest.raises(ValueError, match="expected a face or more of each image, got 1 and 0"):
        finder.compared(finder.find(IMAGE), nobody)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="of 1 faces"):
        FoundFaces(faces_at((1, 1, 1)), np.zeros(2, np.float32), np.zeros((1, 4), np.float32))
