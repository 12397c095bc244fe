"""The tracks of one camera: who is whom, when they appear and when they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.faces import Faces, FloatArray, Image
from engine.models.package import Likeness
from engine.vision.quality import quality_bound
from stream.events.event_types import EmbeddingModel, FaceEvent, TrackChange
from stream.tracking.association import Rows
from stream.tracking.scene_cut import SceneCutDetector
from stream.tracking.tentative_tracks import BriefFace, BriefFaces
from stream.tracking.track_state import (
    EmbeddedFace,
    FaceTrack,
    LiveTrack,
    Sighting,
    TrackState,
    cut_shot,
    track_id,
)
from stream.tracking.tracker import NOBODY, FaceTracker
from stream.video.frames import Frame
from stream.video.sampling_interval import stretched

LeftListener: TypeAlias = Callable[[FaceEvent, Image], None]
"""Called with the ``left`` event of a track and its best shot, uint8 (H, W, 3) BGR."""

# How long a newcomer may wait for a good view, or for more views when one does not tell who it is.
_PATIENCE_S = 0.5
_HURRY_S = 1.0

# A damaged picture tells where a face is, and not where none is. How the face looks is believed, and little,
# only where nothing else comes.
_PATIENCE_WITH_DAMAGE_S = 3.0
_MOST_OF_DAMAGED = 0.1
_MOST_BLIND_S = 10.0

# Cosines on the scale of SFace, measured on video of 17 people and a dim audience. Good views of one person
# in one scene are above 0.4, of two people below 0.3 (half of these below 0.1). Poor views of two people
# reach 0.6.
_REJOIN_MARGIN = 0.05
_MAYBE = 0.15
_POOR_VIEW_PENALTY = 0.5
_FITS = 0.3
_FOREIGN = 0.1
_FOREIGN_AFTER_GAP = 0.2
_FAR_BETTER = 2.0

# After a gap a tracklet may have taken the face of whoever stands there now.
_GAP_S = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One frame of a camera and whose faces are in it.

    Attributes:
        frame: The frame.
        faces: The faces that were found in it.
        owners: For each row of ``faces`` that belongs to a tracklet, the tracklet's id.
        sightings: For the same rows, the face.
        candidates: Those of these rows that may deserve an embedding, whatever their sharpness.
        brief: Other rows, whose views are to be held, since the camera may soon close.
    """

    frame: Frame
    faces: Faces
    owners: dict[int, int]
    sightings: dict[int, Sighting]
    candidates: Rows
    brief: Rows


