"""Files and folders before anything is decoded: is it there, can it be read, which pictures are in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from engine.errors import SourceError
from engine.vision.file_signatures import PICTURE_KINDS, PICTURE_SUFFIXES
from stream.video.container_check import iso_boxes

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".gif", ".ts", ".m2ts"),
    *(".mts", ".mpg", ".mpeg", ".3gp", ".ogv", ".ogg"),
)
"""What a URL of a finite file ends with."""

PLAYLIST_SUFFIXES = (".m3u8", ".mpd")
"""What a local file must end with, for the addresses that it names to be asked."""

_DEVICE = re.compile(r"(?:/dev/)?(?:video)?([0-9]{1,3})")
# An address whose "://" was mistyped, or left out before a host: an address of IPv4, or a name with a port.
_MISTYPED = re.compile(r"/{0,2}(rtsp[su]?|https?)(?::/*|/)([^/:].*)", re.IGNORECASE)
_HOST = re.compile(r"/{0,2}((?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?::[0-9]{1,5})?|[\w.-]+:[0-9]{1,5})(?:/.*)?)")


def check_media_file(path: Path) -> None:
    """Check that a file can be read at all, before a pipeline is built for it.

    Args:
        path: Of the file.

    Raises:
        SourceError: It is missing, empty, not a regular file, may not be read, or is an MP4 without index.
    """
    if (path.is_char_device() or not path.exists()) and (device := _DEVICE.fullmatch(str(path))):
        raise SourceError(
            f"{path}: is not a file; for a camera of this machine write v4l2:///dev/video{device[1]}"
        )
    if not path.exists():
        raise SourceError(f"{path}: no such file; {_advice(str(path))}")
    if not path.is_file():
        raise SourceError(f"{path}: is not a regular file, expected a video file or a folder of pictures")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path}: may not be read by this user; change its permissions")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: is empty (0 bytes), expected a video; copy or record it again")
    # GStreamer 1.22 loses its own error for this in a race now and then, and then nothing ever comes.
    if (boxes := iso_boxes(path)) and b"moov" not in boxes:
        raise SourceError(
            f"{path}: holds no index of its streams (no moov box): the recording was cut off; copy or record "
            "it again"
        )


def _advice(path: str) -> str:
    """What was meant by a path where nothing is."""
    if mistyped := _MISTYPED.fullmatch(path):
        return f"for a camera on the network write {mistyped[1].lower()}://{mistyped[2]}"
    if host := _HOST.fullmatch(path):
        return f"for a camera on the network write rtsp://{host[1]}"
    return "check the path"


def check_local(path: Path) -> None:
    """Check that a file or folder can be played, without decoding anything.

    Args:
        path: Of the file or folder.

    Raises:
        SourceError: As ``check_media_file`` and ``list_pictures`` raise it.
    """
    if path.is_dir():
        list_pictures(path)
    else:
        check_media_file(path)


def list_pictures(folder: Path) -> list[Path]:
    """Pictures of a folder, in natural order: ``frame9.jpg`` before ``frame10.jpg``.

    Args:
        folder: That exists; its own folders are not looked into.

    Returns:
        Paths, one or more.

    Raises:
        SourceError: The folder may not be read, or holds no picture, or only empty ones.
    """
    try:
        files = [path for path in folder.iterdir() if path.is_file()]
    except OSError as exc:
        raise SourceError(f"{folder}: cannot be read ({exc.strerror}); change its permissions") from exc
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise SourceError(f"{folder}: has no picture among {len(files)} files, expected {PICTURE_KINDS}")
    if not any(path.stat().st_size for path in pictures):
        raise SourceError(f"{folder}: all {len(pictures)} pictures are empty (0 bytes); copy them again")
    return sorted(pictures, key=natural_key)


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sorting key that takes runs of digits as numbers.

    Args:
        path: Only its name counts.

    Returns:
        Something that compares as people expect.
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", path.stem)
    return (
        *((0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts),
        (-1, 0, path.name),
    )
