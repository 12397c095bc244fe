"""Picture files for tests, of every kind, as other programs write them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": ("JPEG", {"quality": 95}),
    "progressive JPEG": ("JPEG", {"quality": 95, "progressive": True}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 95}),
    "lossless WebP": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {"quality": 95, "speed": 10}),
    "TIFF": ("TIFF", {}),
    "TIFF of LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF of deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF of JPEG": ("TIFF", {"compression": "jpeg", "quality": 95}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
    "HEIC": ("HEIF", {"quality": 95}),
}
"""Name, Pillow's format and its options; HEIC needs ``pillow_heif``."""

WITHOUT_EXIF = {"BMP", "GIF"}

_TURNED_BACK = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


def picture_of(image: np.ndarray) -> PIL.Image.Image:
    """Pillow's picture of an array of BGR."""
    return PIL.Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))


def encoded(picture: PIL.Image.Image, kind: str, *, orientation: int = 1, **options: Any) -> bytes:
    """A file of the picture; with an orientation, the pixels lie so that it brings them upright."""
    name, given = KINDS[kind]
    turn = _TURNED_BACK[orientation]
    if turn is not None:
        picture = picture.transpose(turn)
        exif = PIL.Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
        picture.info["exif"] = exif.tobytes()  # where pillow_heif looks
    if name == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
        options.pop("exif", None)
    file = io.BytesIO()
    picture.save(file, name, **given | options)
    return file.getvalue()
