"""Frames of many cameras in, events of their tracks out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from engine.faces import Faces, Image
from engine.vision.decoder_artifacts import wholeness
from engine.vision.detection import Detector
from engine.vision.embedder import FaceEmbedder
from engine.vision.quality import face_quality
from stream.events.event_types import EmbeddingModel, FaceEvent
from stream.tracking.track_lifecycle import CameraTracks, LeftListener, Look
from stream.tracking.track_state import LiveTrack
from stream.tracking.tracker import FaceTracker
from stream.video.frames import Frame
from stream.video.sampling_interval import Pace


@dataclass(frozen=True, slots=True)
class Recognition:
    """What came of some frames.

    Attributes:
        events: Those of one camera are in order.
        tracks: Beside each frame, the tracks of its camera that were open after it.
    """

    events: Sequence[FaceEvent]
    tracks: Sequence[Sequence[LiveTrack]]


class Recognizer:
    """Detects, tracks and embeds the faces of all cameras, each step for all cameras together.

    A face costs an embedding when its track has none yet, when it is clearly better than the track's best
    one, or when the track's template is due for another; never in every frame.

    Not for several threads at once, but ``live_tracks`` may be called from any.

    Args:
        detector: Should report faces from ``low_score`` on.
        embedder: Makes the embeddings.
        high_score: Only a face that scores at least this begins a track, 0..1.
        low_score: Faces with less are ignored; those in between keep a track alive, 0..``high_score``.
        confirm_after: Looks in a row that must find a face before it can become a track, >= 1.
        lost_after_s: A face that was not found for longer is not looked for any more where it was; only its
            embedding can bring its track back.
        leave_after_s: A track that was not seen for longer has left.
        rejoin_similarity: Cosine, on SFace's scale, from which a face is the person of a track that is
            lost but has not left.
        refresh_s: A template gets another face after so long, also when none was better.
        update_every_s: Least time between two ``updated`` events of a track; a much better face is
            reported after one second.
        min_quality: Poorer faces do not enter a template, unless the track has nothing better, 0..1.
        on_left: Told of each track that leaves, with its best shot.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        detector: Detector,
        embedder: FaceEmbedder,
        *,
        high_score: float = 0.6,
        low_score: float = 0.3,
        confirm_after: int = 3,
        lost_after_s: float = 1.0,
        leave_after_s: float = 5.0,
        rejoin_similarity: float = 0.4,
        refresh_s: float = 2.0,
        update_every_s: float = 5.0,
        min_quality: float = 0.2,
        on_left: LeftListener | None = None,
    ) -> None:
        if not -1 <= rejoin_similarity <= 1 or not 0 <= min_quality <= 1:
            raise ValueError(
                "expected rejoin_similarity in -1..1 and min_quality in 0..1, "
                f"got {rejoin_similarity} and {min_quality}"
            )
        if not min(leave_after_s, refresh_s, update_every_s) >= 0:
            raise ValueError(
                "expected leave_after_s, refresh_s and update_every_s of at least 0, "
                f"got {leave_after_s}, {refresh_s} and {update_every_s}"
            )
        self._detector = detector
        self._embedder = embedder
        self._new_tracker = partial(
            FaceTracker,
            high_score=high_score,
            low_score=low_score,
            confirm_after=confirm_after,
            lost_after_s=lost_after_s,
        )
        self._new_tracker()
        self._new_camera = partial(
            CameraTracks,
            embedder=EmbeddingModel.of(embedder.model, embedder.sha256, mirrored=embedder.flip),
            likeness=embedder.likeness,
            rejoin_similarity=rejoin_similarity,
            leave_after_s=leave_after_s,
            refresh_s=refresh_s,
            update_every_s=update_every_s,
            min_quality=min_quality,
            on_left=on_left,
        )
        self._cameras: dict[str, CameraTracks] = {}

    def open_camera(self, camera_id: str, run_id: str, *, looks_apart_s: float = 0.0) -> None:
        """Begin with a camera.

        Args:
            camera_id: The id that its frames carry.
            run_id: Which run of the camera this is; begins the id of every track.
            looks_apart_s: Least time between two of its frames, where it is known, >= 0; how far apart they
                are in fact is measured.

        Raises:
            ValueError: The camera is open already, or the time is negative.
        """
        if camera_id in self._cameras:
            raise ValueError(f"camera_id: expected one that is not open yet, got {camera_id!r}")
        tracker = self._new_tracker(pace=Pace(least_s=looks_apart_s))
        self._cameras[camera_id] = self._new_camera(camera_id, run_id, tracker=tracker)

    def process(self, frames: Sequence[Frame]) -> Recognition:
        """Look at some frames: one detector batch for all, one embedder batch for one frame of each camera.

        Args:
            frames: Of any open cameras; those of one camera in order, each after the ones looked at before.

        Returns:
            What happened, and the open tracks after each frame.

        Raises:
            ValueError: A camera is not open, or its frames are out of order.
            ModelError: An engine failed.
        """
        for frame in frames:
            self._camera(frame.camera_id)
        found = self._detector.detect([frame.image for frame in frames])
        events: list[FaceEvent] = []
        tracks: list[tuple[LiveTrack, ...]] = [()] * len(frames)
        for rows in _steps(frames):
            cameras = [self._camera(frames[row].camera_id) for row in rows]
            looks = [camera.look(frames[row], found[row]) for camera, row in zip(cameras, rows, strict=True)]
            self._embed(list(zip(cameras, looks, strict=True)))
            for camera, look, row in zip(cameras, looks, rows, strict=True):
                events += camera.conclude(look)
                tracks[row] = camera.live
        return Recognition(events, tracks)

    def advance(self, camera_id: str, time_s: float, at: datetime) -> list[FaceEvent]:
        """Let time pass for a camera that gives no frames, so that its tracks can leave.

        Args:
            camera_id: An open camera.
            time_s: On the clock of its frames. Its next frame may be earlier, but not before its last one.
            at: Wall-clock time of it, UTC.

        Raises:
            ValueError: The camera is not open, or ``time_s`` is before its last frame.
        """
        return self._camera(camera_id).advance(time_s, at)

    def close_camera(self, camera_id: str) -> list[FaceEvent]:
        """End with a camera: its open tracks leave.

        Whoever was in a camera that gave so few frames that nobody could be followed is told of now.

        Raises:
            ValueError: The camera is not open.
            ModelError: An engine failed.
        """
        camera = self._camera(camera_id)
        del self._cameras[camera_id]
        held = camera.held()
        if not held:
            return camera.close()
        embeddings = self._embedder.embed(np.stack([face.crop for face in held]))
        return camera.close(list(zip(held, embeddings, strict=True)))

    def live_tracks(self, camera_id: str) -> tuple[LiveTrack, ...]:
        """The tracks of a camera that have appeared and have not left, in order of appearance.

        Raises:
            ValueError: The camera is not open.
        """
        return self._camera(camera_id).live

    def _camera(self, camera_id: str) -> CameraTracks:
        if camera_id not in self._cameras:
            raise ValueError(f"camera_id: expected an open one of {sorted(self._cameras)}, got {camera_id!r}")
        return self._cameras[camera_id]

    def _qualities(self, image: Image, faces: Faces, aligned: npt.NDArray[np.uint8]) -> list[float]:
        """Quality of each face, lower where the picture is evidently damaged."""
        quality = face_quality(faces, self._embedder.portraits(aligned))
        return [float(each) for each in quality * wholeness(image, faces.boxes_xyxy)]

    def _hold(self, camera: CameraTracks, look: Look) -> None:
        """Cut out the faces that count if the camera closes now."""
        if not len(look.brief):
            return
        brief = look.faces[look.brief]
        aligned = self._embedder.align(look.frame.image, brief.landmarks_xy)
        qualities = self._qualities(look.frame.image, brief, aligned)
        for row, crop, quality in zip(look.brief.tolist(), aligned, qualities, strict=True):
            camera.hold(look, row, quality, crop)

    def _embed(self, seen: Sequence[tuple[CameraTracks, Look]]) -> None:
        """Embed, in one batch, the faces that deserve it once their pixels are judged."""
        chosen = []
        crops = []
        for camera, look in seen:
            self._hold(camera, look)
            if not len(look.candidates):
                continue
            candidates = look.faces[look.candidates]
            aligned = self._embedder.align(look.frame.image, candidates.landmarks_xy)
            qualities = self._qualities(look.frame.image, candidates, aligned)
            for row, crop, quality in zip(look.candidates.tolist(), aligned, qualities, strict=True):
                if camera.wants(look, row, quality):
                    chosen.append((camera, look, row, quality))
                    crops.append(crop)
        if chosen:
            embeddings = self._embedder.embed(np.stack(crops))
            for (camera, look, row, quality), embedding in zip(chosen, embeddings, strict=True):
                camera.learn(look, row, quality, embedding)


def _steps(frames: Sequence[Frame]) -> Iterator[list[int]]:
    """Rows of the first frame of each camera, then of the second of each that has one, and so on."""
    waiting = list(range(len(frames)))
    while waiting:
        step: dict[str, int] = {}
        later = []
        for row in waiting:
            if frames[row].camera_id in step:
                later.append(row)
            else:
                step[frames[row].camera_id] = row
        yield list(step.values())
        waiting = later
