"""From track events to identity events: who is it, and who is it now that the answer has changed?"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from engine.errors import GalleryError
from engine.search.open_set_threshold import Decisions
from stream.common.logs import get_logger
from stream.events.event_types import Event, FaceEvent, IdentityChange, IdentityEvent, TrackChange
from stream.gallery.identification.matcher import Matcher
from stream.gallery.records import GallerySnapshot, check_event
from stream.sinks.event_sink import EventSink

log = get_logger(__name__)

POLL_S: Final = 1.0
"""Shortest time between two looks at whether the gallery has changed."""

MOST_TRACKS: Final = 100_000
"""Tracks of which the answer is remembered."""


class GallerySource(Protocol):
    """Where an identifier gets its gallery from; ``stream.gallery.people.Gallery`` is one."""

    path: Path

    @property
    def change_mark(self) -> int:
        """Another number once the gallery may have changed; costs next to nothing. May raise GalleryError."""

    def snapshot(self, previous: GallerySnapshot | None = None) -> GallerySnapshot:
        """The gallery as it stands; what ``previous`` holds already is taken from there."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Who a track is by its newest evidence.

    Attributes:
        person_name: None for nobody who is enrolled.
        similarity: Score of the nearest person, -1..1; None where nobody is enrolled.
    """

    person_name: str | None
    similarity: float | None


@dataclass(slots=True)
class _Answer:
    """The last answer that was given of a track, told or not."""

    person_id: str | None
    sequence: int
    gallery_version: int
    standing: Standing


class Identifier:
    """Decides who tracks are, and again with each of their events.

    The evidence is the event's embedding, which is the mean over the track so far, weighted with quality. A
    track's first answer comes with its first event whose best face is good enough, or when it leaves; after
    that it is heard of again only when the answer is another one: since the evidence has grown, or since the
    gallery has changed. Whether it has is looked at once a second at most; the track of somebody who was
    removed is corrected with its next event.

    Not for several threads at once.

    Args:
        gallery: Who is enrolled; read at the first ``identify``.
        false_accept_rate: Share of strangers who may be named anybody, between 0 and 1.
        min_quality: A track is not identified while its best face has less, 0..1; if it leaves so, it is
            unknown.
        most_tracks: Tracks of which the answer is remembered; of more, those unheard of for longest are
            answered again.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        gallery: GallerySource,
        *,
        false_accept_rate: float = 0.01,
        min_quality: float = 0.2,
        most_tracks: int = MOST_TRACKS,
    ) -> None:
        if not 0 < false_accept_rate < 1 or not 0 <= min_quality <= 1 or most_tracks < 1:
            raise ValueError(
                "expected false_accept_rate between 0 and 1, min_quality in 0..1 and most_tracks >= 1, "
                f"got {false_accept_rate}, {min_quality} and {most_tracks}"
            )
        self._gallery = gallery
        self._false_accept_rate = false_accept_rate
        self._min_quality = min_quality
        self._most_tracks = most_tracks
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._matcher: Matcher | None = None
        self._mark: int | None = None
        self._polled_s = -math.inf

    @property
    def snapshot(self) -> GallerySnapshot | None:
        """The gallery as it was read last; None before the first ``identify``."""
        return None if self._matcher is None else self._matcher.snapshot

    def restore(self, decisions: Iterable[IdentityEvent]) -> None:
        """Go on where an earlier identifier ended.

        Args:
            decisions: What it told, oldest first; the newest of each track counts.
        """
        for each in decisions:
            standing = Standing(each.person_name, each.similarity)
            answer = _Answer(each.person_id, each.sequence, each.gallery_version, standing)
            self._remember(each.track_id, answer)

    def standing(self, track_id: str) -> Standing | None:
        """Who a track in view is; None while it has not been answered."""
        answer = self._answers.get(track_id)
        return None if answer is None else answer.standing

    def identify(self, events: Sequence[Event], now_s: float) -> list[IdentityEvent]:
        """Who it is, where there is something to say.

        Args:
            events: In each track's order; other events than tracks' are skipped, and so are repeats of
                what was answered already.
            now_s: Of a clock that never goes back.

        Returns:
            First answers and corrections, in the order of the events that gave the evidence.

        Raises:
            GalleryError: The gallery cannot be read, or an event's embedding is of another model.
        """
        matcher = self._refreshed(now_s)
        faces = [event for event in events if isinstance(event, FaceEvent)]
        if not faces:
            return []
        for event in faces:
            check_event(self._gallery.path, matcher.snapshot.model, event)
        decisions = matcher.match(np.stack([event.embedding for event in faces]))
        told = []
        for row, event in enumerate(faces):
            answer = self._answer(event, row, decisions, matcher)
            if answer is not None:
                told.append(answer)
            if event.change is TrackChange.LEFT:
                self._answers.pop(event.track_id, None)
        return told

    def _refreshed(self, now_s: float) -> Matcher:
        """The matcher of the gallery as it stands."""
        if self._matcher is not None and now_s - self._polled_s < POLL_S:
            return self._matcher
        self._polled_s = now_s
        try:
            mark = self._gallery.change_mark
        except GalleryError:
            self._matcher = None  # nobody is named from a gallery that is not there any more
            raise
        if self._matcher is None or mark != self._mark:
            old = self._matcher
            snapshot = self._gallery.snapshot(None if old is None else old.snapshot)
            if old is None or old.snapshot.version != snapshot.version:
                self._matcher = Matcher(
                    snapshot, false_accept_rate=self._false_accept_rate, previous=self._matcher
                )
            self._mark = mark
        assert self._matcher is not None
        return self._matcher

    def _answer(
        self, event: FaceEvent, row: int, decisions: Decisions, matcher: Matcher
    ) -> IdentityEvent | None:
        before = self._answers.get(event.track_id)
        if before is not None and event.sequence < before.sequence:
            return None
        is_good = event.quality >= self._min_quality
        if not is_good and (before is not None or event.change is not TrackChange.LEFT):
            return None
        snapshot, known = matcher.snapshot, is_good and bool(decisions.known[row])
        person = int(decisions.person[row]) if known else None
        person_id = None if person is None else snapshot.ids[person]
        person_name = None if person is None else snapshot.names[person]
        score, margin = float(decisions.score[row]), float(decisions.margin[row])
        standing = Standing(person_name, score if math.isfinite(score) else None)
        self._remember(event.track_id, _Answer(person_id, event.sequence, snapshot.version, standing))
        if before is not None and before.person_id == person_id:
            return None
        return IdentityEvent(
            change=IdentityChange.DECIDED if before is None else IdentityChange.CORRECTED,
            sequence=event.sequence,
            camera_id=event.camera_id,
            run_id=event.run_id,
            track_id=event.track_id,
            at=event.at,
            person_id=person_id,
            person_name=standing.person_name,
            similarity=standing.similarity,
            margin=margin if math.isfinite(margin) else None,
            threshold=matcher.threshold,
            false_accept_rate=self._false_accept_rate,
            gallery_id=snapshot.gallery_id,
            gallery_version=snapshot.version,
            gallery_people=len(snapshot.ids),
            embedding_model=event.embedding_model,
            previous_person_id=None if before is None else before.person_id,
            reason="" if before is None else _reason(before, snapshot),
        )

    def _remember(self, track_id: str, answer: _Answer) -> None:
        self._answers[track_id] = answer
        self._answers.move_to_end(track_id)
        while len(self._answers) > self._most_tracks:
            self._answers.popitem(last=False)


