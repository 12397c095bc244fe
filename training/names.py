"""Lists of names, one a line: whom, or which videos, a benchmark leaves out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.pairs import parse_row, read_list

_NAME: Final = re.compile(r"[^\s./\\#\x00-\x1f][^\s/\\#\x00-\x1f]*(/[0-9]{1,9})?")


def read_names(path: Path) -> frozenset[str]:
    """Read a list of people's names as the data sets' folders bear them: one a line, ``#`` begins a comment.

    Such a list is needed, for example, where a name's photographs and its videos show different people:
    YTF's videos were searched for by LFW's names. One video alone is named ``Some_Name/3``.

    Raises:
        DatasetError: The file cannot be read, or a line is no name; the message has its number.
    """
    lines = [line.partition("#")[0].split() for line in read_list(path)]
    return frozenset(parse_row(path, number, words, _name) for number, words in enumerate(lines, 1) if words)


def _name(words: Sequence[str]) -> str:
    if len(words) != 1 or not _NAME.fullmatch(words[0]):
        raise ValueError(f"expected one name such as Some_Name or Some_Name/3, got {' '.join(words)!r}")
    return words[0]
