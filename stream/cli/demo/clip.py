"""The demo's own clip: three people come, go and come back in front of one camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from engine.faces import Image
from stream.cli.demo.cast import CutOut, eileen_collins, grace_hopper, sam
from stream.video.mp4_writer import VideoWriter

SIZE_WH: Final = (1280, 720)
FPS: Final = 20
DURATION_S: Final = 24.0
COUNTER_Y: Final = 590
"""Where the counter begins, behind which everybody stands, pixels."""

FloatArray: TypeAlias = npt.NDArray[np.float64]

_OUT_LEFT, _OUT_RIGHT = -260.0, 1540.0


@dataclass(frozen=True, slots=True)
class Walk:
    """Where somebody stands over time; in between they walk.

    Attributes:
        times_s: Rising.
        x_px: Of the face, at each of these times.
        scale: Of the picture that the person is cut from.
        head_y_px: Of the face.
        sway_s: Time in which they lean to one side and back.
    """

    times_s: tuple[float, ...]
    x_px: tuple[float, ...]
    scale: float
    head_y_px: float
    sway_s: float

    def placed(self, person: CutOut, time_s: float) -> FloatArray | None:
        """How the person's picture is laid into the frame at a moment.

        Args:
            person: Who walks.
            time_s: 0..DURATION_S.

        Returns:
            Affine matrix, float64 (2, 3); None while they are out of the frame.
        """
        x = float(np.interp(time_s, self.times_s, self.x_px))
        if not _OUT_LEFT < x < _OUT_RIGHT:
            return None
        speed = abs(float(np.interp(time_s + 0.1, self.times_s, self.x_px)) - x)
        bob = 5 * np.sin(9 * time_s) * min(1.0, speed / 10)
        lean = 5 * np.sin(2 * np.pi * time_s / self.sway_s)
        matrix = np.array(cv2.getRotationMatrix2D(person.face_xy, lean, self.scale), np.float64)
        matrix[:, 2] += np.array([x, self.head_y_px + bob]) - person.face_xy
        return matrix


# From the back to the front. Away for two seconds a person's track goes on; after more than five it has ended
# (`tracking.leave_after_s`), and the person is known again by the gallery.
CAST: Final[tuple[tuple[Callable[[], CutOut], Walk], ...]] = (
    (
        grace_hopper,
        Walk(
            (0.4, 2.4, 6.0, 8.0, 14.5, 16.5, 21.8, 23.6),
            (_OUT_LEFT, 300, 330, _OUT_LEFT, _OUT_LEFT, 270, 300, _OUT_LEFT),
            0.78,
            330,
            7.0,
        ),
    ),
    (
        eileen_collins,
        Walk(
            (2.4, 4.6, 9.0, 10.6, 11.8, 13.6, 21.0, 23.0),
            (_OUT_RIGHT, 985, 950, _OUT_RIGHT, _OUT_RIGHT, 990, 960, _OUT_RIGHT),
            1.3,
            270,
            8.0,
        ),
    ),
    (
        sam,
        Walk(
            (5.4, 8.0, 12.0, 17.5, 19.8),
            (_OUT_RIGHT, 640, 610, 650, _OUT_LEFT),
            0.86,
            335,
            6.0,
        ),
    ),
)


def brightness(time_s: float) -> float:
    """The light in the room: somebody turns it down for two seconds."""
    return float(np.interp(time_s, [13.8, 14.3, 16.0, 16.5], [1.0, 0.4, 0.4, 1.0]))


def lobby() -> Image:
    """An empty lobby with a counter in front, uint8 (720, 1280, 3) BGR."""
    width, height = SIZE_WH
    y, x = np.mgrid[:height, :width].astype(np.float32)
    glow = np.exp(-(((x - 420) / 700) ** 2) - ((y - 180) / 420) ** 2)[..., None]
    wall = np.array([142, 138, 118], np.float32) * (0.62 + 0.5 * glow)
    wall *= 1 - 0.07 * (np.abs((x + 107) % 213 - 106) < 2)[..., None]
    wood = (
        np.array([52, 76, 108], np.float32) * (0.95 - 0.3 * (y - COUNTER_Y) / (height - COUNTER_Y))[..., None]
    )
    wood += 7 * np.sin(y / 5 + 2 * np.sin(x / 170))[..., None]
    wood[COUNTER_Y : COUNTER_Y + 10] += 45
    room = np.where(y[..., None] < COUNTER_Y, wall, wood)
    grain = np.random.default_rng(0).normal(0, 2, (height, width, 1))
    return np.asarray(np.clip(room + grain, 0, 255), np.uint8)


def compose(room: Image, people: Sequence[tuple[CutOut, Walk]], time_s: float) -> Image:
    """One frame of the clip.

    Args:
        room: uint8 (720, 1280, 3) BGR; not changed.
        people: From the back to the front.
        time_s: 0..DURATION_S.

    Returns:
        uint8 (720, 1280, 3) BGR.
    """
    frame = room.copy()
    for person, walk in people:
        matrix = walk.placed(person, time_s)
        if matrix is not None:
            _lay(frame[:COUNTER_Y], person, matrix)
    light = brightness(time_s)
    return frame if light == 1 else np.asarray(cv2.convertScaleAbs(frame, alpha=light), np.uint8)


def _lay(frame: Image, person: CutOut, matrix: FloatArray) -> None:
    """Blend a person into the frame, in place; only the rectangle that they cover is touched."""
    height, width = person.alpha.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    edges = np.array([frame.shape[1], frame.shape[0]])
    left, top = np.clip(corners.min(axis=0), 0, edges).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, edges).astype(int)
    if left >= right or top >= bottom:
        return
    region = frame[top:bottom, left:right]
    shifted = matrix - np.array([[0, 0, left], [0, 0, top]])
    size_wh = (int(right - left), int(bottom - top))
    image = cv2.warpAffine(person.image, shifted, size_wh)
    alpha = cv2.warpAffine(person.alpha, shifted, size_wh)
    region[:] = cv2.blendLinear(image, np.ascontiguousarray(region), alpha, 1 - alpha)


def make_scene(path: Path, *, on_progress: Callable[[float], None] | None = None) -> None:
    """Encode the clip: 24 s of 720p H.264 at 20 frames a second.

    Args:
        path: MP4 file to write.
        on_progress: Told the share done, 0..1.

    Raises:
        ModelError: A portrait is not installed.
        SinkError: The file cannot be written.
    """
    people = [(cut_out(), walk) for cut_out, walk in CAST]
    room, frames = lobby(), round(DURATION_S * FPS)
    with VideoWriter(path, SIZE_WH, FPS) as video:
        for number in range(frames):
            video.write(compose(room, people, number / FPS), number / FPS)
            if on_progress is not None:
                on_progress((number + 1) / frames)
