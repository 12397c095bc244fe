"""Faces seen too seldom for a track, kept in case the source ends before there is more to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.faces import Image
from stream.tracking.track_state import Sighting

MOST_LOOKS = 25
"""A camera that closes after no more looks has shown so little that each face counts."""


@dataclass(frozen=True, slots=True, eq=False)
class BriefFace:
    """The best view of a tracklet that has no embedding yet.

    Attributes:
        first: Where the tracklet began.
        last: Where it was seen last.
        seen: In so many looks.
        best: Where the view is of.
        quality: Of the view, 0..1.
        crop: The view, aligned for the embedder: uint8 (H, W, 3) BGR.
        shot: The view with some surroundings, uint8 (h, w, 3) BGR.
    """

    first: Sighting
    last: Sighting
    seen: int
    best: Sighting
    quality: float
    crop: npt.NDArray[np.uint8]
    shot: Image


class BriefFaces:
    """Remembers the faces of a camera's first looks; of a camera that goes on, none."""

    def __init__(self) -> None:
        self._looks = 0
        self._faces: dict[int, BriefFace] = {}

    @property
    def is_open(self) -> bool:
        """Whether faces are kept: after no more than ``MOST_LOOKS`` looks."""
        return self._looks <= MOST_LOOKS

    def count_look(self) -> None:
        """Another look begins."""
        self._looks += 1
        if not self.is_open:
            self._faces.clear()

    def keep(self, tracklet: int, face: BriefFace) -> None:
        """Keep a view, or what is known of it, if its tracklet has shown a better one.

        Args:
            tracklet: Whose.
            face: Seen once.
        """
        if not self.is_open:
            return
        known = self._faces.get(tracklet)
        if known is not None:
            better = face if face.quality > known.quality else known
            face = BriefFace(
                known.first, face.last, known.seen + 1, better.best, better.quality, better.crop, better.shot
            )
        self._faces[tracklet] = face

    def drop(self, tracklet: int) -> None:
        """Forget a tracklet, which has an embedding now."""
        self._faces.pop(tracklet, None)

    def best_first(self) -> Sequence[BriefFace]:
        """What is kept, in falling order of quality."""
        return sorted(self._faces.values(), key=lambda face: -face.quality)
