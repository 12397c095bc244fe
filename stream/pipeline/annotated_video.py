"""The annotated video: every analysed frame with its tracks drawn on it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import SinkError
from engine.faces import Image
from stream.gallery.identification.identifier import Identifier
from stream.pipeline.pipeline import Batch
from stream.tracking.track_state import LiveTrack, TrackState
from stream.video.drawing import Label, draw_labels, fit, plain_letters
from stream.video.frames import Frame
from stream.video.mp4_writer import VideoWriter


def video_paths(path: Path, camera_ids: Collection[str]) -> dict[str, Path]:
    """Where each camera's video goes: ``out.mp4``, or with several cameras ``out-CAMERA.mp4`` for each."""
    if len(camera_ids) == 1:
        return dict.fromkeys(camera_ids, path)
    return {name: path.with_stem(f"{path.stem}-{name}") for name in camera_ids}


class VideoRenderer:
    """Watches a run and writes one MP4 file a camera.

    Args:
        path: Of the file; with several cameras, ``out.mp4`` becomes ``out-CAMERA.mp4`` for each.
        camera_ids: Of the run.
        fps: Nominal frames a second.
        identifier: Says who the tracks are; without one they are numbered.

    Raises:
        SinkError: The path cannot be written.
    """

    def __init__(
        self,
        path: Path,
        camera_ids: Collection[str],
        *,
        fps: float = 10.0,
        identifier: Identifier | None = None,
    ) -> None:
        if path.suffix.lower() != ".mp4":
            raise SinkError(f"{path}: expected a path that ends in .mp4")
        self.paths = video_paths(path, camera_ids)
        """Where each camera's video goes, by camera id."""
        for each in self.paths.values():
            if not each.parent.is_dir():
                raise SinkError(f"{each}: the folder {each.parent} does not exist; make it first")
        self._fps = fps
        self._identifier = identifier
        self._writers: dict[str, tuple[tuple[int, int], VideoWriter]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, batch: Batch) -> None:
        """Draw and write the frames of a batch.

        Raises:
            SinkError: A file cannot be written.
        """
        for frame, tracks in zip(batch.frames, batch.tracks, strict=True):
            labels = [
                Label(track.box_xyxy, self._text(track), track.number)
                for track in tracks
                if track.state is TrackState.IN_VIEW
            ]
            minutes, seconds = divmod(frame.time_s, 60)
            caption = f"{frame.camera_id}  {minutes:02.0f}:{seconds:04.1f}"
            self._write(frame, draw_labels(frame.image, labels, caption=caption))

    def _text(self, track: LiveTrack) -> str:
        """Name and score of the person; without a gallery, the track's number and the detector's score."""
        standing = None if self._identifier is None else self._identifier.standing(track.track_id)
        if standing is None:
            return f"#{track.number}  face {track.score:.2f}"
        name = "not enrolled" if standing.person_name is None else standing.person_name
        score = "" if standing.similarity is None else f"  {standing.similarity:.2f}"
        return f"{plain_letters(name) or f'#{track.number}'}{score}"

    def _write(self, frame: Frame, image: Image) -> None:
        size_wh, writer = self._writers.get(frame.camera_id) or self._begin(frame)
        if frame.size_wh != size_wh:  # a stream may change its size in the middle; a file may not
            image = fit(image, size_wh)
        writer.write(image, frame.time_s)

    def _begin(self, frame: Frame) -> tuple[tuple[int, int], VideoWriter]:
        writer = self._open.enter_context(VideoWriter(self.paths[frame.camera_id], frame.size_wh, self._fps))
        self._writers[frame.camera_id] = frame.size_wh, writer
        return self._writers[frame.camera_id]
