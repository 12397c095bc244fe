"""Write files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from engine.errors import ModelError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file, and its folder where needed; readers see the old file or the new one.

    Args:
        path: Where to.
        data: What.

    Raises:
        ModelError: The file cannot be written.
    """
    # Not the tempfile module's: its files are for their owner alone, and services run as other users.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ModelError(
            f"{path}: cannot write: {exc.strerror}; free space, or choose another folder for models"
        ) from exc
