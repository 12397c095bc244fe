"""Who appears in the demo: two public-domain portraits, cut out, and one person who was drawn for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from engine.compilation.sample_faces import load_hopper, load_portrait
from engine.errors import ModelError
from engine.faces import Image

_SAM: Final = Path(__file__).parent / "sam.webp"
"""Made by scripts/draw_sam.py."""

# Outlines (x, y) of the person in each portrait, pixels.
# fmt: off
_COLLINS: Final = (
    (200, 24), (188, 36), (161, 53), (156, 59), (153, 69), (155, 97), (157, 103), (171, 121), (178, 135),
    (182, 148), (170, 150), (154, 151), (138, 160), (121, 180), (118, 189), (114, 194), (113, 204),
    (90, 227), (77, 235), (63, 249), (48, 275), (40, 295), (39, 306), (35, 313), (26, 343), (25, 374),
    (19, 391), (19, 409), (24, 431), (23, 459), (25, 477), (29, 492), (37, 502), (39, 511), (511, 511),
    (511, 491), (506, 489), (500, 479), (493, 476), (493, 468), (502, 458), (495, 452), (493, 422),
    (487, 403), (476, 382), (457, 363), (435, 351), (417, 345), (375, 345), (367, 341), (364, 332),
    (357, 324), (356, 303), (352, 288), (346, 279), (341, 265), (313, 250), (312, 242), (303, 233),
    (296, 213), (283, 196), (258, 176), (260, 162), (267, 145), (272, 132), (279, 128), (293, 112),
    (300, 91), (299, 73), (296, 66), (296, 60), (287, 42), (275, 31), (247, 18), (228, 16),
)
_HOPPER: Final = (
    (218, 31), (210, 44), (195, 51), (182, 63), (177, 71), (175, 84), (161, 96), (150, 120), (150, 160),
    (146, 183), (146, 218), (149, 221), (156, 221), (161, 228), (170, 260), (170, 269), (167, 278),
    (175, 288), (184, 291), (195, 297), (199, 305), (203, 320), (190, 336), (165, 344), (130, 355),
    (122, 360), (112, 361), (88, 369), (84, 372), (67, 376), (62, 380), (54, 381), (47, 388), (41, 400),
    (37, 415), (26, 428), (27, 460), (17, 527), (15, 569), (11, 599), (511, 599), (511, 434), (508, 434),
    (505, 431), (493, 395), (485, 389), (443, 371), (419, 365), (378, 346), (367, 343), (358, 338),
    (337, 320), (337, 311), (343, 290), (350, 282), (363, 254), (367, 227), (370, 221), (370, 207),
    (375, 194), (374, 189), (369, 182), (371, 135), (369, 130), (369, 101), (365, 90), (361, 87),
    (354, 87), (352, 85), (346, 69), (336, 57), (312, 44), (299, 41), (290, 32), (280, 27), (269, 24),
    (250, 23), (239, 25), (229, 30),
)
# fmt: on


@dataclass(frozen=True, slots=True, eq=False)
class CutOut:
    """A person without what was behind them.

    Attributes:
        image: uint8 (H, W, 3) BGR.
        alpha: float32 (H, W), 1 where the person is, 0 where not.
        face_xy: The middle of the face, pixels.
    """

    image: Image
    alpha: npt.NDArray[np.float32]
    face_xy: tuple[float, float]


def eileen_collins() -> CutOut:
    """Eileen Collins, astronaut (NASA, public domain).

    Raises:
        ModelError: scikit-image, which ships the portrait, is not installed.
    """
    return _cut(load_portrait(), _COLLINS, (222, 120))


def grace_hopper() -> CutOut:
    """Grace Hopper, computer scientist and rear admiral (US Navy, public domain).

    Raises:
        ModelError: matplotlib, which ships the portrait, is not installed.
    """
    return _cut(load_hopper(), _HOPPER, (267, 226))


def sam() -> CutOut:
    """Sam, who was drawn for this demo and does not exist.

    Raises:
        ModelError: The picture is missing from the installation.
    """
    try:
        picture = cv2.imdecode(np.frombuffer(_SAM.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as exc:
        raise ModelError(f"{_SAM}: missing from the installation; install facestream again") from exc
    assert picture is not None
    image = np.ascontiguousarray(picture[:, :, :3], dtype=np.uint8)
    return CutOut(image, _weights(picture[:, :, 3]), (240, 280))


def photograph(person: CutOut) -> Image:
    """The person before a plain wall: a still to enrol.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    wall = np.full_like(person.image, 190)
    return np.asarray(cv2.blendLinear(person.image, wall, person.alpha, 1 - person.alpha), np.uint8)


def _cut(image: Image, outline: tuple[tuple[int, int], ...], face_xy: tuple[float, float]) -> CutOut:
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.array(outline, np.int32)], 255, cv2.LINE_AA)
    return CutOut(image, _weights(cv2.GaussianBlur(mask, (0, 0), 1.2)), face_xy)


def _weights(mask: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A mask of 0..255 as weights of 0..1."""
    return np.asarray(mask, np.float32) / np.float32(255)
