"""Write files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except OSError as exc:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise ModelError(
            f"{path}: cannot write: {exc.strerror}; free space, or choose another folder for models"
        ) from exc
