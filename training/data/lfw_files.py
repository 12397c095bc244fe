"""Labeled Faces in the Wild: its lists of pairs and its folders.

Huang and others, "Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained
Environments", UMass Amherst technical report 07-49, 2007. The original images, the funneled and the
deepfunneled ones share one layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import DatasetError
from training.data.names import find_file
from training.data.pairs import ImagePairs, parse_row, read_list, whole_number

_CSV_COLUMNS = ["fold", "name1", "n1", "name2", "n2", "same"]
_NAME = re.compile(r"[^\s./\\\x00-\x1f][^/\\\x00-\x1f]*")
_LISTED = 3
"""So many missing images are named in a message."""


@dataclass(frozen=True, slots=True)
class LfwPair:
    """A row of a list of pairs.

    Attributes:
        fold: Number of the set that it belongs to.
        name1: First person.
        number1: Number of the first person's image, from 1.
        name2: Second person, the first one again in a genuine pair.
        number2: Number of the second person's image, from 1.

    Raises:
        ValueError: The row makes no sense.
    """

    fold: int
    name1: str
    number1: int
    name2: str
    number2: int

    def __post_init__(self) -> None:
        for name in (self.name1, self.name2):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no person's name")
        if self.number1 < 1 or self.number2 < 1:
            raise ValueError(f"images are numbered from 1, got {self.number1} and {self.number2}")
        if self.same and self.number1 == self.number2:
            raise ValueError(f"compares {self.name1} {self.number1} with itself")

    @property
    def same(self) -> bool:
        """Whether it is a genuine pair."""
        return self.name1 == self.name2

    @property
    def images(self) -> tuple[Path, Path]:
        """Where its images are, relative to the data set's folder."""
        return _image(self.name1, self.number1), _image(self.name2, self.number2)


def _image(name: str, number: int) -> Path:
    return Path(name) / f"{name}_{number:04d}.jpg"


def read_lfw_pairs(path: Path) -> list[LfwPair]:
    """Read a list of pairs.

    Understood are ``pairs.txt`` (a first line ``10 300``, then for each of 10 sets 300 rows ``name i j`` and
    300 rows ``name1 i name2 j``; without the first line a set begins where a genuine row follows an impostor
    row; fields separated by tabs, blanks or commas), and tables with the heading
    ``fold,name1,n1,name2,n2,same``.

    Raises:
        DatasetError: The file cannot be read, or a row makes no sense; the message names its line.
    """
    rows = [(number, _fields(line)) for number, line in enumerate(read_list(path), 1) if line.strip()]
    if not rows:
        raise DatasetError(f"{path}: the list of pairs is empty; give LFW's pairs.txt")
    if rows[0][1] == _CSV_COLUMNS:
        return [parse_row(path, number, fields, _csv_pair) for number, fields in rows[1:]]
    return list(_folded(path, rows))


def _fields(line: str) -> list[str]:
    if "," not in line:
        return line.split()
    return [field.strip() for field in line.rstrip(", \t").split(",")]


def _folded(path: Path, rows: list[tuple[int, list[str]]]) -> Iterator[LfwPair]:
    """The pairs of ``pairs.txt``, with or without its first line."""
    first_line, first = rows[0]
    per_kind = 0
    if all(field.isdecimal() and len(field) < 10 for field in first):
        per_kind = _check_heading(path, first, len(rows) - 1)
        rows = rows[1:]
    elif first[0].lower() == "name":
        rows = rows[1:]  # copies as a table have such a heading
    fold, before = 1, 3
    for index, (line, fields) in enumerate(rows):
        if per_kind:
            fold = index // (2 * per_kind) + 1
            wanted = 3 if index % (2 * per_kind) < per_kind else 4
            if len(fields) in {3, 4} and len(fields) != wanted:
                raise DatasetError(
                    f"{path}, line {line}: expected {wanted} fields, since line {first_line} announces sets "
                    f"of {per_kind} genuine and {per_kind} impostor rows, got {len(fields)}; fix the list"
                )
        elif len(fields) == 3 and before == 4:
            fold += 1
        before = len(fields)
        yield parse_row(path, line, [str(fold), *fields], _txt_pair)


