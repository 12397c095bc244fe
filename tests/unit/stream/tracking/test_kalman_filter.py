from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.tracking import kalman_filter


class EightStateFilter:
    """The textbook form, with one state vector and dense matrices; slow and plain."""

    def __init__(self, box_xyxy):
        z, size = self._measure(box_xyxy)
        self.x = np.concatenate([z, np.zeros(4)])
        self.P = np.diag(np.concatenate([[0.05 * size] * 4, np.array([3.0, 3.0, 0.25, 0.25]) * size]) ** 2)

    @staticmethod
    def _measure(box_xyxy):
        left, top, right, bottom = (float(v) for v in box_xyxy)
        z = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])
        return z, np.sqrt(max(z[2], 1) * max(z[3], 1))

    def predict(self, dt, *, parts=2000):
        """Euler's method on the differential equations: v' = -2 v + noise, x' = v, with small steps."""
        size = np.sqrt(max(self.x[2], 1) * max(self.x[3], 1))
        h = dt / parts
        move = np.block([[np.eye(4), h * np.eye(4)], [np.zeros((4, 4)), (1 - 2 * h) * np.eye(4)]])
        noise = np.zeros((8, 8))
        noise[4:, 4:] = np.diag(2 * 2 * h * (np.array([3.0, 3.0, 0.25, 0.25]) * size) ** 2)
        for _ in range(parts):
            self.x = move @ self.x
            self.P = move @ self.P @ move.T + noise

    def correct(self, box_xyxy):
        z, size = self._measure(box_xyxy)
        see = np.hstack([np.eye(4), np.zeros((4, 4))])
        innovation = see @ self.P @ see.T + (0.05 * size) ** 2 * np.eye(4)
        gain = self.P @ see.T @ np.linalg.inv(innovation)
        self.x = self.x + gain @ (z - see @ self.x)
        self.P = (np.eye(8) - gain @ see) @ self.P


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_filter_with_eight_states_and_dense_matrices(seed):
    rng = np.random.default_rng(seed)

    def random_boxes():
        top_left = rng.uniform(-200, 2000, (2, 2))
        return np.hstack([top_left, top_left + rng.uniform(5, 400, (2, 2))]).astype(np.float32)

    measured = random_boxes()
    motion, oracles = kalman_filter.begin(measured), [EightStateFilter(box) for box in measured]
    for dt_s in rng.uniform(0, 1, 4):
        measured = random_boxes()
        motion = kalman_filter.correct(kalman_filter.predict(motion, dt_s), measured)
        for row, (oracle, box) in enumerate(zip(oracles, measured, strict=True)):
            oracle.predict(dt_s)
            oracle.correct(box)
            scale = np.abs(oracle.x).max()
            np.testing.assert_allclose(motion.mean[row].T.ravel() / scale, oracle.x / scale, atol=2e-3)
            for axis in range(4):
                np.testing.assert_allclose(
                    motion.covariance[row, axis], oracle.P[axis::4, axis::4], rtol=0.01
                )


@given(st.floats(0, 10))
def test_uncertainty_never_shrinks_while_nothing_is_seen(dt_s):
    first = kalman_filter.begin(boxes((0, 0, 40, 50)))
    later = kalman_filter.predict(first, dt_s)
    assert (later.covariance[0, :, 0, 0] >= first.covariance[0, :, 0, 0]).all()
    assert (np.linalg.eigvalsh(later.covariance) >= 0).all()


def test_two_half_steps_are_one_whole_step():
    motion = kalman_filter.correct(
        kalman_filter.predict(kalman_filter.begin(boxes((0, 0, 50, 60))), 0.1), boxes((9, 3, 59, 63))
    )
    still = kalman_filter.BoxMotion(motion.mean * [[[1, 1]], [[1, 1]]][0], motion.covariance)
    still.mean[:, 2:, 1] = 0  # The noise follows the size, so only a constant size composes exactly.
    once, twice = (
        kalman_filter.predict(still, 0.4),
        kalman_filter.predict(kalman_filter.predict(still, 0.2), 0.2),
    )
    np.testing.assert_allclose(once.mean, twice.mean)
    np.testing.assert_allclose(once.covariance, twice.covariance)


def test_an_unseen_box_comes_to_rest():
    motion = kalman_filter.begin(boxes((0, 0, 40, 40)))
    for _ in range(10):
        motion = kalman_filter.predict(motion, 0.1)
        motion = kalman_filter.correct(motion, motion.boxes_xyxy() + np.float32(10))
    one, two = (kalman_filter.predict(motion, dt_s).boxes_xyxy() for dt_s in (5.0, 10.0))
    np.testing.assert_allclose(one, two, atol=0.1)


@pytest.mark.parametrize("fps", [5, 15, 30])
def test_learns_a_steady_velocity(fps):
    def at(time_s):
        return boxes((100 * time_s, 50, 100 * time_s + 80, 150))

    motion = kalman_filter.begin(at(0.0))
    for step in range(1, fps + 1):
        motion = kalman_filter.correct(kalman_filter.predict(motion, 1 / fps), at(step / fps))
    np.testing.assert_allclose(kalman_filter.predict(motion, 0.1).boxes_xyxy(), at(1.1), atol=8)


def test_a_box_never_turns_inside_out():
    motion = kalman_filter.begin(boxes((0, 0, 40, 40)))
    motion = kalman_filter.correct(kalman_filter.predict(motion, 0.1), boxes((10, 10, 30, 30)))
    left, top, right, bottom = kalman_filter.predict(motion, 20.0).boxes_xyxy()[0]
    assert right - left >= 1
    assert bottom - top >= 1


@pytest.mark.parametrize("dt_s", [-0.1, float("nan")])
def test_time_does_not_run_backwards(dt_s):
    with pytest.raises(ValueError, match="dt_s"):
        kalman_filter.predict(kalman_filter.begin(boxes((0, 0, 1, 1))), dt_s)


def test_rows_are_picked_joined_and_replaced():
    motion = kalman_filter.begin(boxes((0, 0, 10, 10), (20, 20, 40, 40)))
    moved = kalman_filter.begin(boxes((5, 5, 15, 15)))
    changed = kalman_filter.replace(motion, np.array([1]), moved)
    np.testing.assert_allclose(changed.boxes_xyxy(), boxes((0, 0, 10, 10), (5, 5, 15, 15)))
    np.testing.assert_allclose(motion.boxes_xyxy()[1], (20, 20, 40, 40))
    assert len(kalman_filter.join(motion, moved)) == 3
    np.testing.assert_allclose(motion[np.array([False, True])].boxes_xyxy(), boxes((20, 20, 40, 40)))
