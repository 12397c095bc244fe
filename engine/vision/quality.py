"""Quality of a view of a face for the embedder: 0 useless, 1 as good as it gets.

Quality is a product of four factors, each 0..1: detector score, size, pose and sharpness. The last three
are modelled on one thing: the cosine between SFace's embedding of a face that was made worse in that way
and of the same face before. The constants were fitted to photographs of LFW (size, blur) and frames of
YouTube Faces (pose); each function tells what it was fitted to. In video, ``engine.vision.decoder_artifacts``
adds a factor for damage.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import Faces, FloatArray
from engine.models.alignment import ARCFACE_TEMPLATE_XY

_NOSE_DEPTH: Final = 0.4
_NOSE_HEIGHT: Final = 0.55
_SIZE_SCALE: Final = 0.172
_SIZE_POWER: Final = 1.5
_DETAIL_SCALE: Final = 0.018
_LEAST_CONTRAST: Final = 2.0
_SECOND_DIFFERENCE: Final = np.array([[1, -2, 1]], np.float32)


def face_quality(faces: Faces, crops: npt.NDArray[np.uint8]) -> FloatArray:
    """Quality of each face.

    Args:
        faces: N faces.
        crops: uint8 (N, S, S, 3), the same faces aligned to the ArcFace template; S is about 112.

    Returns:
        float32 (N,), 0..1.

    Raises:
        ValueError: There are more or fewer crops than faces.
    """
    if len(crops) != len(faces):
        raise ValueError(f"expected a crop for each of {len(faces)} faces, got {len(crops)}")
    return quality_bound(faces) * sharpness(crops)


def quality_bound(faces: Faces) -> FloatArray:
    """Quality if the face were perfectly sharp: never below ``face_quality``, and needs no pixels.

    Args:
        faces: N faces.

    Returns:
        float32 (N,), 0..1.
    """
    pose = pose_factor(faces.landmarks_xy)
    return np.clip(faces.scores, 0, 1) * size_factor(faces.landmarks_xy) * pose


def size_factor(landmarks_xy: FloatArray) -> FloatArray:
    """Worth of the face's resolution.

    With ``s`` image pixels for each pixel of a 112-pixel crop it is ``1 - exp(-(s / 0.172) ** 1.5)``. The
    embeddings of 250 photographs, shrunk, had a cosine of .98, .88, .71, .57 and .32 to the original at s
    of .5, .3, .2, .15 and .1; the formula gives .99, .90, .71, .56 and .36.

    Args:
        landmarks_xy: float32 (N, 5, 2), pixels.

    Returns:
        float32 (N,), 0..1. About 0.9 where the eyes are 11 pixels apart.
    """
    spread = _spread(landmarks_xy) / _spread(np.array([ARCFACE_TEMPLATE_XY], np.float32))
    return np.asarray(1 - np.exp(-((spread / _SIZE_SCALE) ** _SIZE_POWER)), np.float32)


def _spread(points_xy: FloatArray) -> FloatArray:
    """Root mean square distance of the points from their mean, (N,)."""
    centred = points_xy - points_xy.mean(axis=1, keepdims=True)
    return np.asarray(np.sqrt((centred**2).sum(axis=2).mean(axis=1)), np.float32)


def pose_factor(landmarks_xy: FloatArray) -> FloatArray:
    """Worth of the head's pose: ``cos(yaw) * cos(pitch) * (1 + cos(roll)) / 2``.

    Against the mean of a person's frontal frames, cosines fell with the yaw about as ``cos(yaw)`` does.
    Roll is undone by alignment, so it costs little until the detector's landmarks suffer from it.

    Args:
        landmarks_xy: float32 (N, 5, 2), pixels.

    Returns:
        float32 (N,), 0..1.
    """
    yaw, pitch, roll = head_angles(landmarks_xy).T
    factor: FloatArray = np.cos(yaw) * np.cos(pitch) * (1 + np.cos(roll)) / 2
    return np.asarray(np.clip(factor, 0, 1), np.float32)


def head_angles(landmarks_xy: FloatArray) -> FloatArray:
    """Rough yaw, pitch and roll from five landmarks.

    The tip of the nose stands out by 0.4 of the distance between the eyes, so turning the head moves it
    off the line from the eyes' middle to the mouth's (yaw), and up or down along it (pitch); seen from
    the front it lies at 0.55 of that line, which is YuNet's median over LFW. In the plane, the eyes give
    the roll.

    Args:
        landmarks_xy: float32 (N, 5, 2), pixels, in the order of ``LANDMARKS``.

    Returns:
        float32 (N, 3), radians: yaw (-π/2..π/2, positive when the nose points to the image's right), pitch
        (-π/2..π/2, positive down), roll (-π..π, clockwise in the image). Where eyes or eyes and mouth
        coincide the face is in profile or edge-on, and yaw or pitch is a right angle.
    """
    right_eye, left_eye, nose, right_mouth, left_mouth = landmarks_xy.astype(np.float64).transpose(1, 0, 2)
    eyes = left_eye - right_eye
    between_eyes = (right_eye + left_eye) / 2
    down_face = (right_mouth + left_mouth) / 2 - between_eyes
    to_nose = nose - between_eyes
    width = np.hypot(*eyes.T)
    across = eyes / np.maximum(width, 1e-9)[:, None]
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    height = np.maximum((down_face * down).sum(axis=1), 1e-9)
    along = (to_nose * down).sum(axis=1) / height
    aside = (to_nose * across).sum(axis=1) - along * (down_face * across).sum(axis=1)
    yaw = np.arctan2(aside, _NOSE_DEPTH * np.maximum(width, 1e-9))
    pitch = np.arctan((along - _NOSE_HEIGHT) / _NOSE_DEPTH)
    roll = np.arctan2(eyes[:, 1], eyes[:, 0])
    return np.stack([yaw, pitch, roll], axis=1).astype(np.float32)


def sharpness(crops: npt.NDArray[np.uint8]) -> FloatArray:
    """Worth of the fine detail in aligned faces.

    ``1 - exp(-d / 0.018)``, where ``d`` is the standard deviation of the second difference of the smoothed
    face (Gaussian, one pixel), along x or y, whichever is less, over the standard deviation of its grey
    values. Smoothing keeps sensor noise from passing for detail, the ratio keeps light out, and the lesser
    direction catches motion blur. Blurring 250 photographs by 1, 2, 3 and 4 pixels left a cosine of .98,
    .87, .70 and .54 to the original; the formula gives .96, .87, .71 and .59. It sees no noise: that is
    left to the detector's score.

    Args:
        crops: uint8 (N, S, S, 3), aligned faces; S is about 112.

    Returns:
        float32 (N,), 0..1.
    """
    return np.array([1 - np.exp(-_detail(crop) / _DETAIL_SCALE) for crop in crops], np.float32)


def _detail(crop: npt.NDArray[np.uint8]) -> float:
    side = crop.shape[0]
    inner = (slice(3 * side // 14, 13 * side // 14), slice(side // 7, 6 * side // 7))
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    across = cv2.filter2D(smooth, -1, _SECOND_DIFFERENCE)[inner].std()
    down = cv2.filter2D(smooth, -1, _SECOND_DIFFERENCE.T)[inner].std()
    return float(min(across, down) / (smooth[inner].std() + _LEAST_CONTRAST))
