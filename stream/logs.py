"""Logging: readable lines for people, JSON for machines, secrets for nobody."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog

from stream.printable import printable
from stream.uris import redact_text

LogFormat = Literal["text", "json"]

# kafka-python prints the SASL password at DEBUG and repeats every lost connection at ERROR; what matters of
# it, the Kafka sink says in its own words.
_QUIET_LIBRARIES = ("kafka",)


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
    out = stream or _CurrentStderr()
    use_colors = out.isatty() if colors is None else colors
    render: Callable[[Any, str, MutableMapping[str, Any]], str | bytes | Mapping[str, Any]]
    if fmt == "json":
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.dev.ConsoleRenderer(colors=use_colors, pad_event_to=0)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if fmt == "json" else "%H:%M:%S", utc=fmt == "json"),
            redact_secrets,
            structlog.processors.format_exc_info,
            *(() if fmt == "json" else (show_as_it_stands,)),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", out)),
        cache_logger_on_first_use=False,
    )
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


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


def show_as_it_stands(
    _logger: object, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Let nothing that came from outside steer the terminal (structlog processor); lines stay lines."""
    for key, value in entry.items():
        if isinstance(value, str) and not value.isprintable():
            entry[key] = "\n".join(map(printable, value.split("\n")))
    return entry
