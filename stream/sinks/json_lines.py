"""Events as JSON Lines: one CloudEvent in structured mode a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import SinkError
from stream.common import standard_output
from stream.events.cloudevents import to_json
from stream.events.event_types import Event
from stream.events.parsing import EmbeddingEncoding


class JsonLinesSink:
    """Appends to a file, or writes to standard output. Each ``emit`` is one write to the system.

    After a crash the last line of a file may be torn; the next run begins on a new line.

    Args:
        path: Of the file; None is standard output.
        encoding: How embeddings are written.

    Raises:
        SinkError: The file cannot be opened, or standard output is closed.
    """

    def __init__(self, path: Path | None, *, encoding: EmbeddingEncoding = "float32-b64") -> None:
        self._name = "standard output" if path is None else str(path)
        self._encoding = encoding
        if path is None and not standard_output.is_open():
            raise SinkError(standard_output.CLOSED)
        self._owns_file = path is not None
        self._file: int | None = sys.stdout.fileno() if path is None else _open_for_append(path)

    def emit(self, events: Sequence[Event]) -> None:
        """Write some lines.

        Raises:
            SinkError: They cannot be written.
            ValueError: The sink is closed.
        """
        if self._file is None:
            raise ValueError("expected an open sink, got a closed one")
        lines = b"".join(to_json(event, encoding=self._encoding) + b"\n" for event in events)
        try:
            while lines:
                lines = lines[os.write(self._file, lines) :]
        except BrokenPipeError as exc:
            raise SinkError(f"{self._name}: the reader has gone") from exc
        except OSError as exc:
            raise SinkError(
                f"{self._name}: cannot be written ({exc.strerror}); make room or choose another place"
            ) from exc

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 - the contract's; nothing waits here
        """Close the file; everything has been written already."""
        file, self._file = self._file, None
        if file is not None and self._owns_file:
            os.close(file)


def _open_for_append(path: Path) -> int:
    """Open a file and end a torn last line."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SinkError(f"{path}: cannot be opened for events ({exc.strerror}); {_advice(path)}") from exc
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
    except OSError as exc:
        os.close(file)
        raise SinkError(f"{path}: cannot be used for events ({exc.strerror}); name an ordinary file") from exc
    return file


def _advice(path: Path) -> str:
    if path.is_dir():
        return "name a file within it"
    if not path.parent.is_dir():
        return f"make the folder first: mkdir -p {path.parent}"
    return "change its permissions or choose another place"
