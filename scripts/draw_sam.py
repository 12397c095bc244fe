"""Draws Sam, the demo's made-up third person: stream/cli/demo/sam.webp. Nobody has sat for it.

.venv/bin/python scripts/draw_sam.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.interpolate import splev, splprep

SIZE_WH = (480, 600)
MIDDLE = 240
PATH = Path(__file__).resolve().parent.parent / "stream" / "cli" / "demo" / "sam.webp"

Colour = npt.NDArray[np.float64]
Points = Sequence[tuple[float, float]]


def colour(html: str) -> Colour:
    """``#rrggbb`` as blue, green, red."""
    return np.array([int(html[at : at + 2], 16) for at in (5, 3, 1)], float)


SKIN, HAIR, SHIRT, IRIS, LIPS = map(colour, ("#8d5a3c", "#191210", "#d9a441", "#2e1c12", "#8a4a45"))
SHADE, DEEP, LIGHT = SKIN * 0.62, SKIN * 0.42, np.minimum(SKIN * 1.18 + 14, 255)


def curve(points: Points, *, closed: bool = True) -> npt.NDArray[np.float64]:
    """A smooth line through points."""
    ends = [*points, points[0]] if closed else list(points)
    spline, _ = splprep(np.array(ends, float).T, s=0, per=closed, k=min(3, len(ends) - 1))
    return np.array(splev(np.linspace(0, 1, 120), spline)).T


def both(points: Points) -> tuple[Points, Points]:
    """Points to the right of the middle, and their mirror image."""
    return [(MIDDLE + x, y) for x, y in points], [(MIDDLE - x, y) for x, y in points]


class Canvas:
    """A picture with transparency, painted from back to front."""

    def __init__(self) -> None:
        self.image = np.full((SIZE_WH[1], SIZE_WH[0], 3), HAIR, np.float32)
        self.alpha = np.zeros((SIZE_WH[1], SIZE_WH[0]), np.float32)

    def put(
        self, mask: npt.NDArray[np.uint8], ink: Colour, opacity: float, blur: float, *, solid: bool
    ) -> None:
        """Blend a colour in where the mask is set."""
        weight = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur) * opacity
        self.image += (ink.astype(np.float32) - self.image) * weight[..., None]
        if solid:
            self.alpha = np.maximum(self.alpha, weight)

    def shape(
        self, points: Points, ink: Colour, *, opacity: float = 1.0, blur: float = 0.9, solid: bool = False
    ) -> None:
        """Fill a smooth outline; a solid one makes the picture opaque there."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(curve(points) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        self.put(mask, ink, opacity, blur, solid=solid)

    def line(
        self, points: Points, ink: Colour, width: int, *, opacity: float = 1.0, blur: float = 0.9
    ) -> None:
        """Draw a smooth line."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        path = np.round(curve(points, closed=False) * 16).astype(np.int32)
        cv2.polylines(mask, [path], False, 255, width, cv2.LINE_AA, 4)
        self.put(mask, ink, opacity, blur, solid=False)

    def oval(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        ink: Colour,
        *,
        opacity: float = 1.0,
        blur: float = 0.9,
        solid: bool = False,
    ) -> None:
        """Fill an ellipse."""
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        x, y = centre[0] + radii[0] * np.cos(turns), centre[1] + radii[1] * np.sin(turns)
        self.shape(list(zip(x, y, strict=True)), ink, opacity=opacity, blur=blur, solid=solid)


RIGHT_HALF = [(0, 106), (56, 118), (104, 165), (112, 230), (109, 310), (96, 375), (49, 418), (0, 432)]
FACE = [(MIDDLE + x, y) for x, y in RIGHT_HALF] + [(MIDDLE - x, y) for x, y in reversed(RIGHT_HALF[1:-1])]


def body(canvas: Canvas) -> None:
    """Shirt, neck and ears."""
    shoulders = [(10, 620), (30, 520), (110, 478), (190, 462), (290, 462), (370, 478), (450, 520), (470, 620)]
    canvas.shape(shoulders, SHIRT, solid=True)
    for side, depth in zip(both([(175, 620), (165, 545), (130, 575), (120, 620)]), (0.62, 0.75), strict=True):
        canvas.shape(side, SHIRT * depth, opacity=0.5, blur=14)
    neck = [(188, 370), (292, 370), (298, 462), (270, 492), (240, 500), (210, 492), (182, 462)]
    canvas.shape(neck, SHIRT * 0.7, opacity=0.8, blur=7)
    canvas.shape(neck, SKIN * 0.86, solid=True)
    canvas.oval((MIDDLE, 428), (60, 38), DEEP, opacity=0.6, blur=12)
    for x in (MIDDLE - 113, MIDDLE + 113):
        canvas.oval((x, 282), (17, 31), SKIN * 0.9, solid=True)
        canvas.oval((x, 284), (8, 19), SHADE, opacity=0.6, blur=4)


def head(canvas: Canvas) -> None:
    """The face without its features, lit from the upper left."""
    canvas.shape(FACE, SKIN, solid=True)
    y, x = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    across, down = (x - MIDDLE) / 121, (y - 272) / 172
    depth = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))
    light = 0.55 + 0.6 * np.clip(-0.34 * across - 0.42 * down + 0.84 * depth, 0, 1)
    mask = np.zeros(canvas.alpha.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(curve(FACE)).astype(np.int32)], 255, cv2.LINE_AA)
    inside = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 1.0)[..., None]
    canvas.image *= 1 + (light[..., None].astype(np.float32) - 1) * inside
    canvas.oval((MIDDLE - 18, 160), (60, 26), LIGHT, opacity=0.35, blur=22)
    for x in (MIDDLE - 62, MIDDLE + 62):
        canvas.oval((x, 312), (26, 14), LIGHT, opacity=0.28, blur=10)


