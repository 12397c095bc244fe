"""Atomic writes of files."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from engine.errors import ModelError


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file, and its folder where needed; readers see the old file or the new one.

    Args:
        path: Where to.
        data: What.
        private: The file is for its owner alone, as what shows or identifies people is.

    Raises:
        ModelError: The file cannot be written.
    """
    # Not the tempfile module's: its files are always for their owner alone, and models are for services that
    # run as other users.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if private else 0o666
        file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
        with open(file, "wb") as out:  # noqa: PTH123 - an open descriptor has no path
            out.write(data)
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ModelError(
            f"{path}: cannot write: {exc.strerror}; free space, or choose another folder"
        ) from exc
