"""Pictures for people: tracks drawn on a frame, and a contact sheet of the best shots."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import SinkError
from engine.faces import Image

_FONT = cv2.FONT_HERSHEY_DUPLEX
_INK = (40, 40, 40)
_PAPER = 245


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A box to draw.

    Attributes:
        box_xyxy: Pixels.
        text: Short; a line above the box.
        number: Chooses the colour.
    """

    box_xyxy: tuple[float, float, float, float]
    text: str
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """A tile of the contact sheet.

    Attributes:
        image: uint8 (H, W, 3) BGR, any size.
        lines: Text below it.
        number: Chooses the colour of its frame.
    """

    image: Image
    lines: tuple[str, ...]
    number: int


def track_colour(number: int) -> tuple[int, int, int]:
    """A colour (blue, green, red) that differs well between neighbouring numbers."""
    hue = (number * 0.61803398875) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def plain_letters(text: str) -> str:
    """The text as OpenCV's fonts can write it: accents are left out.

    Returns:
        ASCII; empty where not all of its letters have a plain form.
    """
    letters = [letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter)]
    return "".join(letters) if all(" " <= letter <= "~" for letter in letters) else ""


def draw_labels(image: Image, labels: Sequence[Label], *, caption: str = "") -> Image:
    """Draw boxes with a line of text above each, and a caption at the bottom left.

    Args:
        image: uint8 (H, W, 3) BGR; not changed.
        labels: What to draw.
        caption: For instance the time.

    Returns:
        A new image of the same size.
    """
    canvas = image.copy()
    unit = max(image.shape[0], 240) / 720
    thickness = max(1, round(2 * unit))
    for label in labels:
        left, top, right, bottom = (round(value) for value in label.box_xyxy)
        colour = track_colour(label.number)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
        _write(canvas, label.text, (left, top - round(6 * unit)), 0.6 * unit, background=colour)
    if caption:
        _write(canvas, caption, (round(12 * unit), image.shape[0] - round(14 * unit)), 0.6 * unit)
    return canvas


def _write(
    canvas: Image,
    text: str,
    origin_xy: tuple[int, int],
    scale: float,
    *,
    background: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Write a line with its lower left corner at ``origin_xy``, kept inside the picture."""
    (width, height), below = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(2, height // 3)
    x = int(np.clip(origin_xy[0], pad, max(pad, canvas.shape[1] - width - pad)))
    y = int(np.clip(origin_xy[1], height + pad, max(height + pad, canvas.shape[0] - below - pad)))
    cv2.rectangle(canvas, (x - pad, y - height - pad), (x + width + pad, y + below), background, cv2.FILLED)
    luminance = 0.114 * background[0] + 0.587 * background[1] + 0.299 * background[2]
    ink = (0, 0, 0) if luminance > 130 else (255, 255, 255)
    cv2.putText(canvas, text, (x, y), _FONT, scale, ink, 1, cv2.LINE_AA)


def contact_sheet(shots: Sequence[Shot], *, title: str, columns: int = 5, tile_px: int = 200) -> Image:
    """Lay shots out in rows, each with its text below.

    Args:
        shots: In order; with none, the sheet says so.
        title: First line of the sheet.
        columns: Tiles in a row.
        tile_px: Side of a tile's picture.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    margin, line_px, head_px = 16, 20, 56
    lines = max((len(shot.lines) for shot in shots), default=0)
    columns = max(1, min(columns, len(shots)))
    rows = -(-len(shots) // columns)
    step_x, step_y = tile_px + margin, tile_px + lines * line_px + margin + 8
    title_px = cv2.getTextSize(title, _FONT, 0.6, 1)[0][0] + 2 * margin
    size_wh = (max(columns * step_x + margin, title_px), head_px + max(1, rows) * step_y)
    sheet = np.full((size_wh[1], size_wh[0], 3), _PAPER, np.uint8)
    cv2.putText(sheet, title, (margin, 36), _FONT, 0.6, _INK, 1, cv2.LINE_AA)
    if not shots:
        cv2.putText(sheet, "no track", (margin, head_px + 24), _FONT, 0.6, _INK, 1, cv2.LINE_AA)
    for index, shot in enumerate(shots):
        left = margin + (index % columns) * step_x
        top = head_px + (index // columns) * step_y
        sheet[top : top + tile_px, left : left + tile_px] = fit(shot.image, (tile_px, tile_px))
        corner = (left + tile_px - 1, top + tile_px - 1)
        cv2.rectangle(sheet, (left, top), corner, track_colour(shot.number), 3)
        for row, line in enumerate(shot.lines):
            origin = (left, top + tile_px + (row + 1) * line_px)
            cv2.putText(sheet, line, origin, _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return sheet


def fit(image: Image, size_wh: tuple[int, int]) -> Image:
    """Scale a picture into the middle of another, without distortion.

    Args:
        image: uint8 (H, W, 3) BGR.
        size_wh: Width and height of the result, pixels.

    Returns:
        uint8 (height, width, 3) BGR, dark where the picture does not reach.
    """
    width, height = size_wh
    scale = min(width / image.shape[1], height / image.shape[0])
    inner_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, inner_wh, interpolation=method)
    canvas = np.full((height, width, 3), 32, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def save_png(image: Image, path: Path) -> None:
    """Write a PNG file, making its folder.

    Args:
        image: uint8 (H, W, 3) BGR.
        path: Overwritten.

    Raises:
        SinkError: It cannot be written.
    """
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise SinkError(f"{path}: cannot encode a picture of shape {image.shape}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as exc:
        raise SinkError(f"{path}: cannot write the picture: {exc.strerror}; choose another place") from exc
