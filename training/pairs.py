"""Pairs of images, and which of them show one person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.verification import BoolArray

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class ImagePairs:
    """A verification benchmark on images: each image once, and pairs as rows of two indices.

    Attributes:
        paths: The images, each once.
        first: intp (N,), index of each pair's first image in ``paths``.
        second: intp (N,), index of its second.
        same: bool (N,), True where both show one person.
        folds: intp (N,), the part of the benchmark that the pair belongs to.
        missing: Images that the list names and that are not there; their pairs are left out.
        skipped: Number of pairs left out.

    Raises:
        ValueError: The arrays do not fit together.
    """

    paths: tuple[Path, ...]
    first: Indices
    second: Indices
    same: BoolArray
    folds: Indices
    missing: tuple[Path, ...] = ()
    skipped: int = 0

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.first, self.second, self.same, self.folds)}
        if shapes != {(len(self.same),)}:
            raise ValueError(f"expected four arrays of one length, got shapes {sorted(shapes)}")
        for name in ("first", "second"):
            indices: Indices = getattr(self, name)
            if len(indices) and not 0 <= indices.min() <= indices.max() < len(self.paths):
                raise ValueError(f"{name}: expected indices below {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.same)
