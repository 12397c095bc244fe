from __future__ import annotations

import numpy as np
import pytest

from engine.faces import LANDMARKS, Faces


def some(count: int = 3) -> Faces:
    rng = np.random.default_rng(0)
    return Faces(
        boxes_xyxy=rng.random((count, 4), np.float32),
        scores=rng.random(count, np.float32),
        landmarks_xy=rng.random((count, len(LANDMARKS), 2), np.float32),
    )


def test_none_has_the_right_shapes() -> None:
    nobody = Faces.none()
    assert len(nobody) == 0
    assert (nobody.boxes_xyxy.shape, nobody.landmarks_xy.shape) == ((0, 4), (0, 5, 2))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.array([True, False, True]), [0, 2]),
        (np.array([2, 0]), [2, 0]),
        (slice(1, None), [1, 2]),
        (np.zeros(3, bool), []),
    ],
)
def test_rows_are_picked_from_every_array(rows: object, expected: list[int]) -> None:
    faces = some()
    picked = faces[rows]
    for name in ("boxes_xyxy", "scores", "landmarks_xy"):
        assert (getattr(picked, name) == getattr(faces, name)[expected]).all()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("boxes_xyxy", np.zeros((3, 5), np.float32)),
        ("boxes_xyxy", np.zeros((2, 4), np.float32)),
        ("boxes_xyxy", np.zeros((3, 4), np.float64)),
        ("scores", np.zeros((3, 1), np.float32)),
        ("landmarks_xy", np.zeros((3, 10), np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(name: str, array: np.ndarray) -> None:
    good = some()
    parts = {key: getattr(good, key) for key in ("boxes_xyxy", "scores", "landmarks_xy")}
    with pytest.raises(ValueError, match=f"{name}: expected float32"):
        Faces(**parts | {name: array})


def test_one_row_by_number_is_refused() -> None:
    with pytest.raises((ValueError, TypeError)):
        some()[1]


def test_fields_cannot_be_replaced() -> None:
    with pytest.raises(AttributeError):
        some().scores = np.zeros(3, np.float32)
