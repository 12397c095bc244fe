"""One version of a gallery, ready to be searched: embeddings in, decisions out."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.search.index import SCAN_FROM, TemplateIndex
from engine.search.open_set_threshold import (
    Cosines,
    Decisions,
    Indices,
    accept_threshold,
    decide,
    impostor_tail,
    person_scores,
)
from stream.gallery.records import GallerySnapshot

_CANDIDATES: Final = 30
_PEOPLE_COMPARED: Final = 500


class Matcher:
    """Says of embeddings who of a gallery's people they are, or that they are nobody.

    Of a person's score see ``engine.search.open_set_threshold.person_scores``. A face that is nearer to one
    that is known not to be a person's than to all of that person's own is not that person's, however near. Up
    to 50,000 templates everybody is scored; above, the people of the 30 nearest templates are.

    Args:
        snapshot: The gallery.
        false_accept_rate: Share of strangers who may be named anybody, between 0 and 1.
        previous: Of an earlier state of the same gallery; its index is taken over and must not be used again.

    Attributes:
        snapshot: The gallery.
        threshold: Score from which on somebody is named.

    Raises:
        ValueError: The rate is out of range.
    """

    def __init__(
        self, snapshot: GallerySnapshot, *, false_accept_rate: float, previous: Matcher | None = None
    ) -> None:
        self.snapshot = snapshot
        self._people = len(snapshot.ids)
        self._order = np.argsort(snapshot.owners, kind="stable")
        self._starts = np.searchsorted(snapshot.owners[self._order], np.arange(self._people + 1))
        self._index = self._make_index(previous)
        tail = impostor_tail(snapshot.model.name, snapshot.model.likeness).raised_to(self._impostor_scores())
        self.threshold = accept_threshold(tail, false_accept_rate=false_accept_rate, people=self._people)

    def match(self, embeddings: Embeddings) -> Decisions:
        """Decide who each face is.

        Args:
            embeddings: float32 (Q, D), unit rows, of the gallery's model.

        Returns:
            One decision a face; its people are rows of ``snapshot.ids``.
        """
        snapshot = self.snapshot
        if self._index is None:
            return self._decide(embeddings, snapshot.templates, snapshot.owners, np.arange(self._people))
        keys, _ = self._index.search(embeddings, _CANDIDATES)
        rows = np.searchsorted(snapshot.keys, np.unique(keys[keys >= 0]))
        near = np.unique(snapshot.owners[rows])
        rows = self._rows_of(near)
        owners = np.searchsorted(near, snapshot.owners[rows])
        return self._decide(embeddings, snapshot.templates[rows], owners, near)

    def _make_index(self, previous: Matcher | None) -> TemplateIndex | None:
        snapshot = self.snapshot
        if len(snapshot.keys) < SCAN_FROM:
            return None
        index = None if previous is None else previous._index  # noqa: SLF001 - of the same class
        if previous is None or index is None or previous.snapshot.model != snapshot.model:
            index = TemplateIndex(snapshot.model.size)
            index.add(snapshot.keys, snapshot.templates)
            return index
        index.remove(np.setdiff1d(previous.snapshot.keys, snapshot.keys, assume_unique=True))
        new = ~np.isin(snapshot.keys, previous.snapshot.keys, assume_unique=True)
        index.add(snapshot.keys[new], snapshot.templates[new])
        return index

    def _rows_of(self, people: Indices) -> Indices:
        """Rows of the templates of some people, person by person."""
        parts = [self._order[self._starts[each] : self._starts[each + 1]] for each in people.tolist()]
        return np.concatenate([np.empty(0, np.intp), *parts])

    def _decide(
        self, embeddings: Embeddings, templates: Embeddings, owners: Indices, people: Indices
    ) -> Decisions:
        """Decide among some people.

        Args:
            embeddings: float32 (Q, D).
            templates: float32 (T, D), of these people.
            owners: intp (T,), whose each is, as a place in ``people``.
            people: intp (P,), rows in the snapshot, ascending.
        """
        cosines = embeddings @ templates.T
        scores = person_scores(cosines, owners, len(people))
        self._rule_out(scores, embeddings, cosines, owners, people)
        found = decide(scores, self.threshold)
        rows = np.append(people, -1)  # the place -1 is nobody
        return Decisions(found.known, rows[found.person], rows[found.nearest], found.score, found.margin)

    def _rule_out(
        self, scores: Cosines, embeddings: Embeddings, cosines: Cosines, owners: Indices, people: Indices
    ) -> None:
        """Take people out of the scores where one of their negatives is nearer than all their templates."""
        of_negatives = self.snapshot.negative_owners
        for person in np.intersect1d(of_negatives, people).tolist():
            place = int(np.searchsorted(people, person))
            nearest_not = (embeddings @ self.snapshot.negatives[of_negatives == person].T).max(axis=1)
            own = cosines[:, owners == place].max(axis=1, initial=-1.0)
            scores[nearest_not > own, place] = -np.inf

    def _impostor_scores(self) -> npt.NDArray[np.float32]:
        """Scores of different people of the gallery with each other, of at most 500 of them."""
        enrolled = np.flatnonzero(np.diff(self._starts))
        if len(enrolled) > _PEOPLE_COMPARED:
            enrolled = np.sort(np.random.default_rng(0).permutation(enrolled)[:_PEOPLE_COMPARED])
        if len(enrolled) < 2:
            return np.empty(0, np.float32)
        first = self.snapshot.templates[self._order[self._starts[enrolled]]]
        rows = self._rows_of(enrolled)
        owners = np.searchsorted(enrolled, self.snapshot.owners[rows])
        scores = person_scores(first @ self.snapshot.templates[rows].T, owners, len(enrolled))
        return scores[~np.eye(len(enrolled), dtype=np.bool_)]
