"""What facestream logs while a test looks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.entries: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        entry = {
            "event": getattr(record, "event", record.getMessage()),
            "log_level": record.levelname.lower(),
        }
        if record.exc_info:
            entry["exc_info"] = record.exc_info
        self.entries.append(entry | getattr(record, "fields", {}))


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """Entries of all levels, as they come: ``event``, ``log_level``, and what else was told."""
    logger, keeper = logging.getLogger("facestream"), _Keeper()
    before = logger.level
    logger.addHandler(keeper)
    logger.setLevel(logging.DEBUG)
    try:
        yield keeper.entries
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(before)
