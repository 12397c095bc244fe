"""YouTube Faces: its lists of pairs and its folders of frames.

Wolf, Hassner and Maoz, "Face Recognition in Unconstrained Videos with Matched Background Similarity", CVPR
2011.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.errors import DatasetError
from engine.faces import FloatArray
from training.data.array_types import BoolArray
from training.data.pairs import Indices, parse_row, read_list, whole_number

YtfImages: TypeAlias = Literal["frame_images_DB", "aligned_images_DB"]
"""Whole frames, or the data set's own aligned crops (boxes widened 2.2 times)."""

FrameChoice: TypeAlias = Literal["first", "spread"]

_VIDEO = re.compile(r"[^\s./\\\x00-\x1f][^/\\\x00-\x1f]*/[0-9]+")
_NUMBER = re.compile(r"[0-9]+")
_SEPARATOR = re.compile(r"[\s,;]+")
_FRAME = re.compile(r"(?:aligned_detect_)?[0-9]+\.([0-9]+)\.jpg", re.IGNORECASE)
_LABELLED_FIELDS: Final = 8
_LISTED: Final = 3
"""So many missing videos are named in a message."""


@dataclass(frozen=True, slots=True)
class YtfPair:
    """A row of a list of pairs.

    Attributes:
        split: Number of the split that it belongs to.
        video1: ``Person/number``.
        video2: ``Person/number``.

    Raises:
        ValueError: The row makes no sense.
    """

    split: int
    video1: str
    video2: str

    def __post_init__(self) -> None:
        for video in (self.video1, self.video2):
            if not _VIDEO.fullmatch(video):
                raise ValueError(f"expected a video such as 'Some_Name/3', got {video!r}")
        if self.video1 == self.video2:
            raise ValueError(f"compares {self.video1} with itself")

    @property
    def same(self) -> bool:
        """Whether both videos bear one person's name."""
        return self.video1.partition("/")[0] == self.video2.partition("/")[0]


def read_ytf_pairs(path: Path) -> list[YtfPair]:
    """Read a list of pairs: ``splits.txt``, ``splits_corrected.txt``, or rows like theirs.

    A row is ``split, pair, video1, video2, same``. There may be a heading; fields are separated by commas,
    semicolons, tabs or blanks. Further columns may follow: readers of the corrected list disagree on which
    holds the label, so one of them must agree with the names (same name, same person) in every row.

    Raises:
        DatasetError: The file cannot be read, a row makes no sense, or no column agrees with the names; the
            message names the line.
    """
    rows = [
        (number, _SEPARATOR.split(line.strip().rstrip(",;")))
        for number, line in enumerate(read_list(path), 1)
        if line.strip()
    ]
    if rows and not rows[0][1][0].isdigit():
        rows = rows[1:]
    if not rows:
        raise DatasetError(f"{path}: the list of pairs is empty; give YTF's splits.txt")
    if ragged := [line for line, fields in rows if len(fields) != len(rows[0][1])]:
        raise DatasetError(f"{path}, line {ragged[0]}: has another number of fields; fix the list")
    pairs = [parse_row(path, line, fields, _pair) for line, fields in rows]
    _check_labels(path, rows, pairs)
    return pairs


def _pair(fields: Sequence[str]) -> YtfPair:
    if len(fields) < 5:
        raise ValueError(f"expected 'split, pair, video1, video2, same', got {len(fields)} fields")
    split, number, video1, video2 = fields[:4]
    whole_number(number)
    return YtfPair(whole_number(split), video1.replace("\\", "/"), video2.replace("\\", "/"))


def _check_labels(path: Path, rows: Sequence[tuple[int, list[str]]], pairs: Sequence[YtfPair]) -> None:
    """Refuse a list of which no column agrees with the names."""
    wrong = [
        [
            line
            for (line, fields), pair in zip(rows, pairs, strict=True)
            if fields[column] != str(int(pair.same))
        ]
        for column in range(4, len(rows[0][1]))
    ]
    if fewest := min(wrong, key=len):
        raise DatasetError(
            f"{path}, line {fewest[0]}: the label disagrees with the names, as in {len(fewest):,} of "
            f"{len(rows):,} rows; expected 1 for two videos of one person and 0 otherwise: fix the list"
        )


@dataclass(frozen=True, slots=True, eq=False)
class YtfVideo:
    """A video of the data set.

    Attributes:
        name: ``Person/number``.
        frames: Its images, in the order of their numbers.
        boxes_xyxy: float32 (frames, 4), the labelled face of each frame, pixels, NaN where none is labelled;
            None where there are no labels (the aligned images have none).
    """

    name: str
    frames: tuple[Path, ...]
    boxes_xyxy: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VideoPairs:
    """A verification benchmark on videos: each video once, and pairs as rows of two indices.

    Attributes:
        videos: Each once.
        first: intp (N,), index of each pair's first video.
        second: intp (N,), index of its second.
        same: bool (N,), True where both show one person.
        folds: intp (N,), the split that the pair belongs to.
        missing: Videos that the list names and of which there is no frame; their pairs are left out.
        skipped: Number of pairs left out.
    """

    videos: tuple[YtfVideo, ...]
    first: Indices
    second: Indices
    same: BoolArray
    folds: Indices
    missing: tuple[str, ...] = ()
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.same)


