"""Text from outside, made fit to be shown."""

from __future__ import annotations

import contextlib
from datetime import datetime


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: a question mark for each character that cannot be shown.

    Args:
        text: From anywhere. Line breaks cannot be shown either.
    """
    return "".join(char if char.isprintable() else "?" for char in text)


def local_time(at: datetime, form: str) -> str:
    """A time as clocks here show it; at the ends of the calendar, where none shows it, as it stands.

    Args:
        at: With a time zone.
        form: As ``strftime`` takes it.
    """
    with contextlib.suppress(OverflowError, ValueError, OSError):
        at = at.astimezone()
    return at.strftime(form)
