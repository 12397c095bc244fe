"""Standard output, where it was closed (``>&-``) or is read no more."""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Final

CLOSED: Final = (
    "standard output is closed: nothing can be printed; leave it open, or send it to a file or /dev/null"
)


def is_open() -> bool:
    """Whether anything can be written to it.

    Raises:
        ValueError: It is no file of the system's.
    """
    flags = fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL)
    return flags & os.O_ACCMODE != os.O_RDONLY


def write_to_nobody() -> None:
    """Let what it still holds go nowhere, so that nothing fails when it is flushed at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
