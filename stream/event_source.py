"""Events that were written earlier, one after the other: of a file of JSON Lines, or of a Kafka topic."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from engine.errors import SourceError
from stream.cloudevents import from_json
from stream.events import Event
from stream.formats import decode
from stream.kafka import KafkaError, connect_consumer, explain_failure
from stream.kafka_address import KafkaAddress, show_kafka
from stream.kafka_poll import poll
from stream.sinks import JsonLinesAddress, parse_sink
from stream.wire import MAX_EVENT_BYTES

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S: Final = 5.0
_STALL_S: Final = 20.0
_POLL_S: Final = 0.2


def read_events(source: str) -> Iterator[Event]:
    """All events that are there now, those of one camera in order.

    What is no event is passed over, and the log says how often.

    Args:
        source: Path of a file of JSON Lines, ``jsonl:PATH``, or ``kafka://…`` as a sink has it.

    Raises:
        SourceError: The file cannot be read, or the topic's end is not reached.
        SinkError: The address means nothing, or no broker answers.
    """
    address = parse_sink(source) if source.startswith(("kafka://", "jsonl:")) else None
    if isinstance(address, KafkaAddress):
        yield from read_events_of(address)
        return
    path = address.path if isinstance(address, JsonLinesAddress) else Path(source)
    if path is None:
        raise SourceError("events: standard output cannot be read; give the file that it went to")
    yield from _of_file(path)


def _of_file(path: Path) -> Iterator[Event]:
    skipped = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_EVENT_BYTES + 2):
                try:
                    yield from_json(line.strip())
                except ValueError:
                    skipped += 1
    except OSError as exc:
        raise SourceError(f"{path}: events cannot be read ({exc.strerror}); check the path") from exc
    _tell(str(path), skipped)


def read_events_of(address: KafkaAddress) -> Iterator[Event]:
    """The events of a topic from its beginning to what is its end now.

    Raises:
        SinkError: As for ``read_topic``.
        SourceError: The same.
    """
    skipped = 0
    for record in read_topic(address):
        if record.value is None:
            continue
        try:
            yield decode(record.headers, record.value)
        except ValueError:
            skipped += 1
    _tell(show_kafka(address), skipped)


def read_topic(address: KafkaAddress) -> Iterator[Any]:
    """The records of a topic from its beginning to what is its end now, as kafka-python gives them.

    Raises:
        SinkError: No broker answers or lets us in, or there is no such topic.
        SourceError: The end is not reached, since nothing has come for 20 seconds.
    """
    consumer = connect_consumer(
        address,
        group=None,
        timeout_s=_CONNECT_TIMEOUT_S,
        topics=[address.topic],
        isolation_level="read_committed",
    )
    try:
        ends: dict[Any, int] = {}
        heard_s = time.monotonic()
        while not ends or any(consumer.position(each) < end for each, end in ends.items()):
            polled, unreadable = poll(consumer, _POLL_S)
            if unreadable is not None:
                log.warning("a record cannot be parsed", source=show_kafka(address), offset=unreadable.offset)
            if not ends and consumer.assignment():
                ends = consumer.end_offsets(list(consumer.assignment()))
            for records in polled.values():
                heard_s = time.monotonic()
                yield from records
            if time.monotonic() - heard_s > _STALL_S:
                raise SourceError(
                    f"{show_kafka(address)}: gives nothing more before its end; see whether all brokers run"
                )
    except KafkaError as exc:
        raise SourceError(f"{show_kafka(address)}: {explain_failure(exc, address)}") from exc
    finally:
        consumer.close(autocommit=False)


def _tell(source: str, skipped: int) -> None:
    if skipped:
        log.warning("some records are no events", source=source, records=skipped)
