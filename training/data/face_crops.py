"""From image files to aligned faces, once, for any number of embedders to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError, PictureError
from engine.faces import Faces, FloatArray, Image
from engine.vision.image_decoding import decode_picture
from engine.vision.yunet import FaceDetector
from training.data.array_types import BoolArray

Align: TypeAlias = Callable[[Image, FloatArray], npt.NDArray[np.uint8]]
"""Cuts faces out of an image as ``FaceEmbedder.align`` does: landmarks (N, 5, 2) to crops (N, H, W, 3)."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many are done, and of how many."""

_IMAGES_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrops:
    """One aligned face for each image.

    Attributes:
        crops: uint8 (N, H, W, 3) BGR, black where no face was found.
        found: bool (N,), whether a face was found.

    Raises:
        ValueError: The arrays do not fit together.
    """

    crops: npt.NDArray[np.uint8]
    found: BoolArray

    def __post_init__(self) -> None:
        if self.crops.ndim != 4 or self.crops.shape[3] != 3 or self.crops.dtype != np.uint8:
            raise ValueError(f"crops: expected uint8 (N, H, W, 3), got {self.crops.dtype} {self.crops.shape}")
        if self.found.shape != self.crops.shape[:1] or self.found.dtype != np.bool_:
            raise ValueError(
                f"found: expected bool ({len(self.crops)},), got {self.found.dtype} {self.found.shape}"
            )

    def __len__(self) -> int:
        return len(self.found)


def faces_of(
    paths: Sequence[Path], detector: FaceDetector, align: Align, *, on_progress: Progress | None = None
) -> FaceCrops:
    """Cut out the face of each image: of several, the one whose box is centred nearest to the image's centre.

    Benchmarks of cropped photographs centre the person that they name; others may be in the background.

    Args:
        paths: Image files. All crops are held in memory.
        detector: Its ``min_score`` decides what counts as a face.
        align: How faces are cut out; see ``Align``.
        on_progress: Called after each batch of images.

    Raises:
        DatasetError: A file cannot be read or is no intact image.
        ModelError: The engine failed.
    """
    shape = align(np.zeros((1, 1, 3), np.uint8), np.empty((0, 5, 2), np.float32)).shape[1:]
    crops = np.zeros((len(paths), *shape), np.uint8)
    found = np.zeros(len(paths), np.bool_)
    for start in range(0, len(paths), _IMAGES_AT_ONCE):
        rows = range(start, min(start + _IMAGES_AT_ONCE, len(paths)))
        images = [read_image(paths[row]) for row in rows]
        for row, image, faces in zip(rows, images, detector.detect(images), strict=True):
            if len(faces):
                nearest = nearest_to(faces, image.shape[1] / 2, image.shape[0] / 2)
                crops[row] = align(image, faces.landmarks_xy[[nearest]])[0]
                found[row] = True
        if on_progress is not None:
            on_progress(rows.stop, len(paths))
    return FaceCrops(crops, found)


def nearest_to(faces: Faces, x: float, y: float) -> int:
    """Index of the face whose box's centre is nearest to a point.

    Args:
        faces: At least one.
        x: Pixels from the left.
        y: Pixels from the top.
    """
    centres = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
    return int(np.hypot(centres[:, 0] - x, centres[:, 1] - y).argmin())


def read_image(path: Path) -> Image:
    """Decode an image file, turned as its EXIF data says.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        DatasetError: The file cannot be read, is no image, or was cut off.
    """
    return decode_image(read_bytes(path), origin=path)


def read_bytes(path: Path) -> bytes:
    """An image file's bytes.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DatasetError(f"{path}: cannot read the image: {exc.strerror}; check the data set") from exc


def decode_image(data: bytes, *, origin: Path) -> Image:
    """Decode an image file's bytes, turned as its EXIF data says.

    Args:
        data: The bytes.
        origin: Where they come from, for the error message.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        DatasetError: They are no image, or one that was cut off.
    """
    try:
        return decode_picture(data)
    except PictureError as exc:
        raise DatasetError(f"{origin}: {exc}") from exc
