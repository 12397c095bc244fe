"""A clip for benchmarks and tests: a portrait moved, scaled, turned, dimmed and hidden for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.compilation.sample_faces import load_portrait
from engine.faces import Image
from stream.video.mp4_writer import VideoWriter

SIZE_WH = (1280, 720)
FPS = 30
DURATION_S = 20.0


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the portrait is at a moment.

    Attributes:
        centre_xy: Its middle, pixels.
        scale: Its size, 1 as it was taken (512 pixels).
        turn_deg: Clockwise.
        brightness: 1 as it was taken, 0 black.
    """

    centre_xy: tuple[float, float]
    scale: float
    turn_deg: float
    brightness: float


def portrait_pose(time_s: float) -> Pose | None:
    """How the portrait moves.

    Args:
        time_s: 0..DURATION_S.

    Returns:
        None while the portrait is out of the picture (before 0.5 s, from 11 s to 13 s, after 18 s).
    """
    if time_s < 0.5 or 11.0 <= time_s < 13.0 or time_s >= 18.0:
        return None
    sway = 2 * np.pi * time_s
    dimmed = float(np.interp(time_s, [7.5, 8.5, 9.5, 10.5], [1.0, 0.3, 0.3, 1.0]))
    return Pose(
        centre_xy=(640 + 380 * float(np.sin(sway / 9)), 380 + 60 * float(np.sin(sway / 5))),
        scale=0.75 + 0.4 * float(np.sin(sway / 13)),
        turn_deg=18 * float(np.sin(sway / 6)),
        brightness=dimmed,
    )


def backdrop() -> Image:
    """A plain wall with soft light, uint8 (720, 1280, 3) BGR."""
    x = np.linspace(-1, 1, SIZE_WH[0], dtype=np.float32)
    y = np.linspace(-1, 1, SIZE_WH[1], dtype=np.float32)[:, None]
    light = 1.0 - 0.45 * np.sqrt((x + 0.3) ** 2 + (y + 0.4) ** 2)
    wall = np.clip(light[:, :, None] * np.array([150, 135, 120], np.float32), 0, 255)
    grain = np.random.default_rng(0).normal(0, 3, wall.shape[:2])[:, :, None]
    return np.clip(wall + grain, 0, 255).astype(np.uint8)


def compose(portrait: Image, wall: Image, pose: Pose | None) -> Image:
    """One frame of the clip: the portrait on the wall.

    Args:
        portrait: uint8 (S, S, 3) BGR.
        wall: uint8 (720, 1280, 3) BGR; not changed.
        pose: None shows the wall alone.

    Returns:
        uint8 (720, 1280, 3) BGR.
    """
    if pose is None:
        return wall.copy()
    side = portrait.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), -pose.turn_deg, pose.scale)
    matrix[:, 2] += np.subtract(pose.centre_xy, side / 2)
    frame = wall.copy()
    lit = cv2.convertScaleAbs(portrait, alpha=pose.brightness)
    cv2.warpAffine(lit, matrix, SIZE_WH, dst=frame, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT)
    return frame


def make_clip(
    path: Path, *, bitrate_kbps: int | None = None, on_progress: Callable[[float], None] | None = None
) -> None:
    """Encode the clip: 20 s of 720p H.264 at 30 frames a second.

    Args:
        path: MP4 file to write.
        bitrate_kbps: Encode as an IP camera does, at this rate; None encodes fast.
        on_progress: Told the share done, 0..1.

    Raises:
        ModelError: The portrait is not installed.
        SinkError: The file cannot be written.
    """
    portrait, wall = load_portrait(), backdrop()
    frames = round(DURATION_S * FPS)
    with VideoWriter(path, SIZE_WH, FPS, bitrate_kbps=bitrate_kbps) as video:
        for number in range(frames):
            time_s = number / FPS
            video.write(compose(portrait, wall, portrait_pose(time_s)), time_s)
            if on_progress is not None:
                on_progress((number + 1) / frames)
