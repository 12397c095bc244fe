from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.faces import Faces
from engine.geometry import iou
from engine.vision.detection import suppress
from engine.vision.yunet import decode

STRIDES = (8, 16, 32)
WIDTH, HEIGHT = 96, 64


def random_outputs(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    outputs = {}
    for stride in STRIDES:
        cells = (WIDTH // stride) * (HEIGHT // stride)
        for kind, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            low, high = (0, 1.01) if size == 1 else (-2, 2)
            outputs[f"{kind}_{stride}"] = rng.uniform(low, high, (2, cells, size)).astype(np.float32)
    return outputs


def decode_one_by_one(outputs: dict[str, np.ndarray], row: int, min_score: float) -> list[np.ndarray]:
    """The loop of OpenCV's FaceDetectorYN, as it is written there."""
    found = []
    for stride in STRIDES:
        columns = WIDTH // stride
        for r in range(HEIGHT // stride):
            for c in range(columns):
                cell = r * columns + c
                cls, obj, bbox, kps = (
                    outputs[f"{k}_{stride}"][row, cell] for k in ("cls", "obj", "bbox", "kps")
                )
                score = (min(cls[0], 1) * min(obj[0], 1)) ** 0.5
                if score < min_score:
                    continue
                cx, cy = (c + bbox[0]) * stride, (r + bbox[1]) * stride
                w, h = np.exp(bbox[2]) * stride, np.exp(bbox[3]) * stride
                points = [(kps[2 * n + i] + (c, r)[i]) * stride for n in range(5) for i in (0, 1)]
                found.append(np.array([score, cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, *points]))
    return found


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("min_score", [0.3, 0.7, 0.99])
def test_decoding_equals_the_loop(row: int, min_score: float) -> None:
    outputs = random_outputs(5)
    expected = decode_one_by_one(outputs, row, min_score)
    got = decode(outputs, row, WIDTH, min_score=min_score)
    table = np.column_stack([got.scores, got.boxes_xyxy, got.landmarks_xy.reshape(-1, 10)])
    assert table == pytest.approx(np.reshape(expected, (-1, 15)), abs=1e-3)


def test_nobody_is_found_in_silence() -> None:
    outputs = {name: np.zeros_like(array) for name, array in random_outputs(0).items()}
    assert len(suppress(decode(outputs, 0, WIDTH, min_score=0.3), max_iou=0.3)) == 0


@given(st.integers(0, 10_000), st.integers(1, 30), st.floats(0.1, 0.9))
def test_suppression_is_greedy(seed: int, count: int, max_iou: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(np.linspace(0.3, 1, count)).astype(np.float32)
    faces = Faces(boxes, scores, rng.random((count, 5, 2)).astype(np.float32))
    overlap = iou(boxes, boxes)
    if np.abs(overlap - max_iou).min() < 1e-5:
        return
    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(overlap[index, other] <= max_iou for other in kept):
            kept.append(int(index))
    got = suppress(faces, max_iou=max_iou)
    assert (got.scores == scores[kept]).all()
    assert (got.boxes_xyxy == boxes[kept]).all()
