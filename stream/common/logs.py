"""Logging: readable lines for people, JSON for machines, secrets for nobody.

All goes through Python's ``logging``, below the logger ``facestream``: a program that uses facestream gets
what it asks for; the command writes lines to standard error. This is the one file that imports structlog.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Literal, TextIO

import structlog

from stream.common.open_files import explained
from stream.common.printable import printable
from stream.common.uris import redact_text

LogFormat = Literal["text", "json"]

# kafka-python prints the SASL password at DEBUG and repeats every lost connection at ERROR; what matters of
# it, the Kafka sink says in its own words.
_QUIET_LIBRARIES = ("kafka",)


_ROOT: Final = "facestream"


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger that takes an event and its fields: ``log.info("camera up", camera="door")``.

    Args:
        name: Of the module.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{_ROOT}.{name}"),
        processors=[structlog.stdlib.filter_by_level, redact_secrets, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return logger


def _as_record(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """What ``logging`` is told: a text for every handler, and its parts for ours (structlog processor)."""
    told = {name: entry.pop(name) for name in ("exc_info", "stack_info") if name in entry}
    event, fields = str(entry.pop("event")), dict(entry)
    text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
    return (text,), told | {"extra": {"event": event, "fields": fields}}


def configure_logging(
    *, fmt: LogFormat = "text", level: str = "info", stream: TextIO | None = None, colors: bool | None = None
) -> None:
    """Set up the process's logging once, at the start of a command.

    Args:
        fmt: ``text`` for people, ``json`` for one JSON object a line.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Where lines go; standard error when not given, since standard output is for events. What
            has taken its place meanwhile, such as a live table that lines must not tear, is respected.
        colors: Colours in text; as the terminal has it when not given.
    """
    out: TextIO = stream or _CurrentStderr()  # type: ignore[assignment]  # writes, flushes and knows isatty
    use_colors = out.isatty() if colors is None else colors
    render: Callable[[Any, str, MutableMapping[str, Any]], str | bytes | Mapping[str, Any]]
    if fmt == "json":
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(colors=use_colors, pad_event_to=0)
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if fmt == "json" else "%H:%M:%S", utc=fmt == "json"),
        redact_secrets,
        say_way_out,
        structlog.processors.format_exc_info,
        *(() if fmt == "json" else (show_as_it_stands,)),
        render,
    ]
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [_Lines(processors, out)]
    logger.setLevel(level.upper())
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _Lines(logging.Handler):
    """Writes a line for each record."""

    def __init__(self, processors: Sequence[structlog.typing.Processor], out: TextIO) -> None:
        super().__init__()
        self._processors, self._out = processors, out

    def emit(self, record: logging.LogRecord) -> None:
        entry: Any = {"event": getattr(record, "event", record.getMessage()), **getattr(record, "fields", {})}
        if record.exc_info:
            entry["exc_info"] = record.exc_info
        try:
            for process in self._processors:
                entry = process(None, record.levelname.lower(), entry)
            self._out.write(f"{entry}\n")
            self._out.flush()
        except Exception:  # noqa: BLE001 - as logging's own: no line is worth the work that it tells of
            self.handleError(record)


class _CurrentStderr(io.TextIOBase):
    """Whatever ``sys.stderr`` is at the moment of writing. Where it is gone, work goes on without."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def redact_secrets(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take user names, passwords and tokens out of every address in a log entry (structlog processor)."""
    for key, value in entry.items():
        if isinstance(value, str) and "://" in value:
            entry[key] = redact_text(value)
    return entry


def say_way_out(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Where too many files are open, say how to fix that (structlog processor)."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = explained(value)
    return entry


def show_as_it_stands(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Let nothing that came from outside steer the terminal (structlog processor); lines stay lines."""
    for key, value in entry.items():
        if isinstance(value, str) and not value.isprintable():
            entry[key] = "\n".join(map(printable, value.split("\n")))
    return entry
