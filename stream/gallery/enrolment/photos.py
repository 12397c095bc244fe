"""A person's photograph to an embedding, or the reason for refusing it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import PictureError
from engine.faces import Faces, Image
from engine.vision.detection import Detector
from engine.vision.embedder import Embedder
from engine.vision.face_finder import LEAST_SCORE, Pick, subject
from engine.vision.image_decoding import decode_picture
from engine.vision.quality import face_quality, pose_factor, sharpness, size_factor

MAX_FILE_BYTES: Final = 320_000_000
"""Of a photograph that is looked at: what ``engine.vision.image_decoding.MAX_PIXELS`` take uncompressed."""
_LEAST_SIZE: Final = 0.9
_LEAST_SHARPNESS: Final = 0.4
_LEAST_POSE: Final = 0.4


class UnfitPhotoError(Exception):
    """A photograph will not do; says why in one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Still:
    """The face of a photograph.

    Attributes:
        embedding: float32 (D,), unit length.
        quality: 0..1.
        digest: SHA-256 of the file, hexadecimal.
        photo: The file.
    """

    embedding: npt.NDArray[np.float32]
    quality: float
    digest: str
    photo: bytes


class StillReader:
    """Finds, aligns, judges and embeds the face of a photograph, as the stream does with a frame.

    Args:
        detector: Finds faces.
        embedder: Embeds them.
        pick: Which of several faces is meant, the largest or the one nearest to the photograph's centre; None
            refuses photographs in which no face is clearly the subject
            (``engine.vision.face_finder.subject``).
        force: Take a face however small, blurred or turned away it is; the largest where ``pick`` is None.
    """

    def __init__(
        self, detector: Detector, embedder: Embedder, *, pick: Pick | None = None, force: bool = False
    ) -> None:
        self._detector = detector
        self._embedder = embedder
        self._pick = pick or ("largest" if force else None)
        self._force = force

    def read(self, photo: bytes) -> Still:
        """The face of a photograph's file.

        Args:
            photo: A picture file's content, from anywhere.

        Raises:
            UnfitPhotoError: It is no picture, or its face will not do.
            ModelError: An engine failed.
        """
        image = decode_photo(photo)
        faces = self._detector.detect([image])[0]
        faces = faces[faces.scores >= LEAST_SCORE]
        try:
            chosen = subject(faces, image, pick=self._pick)
        except PictureError as exc:
            raise UnfitPhotoError(str(exc)) from exc
        face = faces[chosen : chosen + 1]
        crop = self._embedder.align(image, face.landmarks_xy)
        portrait = self._embedder.portraits(crop)
        if not self._force:
            _check_face(face, portrait)
        embedding = self._embedder.embed(crop)[0]
        if not np.isfinite(embedding).all():
            raise UnfitPhotoError("its embedding is not finite; compile the model with a higher precision")
        quality = float(face_quality(face, portrait)[0])
        return Still(embedding, quality, hashlib.sha256(photo).hexdigest(), photo)


def read_file(path: Path) -> bytes:
    """A photograph's file.

    Raises:
        UnfitPhotoError: It cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            photo = file.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise UnfitPhotoError(f"it cannot be read ({exc.strerror})") from exc
    if len(photo) > MAX_FILE_BYTES:
        raise UnfitPhotoError(f"it has more than {MAX_FILE_BYTES:,} bytes; save it as JPEG")
    return photo


def decode_photo(photo: bytes) -> Image:
    """The pixels of a picture file; see ``engine.vision.image_decoding.decode_picture``.

    Raises:
        UnfitPhotoError: It is none, damaged, or too large.
    """
    try:
        return decode_picture(photo)
    except PictureError as exc:
        raise UnfitPhotoError(str(exc)) from exc


def _check_face(face: Faces, portrait: npt.NDArray[np.uint8]) -> None:
    """Say what is wrong with a face, the worst first."""
    right_eye, left_eye = face.landmarks_xy[0, :2]
    between_px = float(np.hypot(*(left_eye - right_eye)))
    if (size := float(size_factor(face.landmarks_xy)[0])) < _LEAST_SIZE:
        raise UnfitPhotoError(
            f"its face is too small: {between_px:.0f} pixels between the eyes (size score {size:.2f}, "
            f"minimum {_LEAST_SIZE:.2f})"
        )
    if (pose := float(pose_factor(face.landmarks_xy)[0])) < _LEAST_POSE:
        raise UnfitPhotoError(f"its face is turned away (pose score {pose:.2f}, minimum {_LEAST_POSE:.2f})")
    if (sharp := float(sharpness(portrait)[0])) < _LEAST_SHARPNESS:
        raise UnfitPhotoError(
            f"its face is blurred (sharpness score {sharp:.2f}, minimum {_LEAST_SHARPNESS:.2f})"
        )