def _reason(before: _Answer, snapshot: GallerySnapshot) -> str:
    if before.person_id is not None and before.person_id not in snapshot.ids:
        return "the person was removed from the gallery"
    if before.gallery_version != snapshot.version:
        return "the gallery has changed"
    return "the track has shown more"


class IdentifyingSink:
    """Adds who it is to the events on their way to a sink.

    A gallery that cannot be used ends the naming until it can be used again, and never the events.

    Args:
        sink: Gets the events, then the answers to them, in one ``emit``.
        identifier: Gives the answers.
        clock: Seconds that never go back.
    """

    def __init__(
        self, sink: EventSink, identifier: Identifier, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sink = sink
        self._identifier = identifier
        self._clock = clock
        self._trouble = ""

    def emit(self, events: Sequence[Event]) -> None:
        """Give events and answers to the sink.

        Raises:
            SinkError: It does not take them.
        """
        self._sink.emit([*events, *self._answers(events)])

    def close(self, timeout_s: float) -> None:
        """Close the sink.

        Raises:
            SinkError: It could not deliver everything.
        """
        self._sink.close(timeout_s)

    def _answers(self, events: Sequence[Event]) -> list[IdentityEvent]:
        try:
            answers = self._identifier.identify(events, self._clock())
        except GalleryError as exc:
            if str(exc) != self._trouble:
                log.warning("tracks are not identified", reason=str(exc))
            self._trouble = str(exc)
            return []
        if self._trouble:
            log.info("tracks are identified again")
        self._trouble = ""
        return answers
