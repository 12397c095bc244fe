from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import kalman


class EightStateFilter:
    """The textbook form, with one state vector and dense matrices; slow and plain."""

    def __init__(self, box_xyxy):
        z, size = self._measure(box_xyxy)
        self.x = np.concatenate([z, np.zeros(4)])
        self.P = np.diag(np.concatenate([[0.05 * size] * 4, np.array([2.0, 2.0, 0.5, 0.5]) * size]) ** 2)

    @staticmethod
    def _measure(box_xyxy):
        left, top, right, bottom = (float(v) for v in box_xyxy)
        z = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        return z, np.sqrt(max(z[2], 1) * max(z[3], 1))

    def predict(self, dt):
        size = np.sqrt(max(self.x[2], 1) * max(self.x[3], 1))
        noise = np.diag((np.array([3.0, 3.0, 0.5, 0.5]) * size) ** 2)
        move = np.block([[np.eye(4), dt * np.eye(4)], [np.zeros((4, 4)), np.eye(4)]])
        growth = np.block([[noise * dt**3 / 3, noise * dt**2 / 2], [noise * dt**2 / 2, noise * dt]])
        self.x = move @ self.x
        self.P = move @ self.P @ move.T + growth

    def correct(self, box_xyxy):
        z, size = self._measure(box_xyxy)
        see = np.hstack([np.eye(4), np.zeros((4, 4))])
        innovation = see @ self.P @ see.T + (0.05 * size) ** 2 * np.eye(4)
        gain = self.P @ see.T @ np.linalg.inv(innovation)
        self.x = self.x + gain @ (z - see @ self.x)
        self.P = (np.eye(8) - gain @ see) @ self.P


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


centres = st.floats(-200, 2000)
sides = st.floats(5, 400)
some_boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), centres, centres, sides, sides)


@given(
    st.lists(st.tuples(st.floats(0, 3), some_boxes, some_boxes), min_size=1, max_size=6),
    some_boxes,
    some_boxes,
)
def test_equals_the_textbook_filter_with_eight_states(steps, first, second):
    motion = kalman.begin(boxes(first, second))
    slow = [EightStateFilter(box) for box in motion.boxes_xyxy()]
    for dt_s, *measured in steps:
        motion = kalman.correct(kalman.predict(motion, dt_s), boxes(*measured))
        for oracle, box in zip(slow, boxes(*measured), strict=True):
            oracle.predict(dt_s)
            oracle.correct(box)
    for row, oracle in enumerate(slow):
        np.testing.assert_allclose(motion.mean[row].T.ravel(), oracle.x, rtol=1e-4, atol=1e-2)
        for axis in range(4):
            np.testing.assert_allclose(
                motion.covariance[row, axis], oracle.P[axis::4, axis::4], rtol=1e-6, atol=1e-6
            )


def test_two_half_steps_are_one_whole_step():
    motion = kalman.correct(kalman.predict(kalman.begin(boxes((0, 0, 50, 60))), 0.1), boxes((9, 3, 59, 63)))
    still = kalman.BoxMotion(motion.mean * [[[1, 1]], [[1, 1]]][0], motion.covariance)
    still.mean[:, 2:, 1] = 0  # The noise follows the size, so only a constant size composes exactly.
    once, twice = kalman.predict(still, 0.4), kalman.predict(kalman.predict(still, 0.2), 0.2)
    np.testing.assert_allclose(once.mean, twice.mean)
    np.testing.assert_allclose(once.covariance, twice.covariance)


@pytest.mark.parametrize("fps", [5, 15, 30])
def test_learns_a_steady_velocity(fps):
    def at(time_s):
        return boxes((100 * time_s, 50, 100 * time_s + 80, 150))

    motion = kalman.begin(at(0.0))
    for step in range(1, fps + 1):
        motion = kalman.correct(kalman.predict(motion, 1 / fps), at(step / fps))
    np.testing.assert_allclose(kalman.predict(motion, 0.5).boxes_xyxy(), at(1.5), atol=4)


def test_a_box_never_turns_inside_out():
    motion = kalman.begin(boxes((0, 0, 40, 40)))
    motion = kalman.correct(kalman.predict(motion, 0.1), boxes((10, 10, 30, 30)))
    left, top, right, bottom = kalman.predict(motion, 20.0).boxes_xyxy()[0]
    assert right - left >= 1
    assert bottom - top >= 1


@pytest.mark.parametrize("dt_s", [-0.1, float("nan")])
def test_time_does_not_run_backwards(dt_s):
    with pytest.raises(ValueError, match="dt_s"):
        kalman.predict(kalman.begin(boxes((0, 0, 1, 1))), dt_s)


def test_rows_are_picked_joined_and_replaced():
    motion = kalman.begin(boxes((0, 0, 10, 10), (20, 20, 40, 40)))
    moved = kalman.begin(boxes((5, 5, 15, 15)))
    changed = kalman.replace(motion, np.array([1]), moved)
    np.testing.assert_allclose(changed.boxes_xyxy(), boxes((0, 0, 10, 10), (5, 5, 15, 15)))
    np.testing.assert_allclose(motion.boxes_xyxy()[1], (20, 20, 40, 40))
    assert len(kalman.join(motion, moved)) == 3
    np.testing.assert_allclose(motion[np.array([False, True])].boxes_xyxy(), boxes((20, 20, 40, 40)))
