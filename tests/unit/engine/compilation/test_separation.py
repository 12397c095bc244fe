from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.compilation.parity_check import open_reference
from engine.compilation.sample_faces import portrait_views
from engine.compilation.separation import People, equal_error_rate, people_in, separation, shipped_people
from engine.errors import ModelError
from engine.models.catalogue import load_model
from engine.models.package import Patch
from engine.vision.yunet import FaceDetector

COSINES = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1, 1, width=32))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(open_reference(load_model("yunet")), min_score=0.6)


@given(COSINES, COSINES)
def test_the_error_is_what_the_best_threshold_leaves(like: np.ndarray, unlike: np.ndarray) -> None:
    expected = min(max(float((like < cut).mean()), float((unlike >= cut).mean())) for cut in [*like, *unlike])
    assert equal_error_rate(like, unlike) == pytest.approx(expected)


@given(COSINES)
def test_what_a_threshold_parts_is_without_error(like: np.ndarray) -> None:
    assert equal_error_rate(like, like - 3) == 0
    assert equal_error_rate(like - 3, like) > 0.9


def test_embeddings_of_people_and_of_nobody() -> None:
    person = np.repeat(np.arange(5), 2)
    own = np.eye(8, dtype=np.float32)[person]
    assert separation(own, person).error == 0
    assert (separation(own, person).like, separation(own, person).unlike) == (1, 0)
    same = np.ones((10, 8), np.float32)
    assert separation(same, person).error > 0.9
    own[3, 3] = np.nan
    assert separation(own, person).error == 1


def test_forty_people_are_shipped(detector: FaceDetector) -> None:
    people = shipped_people(detector)
    assert people.count == 40
    assert len(people.images) == 80
    crops = people.crops((Patch(48, tuple((x, x) for x in (10.0, 20.0, 15.0, 10.0, 20.0))),))
    assert crops.shape == (80, 48, 48, 3)
    assert len(np.unique(people.landmarks_xy, axis=0)) == 80, "each view is another"


def test_people_of_a_folder(detector: FaceDetector, portrait: np.ndarray, tmp_path: Path) -> None:
    views = portrait_views(portrait)[::8]
    for number, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for view in range(2):
            cv2.imwrite(str(tmp_path / name / f"{view}.png"), views[2 * number + view])
    (tmp_path / "alone").mkdir()
    cv2.imwrite(str(tmp_path / "alone" / "1.png"), views[4])
    people = people_in(tmp_path, detector)
    assert people is not None
    assert people.person.tolist() == [0, 0, 1, 1]
    assert people_in(tmp_path / "a", detector) is None
    with pytest.raises(ModelError, match="no such folder"):
        people_in(tmp_path / "nowhere", detector)


def test_nobody_to_compare_is_no_people() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="two people or more, and two pictures of one"):
        People([picture] * 2, np.zeros((2, 5, 2), np.float32), np.array([0, 1]))
    with pytest.raises(ValueError, match="as many landmarks"):
        People([picture], np.zeros((2, 5, 2), np.float32), np.array([0, 1]))
