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


def valid_text(text: str) -> str:
    """Text that UTF-8 can hold: names of files that are no UTF-8 with escapes for their odd bytes.

    Args:
        text: With surrogates where the system's text could not be decoded.
    """
    return text.encode(errors="backslashreplace").decode()


def local_time(at: datetime, form: str) -> str:
    """A time as clocks here show it; at the ends of the calendar, where none shows it, as it stands.

    Args:
        at: With a time zone.
        form: As ``strftime`` takes it.
    """
    with contextlib.suppress(OverflowError, ValueError, OSError):
        at = at.astimezone()
    return at.strftime(form)


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun, such as ``1 face`` and ``1,200 people``.

    Args:
        count: How many.
        one: The noun.
        many: Its plural, where that is more than an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
