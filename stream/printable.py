"""Text from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: a question mark for each character that cannot be shown.

    Args:
        text: From anywhere. Line breaks cannot be shown either.
    """
    return "".join(char if char.isprintable() else "?" for char in text)