class CameraTracks:
    """Turns the tracklets of one camera, which are about places, into tracks, which are about persons.

    A tracklet becomes a public track once it is confirmed and its first face is embedded: the track of a
    person who was lost a short time ago, when the embedding says so, or else a new one.

    When two embeddings in a row are foreign to a track but fit each other, somebody else has been taken for
    its person: from the first of them on, the tracklet is split off. Place is good evidence and one bowed or
    blurred head is a poor counter-argument, so foreign means: no resemblance at all, or somebody known.

    One frame is ``look``, then ``hold`` for each brief face and ``learn`` for each that was embedded, then
    ``conclude``.

    Args:
        camera_id: Name in events.
        run_id: Which run of the camera; begins every track's id.
        tracker: Fresh, for this camera alone.
        embedder: What makes the embeddings.
        likeness: Brings the model's cosines to SFace's scale.
        rejoin_similarity: Cosine, on SFace's scale, from which a face is the person of a lost track, -1..1.
        leave_after_s: A track that was not seen for longer has left, but not for a single look that did not
            see it.
        refresh_s: The template is due for another face after so long.
        update_every_s: Least time between two ``updated`` events of a track.
        min_quality: Faces below wait for a better one, 0..1.
        on_left: Told of each track that leaves, with its best shot.
    """

    def __init__(
        self,
        camera_id: str,
        run_id: str,
        *,
        tracker: FaceTracker,
        embedder: EmbeddingModel,
        likeness: Likeness,
        rejoin_similarity: float,
        leave_after_s: float,
        refresh_s: float,
        update_every_s: float,
        min_quality: float,
        on_left: LeftListener | None,
    ) -> None:
        self._camera_id = camera_id
        self._run_id = run_id
        self._tracker = tracker
        self._scene_cuts = SceneCutDetector()
        self._embedder = embedder
        self._scale = likeness
        self._rejoin_similarity = rejoin_similarity
        self._leave_after_s = leave_after_s
        self._refresh_s = refresh_s
        self._update_every_s = update_every_s
        self._min_quality = min_quality
        self._on_left = on_left
        self._time_s = -math.inf
        self._frame_number = -1
        self._at: datetime | None = None
        self._followed: dict[int, FaceTrack] = {}
        self._suspects: dict[int, FaceTrack] = {}
        self._open: dict[int, FaceTrack] = {}
        self._brief = BriefFaces()
        self._appeared = 0
        self.live: tuple[LiveTrack, ...] = ()
        """The open tracks after the last call; may be read from any thread."""

    def look(self, frame: Frame, faces: Faces) -> Look:
        """Take in one frame.

        Args:
            frame: The next one.
            faces: What the detector found in it.

        Raises:
            ValueError: The frame is not after the one before.
        """
        if frame.number <= self._frame_number or not frame.time_s >= self._time_s:
            raise ValueError(
                f"camera {self._camera_id}: expected a frame after number {self._frame_number} at "
                f"{self._time_s} s, got number {frame.number} at {frame.time_s} s"
            )
        if frame.is_damaged:
            for track in self._open.values():
                track.blind_s += frame.time_s - max(self._time_s, track.last.time_s)
        self._time_s = frame.time_s
        self._frame_number, self._at = frame.number, frame.captured_at
        if not frame.is_damaged and self._scene_cuts.is_cut(frame.image):
            self._tracker.reset()
        ids = self._tracker.update(faces, frame.time_s, may_miss=frame.is_damaged)
        self._drop_unfollowed()
        self._brief.count_look()
        owners = {row: int(ids[row]) for row in np.flatnonzero(ids != NOBODY).tolist()}
        sightings = {row: Sighting.of(frame, faces, row) for row in owners}
        for row, tracklet in owners.items():
            track = self._followed.setdefault(tracklet, FaceTrack(sightings[row]))
            if frame.time_s - track.last.time_s > _GAP_S:
                track.gap_s = track.last.time_s
                track.due_s = frame.time_s
        candidates = self._candidates(faces, owners, frame)
        return Look(frame, faces, owners, sightings, candidates, self._brief_rows(faces, owners))

    def wants(self, look: Look, row: int, quality: float) -> bool:
        """Whether the face at ``row``, which has this quality or less, is to be embedded."""
        return self._wants(look.owners[row], quality, look.frame)

    def hold(self, look: Look, row: int, quality: float, crop: npt.NDArray[np.uint8]) -> None:
        """Keep a brief face, in case that the camera closes before there is more to see.

        Args:
            look: As ``look`` gave it for the camera's last frame.
            row: One of its ``brief``.
            quality: 0..1.
            crop: The face, aligned for the embedder: uint8 (H, W, 3) BGR.
        """
        sighting = look.sightings[row]
        shot = cut_shot(look.frame.image, sighting.box_xyxy)
        believed = _believed(quality, look.frame)
        face = BriefFace(sighting, sighting, 1, sighting, believed, crop.copy(), shot)
        self._brief.keep(look.owners[row], face)

    def held(self) -> Sequence[BriefFace]:
        """Faces that are to be embedded before ``close``, since the camera showed too little for a track."""
        return self._brief.best_first()

    def learn(self, look: Look, row: int, quality: float, embedding: FloatArray) -> None:
        """Take in the embedding of the face at ``row``.

        Args:
            look: As ``look`` gave it for the camera's last frame.
            row: Of a face that belongs to a tracklet.
            quality: 0..1.
            embedding: float32 (D,), unit length.
        """
        tracklet, sighting = look.owners[row], look.sightings[row]
        track = self._followed[tracklet]
        quality = _believed(quality, look.frame)
        self._brief.drop(tracklet)
        face = EmbeddedFace(sighting, quality, embedding, cut_shot(look.frame.image, sighting.box_xyxy))
        track.due_s = sighting.time_s + self._refresh_s
        if track.best is None or self._fits(track, face):
            if suspect := self._suspects.pop(tracklet, None):
                track.absorb(suspect, with_template=False)
            track.learn(face)
        elif quality >= track.quality / _FAR_BETTER and self._is_foreign(track, face):
            look.owners[row] = self._suspect(tracklet, face)

    def conclude(self, look: Look) -> list[FaceEvent]:
        """Close the frame: name new tracks, and say what changed.

        Returns:
            The frame's events; those of one track are in order.
        """
        at, time_s = look.frame.captured_at, look.frame.time_s
        for row, tracklet in look.owners.items():
            track = self._suspects.get(tracklet) or self._followed[tracklet]
            track.see(look.sightings[row])
        events = self._leave(time_s, at)
        in_view = {id(self._followed[tracklet]) for tracklet in look.owners.values()}
        newcomers = self._name_newcomers(time_s, in_view)
        events += [self._tell(TrackChange.APPEARED, track, at, time_s) for track in newcomers]
        events += [
            self._tell(TrackChange.UPDATED, track, at, time_s)
            for track in self._open.values()
            if track.has_news(time_s, update_every_s=self._update_every_s, hurry_s=_HURRY_S)
        ]
        self._publish(time_s)
        return events

    def advance(self, time_s: float, at: datetime) -> list[FaceEvent]:
        """Let time pass without a frame, so that tracks can leave.

        Args:
            time_s: On the clock of the frames.
            at: Wall-clock time of it, UTC.

        Raises:
            ValueError: ``time_s`` is before the last frame.
        """
        if not time_s >= self._time_s:
            raise ValueError(
                f"camera {self._camera_id}: expected a time from {self._time_s} s on, got {time_s}"
            )
        events = self._leave(time_s, at)
        self._publish(time_s)
        return events

    def close(self, held: Sequence[tuple[BriefFace, FloatArray]] = ()) -> list[FaceEvent]:
        """Let every open track leave, at the time of the last frame.

        Args:
            held: What ``held`` gave, each with its embedding, float32 (D,), unit length. These become tracks
                of their own, or join those of the same persons.
        """
        if self._at is None:
            return []
        newcomers = self._waiting() if self._brief.is_open else []
        newcomers += [track for face, embedding in held if (track := self._admit(face, embedding))]
        events = [self._tell(TrackChange.APPEARED, track, self._at, self._time_s) for track in newcomers]
        events += self._leave(math.inf, self._at)
        self._publish(math.inf)
        return events

    def _waiting(self) -> list[FaceTrack]:
        """Number the tracks that were still waiting for a view that tells who it is."""
        waiting = [each for each in self._followed.values() if each.number is None and each.best is not None]
        for track in waiting:
            self._number(track)
        return waiting

    def _admit(self, face: BriefFace, embedding: FloatArray) -> FaceTrack | None:
        """The new track of a brief face; None when it joined that of the same person."""
        track = FaceTrack(face.first)
        track.learn(EmbeddedFace(face.best, face.quality, embedding, face.shot))
        track.faces_seen, track.last = face.seen, face.last
        nearest = max(self._open.values(), key=lambda each: self._likeness(each, embedding), default=None)
        if nearest and self._likeness(nearest, embedding) >= self._needed(face.quality, nearest):
            nearest.absorb(track)
            return None
        self._number(track)
        return track

    def _number(self, track: FaceTrack) -> None:
        self._appeared += 1
        track.number = self._appeared
        self._open[track.number] = track

    def _brief_rows(self, faces: Faces, owners: dict[int, int]) -> Rows:
        """Rows of sure faces without an embedding, while it is not known whether there is more."""
        if not self._brief.is_open:
            return np.empty(0, np.intp)
        rows = [
            row
            for row, owner in owners.items()
            if self._followed[owner].best is None
            and (self._tracker.is_sure(faces.scores[row]) or self._tracker.is_confirmed(owner))
        ]
        return np.array(rows, np.intp)

    def _candidates(self, faces: Faces, owners: dict[int, int], frame: Frame) -> Rows:
        if frame.is_damaged and self._somebody_is_lost(
            owners
        ):  # who this may be, and a better view will tell
            return np.empty(0, np.intp)
        confirmed = [row for row, owner in owners.items() if self._tracker.is_confirmed(owner)]
        bounds = quality_bound(faces[np.array(confirmed, np.intp)]).tolist()
        wanted = [
            row
            for row, bound in zip(confirmed, bounds, strict=True)
            if self._wants(owners[row], bound, frame)
        ]
        return np.array(wanted, np.intp)

    def _somebody_is_lost(self, owners: dict[int, int]) -> bool:
        in_view = {id(self._followed[tracklet]) for tracklet in owners.values()}
        return any(id(track) not in in_view for track in self._open.values())

    def _wants(self, tracklet: int, quality: float, frame: Frame) -> bool:
        track = self._followed[tracklet]
        if frame.is_damaged:
            return track.best is None and frame.time_s - track.first.time_s >= _PATIENCE_WITH_DAMAGE_S
        return track.wants(quality, frame.time_s, min_quality=self._min_quality, patience_s=_PATIENCE_S)

    def _drop_unfollowed(self) -> None:
        """Drop the tracklets that the tracker has dropped; public tracks stay open."""
        kept = set(self._tracker.ids.tolist())
        for tracklet in self._followed.keys() - kept:
            del self._followed[tracklet]
            self._suspects.pop(tracklet, None)

    def _fits(self, track: FaceTrack, face: EmbeddedFace) -> bool:
        """Whether a face may enter a track's template without further question."""
        if self._likeness(track, face.embedding) >= _FITS:
            return True
        is_far_better = face.quality >= _FAR_BETTER * track.quality
        return is_far_better and (self._tracker.trusts_places or not self._is_foreign(track, face))

    def _is_foreign(self, track: FaceTrack, face: EmbeddedFace) -> bool:
        """Whether a face that does not fit its track is somebody else's, and not just a bad view.

        It is when it does not resemble the track's person at all, or when it is another's who is known.
        """
        own = self._likeness(track, face.embedding)
        if own < (_FOREIGN_AFTER_GAP if track.gap_s >= track.verified_s else _FOREIGN):
            return True
        return any(
            self._likeness(other, face.embedding)
            >= max(self._needed(face.quality, other), own + _REJOIN_MARGIN)
            for other in self._open.values()
            if other is not track
        )

    def _likeness(self, track: FaceTrack, embedding: FloatArray) -> float:
        """Similarity of a track's person and a face, on the scale of this file's constants."""
        return self._scale(track.similarity(embedding))

    def _needed(self, quality: float, track: FaceTrack) -> float:
        """Cosine from which a face is a track's person: the more, the poorer the views."""
        return self._rejoin_similarity + _POOR_VIEW_PENALTY * (1 - min(quality, track.quality))

    def _suspect(self, tracklet: int, face: EmbeddedFace) -> int:
        """Note that a face does not fit its track; split the tracklet off when it is the second in a row.

        Where looks are far apart there may be no second one, and whoever stands there now is mostly not who
        stood there: then the first is enough.

        Whoever else is in view is looked at too, since two tracklets may have swapped their faces.

        Returns:
            The tracklet's id, which is new when it was split off.
        """
        for track in self._followed.values():
            track.due_s = min(track.due_s, face.sighting.time_s)
        suspect = self._suspects.get(tracklet)
        if suspect is None or self._likeness(suspect, face.embedding) < self._rejoin_similarity:
            suspect = self._suspects[tracklet] = FaceTrack(face.sighting, is_split_off=True)
            suspect.learn(face)
            if self._tracker.trusts_places:
                return tracklet
        else:
            suspect.learn(face)
        suspect.due_s = face.sighting.time_s + self._refresh_s
        renamed = self._tracker.rename(tracklet)
        del self._followed[tracklet], self._suspects[tracklet]
        self._followed[renamed] = suspect
        return renamed

    def _name_newcomers(self, time_s: float, in_view: set[int]) -> list[FaceTrack]:
        """Join tracks without a number to the lost tracks of the same persons; number the others.

        Args:
            time_s: Now.
            in_view: ``id`` of each track whose tracklet was found in this frame.

        Returns:
            Those that are new.
        """
        unnamed = {key: t for key, t in self._followed.items() if t.number is None and t.best is not None}
        while unnamed:
            matches = {key: self._lost_match(track, in_view) for key, track in unnamed.items()}
            tracklet = max(matches, key=lambda key: matches[key][0])
            excess, lost = matches[tracklet]
            if lost is None or excess < 0:
                break
            self._join(tracklet, lost)
            in_view.add(id(lost))
            del unnamed[tracklet]
        newcomers = []
        patience_s = 0.0 if self._tracker.spacing_s > _PATIENCE_S else _PATIENCE_S
        for tracklet, track in unnamed.items():
            may_be_a_swap = track.is_split_off and bool(self._suspects)
            may_be_known = matches[tracklet][0] >= -_MAYBE
            if (may_be_a_swap or may_be_known) and time_s - track.first.time_s < patience_s:
                track.due_s = time_s
                continue
            self._number(track)
            newcomers.append(track)
        return newcomers

    def _lost_match(self, newcomer: FaceTrack, in_view: set[int]) -> tuple[float, FaceTrack | None]:
        """The lost track whose person the newcomer may be, and how far its similarity is above the needed.

        The newcomer must also be nearer to that track, by a margin, than to any other open one. A track that
        was in view together with the newcomer is somebody else, unless the newcomer was split off: then what
        the track showed since its last face that fitted may be the newcomer itself.
        """
        best, runner_up, match = -1.0, -1.0, None
        for track in self._open.values():
            similarity = self._likeness(track, newcomer.template)
            if similarity > best:
                best, runner_up, match = similarity, best, track
            else:
                runner_up = max(runner_up, similarity)
        if match is None:
            return -1.0, None
        seen_s = match.verified_s if newcomer.is_split_off else match.last.time_s
        if id(match) in in_view or seen_s >= newcomer.first.time_s:
            return -1.0, None
        return best - max(self._needed(newcomer.quality, match), runner_up + _REJOIN_MARGIN), match

    def _join(self, tracklet: int, lost: FaceTrack) -> None:
        """Go on with a lost track on another tracklet."""
        for old in [key for key, track in self._followed.items() if track is lost]:
            self._tracker.forget(old)
            del self._followed[old]
            self._suspects.pop(old, None)
        lost.absorb(self._followed[tracklet])
        self._followed[tracklet] = lost

    def _leave(self, time_s: float, at: datetime) -> list[FaceEvent]:
        events = []
        leave_after_s = stretched(self._leave_after_s, self._tracker.spacing_s)
        for number, track in list(self._open.items()):
            if time_s - track.last.time_s - min(track.blind_s, _MOST_BLIND_S) > leave_after_s:
                event = self._tell(TrackChange.LEFT, track, at, time_s)
                del self._open[number]
                for tracklet in [key for key, value in self._followed.items() if value is track]:
                    self._tracker.forget(tracklet)
                    del self._followed[tracklet]
                    self._suspects.pop(tracklet, None)
                events.append(event)
                if self._on_left is not None and track.best is not None:
                    self._on_left(event, track.best.shot)
        return events

    def _tell(self, change: TrackChange, track: FaceTrack, at: datetime, time_s: float) -> FaceEvent:
        return track.tell(
            change, at, time_s, camera_id=self._camera_id, run_id=self._run_id, embedder=self._embedder
        )

    def _publish(self, time_s: float) -> None:
        self.live = tuple(
            LiveTrack(
                track_id=track_id(self._run_id, number),
                number=number,
                box_xyxy=track.last.box_xyxy,
                score=track.last.score,
                quality=track.quality,
                state=TrackState.IN_VIEW if track.last.time_s >= time_s else TrackState.LOST,
                best_shot=track.best.shot,
            )
            for number, track in self._open.items()
            if track.best is not None
        )


def _believed(quality: float, frame: Frame) -> float:
    """Quality of a face in a frame that may be damaged."""
    return min(quality, _MOST_OF_DAMAGED) if frame.is_damaged else quality
