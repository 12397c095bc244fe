"""Group tracks by person live: tracks that leave join groups, which may turn out to be one person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from engine.search.clustering import StreamClusterer
from stream.events.dedup import RepeatFilter
from stream.events.event_types import EmbeddingModel, Event, FaceEvent, TrackChange


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A track was found to be of a person.

    Attributes:
        track: Its last event.
        person: Number of the person, from 1, never used again.
        is_new: Whether nobody like that was seen before.
    """

    track: FaceEvent
    person: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """Two people turned out to be one.

    Attributes:
        gone: Number that is not used any more.
        kept: Number that both have now.
    """

    gone: int
    kept: int


Finding: TypeAlias = Joined | Merged


class LiveClusters:
    """Groups tracks by person as they leave, since a track's last embedding is its best.

    Args:
        model: What made the embeddings of the tracks that are grouped; others do not compare and are counted.
        cut: As ``engine.search.clustering.cluster_cut`` gives it.
        caution: As ``engine.search.clustering.stream_caution`` gives it.
        most_people: So many are kept; then the one unseen for longest is forgotten.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self, model: EmbeddingModel, cut: float, *, caution: float, most_people: int = 10_000
    ) -> None:
        self._model = model
        self._clusterer = StreamClusterer(cut, caution=caution, most_groups=most_people)
        self._filter = RepeatFilter()
        self.tracks = 0
        self.passed_over = 0

    @property
    def people(self) -> int:
        """People that are kept now."""
        return len(self._clusterer)

    def add(self, event: Event) -> list[Finding]:
        """Take in an event; only the last one of a track tells something.

        Args:
            event: Any; one that came before is skipped.

        Returns:
            What it tells, in order.
        """
        if not isinstance(event, FaceEvent) or event.change is not TrackChange.LEFT:
            return []
        if not self._filter.is_new(event):
            return []
        if not self._model.agrees(event.embedder):
            self.passed_over += 1
            return []
        self._model = self._model.joined(event.embedder)
        before = self._clusterer.newest_id
        grouping = self._clusterer.add(event.embedding[None])
        self.tracks += 1
        group = int(grouping.groups[0])
        return [*_merges(grouping.merged), Joined(event, group + 1, is_new=group > before)]

    def settle(self) -> list[Finding]:
        """Join who is alike enough by what has been seen now: at the end, or when somebody looks."""
        return _merges(self._clusterer.settle())


def _merges(pairs: tuple[tuple[int, int], ...]) -> list[Finding]:
    return [Merged(gone + 1, kept + 1) for gone, kept in pairs]
