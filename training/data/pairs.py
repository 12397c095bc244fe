"""Pairs of images, which of them show one person, and what readers of lists of pairs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError
from training.data.array_types import BoolArray

Indices: TypeAlias = npt.NDArray[np.intp]

Row = TypeVar("Row")


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


def read_list(path: Path) -> list[str]:
    """Lines of a text file.

    Raises:
        DatasetError: The file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as exc:
        raise DatasetError(f"{path}: cannot read the list: {exc.strerror}; check the path") from exc
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{path}: not a list in UTF-8 ({exc.reason}); check the path") from exc


def parse_row(path: Path, line: int, fields: Sequence[str], parse: Callable[[Sequence[str]], Row]) -> Row:
    """Parse a row of a list; what is wrong with it is said with the line's number.

    Raises:
        DatasetError: ``parse`` raised a ``ValueError``.
    """
    try:
        return parse(fields)
    except ValueError as exc:
        raise DatasetError(f"{path}, line {line}: {exc}; fix the list") from exc


def whole_number(field: str) -> int:
    """The number that a field's digits make.

    Raises:
        ValueError: It has something else than digits.
    """
    if not (field.isascii() and field.isdigit()):
        raise ValueError(f"expected a number, got {field!r}")
    return int(field)
