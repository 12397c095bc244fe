"""Recognition as a consumer: reads tracks from a Kafka topic, writes identities to the same or another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from engine.errors import GalleryError
from stream.common.logs import get_logger
from stream.events.codecs import Encoder, SchemaLookup
from stream.events.event_types import Event, FaceEvent, IdentityChange, IdentityEvent
from stream.gallery.identification.decisions_topic import IdentityTopic, match_partitions
from stream.gallery.identification.identifier import POLL_S, Identifier
from stream.gallery.people import Gallery
from stream.kafka.address import KafkaAddress
from stream.kafka.consuming.event_consumer import EventConsumer, Start
from stream.kafka.error_types import BrokersAwayError

log = get_logger(__name__)

REMEMBER_S: Final = 3600.0
"""So far back are answers looked for when partitions are taken over."""

_BATCH: Final = 200
_WAIT_S: Final = 0.5
_BACKOFF_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class IdentifyStats:
    """What was done so far.

    Attributes:
        events: Track events that were read.
        tracks: Those of them with which a track began.
        known: First answers that were written and name somebody.
        unknown: First answers that were written and name nobody.
        corrected: Corrections that were written.
        passed_over: Events of tracks whose embedding is of another model than the gallery.
        restored: Answers of earlier processes that were restored.
        errors: What failed and was tried again, by what it was: ``read``, ``write``, ``gallery``.
        lag: Records that are not read yet, by number of partition.
        heard_s: When the last record came, on the service's clock.
        gallery: Version and number of people of the gallery as it was read last; None before it is.
    """

    events: int = 0
    tracks: int = 0
    known: int = 0
    unknown: int = 0
    corrected: int = 0
    passed_over: int = 0
    restored: int = 0
    errors: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(("read", "write", "gallery"), 0))
    lag: Mapping[int, int] = field(default_factory=dict)
    heard_s: float = 0.0
    gallery: tuple[int, int] | None = None

    @property
    def answers(self) -> int:
        """First answers and corrections that were written."""
        return self.known + self.unknown + self.corrected


class IdentifyService:
    """Says of the tracks of a topic who they are, in that topic or in another.

    Of the answers that it meets there, its own and others', none is evidence. Several share the work as a
    group. Offsets are committed after the answers were acknowledged, and whoever takes a partition over reads
    back what this gallery has answered there: no track gets two first answers from the same evidence.
    ``open_service`` makes one.

    Args:
        gallery: Who is enrolled.
        identifier: Decides, with that gallery.
        topic: Where answers go to.
        stopping: When set, nothing is waited for any longer.
        clock: Seconds that never go back.
        on_search: Told how many seconds it took to decide who the tracks of a batch are.
    """

    def __init__(
        self,
        gallery: Gallery,
        identifier: Identifier,
        topic: IdentityTopic,
        *,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        on_search: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._gallery, self._identifier = gallery, identifier
        self._topic, self._stopping = topic, stopping
        self._clock, self._on_search = clock, on_search
        self._stats = IdentifyStats(heard_s=clock())

    @property
    def stats(self) -> IdentifyStats:
        """What was done so far; any thread may ask."""
        stats = self._stats  # is replaced as a whole
        return replace(stats, errors={**stats.errors, "write": self._topic.failures})

    def restore(self, partitions: Sequence[int], *, since: datetime) -> None:
        """Go on where others ended.

        Raises:
            SinkError: Their answers cannot be read.
        """
        answers = self._topic.read_back(partitions, since=since, gallery_id=self._gallery.id)
        self._identifier.restore(answers)
        self._stats = replace(self._stats, restored=self._stats.restored + len(answers))
        log.info("partitions taken over", partitions=len(partitions), answers_known=len(answers))

    def answer(self, events: Sequence[Event]) -> None:
        """Decide, write, and wait until it is acknowledged.

        Raises:
            GalleryError: The gallery cannot be read.
            SinkError: The answers cannot be written.
        """
        tracks = self._comparable([event for event in events if isinstance(event, FaceEvent)])
        answers = self._identify(tracks)
        self._topic.write(answers)
        first = [answer for answer in answers if answer.change is IdentityChange.DECIDED]
        known, snapshot, stats = sum(each.known for each in first), self._identifier.snapshot, self._stats
        self._stats = replace(
            stats,
            events=stats.events + len(tracks),
            tracks=stats.tracks + sum(each.sequence == 0 for each in tracks),
            known=stats.known + known,
            unknown=stats.unknown + len(first) - known,
            corrected=stats.corrected + len(answers) - len(first),
            heard_s=self._clock() if events else stats.heard_s,
            gallery=None if snapshot is None else (snapshot.version, len(snapshot.ids)),
        )

    def note_lag(self, lag: Mapping[int, int]) -> None:
        """Keep what is not read yet, by number of partition, for whoever asks."""
        self._stats = replace(self._stats, lag=dict(lag))

    def note_error(self, what: str) -> None:
        """Count what failed and is tried again: ``read`` or ``gallery``."""
        self._stats = replace(self._stats, errors={**self._stats.errors, what: self._stats.errors[what] + 1})

    def _identify(self, tracks: Sequence[FaceEvent]) -> list[IdentityEvent]:
        begun_s = self._clock()
        try:
            answers = self._identifier.identify(tracks, begun_s)
        except GalleryError:  # it may have moved to another model just now, which the identifier sees soon
            self.note_error("gallery")
            self._stopping.wait(2 * POLL_S)
            begun_s = self._clock()
            answers = self._identifier.identify(tracks, begun_s)
        if tracks:
            self._on_search(self._clock() - begun_s)
        return answers

    def _comparable(self, tracks: list[FaceEvent]) -> list[FaceEvent]:
        """Without those of other models; at the 1st, 2nd, 4th, 8th and so on there is a warning."""
        model = self._gallery.model
        fit = [track for track in tracks if model.compares_with(track)]
        before, after = self._stats.passed_over, self._stats.passed_over + len(tracks) - len(fit)
        if before.bit_length() != after.bit_length():
            others = sorted({str(track.embedder) for track in tracks if not model.compares_with(track)})
            log.warning(
                "tracks of another model are skipped",
                gallery_is_of=str(model),
                models=others,
                so_far=after,
                mend=f"facestream gallery upgrade {self._gallery.path}",
            )
        self._stats = replace(self._stats, passed_over=after)
        return fit


@contextmanager
def open_service(
    source: KafkaAddress,
    target: KafkaAddress,
    *,
    gallery: Gallery,
    identifier: Identifier,
    group: str,
    encode: Encoder,
    stopping: threading.Event,
    from_: Start = "earliest",
    lookup: SchemaLookup | None = None,
    remember_s: float = REMEMBER_S,
    idle_s: float | None = None,
    on_search: Callable[[float], None] = lambda _: None,
) -> Iterator[tuple[EventConsumer, IdentifyService]]:
    """Connect both topics. What was answered is committed at the end.

    Args:
        source: Where the events of tracks are.
        target: Where answers go to: the same topic, or another of as many partitions, which is made where it
            is missing.
        gallery: Who is enrolled.
        identifier: Decides, with that gallery.
        group: Those who share the work.
        encode: How answers are written.
        stopping: When set, nothing is waited for any longer.
        from_: Where a new group begins.
        lookup: Finds Avro schemas that are not facestream's own.
        remember_s: So far back are answers looked for when partitions are taken over.
        idle_s: Ends when no event came for this long; None waits forever.
        on_search: Told how many seconds each batch of tracks took to identify.

    Raises:
        SinkError: No broker answers or lets us in, or the topics do not fit.
    """
    if (source.brokers, source.topic) != (target.brokers, target.topic):
        match_partitions(source, target)
    topic = IdentityTopic(target, encode, stopping=stopping, lookup=lookup)
    service = IdentifyService(gallery, identifier, topic, stopping=stopping, on_search=on_search)

    def restore(partitions: tuple[int, ...]) -> None:
        service.restore(partitions, since=datetime.now(UTC) - timedelta(seconds=remember_s))

    consumer = EventConsumer(
        replace(source, identities=None),  # answers are not needed
        group=group,
        from_=from_,
        lookup=lookup,
        on_assigned=restore,
        batch=_BATCH,
        idle_s=idle_s,
    )
    try:
        topic.connect()
        with consumer as events:
            yield events, service
    finally:
        topic.close()


def run_service(
    events: EventConsumer,
    service: IdentifyService,
    *,
    stopping: threading.Event,
    on_progress: Callable[[IdentifyStats], None] = lambda _: None,
) -> None:
    """Answer what comes, until it is to stop or ``events`` has idled long enough.

    Args:
        events: Open.
        service: Answers them.
        stopping: Ends it, soon.
        on_progress: Told now and then how far it is.

    Raises:
        GalleryError: The gallery cannot be read.
        SinkError: Events cannot be read, or answers not be written.
    """
    since_s = time.monotonic()
    while not stopping.is_set():
        try:
            batch = events.take(_BATCH, wait_s=_WAIT_S)
        except BrokersAwayError as exc:  # while partitions were taken over
            log.warning("brokers are unreachable", reason=str(exc))
            service.note_error("read")
            stopping.wait(_BACKOFF_S)
            continue
        service.note_lag({number: count for (_, number), count in events.lag().items()})
        service.answer(batch)
        on_progress(service.stats)
        if batch:
            since_s = time.monotonic()
        elif events.idles_since(since_s):
            break
