"""The mark by which pages that facestream has written are told from other files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MARK: Final = '<meta name="generator" content="facestream">'
"""Stands in the head of every page."""

_HEAD_BYTES: Final = 4096


def is_own_page(path: Path) -> bool:
    """Whether a file is a page of facestream; an empty file counts as one.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or MARK.encode() in head
