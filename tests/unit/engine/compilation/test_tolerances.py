from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import FunctionEngine

from engine.compilation.tolerances import (
    LEAST_COSINE,
    Parity,
    compare_detectors,
    compare_outputs,
    match_faces,
    run_flat,
)
from engine.faces import Faces, Image
from engine.geometry import iou

WEIGHT = np.random.default_rng(0).normal(size=(48, 8))
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), np.uint8)


def embed(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.reshape(len(pixels), -1) - 127.5) @ WEIGHT).astype(np.float32)


def noisy(share: float) -> FunctionEngine:
    """Adds noise as long as a share of the vector, at right angles to it."""

    def function(pixels: np.ndarray) -> np.ndarray:
        exact = embed(pixels)
        noise = np.roll(exact, 1, axis=1)
        length = (exact * exact).sum(axis=1, keepdims=True)
        noise -= (noise * exact).sum(axis=1, keepdims=True) / length * exact
        noise *= np.sqrt(length) / np.linalg.norm(noise, axis=1, keepdims=True)
        return exact + np.float32(share) * noise

    return FunctionEngine(function)


EXACT = FunctionEngine(embed)


@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_the_same_numbers_pass(precision: str) -> None:
    parity = compare_outputs(EXACT, FunctionEngine(embed), PIXELS, precision=precision)
    assert parity.passed
    assert parity.samples == 6
    assert parity.least_cosine == pytest.approx(1)
    assert parity.mean_cosine == pytest.approx(1)
    assert str(parity) == "6 samples; cosine at least 1.00000, 1.00000 on average"


@pytest.mark.parametrize(
    ("share", "passing"),
    [
        (0.01, {"fp32", "fp16", "bf16", "int8"}),
        (0.03, {"fp16", "bf16", "int8"}),
        (0.08, {"int8"}),
        (0.2, set()),
    ],
)
def test_each_precision_has_its_limit(share: float, passing: set[str]) -> None:
    cosine = 1 / np.sqrt(1 + share**2)
    for precision, limit in LEAST_COSINE.items():
        parity = compare_outputs(EXACT, noisy(share), PIXELS, precision=precision)
        assert parity.least_cosine == pytest.approx(cosine, abs=1e-5)
        assert parity.passed == (precision in passing)
        if not parity.passed:
            assert parity.failures == (f"cosine to the reference is {cosine:.5f}, {precision} needs {limit}",)


def test_one_bad_sample_is_enough() -> None:
    def function(pixels: np.ndarray) -> np.ndarray:
        vectors = embed(pixels)
        vectors[(pixels == PIXELS[4]).all(axis=(1, 2, 3))] *= -1
        return vectors

    parity = compare_outputs(EXACT, FunctionEngine(function), PIXELS, precision="int8")
    assert not parity.passed
    assert parity.least_cosine == pytest.approx(-1)
    assert parity.mean_cosine == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("function", "failure"),
    [
        (lambda p: np.full((len(p), 8), np.nan, np.float32), "100.0% of the numbers are not finite"),
        (lambda p: embed(p) * np.where(np.arange(8) == 3, np.inf, 1), "12.5% of the numbers are not finite"),
        (lambda p: np.zeros((len(p), 8), np.float32), "an output is all zero"),
        (lambda p: np.ones((len(p), 8), np.float32), "the output is the same whatever the input"),
        (lambda p: np.outer(np.arange(1, len(p) + 1), np.arange(1, 9)), "the same whatever the input"),
    ],
    ids=["nan", "inf", "zero", "constant", "constant but for the length"],
)
def test_outputs_that_make_no_sense(function: object, failure: str) -> None:
    broken = FunctionEngine(function)
    parity = compare_outputs(EXACT, broken, PIXELS, precision="int8")
    assert not parity.passed
    assert failure in parity.failures[0]
    assert np.isfinite([parity.least_cosine, parity.mean_cosine]).all(), "the record is plain JSON"
    # the reference may be as odd: what it gives to all inputs is no proof
    assert not compare_outputs(broken, broken, PIXELS, precision="int8").passed


def test_a_single_sample_is_compared_with_noise() -> None:
    constant = FunctionEngine(lambda p: np.repeat(embed(PIXELS[:1]), len(p), axis=0))
    assert not compare_outputs(EXACT, constant, PIXELS[:1], precision="fp32").passed
    assert compare_outputs(EXACT, EXACT, PIXELS[:1], precision="fp32").passed


