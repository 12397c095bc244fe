"""Video out: images into an H.264 MP4 file."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import SinkError
from engine.faces import Image
from stream.video.gstreamer.bindings import PipelineFailure
from stream.video.gstreamer.encoding import EncodePipeline

_NS = 1_000_000_000
_LEAST_STEP_NS = 1_000_000
_LEAST_SIDE = 16  # of x264


class VideoWriter:
    """Writes an MP4 file that browsers play. The file is whole once the writer is closed.

    Args:
        path: Of the file; overwritten.
        size_wh: Width and height of every image in pixels, 16 or more. H.264 wants even numbers: an odd
            last column or row is left out.
        fps: Nominal frames a second; each frame still has its own time.
        bitrate_kbps: Encode as an IP camera does, at this rate; None encodes fast at constant quality.

    Raises:
        ValueError: A number is too small.
        SinkError: The path cannot be written.
    """

    def __init__(
        self, path: Path, size_wh: tuple[int, int], fps: float, *, bitrate_kbps: int | None = None
    ) -> None:
        if min(size_wh) < _LEAST_SIDE or not fps > 0:
            raise ValueError(
                f"expected {_LEAST_SIDE} or more pixels and fps above 0, got {size_wh} and {fps}"
            )
        _check_writable(path)
        self._path, self._size_wh, self._fps = path, size_wh, fps
        self._bitrate_kbps = bitrate_kbps
        self._pipeline: EncodePipeline | None = None
        self._first_s = 0.0
        self._last_ns = -_LEAST_STEP_NS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, image: Image, time_s: float) -> None:
        """Add a frame.

        Args:
            image: uint8 (H, W, 3) BGR of the writer's size.
            time_s: When it is shown; the first frame's time is the file's zero. A time that is not after
                the one before is taken for the next millisecond.

        Raises:
            ValueError: The image has another size.
            SinkError: The file cannot be written.
        """
        width, height = self._size_wh
        if image.shape != (height, width, 3):
            raise ValueError(f"image: expected uint8 {(height, width, 3)}, got {image.dtype} {image.shape}")
        try:
            if self._pipeline is None:
                even_wh = (width - width % 2, height - height % 2)
                self._first_s = time_s
                _make_private(self._path)
                self._pipeline = EncodePipeline(
                    str(self._path), size_wh=even_wh, fps=self._fps, bitrate_kbps=self._bitrate_kbps
                )
            pts_ns = max(round((time_s - self._first_s) * _NS), self._last_ns + _LEAST_STEP_NS)
            self._last_ns = pts_ns
            self._pipeline.push(image[: height - height % 2, : width - width % 2], pts_ns)
        except PipelineFailure as exc:
            raise self._error(exc) from exc

    def close(self) -> None:
        """Finish the file. May be called twice. Without a frame there is no file.

        Raises:
            SinkError: The file could not be finished.
        """
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        try:
            pipeline.finish()
        except PipelineFailure as exc:
            raise self._error(exc) from exc

    def _error(self, failure: PipelineFailure) -> SinkError:
        reason = failure.message.rstrip(".")
        return SinkError(f"{self._path}: the video cannot be written ({reason}); check space and permissions")


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"{path}: is a folder, expected the path of an MP4 file")
    if not path.parent.is_dir():
        raise SinkError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SinkError(f"{path}: may not be written by this user; change the permissions or the path")


def _make_private(path: Path) -> None:
    """Make a file that is its owner's alone, since people are seen in it; one that is there stays as it is.

    Raises:
        SinkError: It cannot be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise SinkError(f"{path}: cannot be written ({exc.strerror}); choose another path") from exc
