"""Follow the faces of one camera from frame to frame by position."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.faces import Faces, FloatArray
from engine.geometry import iou
from stream.tracking import kalman_filter
from stream.tracking.association import Rows, associate
from stream.video.sampling_interval import Pace, stretched

Ids: TypeAlias = npt.NDArray[np.int64]

NOBODY = -1
"""In place of a tracklet's id: the face belongs to none."""

_PLACE_HOLDS = 1.2
"""Times ``lost_after_s``; with some room, so that a spacing of just that much does not waver."""


class FaceTracker:
    """Two-stage association on predicted boxes, after ByteTrack (Zhang et al., arXiv 2110.06864, section 3).

    Faces with high scores are paired with the confirmed tracklets first; the tracklets in view that are left
    over then take faces with low scores, which are mostly the same faces half hidden or blurred. A face with
    a high score that is still left continues an unconfirmed tracklet or begins one. An unconfirmed tracklet
    that misses one look is dropped, which is what keeps false detections out. Other than there, tracklets
    that the last look did not find choose after those that it found, as in DeepSORT's cascade (Wojke et al.,
    arXiv 1703.07402, section 2.3): who stands where somebody was lost is mostly somebody else.

    All limits are times, not counts of frames, so dropped frames do no harm. Where looks are so far apart
    that one that finds nothing exceeds a limit, the limit follows their spacing; where ``confirm_after`` of
    them take longer than ``lost_after_s``, one sure look confirms a face, since few people stay for more.
    An id is never used twice.

    Args:
        high_score: Faces that score at least this begin tracklets and are associated first, 0..1.
        low_score: Faces that score less are ignored, 0..``high_score``.
        min_overlap: Least overlap of a face with a prediction, after widening both by ``margin``; > 0..1.
        margin: See ``stream.tracking.association.associate``.
        confirm_after: Looks in a row that must find a face before its tracklet is confirmed, >= 1.
        lost_after_s: A tracklet that was not found for longer is dropped, but not for a single look that
            did not find it.
        duplicate_iou: Of two tracklets whose boxes overlap more, one is dropped.
        sure_score: A face that scores at least this is no false detection, ``high_score``..1.
        pace: Measures how far apart the looks are; a new one when not given.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        *,
        high_score: float = 0.6,
        low_score: float = 0.3,
        min_overlap: float = 0.2,
        margin: float = 0.3,
        confirm_after: int = 3,
        lost_after_s: float = 1.0,
        duplicate_iou: float = 0.7,
        sure_score: float = 0.8,
        pace: Pace | None = None,
    ) -> None:
        if not 0 <= low_score <= high_score <= 1:
            raise ValueError(f"expected 0 <= low_score <= high_score <= 1, got {low_score} and {high_score}")
        if not 0 < min_overlap <= 1 or not 0 < duplicate_iou <= 1 or margin < 0:
            raise ValueError(
                "expected min_overlap and duplicate_iou above 0 and up to 1, and margin of at least 0, "
                f"got {min_overlap}, {duplicate_iou} and {margin}"
            )
        if confirm_after < 1 or not lost_after_s >= 0:
            raise ValueError(
                "expected confirm_after of at least 1 and lost_after_s of at least 0, "
                f"got {confirm_after} and {lost_after_s}"
            )
        self._high_score = high_score
        self._low_score = low_score
        self._min_overlap = min_overlap
        self._margin = margin
        self._confirm_after = confirm_after
        self._lost_after_s = lost_after_s
        self._duplicate_iou = duplicate_iou
        self._sure_score = max(sure_score, high_score)
        self._pace = pace or Pace()
        self._time_s = -np.inf
        self._next_id = 0
        self._ids: Ids = np.empty(0, np.int64)
        self._motion = kalman_filter.begin(np.empty((0, 4), np.float32))
        self._hits: Ids = np.empty(0, np.int64)
        self._confirmed = np.empty(0, np.bool_)
        self._found_s: kalman_filter.Float64Array = np.empty(0)

    @property
    def ids(self) -> Ids:
        """int64 (T,), the tracklets that are being followed: in view or not, confirmed or not."""
        return self._ids.copy()

    @property
    def spacing_s(self) -> float:
        """Usual time between two looks."""
        return self._pace.spacing_s

    @property
    def is_slow(self) -> bool:
        """Whether looks are so far apart that many people are seen once."""
        return self.spacing_s * max(1, self._confirm_after - 1) > self._lost_after_s

    @property
    def trusts_places(self) -> bool:
        """Whether looks follow each other so soon that a place mostly holds who stood there before."""
        return self.spacing_s <= _PLACE_HOLDS * self._lost_after_s

    def is_sure(self, score: float) -> bool:
        """Whether a face with this score is a face also when no other look finds it."""
        return score >= self._sure_score

    def is_confirmed(self, tracklet_id: int) -> bool:
        """Whether enough looks found this tracklet's face; False for ids that are not followed any more."""
        return bool(self._confirmed[self._ids == tracklet_id].any())

    def update(self, faces: Faces, time_s: float, *, may_miss: bool = False) -> Ids:
        """Take in one look at the camera.

        Args:
            faces: What the detector found, in any order.
            time_s: When, in seconds on any clock that does not go back.
            may_miss: The picture is damaged: that a face was not found in it says nothing.

        Returns:
            int64 (N,): for each face the id of its tracklet, or ``NOBODY``. No id is in it twice.

        Raises:
            ValueError: ``time_s`` is before that of the last update, or not a number.
        """
        if not time_s >= self._time_s or not np.isfinite(time_s):
            raise ValueError(f"time_s: expected a time from {self._time_s} s on, got {time_s}")
        in_view_s, dt_s = self._time_s, time_s - self._time_s
        self._time_s = time_s
        self._pace.note(time_s)
        self._keep(time_s - self._found_s <= stretched(self._lost_after_s, self.spacing_s))
        if len(self._ids):
            self._motion = kalman_filter.predict(self._motion, dt_s)
        in_view = self._found_s >= in_view_s
        high = faces.scores >= self._high_score
        low = ~high & (faces.scores >= self._low_score)
        confirmed = self._confirmed.copy()

        owner = np.full(len(faces), NOBODY, np.int64)
        predicted = self._motion.boxes_xyxy()
        for tracklets, candidates in (
            (confirmed & in_view, high),
            (confirmed & in_view, low),
            (confirmed & ~in_view, high),
            (~confirmed, high),
        ):
            self._pair(owner, faces.boxes_xyxy, predicted, tracklets=tracklets, candidates=candidates)
        if may_miss and len(self._ids):
            self._found_s = np.where(in_view, time_s, self._found_s + dt_s)
        self._follow(owner, faces)
        owner[owner >= 0] = self._ids[owner[owner >= 0]]

        self._keep((self._found_s == time_s) | self._confirmed)
        self._begin(owner, faces, rows=np.flatnonzero(high & (owner == NOBODY)))
        self._drop_duplicates()
        owner[~np.isin(owner, self._ids)] = NOBODY
        return owner

    def reset(self) -> None:
        """Forget every tracklet, as after a cut; time and ids go on."""
        self._keep(np.zeros(len(self._ids), np.bool_))

    def forget(self, tracklet_id: int) -> None:
        """Stop to follow one tracklet; an id that is not followed is skipped."""
        self._keep(self._ids != tracklet_id)

    def rename(self, tracklet_id: int) -> int:
        """Give a tracklet a new id, since its face turned out to be somebody else's.

        Returns:
            The new id.

        Raises:
            ValueError: No such tracklet is followed.
        """
        rows = np.flatnonzero(self._ids == tracklet_id)
        if not len(rows):
            raise ValueError(f"tracklet_id: expected one of {self._ids.tolist()}, got {tracklet_id}")
        (self._ids[rows[0]],) = self._new_ids(1)
        return int(self._ids[rows[0]])

    def _new_ids(self, count: int) -> Ids:
        ids = np.arange(self._next_id, self._next_id + count, dtype=np.int64)
        self._next_id += count
        return ids

    def _pair(
        self,
        owner: Ids,
        faces_xyxy: FloatArray,
        predicted_xyxy: FloatArray,
        *,
        tracklets: npt.NDArray[np.bool_],
        candidates: npt.NDArray[np.bool_],
    ) -> None:
        """Pair what is still free among ``tracklets`` and ``candidates``; writes rows into ``owner``."""
        free = tracklets.copy()
        free[owner[owner >= 0]] = False
        tracklet_rows = np.flatnonzero(free)
        face_rows = np.flatnonzero(candidates & (owner == NOBODY))
        paired_tracklets, paired_faces = associate(
            predicted_xyxy[tracklet_rows],
            faces_xyxy[face_rows],
            min_overlap=self._min_overlap,
            margin=self._margin,
        )
        owner[face_rows[paired_faces]] = tracklet_rows[paired_tracklets]

    def _follow(self, owner: Ids, faces: Faces) -> None:
        """Correct the tracklets that were found; ``owner`` holds rows."""
        face_rows = np.flatnonzero(owner >= 0)
        if not len(face_rows):
            return
        rows: Rows = owner[face_rows].astype(np.intp)
        corrected = kalman_filter.correct(self._motion[rows], faces.boxes_xyxy[face_rows])
        self._motion = kalman_filter.replace(self._motion, rows, corrected)
        self._hits[rows] += 1
        self._confirmed[rows] |= self._confirms(self._hits[rows], faces.scores[face_rows])
        self._found_s[rows] = self._time_s

    def _confirms(self, hits: Ids, scores: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether so many looks in a row, the last one with this score, are enough."""
        enough: npt.NDArray[np.bool_] = hits >= self._confirm_after
        return enough | (scores >= self._sure_score) if self.is_slow else enough

    def _begin(self, owner: Ids, faces: Faces, *, rows: Rows) -> None:
        """Begin a tracklet with each of these faces; writes ids into ``owner``."""
        if not len(rows):
            return
        owner[rows] = self._new_ids(len(rows))
        self._ids = np.concatenate([self._ids, owner[rows]])
        self._motion = kalman_filter.join(self._motion, kalman_filter.begin(faces.boxes_xyxy[rows]))
        hits = np.ones(len(rows), np.int64)
        self._hits = np.concatenate([self._hits, hits])
        self._confirmed = np.concatenate([self._confirmed, self._confirms(hits, faces.scores[rows])])
        self._found_s = np.concatenate([self._found_s, np.full(len(rows), self._time_s)])

    def _drop_duplicates(self) -> None:
        """Of two tracklets in one place, keep the one found last; when both were, the better known."""
        if len(self._ids) < 2:
            return
        boxes = self._motion.boxes_xyxy()
        first, second = np.nonzero(np.triu(iou(boxes, boxes) > self._duplicate_iou, k=1))
        if not len(first):
            return
        kept = np.ones(len(self._ids), np.bool_)
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            if kept[a] and kept[b]:
                rank_a, rank_b = (self._found_s[a], self._hits[a]), (self._found_s[b], self._hits[b])
                kept[b if rank_a >= rank_b else a] = False
        self._keep(kept)

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        if not rows.all():
            self._ids, self._motion = self._ids[rows], self._motion[rows]
            self._hits, self._found_s = self._hits[rows], self._found_s[rows]
            self._confirmed = self._confirmed[rows]