def eyes(canvas: Canvas) -> None:
    """Eyes, lids and brows."""
    for side, x in ((-1, MIDDLE - 50), (1, MIDDLE + 50)):
        canvas.oval((x, 256), (36, 24), SHADE, opacity=0.45, blur=10)
        outline = [(x - 25, 264), (x - 10, 251), (x + 10, 251), (x + 25, 263), (x + 10, 271), (x - 10, 271)]
        canvas.shape(outline, np.array([226.0, 231, 233]))
        canvas.oval((x, 260), (11, 10.5), IRIS * 0.6)
        canvas.oval((x, 260), (9, 9), IRIS * 1.5)
        canvas.oval((x, 260), (4.8, 4.8), np.array([14.0, 11, 11]))
        canvas.oval((x - 4, 256), (2.6, 2.6), np.full(3, 255.0), blur=0.7)
        canvas.line([(x - 26, 265), (x - 11, 250), (x + 10, 250), (x + 26, 264)], DEEP * 0.4, 4)
        canvas.line([(x - 22, 246), (x, 241), (x + 24, 247)], SHADE * 0.9, 3, opacity=0.55, blur=1.6)
        canvas.line([(x - 20, 270), (x, 274), (x + 20, 270)], SHADE, 3, opacity=0.5, blur=1.2)
        brow = [(-30, 232), (-6, 221), (34, 229), (38, 235), (-4, 231), (-28, 241)]
        canvas.shape([(x + side * dx, y) for dx, y in brow], HAIR, opacity=0.92, blur=1.6)


def nose(canvas: Canvas) -> None:
    """The nose and the folds beside it."""
    canvas.shape([(243, 258), (256, 292), (273, 322), (248, 330), (244, 302)], SHADE, opacity=0.5, blur=6)
    canvas.line([(237, 264), (236, 292), (237, 314)], LIGHT, 9, opacity=0.45, blur=5)
    canvas.oval((MIDDLE, 318), (17, 11), LIGHT, opacity=0.25, blur=5)
    canvas.oval((MIDDLE, 331), (30, 7), DEEP, opacity=0.5, blur=4)
    for side in both([(26, 312), (32, 322), (26, 329)]):
        canvas.line(side, SHADE * 0.9, 3, opacity=0.6, blur=1.6)
    for side in both([(36, 322), (54, 350), (56, 366)]):
        canvas.line(side, SHADE, 4, opacity=0.35, blur=3)
    for x in (MIDDLE - 15.5, MIDDLE + 15.5):
        canvas.oval((x, 328), (8.5, 4), DEEP * 0.55, opacity=0.85, blur=1.6)


def mouth_and_beard(canvas: Canvas) -> None:
    """A short beard around a slight smile."""
    half = [(0, 346), (58, 346), (98, 322), (111, 284), (113, 330), (102, 384), (58, 430), (0, 446)]
    beard = [(MIDDLE + x, y) for x, y in half] + [(MIDDLE - x, y) for x, y in reversed(half[1:-1])]
    canvas.shape(beard, HAIR * 1.15, opacity=0.96, blur=2.0, solid=True)
    canvas.oval((MIDDLE, 373), (46, 14), SKIN * 0.8, blur=2.5)
    upper = [(-44, 369), (-15, 362), (0, 365), (15, 362), (44, 369), (18, 374), (-18, 374)]
    lower = [(-44, 369), (-18, 374), (18, 374), (44, 369), (20, 386), (-20, 386)]
    canvas.shape([(MIDDLE + x, y) for x, y in upper], LIPS * 0.85, blur=1.2)
    canvas.shape([(MIDDLE + x, y) for x, y in lower], LIPS, blur=1.2)
    line = [(-47, 366), (-18, 373), (0, 372), (18, 373), (47, 366)]
    canvas.line([(MIDDLE + x, y) for x, y in line], LIPS * 0.35, 3, opacity=0.9)
    canvas.oval((MIDDLE - 6, 380), (16, 3), np.minimum(LIPS * 1.35, 255), opacity=0.6, blur=3)


def hair(canvas: Canvas) -> None:
    """Short hair."""
    half = [(0, 70), (78, 96), (124, 180), (117, 268), (108, 262), (106, 214), (80, 172), (30, 154), (0, 152)]
    outline = [(MIDDLE + x, y) for x, y in half] + [(MIDDLE - x, y) for x, y in reversed(half[1:-1])]
    canvas.shape(outline, HAIR, blur=1.5, solid=True)
    for lock in range(-6, 7):
        way = [(MIDDLE + lock * 9 - 6, 90 + abs(lock) * 2), (MIDDLE + lock * 16, 130 + abs(lock) * 6)]
        canvas.line(way, np.minimum(HAIR * 1.5 + 22, 255), 3, opacity=0.25, blur=2.2)


def main() -> None:
    """Draw and write the picture."""
    canvas = Canvas()
    for part in (body, head, eyes, nose, mouth_and_beard, hair):
        part(canvas)
    picture = np.dstack([canvas.image, canvas.alpha * 255]).clip(0, 255).round().astype(np.uint8)
    cv2.imwrite(str(PATH), picture, [cv2.IMWRITE_WEBP_QUALITY, 92])


if __name__ == "__main__":
    main()
