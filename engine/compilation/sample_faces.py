"""Faces for comparing engines and calibrating graphs: a user's own, or one portrait in many variations."""

from __future__ import annotations

import contextlib
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engine.errors import ModelError, PictureError
from engine.faces import Image
from engine.vision.file_signatures import PICTURE_KINDS, PICTURE_SUFFIXES
from engine.vision.image_decoding import read_picture

PORTRAIT_VIEWS: Final = 48
_MOST_IMAGES: Final = 64
_SIDE_PX: Final = 384


def sample_images(folder: Path | None = None, *, most: int = _MOST_IMAGES) -> list[Image]:
    """Images with a face in each.

    Args:
        folder: Of images, searched with its sub-folders; evenly picked where there are more than ``most``.
            Without one, 48 views of the portrait of Eileen Collins (NASA, public domain) that comes with
            scikit-image.
        most: At least 1.

    Returns:
        uint8 (H, W, 3) BGR, of several sizes.

    Raises:
        ModelError: The folder holds no image that can be read, or scikit-image is not installed.
    """
    if folder is None:
        return portrait_views(load_portrait())[:most]
    if not (images := read_folder(folder, most=most)):
        raise ModelError(
            f"{folder}: expected a folder of face images ({PICTURE_KINDS}), found none that can be read"
        )
    return images


def pictures_in(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders that are named like pictures, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)


def read_folder(folder: Path, *, most: int) -> list[Image]:
    """The images of a folder and its sub-folders that can be read, evenly picked where there are more.

    Args:
        folder: Where to look.
        most: At least 1.

    Returns:
        uint8 (H, W, 3) BGR.
    """
    return [image for path in _picked(folder, most) if (image := _read(path)) is not None]


def faces_sha256(folder: Path, *, most: int = _MOST_IMAGES) -> str:
    """What tells the images that ``sample_images`` takes from a folder from those of another one.

    Args:
        folder: Of images.
        most: As ``sample_images`` gets it.

    Returns:
        SHA-256 over the files' contents, in order; neither their names count nor files that cannot be read.
    """
    whole = hashlib.sha256()
    for path in _picked(folder, most):
        with contextlib.suppress(OSError):
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _picked(folder: Path, most: int) -> list[Path]:
    """At most so many pictures of a folder, evenly picked."""
    paths = pictures_in(folder)
    return [paths[index] for index in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]


def _read(path: Path) -> Image | None:
    """An image; None where a file is none."""
    try:
        return read_picture(path)
    except PictureError:
        return None


def portrait_views(portrait: Image) -> list[Image]:
    """A portrait turned, scaled, moved, mirrored, dimmed, blurred and made noisy; the same at each call.

    Args:
        portrait: uint8 (H, W, 3) BGR, one face in its middle third.

    Returns:
        ``PORTRAIT_VIEWS`` images, uint8 (384, 384, 3) BGR.
    """
    random = np.random.default_rng(2015)
    return [_view(portrait, random, mirrored=bool(number % 2)) for number in range(PORTRAIT_VIEWS)]


def _view(portrait: Image, random: np.random.Generator, *, mirrored: bool) -> Image:
    height, width = portrait.shape[:2]
    scale = random.uniform(0.5, 1.6) * _SIDE_PX / max(height, width)
    turn = cv2.getRotationMatrix2D((width / 2, height / 3), random.uniform(-25, 25), scale)
    centre = np.array([_SIDE_PX - width, _SIDE_PX - height * 2 / 3]) / 2
    turn[:, 2] = turn[:, 2] + centre + random.uniform(-40, 40, 2)
    view = cv2.warpAffine(portrait, turn, (_SIDE_PX, _SIDE_PX), borderMode=cv2.BORDER_REPLICATE)
    if mirrored:
        view = cv2.flip(view, 1)
    view = cv2.GaussianBlur(view, (0, 0), random.uniform(0.1, 1.5))
    light = view * random.uniform(0.6, 1.25) * random.uniform(0.9, 1.1, 3) + random.normal(
        0, random.uniform(0.5, 8), view.shape
    )
    return np.clip(light, 0, 255).astype(np.uint8)


def load_portrait() -> Image:
    """The portrait of Eileen Collins that scikit-image ships (NASA, public domain).

    Returns:
        uint8 (512, 512, 3) BGR.

    Raises:
        ModelError: scikit-image is not installed.
    """
    return _shipped("scikit-image", "skimage", "data/astronaut.png")


def load_hopper() -> Image:
    """The portrait of Grace Hopper that matplotlib ships (US Navy, public domain).

    Returns:
        uint8 (600, 512, 3) BGR.

    Raises:
        ModelError: matplotlib is not installed; facestream's extra ``demo`` brings it.
    """
    return _shipped("matplotlib", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


def _shipped(project: str, package: str, path: str) -> Image:
    """A picture that a package ships. The file alone is read: the packages take a second to import."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (image := _read(Path(folder) / path)) is not None:
            return image
    raise ModelError(f"the portrait that {project} ships is not installed; run: pip install {project}")
