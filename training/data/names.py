"""Names of people in lists and folders, in two forms of Unicode; lists of whom a benchmark leaves out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training.data.pairs import parse_row, read_list

_NAME: Final = re.compile(r"[^\s./\\#\x00-\x1f][^\s/\\#\x00-\x1f]*(/[0-9]{1,9})?")


def canonical(name: str) -> str:
    """A name in NFC, the form in which names are compared: disks of macOS hold the other one, NFD."""
    return unicodedata.normalize("NFC", name)


def find_file(root: Path, name: Path) -> Path | None:
    """A file by a name that a list gives, in whichever form the disk has it.

    Args:
        root: Folder.
        name: Relative to it.

    Returns:
        Its path; None where there is none.
    """
    forms = dict.fromkeys((str(name), canonical(str(name)), unicodedata.normalize("NFD", str(name))))
    return next((path for form in forms if (path := root / form).is_file()), None)


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
    return canonical(words[0])
