"""Temporary folders in which something is built, beside its final place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = ".building-"
_ABANDONED_S: Final = 60.0
"""A folder that nobody holds is nobody's after so long; a new one is held within an instant."""


@contextmanager
def open_workshop(root: Path) -> Iterator[Path]:
    """A new folder that is held while the block runs; what is left in it goes at the end.

    Folders that killed builders left behind are removed first. Builders in other processes are not disturbed.

    Args:
        root: The folder around it; created if missing.

    Raises:
        OSError: It cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    folder = root / f"{_PREFIX}{secrets.token_hex(8)}"
    folder.mkdir()
    with _held(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove the folders of builders that are gone."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is held, or went meanwhile, or is another user's
            if time.time() - folder.stat(follow_symlinks=False).st_mtime > _ABANDONED_S:
                with _held(folder):
                    shutil.rmtree(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder; the lock ends with this process, however it ends.

    Raises:
        OSError: It is no folder, or another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
