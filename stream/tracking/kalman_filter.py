"""A Kalman filter over many boxes at once, in seconds and pixels.

The state is that of ByteTrack: centre, size and their velocities. Two things differ. A step is a time, not a
frame. And a velocity does not last: it dies away within about half a second unless measurements renew it
(integrated Ornstein-Uhlenbeck process, as in Johnson et al., "Continuous-time correlated random walk model
for animal telemetry data", Ecology 89(5), 2008). Over one frame that is the usual constant velocity; over a
gap the prediction comes to rest instead of flying off, since heads sway, turn and stop.

No matrix of this model mixes coordinates, so the filter with eight states is exactly four with two each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.faces import FloatArray

Float64Array: TypeAlias = npt.NDArray[np.float64]

# Standard deviations in face sizes (square root of the box's area), for centre x, centre y, width, height.
# A detector's box trembles by about a twentieth of the face. Heads sway by about one face a second; who walks
# across the picture passes up to nine of them, three standard deviations.
_MEASUREMENT_STD = np.array([0.05, 0.05, 0.05, 0.05])
_VELOCITY_STD = np.array([3.0, 3.0, 0.25, 0.25])
_VELOCITY_LASTS_S = 0.5
_SMALLEST_SIZE_PX = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class BoxMotion:
    """Where N boxes are and how they move: a Gaussian for each coordinate.

    Attributes:
        mean: float64 (N, 4, 2): centre x, centre y, width, height; of each the value in pixels and its
            change in pixels per second.
        covariance: float64 (N, 4, 2, 2), of value and change.
    """

    mean: Float64Array
    covariance: Float64Array

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice) -> BoxMotion:
        """Pick boxes by mask, indices or slice."""
        return BoxMotion(self.mean[rows], self.covariance[rows])

    def boxes_xyxy(self) -> FloatArray:
        """float32 (N, 4), pixels; width and height are at least one pixel."""
        centre = self.mean[:, :2, 0]
        half = np.maximum(self.mean[:, 2:, 0], _SMALLEST_SIZE_PX) / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def begin(boxes_xyxy: FloatArray) -> BoxMotion:
    """Start with boxes at rest, of unknown velocity.

    Args:
        boxes_xyxy: float32 (N, 4), pixels.
    """
    measured = _measurement(boxes_xyxy)
    mean = np.stack([measured, np.zeros_like(measured)], axis=-1)
    scale = _face_size(measured)
    covariance = np.zeros((len(measured), 4, 2, 2))
    covariance[..., 0, 0] = (_MEASUREMENT_STD * scale) ** 2
    covariance[..., 1, 1] = (_VELOCITY_STD * scale) ** 2
    return BoxMotion(mean, covariance)


def predict(motion: BoxMotion, dt_s: float) -> BoxMotion:
    """Move every box on by ``dt_s`` seconds.

    Args:
        motion: The boxes.
        dt_s: Time since the last step, >= 0.

    Raises:
        ValueError: ``dt_s`` is negative or not a number.
    """
    if not dt_s >= 0:
        raise ValueError(f"dt_s: expected a time of at least 0 s, got {dt_s}")
    dwindled = math.exp(-dt_s / _VELOCITY_LASTS_S)
    step = np.array([[1.0, _VELOCITY_LASTS_S * (1 - dwindled)], [0.0, dwindled]])
    return BoxMotion(
        mean=motion.mean @ step.T,
        covariance=step @ motion.covariance @ step.T + _process_noise(motion, dt_s),
    )


def correct(motion: BoxMotion, boxes_xyxy: FloatArray) -> BoxMotion:
    """Take in one measured box for each box.

    Args:
        motion: N boxes, predicted to the time of the measurement.
        boxes_xyxy: float32 (N, 4), pixels, in the same order.
    """
    measured = _measurement(boxes_xyxy)
    noise = (_MEASUREMENT_STD * _face_size(measured)) ** 2
    gain = motion.covariance[..., 0] / (motion.covariance[..., 0, 0] + noise)[..., None]
    surprise = measured - motion.mean[..., 0]
    return BoxMotion(
        mean=motion.mean + gain * surprise[..., None],
        covariance=motion.covariance - gain[..., :, None] * motion.covariance[..., 0, None, :],
    )


def join(first: BoxMotion, second: BoxMotion) -> BoxMotion:
    """The boxes of both, one after the other."""
    return BoxMotion(
        np.concatenate([first.mean, second.mean]), np.concatenate([first.covariance, second.covariance])
    )


def replace(motion: BoxMotion, rows: npt.NDArray[np.intp], values: BoxMotion) -> BoxMotion:
    """A copy in which the boxes at ``rows`` are those of ``values``."""
    mean, covariance = motion.mean.copy(), motion.covariance.copy()
    mean[rows], covariance[rows] = values.mean, values.covariance
    return BoxMotion(mean, covariance)


def _process_noise(motion: BoxMotion, dt_s: float) -> Float64Array:
    """float64 (N, 4, 2, 2): what ``dt_s`` seconds of unknown acceleration add to the covariance."""
    lasts_s, ratio = _VELOCITY_LASTS_S, dt_s / _VELOCITY_LASTS_S
    lost = -math.expm1(-ratio)
    both = lasts_s * lost**2
    # In this order the first entry keeps its precision for short steps, where it goes with the cube of dt_s.
    place = lasts_s**2 * (2 * (ratio - lost) - lost**2)
    growth = np.array([[max(place, 0.0), both], [both, -math.expm1(-2 * ratio)]])
    variance = (_VELOCITY_STD * _face_size(motion.mean[..., 0])) ** 2
    return np.asarray(variance[..., None, None] * growth)


def _measurement(boxes_xyxy: FloatArray) -> Float64Array:
    """float64 (N, 4): centre x, centre y, width, height."""
    boxes = boxes_xyxy.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, size], axis=1)


def _face_size(centre_size: Float64Array) -> Float64Array:
    """float64 (N, 1), pixels."""
    sides = np.maximum(centre_size[:, 2:4], _SMALLEST_SIZE_PX)
    return np.asarray(np.sqrt(sides.prod(axis=1, keepdims=True)))