def _check_heading(path: Path, heading: list[str], rows: int) -> int:
    """Rows of each kind in a set, as the first line announces."""
    numbers = [int(field) for field in heading]
    if len(numbers) != 2 or min(numbers) < 1:
        raise DatasetError(
            f"{path}: expected a first line such as '10 300', sets and rows of each kind, "
            f"got {' '.join(heading)!r}; give LFW's pairs.txt"
        )
    sets, per_kind = numbers
    if rows != 2 * sets * per_kind:
        raise DatasetError(
            f"{path}: the first line announces {2 * sets * per_kind:,} rows, got {rows:,}; "
            "the list is cut or mixed: fetch it again, or remove its first line"
        )
    return per_kind


def _txt_pair(fields: Sequence[str]) -> LfwPair:
    match fields:
        case fold, name, number1, number2:
            return LfwPair(int(fold), name, whole_number(number1), name, whole_number(number2))
        case fold, name1, number1, name2, number2:
            pair = LfwPair(int(fold), name1, whole_number(number1), name2, whole_number(number2))
            if pair.same:
                raise ValueError(f"an impostor row names {name1} twice")
            return pair
    raise ValueError(f"expected 'name i j' or 'name1 i name2 j', got {len(fields) - 1} fields")


def _csv_pair(fields: Sequence[str]) -> LfwPair:
    if len(fields) != len(_CSV_COLUMNS):
        raise ValueError(f"expected {','.join(_CSV_COLUMNS)}, got {len(fields)} fields")
    fold, name1, number1, name2, number2, same = fields
    pair = LfwPair(whole_number(fold), name1, whole_number(number1), name2, whole_number(number2))
    if same != str(int(pair.same)):
        raise ValueError(f"same: expected {int(pair.same)} for {name1} and {name2}, got {same!r}")
    return pair


def locate_lfw(pairs: Sequence[LfwPair], root: Path, *, skip_missing: bool = False) -> ImagePairs:
    """Find the images of the pairs.

    Args:
        pairs: As ``read_lfw_pairs`` gave them.
        root: Folder that holds one folder a person: ``Name/Name_0001.jpg``.
        skip_missing: Leave out pairs whose image is not there and say so in the result; otherwise it is an
            error, since a smaller benchmark is another one.

    Raises:
        DatasetError: The folder is not LFW's, or images are missing.
    """
    images = sorted({image for pair in pairs for image in pair.images})
    there = {image: path for image in images if (path := find_file(root, image)) is not None}
    missing = tuple(root / image for image in images if image not in there)
    if not there:
        raise DatasetError(_wrong_root(root, images))
    if missing and not skip_missing:
        named = ", ".join(str(path) for path in missing[:_LISTED])
        more = f" and {len(missing) - _LISTED:,} more" if len(missing) > _LISTED else ""
        raise DatasetError(
            f"{root}: {len(missing):,} of {len(images):,} images are missing: {named}{more}; "
            "complete the data set, or use a list of pairs without them"
        )
    index = {image: row for row, image in enumerate(there)}
    kept = [pair for pair in pairs if all(image in index for image in pair.images)]
    rows = np.array([[index[image] for image in pair.images] for pair in kept], np.intp).reshape(-1, 2)
    return ImagePairs(
        paths=tuple(there.values()),
        first=rows[:, 0],
        second=rows[:, 1],
        same=np.array([pair.same for pair in kept], np.bool_),
        folds=np.array([pair.fold for pair in kept], np.intp),
        missing=missing,
        skipped=len(pairs) - len(kept),
    )


def _wrong_root(root: Path, images: Sequence[Path]) -> str:
    if not images:
        return "the list of pairs is empty; give LFW's pairs.txt"
    if not root.is_dir():
        return f"{root}: no such folder; give LFW's, which holds {images[0]}"
    for folder in sorted(root.iterdir()):
        if (folder / images[0]).is_file():
            return f"{root}: not LFW's folder; {folder} is"
    return (
        f"{root}: not LFW's folder: there is no {images[0]}, nor any other image of the list; check the path"
    )
