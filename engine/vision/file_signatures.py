"""Recognise a file by its bytes: a picture of some kind, or something else, which is named."""

from __future__ import annotations

import struct
from typing import Final, Literal, TypeAlias

from engine.errors import PictureError

PictureKind: TypeAlias = Literal["JPEG", "PNG", "WebP", "HEIC", "AVIF", "TIFF", "BMP", "GIF"]

PICTURE_KINDS: Final = "JPEG, PNG, WebP, HEIC, AVIF, TIFF, BMP or GIF"
"""For people."""

PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".heic", ".heif", ".hif", ".avif"),
    *(".tif", ".tiff", ".bmp", ".dib", ".gif"),
)
"""What names of picture files end with, in lower case."""

RAW: Final = "a camera's raw file, which has to be exported as JPEG first"

_BEGINNINGS: Final[tuple[tuple[bytes, PictureKind], ...]] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_OTHERS: Final = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"FLV\x01", "a Flash video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media video"),
    (b"OggS", "an Ogg video or sound file"),
    (b"\0\0\x01\xba", "an MPEG video"),
    (b"\0\0\x01\xb3", "an MPEG video"),
    (b"ID3", "an MP3 sound file"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\x01\0", "a Windows icon"),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIRO", RAW),
    (b"IIU\0", RAW),
    (b"SQLite format 3\0", "a database"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a pointer of Git LFS (fetch the file itself: git lfs pull)"),
)
_RIFF: Final = {b"AVI ": "an AVI video", b"WAVE": "a WAV sound file"}
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)
_VIDEO_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_TRANSPORT_PACKETS: Final = ((0, 188), (4, 192))
"""Where sync bytes of MPEG transport streams stand, the second kind with time stamps between."""
_HEADER_BYTES: Final = 8
_HEAD_BYTES: Final = 1024
_TAIL_BYTES: Final = 1024
"""In so many bytes the end mark of a file is looked for: some programs append something to it."""
_TIFF_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Of a value, by its type."""
_TIFF_PARTS: Final = ((273, 279), (324, 325))
"""Tags of where strips, or tiles, begin, and of how long they are."""


def picture_kind(data: bytes) -> PictureKind:
    """Which kind of picture a file is, by its beginning.

    Args:
        data: The file's content, from anywhere.

    Raises:
        PictureError: It is none; says in a clause what it is instead.
    """
    if not data:
        raise PictureError("it is empty (0 bytes)")
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning) and data[8:10] != b"CR":  # Canon's raw files are TIFF otherwise
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        return "HEIC"
    if len(data) < _HEADER_BYTES and any(beginning.startswith(data) for beginning, _ in _BEGINNINGS):
        raise PictureError(f"it is cut off after {len(data)} bytes; copy it again")
    raise PictureError(f"it is {_name_of(data)}, expected a picture ({PICTURE_KINDS})")


def is_cut_off(kind: PictureKind, data: bytes) -> bool:
    """Whether a picture file is shorter than it says, or lacks its end mark.

    Args:
        kind: What it is.
        data: The file's content.
    """
    match kind:
        case "JPEG" | "PNG":
            ended = (b"\xff\xd9" if kind == "JPEG" else b"IEND") in data[-_TAIL_BYTES:]
        case "GIF":
            ended = data.rstrip(b"\0").endswith(b";")
        case "BMP":
            ended = int.from_bytes(data[2:6], "little") <= len(data)
        case "WebP":
            ended = int.from_bytes(data[4:8], "little") + 8 <= len(data)
        case "TIFF":
            ended = b"+" in data[:4] or _tiff_end(data) <= len(data)
        case "AVIF" | "HEIC":
            ended = _boxes_end(data) <= len(data)
    return not ended


def _boxes_end(data: bytes) -> int:
    """Where an ISO media file ends, by what its boxes say."""
    place = 0
    while place < len(data):
        place += _box_bytes(data, place)
    return place


def _tiff_end(data: bytes) -> int:
    """The furthest place that a TIFF file's first page refers to (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"I") else ">"
    end, values = 8, dict[int, tuple[int, ...]]()
    try:
        (place,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, place)
        end = place + 2 + 12 * count
        for entry in range(place + 2, end, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            size = _TIFF_BYTES.get(kind, 0) * number
            (pointer,) = struct.unpack_from(order + "I", data, entry + 8)
            at = entry + 8 if size <= 4 else pointer
            end = max(end, at + size)
            if kind in {3, 4} and any(tag in part for part in _TIFF_PARTS):
                values[tag] = struct.unpack_from(f"{order}{number}{'H' if kind == 3 else 'I'}", data, at)
    except struct.error:  # it is beyond the end
        return len(data) + 1
    parts = [
        zip(values.get(begin, ()), values.get(length, ()), strict=False) for begin, length in _TIFF_PARTS
    ]
    return max(int(end), *(begin + length for part in parts for begin, length in part), 0)


def is_cropped(data: bytes) -> bool:
    """Whether an ISO media file of pictures has a clean aperture, the part that is to be shown.

    Args:
        data: The file's content.
    """
    place = 0
    while place < len(data):
        end = place + _box_bytes(data, place)
        if data[place + 4 : place + 8] == b"meta":
            return b"clap" in data[place:end]
        place = end
    return False


def _brands(data: bytes) -> frozenset[bytes]:
    """What an ISO media file says it can be read as (ISO/IEC 14496-12, section 4.3); empty for others."""
    if data[4:8] != b"ftyp":
        return frozenset()
    end = min(_box_bytes(data, 0), 256)
    return frozenset({data[8:12], *(data[at : at + 4] for at in range(16, end, 4))})


def _box_bytes(data: bytes, place: int) -> int:
    """Length of the box that begins at a place (ISO/IEC 14496-12, section 4.2); 0 of it is "to the end"."""
    length = int.from_bytes(data[place : place + 4], "big")
    if length == 1:
        length = int.from_bytes(data[place + 8 : place + 16], "big")
    return length if length >= 8 else len(data) - place


def _name_of(data: bytes) -> str:
    """What a file is that is no picture."""
    name = next((name for beginning, name in _OTHERS if data.startswith(beginning)), "")
    if not name and data.startswith(b"RIFF"):
        name = _RIFF.get(data[8:12], "a RIFF file")
    if not name and (data[8:10] == b"CR" or data[8:12] == b"crx "):
        name = RAW
    if not name and data[4:8] in _VIDEO_BOXES:
        name = "an MP4 or QuickTime video"
    if not name and any(data[at::width][:3] == b"GGG" for at, width in _TRANSPORT_PACKETS):
        name = "an MPEG transport stream, which is a video"
    head = data[:_HEAD_BYTES]
    if not name and not any(head):
        name = "nothing but zero bytes, as if it had not been copied whole"
    return name or _text_name(head) or f"of an unknown kind (it begins with {data[:8].hex(' ')})"


def _text_name(head: bytes) -> str:
    """What a text is; empty where it is none."""
    try:
        text = head.decode()
    except UnicodeDecodeError as exc:
        if exc.start < len(head) - 3:  # else the head ends within a letter
            return ""
        text = head[: exc.start].decode()
    if not all(char.isprintable() or char.isspace() or char == "\ufeff" for char in text):
        return ""
    lower = text.lower()
    if "<svg" in lower:
        return "an SVG drawing"
    return "a web page" if "<html" in lower or "<!doctype html" in lower else "text"
