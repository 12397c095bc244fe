"""Decode picture files into arrays, as a viewer shows them.

Photographs come from anywhere, so a file's size is checked before memory is taken for its pixels, and a
decoder sees only files of its own kind. ``docs/decisions/0018-one-decoder-of-pictures.md`` says why Pillow.
"""

from __future__ import annotations

import ctypes
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import _imaging
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engine.errors import PictureError
from engine.faces import Image
from engine.optional_libraries import why_unusable
from engine.vision.file_signatures import RAW, PictureKind, is_cropped, is_cut_off, picture_kind

MAX_PIXELS: Final = 100_000_000
"""Of a picture that is decoded."""

BACKGROUND: Final = (128, 128, 128)
"""What transparent parts are laid over: middle grey, on which neither black nor white is lost."""

_LEAST_ALPHA: Final = 13
"""Of 255: a picture that is nowhere more opaque than this shows nothing to a viewer."""
_MOST_SCANS: Final = 1_000
"""Of a JPEG file; each costs as much as the whole picture, and takes a few bytes."""
_TIFF_SUBFILE, _TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH, _TIFF_DNG_VERSION = 254, 322, 323, 50706
_BAND_ROWS: Final = 256
_EXIF_ORIENTATION: Final = 274
_TURNS: Final[Mapping[object, PIL.Image.Transpose]] = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

_quiet = threading.Lock()
"""Held while Python's warnings are silenced, which is for all threads or none."""


def read_picture(path: Path) -> Image:
    """The pixels of a picture file; see ``decode_picture``.

    Raises:
        PictureError: The file cannot be read, or as ``decode_picture`` says; the message names the file.
    """
    try:
        return decode_picture(path.read_bytes())
    except OSError as exc:
        raise PictureError(f"{path}: it cannot be read ({exc.strerror})") from exc
    except PictureError as exc:
        raise PictureError(f"{path}: {exc}") from exc


def decode_picture(data: bytes) -> Image:
    """The pixels of a picture as a viewer shows them: upright, and nothing that is hidden.

    Of several pictures in a file (frames, pages, thumbnails, depth maps) it is the primary one, or the first.
    What is transparent is laid over ``BACKGROUND``. Colour profiles are not applied. More than 8 bits a
    channel are reduced to 8.

    Args:
        data: The content of a file of ``engine.vision.file_signatures.PICTURE_KINDS``, from anywhere.

    Returns:
        uint8 (H, W, 3) BGR.

    Raises:
        PictureError: It is no picture, cut off, damaged, wholly transparent, has more than ``MAX_PIXELS``, or
            is HEIC and pillow-heif is not installed. The message is a clause that begins with "it".
    """
    kind = picture_kind(data)
    try:
        image = _opened(kind, data)
        image.load()
        return _pixels(_flattened(_upright(image)))
    except PictureError:
        raise
    except PIL.Image.DecompressionBombError as exc:
        raise PictureError(f"it has too many pixels, at most {MAX_PIXELS:,} are allowed; shrink it") from exc
    except Exception as exc:  # decoders of untrusted bytes raise whatever they stumble over
        raise PictureError(_explain(kind, data, exc)) from exc


def _opened(kind: PictureKind, data: bytes) -> PIL.Image.Image:
    """A picture of a size that is taken, of which no more than the header was read."""
    if kind == "JPEG" and data.count(b"\xff\xda") > _MOST_SCANS:
        raise ValueError(f"it has more than {_MOST_SCANS} scans")
    if kind == "AVIF" and is_cropped(data):  # libavif leaves cropping to its callers, unlike libheif
        raise PictureError("it is cropped by its metadata, which is not supported; save it as shown")
    if kind == "TIFF":
        _silence_tiff()
    with _without_warnings():
        # Not PIL.Image.open, which tries all that it knows on a file and has limits of its own.
        image = _PLUGINS[kind](io.BytesIO(data))
        _check_size(*image.size)
        if isinstance(image, TiffImageFile):
            _check_tiff(image)
            image.load()  # which reads its EXIF data, too
    if image.info.get("default_image"):
        raise PictureError(
            "it shows one picture to programs that know animated PNG and another to those that do not; save "
            "it as a plain PNG"
        )
    return image


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of what it finds in headers. Filters of warnings are for all threads, so one has them."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open_heif(file: io.BytesIO) -> PIL.Image.Image:
    try:
        import pillow_heif
    except (ImportError, OSError) as exc:
        trouble = why_unusable(
            "pillow_heif", exc, title="its decoder", install="pip install 'facestream[heif]'"
        )
        raise PictureError(f"it is a HEIC picture: {trouble}, or save it as JPEG") from exc
    plugin: Callable[[io.BytesIO], PIL.Image.Image] = pillow_heif.HeifImageFile
    return plugin(file)


