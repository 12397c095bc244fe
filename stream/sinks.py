"""Where events go: the contract of a sink, and what a sink's address on the command line means."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import parse_qsl, unquote

from engine.errors import SinkError
from stream.events import Event
from stream.uris import redact_text
from stream.wire import EmbeddingEncoding

KNOWN_SINKS = "kafka://HOST:PORT/TOPIC, jsonl:PATH, jsonl:- (standard output), sqlite:PATH"

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):[0-9]{1,5}")
_OPTIONS = {"security", "mechanism", "ca"}
_SECURITY = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class EventSink(Protocol):
    """Takes events for good.

    Contract: one thread calls. ``emit`` keeps the order, may block for a bounded time, and either takes all
    events of a call or raises SinkError; a sink that delivers in the background raises what went wrong there
    at the next call. Nothing is ever dropped in silence. ``close`` delivers what was taken, may be called
    twice, and raises SinkError that says how many events could not be delivered.
    """

    def emit(self, events: Sequence[Event]) -> None:
        """Take some events."""

    def close(self, timeout_s: float) -> None:
        """Deliver what was taken, within ``timeout_s``, and free everything."""


@dataclass(frozen=True, slots=True)
class JsonLinesAddress:
    """A file of one CloudEvent a line; None is standard output."""

    path: Path | None


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A SQLite file."""

    path: Path


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A topic of a Kafka cluster.

    Attributes:
        brokers: ``HOST:PORT`` of one or more.
        topic: Name.
        username: For SASL; None for no login.
        password: The same.
        security: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        mechanism: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
        ca_file: Certificates that sign the broker's; None takes the system's.
    """

    brokers: tuple[str, ...]
    topic: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    security: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    ca_file: Path | None = None


SinkAddress: TypeAlias = JsonLinesAddress | SqliteAddress | KafkaAddress


def parse_sink(text: str) -> SinkAddress:
    """What a sink's address means. Touches no file and no network.

    Args:
        text: ``kafka://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…]/TOPIC[?security=…&mechanism=…&ca=…]``,
            ``jsonl:PATH``, ``jsonl:-`` or ``sqlite:PATH``.

    Raises:
        SinkError: It means nothing.
    """
    scheme, colon, rest = text.partition(":")
    match scheme:
        case "jsonl" if rest:
            return JsonLinesAddress(None if rest == "-" else Path(rest))
        case "sqlite" if rest:
            return SqliteAddress(Path(rest))
        case "kafka" if rest.startswith("//"):
            return _parse_kafka(rest[2:])
    shown = redact_text(text) if colon else "the address"
    raise SinkError(f"sink {shown}: not understood, expected {KNOWN_SINKS}")


def open_sink(
    text: str, *, encoding: EmbeddingEncoding = "float32-b64", connect_timeout_s: float = 5.0
) -> EventSink:
    """Open a sink.

    Args:
        text: As ``parse_sink`` takes it.
        encoding: How embeddings are written.
        connect_timeout_s: How long a broker may take to answer.

    Raises:
        SinkError: The address means nothing, the file cannot be written, or no broker answers.
    """
    match parse_sink(text):
        case JsonLinesAddress(path):
            from stream.jsonl import JsonLinesSink

            return JsonLinesSink(path, encoding=encoding)
        case SqliteAddress(path):
            from stream.sqlite import SqliteSink

            return SqliteSink(path, encoding=encoding)
        case KafkaAddress() as address:
            from stream.kafka import KafkaSink

            sink = KafkaSink(address, encoding=encoding)
            sink.connect(connect_timeout_s)
            return sink


class FanOut:
    """Gives every event to several sinks. When one fails, the others get the events all the same.

    Args:
        sinks: Where to; none takes events and forgets them.
    """

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = tuple(sinks)

    def emit(self, events: Sequence[Event]) -> None:
        """Give events to all sinks.

        Raises:
            SinkError: Some failed; the first one's error.
        """
        errors: list[SinkError] = []
        for sink in self._sinks:
            try:
                sink.emit(events)
            except SinkError as exc:
                errors.append(exc)
        if errors:
            raise errors[0]

    def close(self, timeout_s: float) -> None:
        """Close all sinks, within ``timeout_s`` altogether as far as they keep to it.

        Raises:
            SinkError: Some failed; the first one's error.
        """
        deadline = time.monotonic() + timeout_s
        errors: list[SinkError] = []
        for sink in self._sinks:
            try:
                sink.close(max(0.0, deadline - time.monotonic()))
            except SinkError as exc:
                errors.append(exc)
        if errors:
            raise errors[0]


def _parse_kafka(rest: str) -> KafkaAddress:
    form = "kafka://[USER:PASSWORD@]HOST:PORT/TOPIC"
    location, _, query = rest.partition("?")
    authority, _, topic = location.partition("/")
    login, at, hosts = authority.rpartition("@")
    brokers = tuple(hosts.split(","))
    if not all(_BROKER.fullmatch(broker) for broker in brokers):
        raise SinkError(f"sink kafka: expected {form}, and the port a number")
    if not _TOPIC.fullmatch(topic):
        raise SinkError(
            f"sink kafka: expected {form}; a topic is of letters, digits, dots, dashes, underscores"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(options) - _OPTIONS:
        raise SinkError(f"sink kafka: unknown option {', '.join(sorted(unknown))}; known: {sorted(_OPTIONS)}")
    username, colon, password = login.partition(":")
    if at and not (username and colon and password):
        raise SinkError(f"sink kafka: expected {form}, with @ and : inside a password as %40 and %3A")
    ca_file = options.get("ca")
    security = options.get("security", _default_security(has_login=bool(at), has_ca=bool(ca_file)))
    mechanism = options.get("mechanism", "SCRAM-SHA-512")
    if security not in _SECURITY or mechanism not in _MECHANISMS:
        raise SinkError(
            f"sink kafka: expected security as one of {', '.join(_SECURITY)} "
            f"and mechanism as one of {', '.join(_MECHANISMS)}"
        )
    if security.startswith("SASL") != bool(at):
        raise SinkError("sink kafka: USER:PASSWORD@ and security=SASL_… go together")
    return KafkaAddress(
        brokers,
        topic,
        username=unquote(username) if at else None,
        password=unquote(password) if at else None,
        security=security,
        mechanism=mechanism,
        ca_file=Path(ca_file) if ca_file else None,
    )


def _default_security(*, has_login: bool, has_ca: bool) -> str:
    """A login goes over TLS unless the user says otherwise."""
    if has_login:
        return "SASL_SSL"
    return "SSL" if has_ca else "PLAINTEXT"