def locate_ytf(
    pairs: Sequence[YtfPair], root: Path, *, images: YtfImages = "frame_images_DB", skip_missing: bool = False
) -> VideoPairs:
    """Find the frames of the videos of the pairs.

    Args:
        pairs: As ``read_ytf_pairs`` gave them.
        root: Folder that holds ``frame_images_DB`` or ``aligned_images_DB``.
        images: Which of them.
        skip_missing: Leave out pairs whose video is not there and say so in the result; otherwise it is an
            error, since a smaller benchmark is another one.

    Raises:
        DatasetError: The folder is not YTF's, videos are missing, or a file of labels makes no sense.
    """
    folder = root / images
    if not folder.is_dir():
        raise DatasetError(f"{root}: not YTF's folder: there is no {images} in it; check the path")
    names = sorted({video for pair in pairs for video in (pair.video1, pair.video2)})
    found = {name: frames for name in names if (frames := _frames(folder / name))}
    missing = tuple(name for name in names if name not in found)
    if not found:
        raise DatasetError(f"{folder}: holds none of the list's {len(names):,} videos; check the path")
    if missing and not skip_missing:
        named = ", ".join(missing[:_LISTED])
        more = f" and {len(missing) - _LISTED:,} more" if len(missing) > _LISTED else ""
        raise DatasetError(
            f"{folder}: {len(missing):,} of {len(names):,} videos have no frames: {named}{more}; "
            "complete the data set, or use a list of pairs without them"
        )
    index = {name: row for row, name in enumerate(found)}
    kept = [pair for pair in pairs if pair.video1 in index and pair.video2 in index]
    return VideoPairs(
        videos=_with_boxes(folder, found),
        first=np.array([index[pair.video1] for pair in kept], np.intp),
        second=np.array([index[pair.video2] for pair in kept], np.intp),
        same=np.array([pair.same for pair in kept], np.bool_),
        folds=np.array([pair.split for pair in kept], np.intp),
        missing=missing,
        skipped=len(pairs) - len(kept),
    )


def _frames(folder: Path) -> tuple[Path, ...]:
    """The images of a video, sorted by number: frame 9 comes before frame 10."""
    if not folder.is_dir():
        return ()
    numbered = [
        (int(match[1]), path)
        for path in folder.iterdir()
        if (match := _FRAME.fullmatch(path.name)) is not None
    ]
    return tuple(path for _, path in sorted(numbered))


def _with_boxes(folder: Path, found: dict[str, tuple[Path, ...]]) -> tuple[YtfVideo, ...]:
    labels: dict[str, dict[str, tuple[float, float, float, float]]] = {}
    videos = []
    for name, frames in found.items():
        person = name.partition("/")[0]
        if person not in labels:
            path = folder / f"{person}.labeled_faces.txt"
            labels[person] = read_labelled_faces(path) if path.is_file() else {}
        none = (np.nan,) * 4
        boxes = [labels[person].get(f"{name}/{frame.name}", none) for frame in frames]
        videos.append(YtfVideo(name, frames, np.array(boxes, np.float32) if labels[person] else None))
    return tuple(videos)


def read_labelled_faces(path: Path) -> dict[str, tuple[float, float, float, float]]:
    r"""Read ``<Person>.labeled_faces.txt``: rows ``file,ignored,x,y,width,height,ignored,ignored``.

    In the file x and y are the box's centre, and file names use back-slashes (``Name\3\3.12.jpg``).

    Returns:
        By file name with slashes: left, top, right and bottom of the face's box, pixels.

    Raises:
        DatasetError: The file cannot be read, or a row makes no sense; the message names its line.
    """
    boxes = {}
    for number, line in enumerate(read_list(path), 1):
        if line.strip():
            fields = [field.strip() for field in line.split(",")]
            boxes[fields[0].replace("\\", "/")] = parse_row(path, number, fields, _box_xyxy)
    return boxes


def _box_xyxy(fields: Sequence[str]) -> tuple[float, float, float, float]:
    if len(fields) != _LABELLED_FIELDS:
        raise ValueError(f"expected {_LABELLED_FIELDS} fields, got {len(fields)}")
    x, y, width, height = (float(field) for field in fields[2:6])
    if not (np.isfinite([x, y]).all() and 0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"no box: {','.join(fields[2:6])}")
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def choose_frames(count: int, *, most: int | None, how: FrameChoice = "first") -> npt.NDArray[np.intp]:
    """Which frames of a video are looked at.

    Args:
        count: Frames that there are.
        most: How many at most, at least 1; None for all.
        how: The ``first`` ones, as FaceNet does, or ``spread`` evenly from the first to the last.

    Returns:
        intp, ascending indices.

    Raises:
        ValueError: An argument is out of range.
    """
    if count < 0 or (most is not None and most < 1) or how not in {"first", "spread"}:
        raise ValueError(f"expected count >= 0, most >= 1, first or spread, got {count}, {most}, {how!r}")
    if most is None or count <= most or how == "first":
        return np.arange(count if most is None else min(count, most))
    return np.rint(np.linspace(0, count - 1, most)).astype(np.intp)


def all_videos(root: Path, *, images: YtfImages = "frame_images_DB") -> tuple[YtfVideo, ...]:
    """Every video of the data set, for benchmarks without a list of pairs.

    Args:
        root: Folder that holds ``frame_images_DB`` or ``aligned_images_DB``.
        images: Which of them.

    Returns:
        By person, then by number; a video's folder without images gives a video without frames.

    Raises:
        DatasetError: The folder is not YTF's, it holds no video, or a file of labels makes no sense.
    """
    folder = root / images
    if not folder.is_dir():
        raise DatasetError(f"{root}: not YTF's folder: there is no {images} in it; check the path")
    found = {
        f"{person.name}/{video}": _frames(person / video)
        for person in sorted(each for each in folder.iterdir() if each.is_dir())
        for video in sorted((v.name for v in person.iterdir() if _NUMBER.fullmatch(v.name)), key=int)
    }
    if not any(found.values()):
        raise DatasetError(f"{folder}: holds no video such as Some_Name/3/3.1.jpg; check the path")
    return _with_boxes(folder, found)