@pytest.mark.parametrize(("most", "batches"), [(None, [4, 2]), (1, [1] * 6), (3, [3, 3]), (64, [4, 2])])
def test_networks_run_in_batches_that_they_take(most: int | None, batches: list[int]) -> None:
    engine = FunctionEngine(embed, max_batch=most)
    assert run_flat(engine, PIXELS) == pytest.approx(embed(PIXELS), rel=1e-6)
    assert engine.batches == batches


class Finder:
    """A detector that finds what it is told."""

    def __init__(self, *found: Faces) -> None:
        self._found = found

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        assert len(images) == len(self._found)
        return list(self._found)


def faces(*boxes: tuple[float, float, float, float], scores: Sequence[float] | None = None) -> Faces:
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * len(boxes), np.float32),
        np.zeros((len(boxes), 5, 2), np.float32),
    )


IMAGES = [np.zeros((100, 100, 3), np.uint8)] * 2
TWO = faces((0, 0, 40, 40), (50, 50, 90, 90))


def compared(exact: Faces, got: Faces) -> Parity:
    return compare_detectors(Finder(TWO, exact), Finder(TWO, got), IMAGES)


def test_detectors_that_find_the_same_pass() -> None:
    moved = faces((50.5, 50, 90, 90), (0, 0, 40, 40.75))
    parity = compared(TWO, moved)
    assert parity.passed
    assert parity.most_box_error_px == pytest.approx(0.75)
    assert str(parity) == "2 samples; boxes within 0.75 px"


@pytest.mark.parametrize(
    ("exact", "got", "failure"),
    [
        (TWO, TWO[:1], "image 1: 1 faces that only one of the two finds"),
        (TWO[:1], TWO, "image 1: 1 faces that only one of the two finds"),
        (TWO, Faces.none(), "image 1: 2 faces that only one"),
        (TWO, faces((0, 0, 41.5, 40), (50, 50, 90, 90)), "a box is 1.50 px off, at most 1 px is allowed"),
        (TWO, faces((0, 0, np.nan, 40), (50, 50, 90, 90)), "image 1: numbers that are not finite"),
    ],
)
def test_detectors_that_differ(exact: Faces, got: Faces, failure: str) -> None:
    parity = compared(exact, got)
    assert not parity.passed
    assert failure in parity.failures[0]


def test_faces_that_nobody_is_sure_of_may_be_missed() -> None:
    doubtful = faces((0, 0, 40, 40), (50, 50, 90, 90), scores=[0.9, 0.59])
    assert compared(doubtful, TWO[:1]).passed
    assert compared(TWO, doubtful).passed, "it is found, though with less confidence"


def test_no_face_at_all_proves_nothing() -> None:
    none = Finder(Faces.none(), Faces.none())
    parity = compare_detectors(none, none, IMAGES)
    assert parity.failures == ("no face was found in the samples, so nothing was compared",)


boxes = st.lists(
    st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 30)] * 2, st.sampled_from([0.3, 0.6, 0.9])),
    max_size=6,
)


@given(boxes, boxes)
def test_matching_is_mutual_nearest(exact: list[tuple[float, ...]], got: list[tuple[float, ...]]) -> None:
    a, b = (
        faces(*[(x, y, x + w, y + h) for x, y, w, h, _ in each], scores=[s for *_, s in each])
        for each in (exact, got)
    )
    pairs, lonely = match_faces(a, b)
    overlaps = iou(a.boxes_xyxy, b.boxes_xyxy)
    expected = []
    for row in range(len(a)):
        for column in range(len(b)):
            # where several are equally near, the first counts
            nearest = max(range(len(b)), key=lambda other: (overlaps[row, other], -other))
            back = max(range(len(a)), key=lambda other: (overlaps[other, column], -other))
            if (nearest, back) == (column, row) and overlaps[row, column] >= 0.5:
                expected.append((row, column))
    assert pairs.tolist() == [list(pair) for pair in expected]
    alone = [row for row in range(len(a)) if row not in {r for r, _ in expected} and a.scores[row] >= 0.6]
    alone += [col for col in range(len(b)) if col not in {c for _, c in expected} and b.scores[col] >= 0.6]
    assert lonely == len(alone)
