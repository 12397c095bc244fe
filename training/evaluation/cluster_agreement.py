"""How well groups agree with people: B-cubed and pairwise precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.pairs import Indices


@dataclass(frozen=True, slots=True)
class Agreement:
    """Precision and recall of a grouping.

    Attributes:
        precision: 0..1.
        recall: 0..1.
    """

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """Their harmonic mean, 0..1."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def b_cubed(groups: Indices, people: Indices) -> Agreement:
    """Precision and recall of each item's own group, averaged over the items.

    Bagga and Baldwin, "Entity-Based Cross-Document Coreferencing Using the Vector Space Model", 1998. An
    item's precision is the share of its group that is of its person, its recall the share of its person that
    is in its group; itself included.

    Args:
        groups: intp (N,), group of each item.
        people: intp (N,), its person.

    Raises:
        ValueError: There is no item, or the arrays do not fit.
    """
    common, in_group, of_person = _common(groups, people)
    squares = (common**2).astype(np.float64)
    precision = (squares.sum(axis=1) / in_group).sum() / len(groups)
    recall = (squares.sum(axis=0) / of_person).sum() / len(groups)
    return Agreement(float(precision), float(recall))


def pairwise(groups: Indices, people: Indices) -> Agreement:
    """Precision and recall of the pairs that are put together.

    Where no pair is put together precision is 1, where none belongs together recall is 1: nothing is wrong.

    Args:
        groups: intp (N,), group of each item.
        people: intp (N,), its person.

    Raises:
        ValueError: There is no item, or the arrays do not fit.
    """
    common, in_group, of_person = _common(groups, people)
    right, joined, own = (int((n * (n - 1) // 2).sum()) for n in (common, in_group, of_person))
    return Agreement(right / joined if joined else 1.0, right / own if own else 1.0)


def _common(groups: Indices, people: Indices) -> tuple[npt.NDArray[np.int64], Indices, Indices]:
    """Items of each group and person (G, P), of each group, of each person."""
    if groups.ndim != 1 or groups.shape != people.shape or not len(groups):
        raise ValueError(f"expected as many groups as people, and some, got {groups.shape}, {people.shape}")
    _, rows, in_group = np.unique(groups, return_inverse=True, return_counts=True)
    _, columns, of_person = np.unique(people, return_inverse=True, return_counts=True)
    common = np.zeros((len(in_group), len(of_person)), np.int64)
    np.add.at(common, (rows, columns), 1)
    return common, in_group, of_person