_PLUGINS: Final[Mapping[PictureKind, Callable[[io.BytesIO], PIL.Image.Image]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "AVIF": AvifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "HEIC": _open_heif,
}


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise PictureError(
            f"it has {width} by {height} pixels, at most {MAX_PIXELS:,} pixels are allowed; shrink it"
        )


def _check_tiff(image: TiffImageFile) -> None:
    """Check that the first page is the picture, and that no tile is larger than a picture may be."""
    tags: Mapping[int, Any] = image.tag_v2
    if _TIFF_DNG_VERSION in tags or tags.get(_TIFF_SUBFILE, 0) & 1:
        raise PictureError(f"it is {RAW}, or begins with a small preview")
    if _TIFF_TILE_WIDTH in tags:
        _check_size(tags[_TIFF_TILE_WIDTH], tags[_TIFF_TILE_LENGTH])


@cache
def _silence_tiff() -> None:
    """Keep libtiff's and Pillow's own words from standard error: what is wrong is raised, too."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python writes what nobody handles
    with suppress(AttributeError, OSError):  # AttributeError: Pillow was built without it
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture turned as its EXIF data says; as it stands where that makes no sense, as viewers do."""
    for key in ("xmp", "XML:com.adobe.xmp"):  # Pillow would take an orientation from there, viewers do not
        image.info.pop(key, None)
    try:
        with _without_warnings():
            turn = _TURNS.get(image.getexif().get(_EXIF_ORIENTATION))
    except Exception:  # noqa: BLE001 - as above
        turn = None
    return image if turn is None else image.transpose(turn)


def _flattened(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture of mode RGB, L or I;16, laid over ``BACKGROUND`` where it is transparent."""
    if image.mode.startswith("I;16"):  # no more than a single grey of it can be transparent
        return image
    if image.mode in {"I", "F"}:
        raise PictureError("it holds 32 bits a channel, at most 16 are supported; save it with 8 bits")
    if image.mode == "LAB":
        raise PictureError("its colours are in CIELAB, which is not supported; save it in RGB")
    if not image.has_transparency_data:
        return image if image.mode == "L" else image.convert("RGB")
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    least, most = _extremes(alpha)
    if most < _LEAST_ALPHA:
        raise PictureError(
            "it is wholly transparent, so that a viewer shows nothing; save it without transparency"
        )
    if least == 255:
        return image.convert("RGB")
    canvas = PIL.Image.new("RGB", image.size, BACKGROUND)
    canvas.paste(image, mask=alpha)
    return canvas


def _extremes(channel: PIL.Image.Image) -> tuple[int, int]:
    histogram = channel.histogram()
    present = [value for value, count in enumerate(histogram) if count]
    return present[0], present[-1]


def _pixels(image: PIL.Image.Image) -> Image:
    """The array, filled band by band: Pillow hands out copies, and of a large picture one is enough."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, image.height)
        band: npt.NDArray[Any] = np.asarray(image.crop((0, top, image.width, bottom)))
        if band.dtype != np.uint8:
            band = (band >> 8).astype(np.uint8)
        code = cv2.COLOR_RGB2BGR if band.ndim == 3 else cv2.COLOR_GRAY2BGR
        cv2.cvtColor(band, code, dst=pixels[top:bottom])
    return pixels


def _explain(kind: PictureKind, data: bytes, error: Exception) -> str:
    """Why a picture of a known kind could not be decoded."""
    if is_cut_off(kind, data) or "truncated" in str(error).lower():
        return f"it is cut off after {len(data):,} bytes ({kind}); copy it again"
    if "unknown pixel mode" in str(error):  # whole, of a kind that Pillow lacks: three channels of floats
        return "it holds pixels of an unsupported kind; save it in RGB with 8 bits a channel"
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"it is damaged ({kind}: {reason}); copy it again"
