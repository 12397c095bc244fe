"""Events to Kafka. The only file that imports ``kafka`` (kafka-python)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from engine.errors import SinkError
from stream.cloudevents import BinaryMessage, to_binary
from stream.events import Event
from stream.sinks import KafkaAddress, parse_sink
from stream.wire import EmbeddingEncoding

log = structlog.get_logger(__name__)

_TICK_S = 0.05
_IN_FLIGHT = 500
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 5.0
_DELIVERY_S: Final = 20.0
_REQUEST_S: Final = 10.0
_CLOSE_S: Final = 0.5


class KafkaSink:
    """Sends each event as a CloudEvent in binary mode, with the camera's id as the key.

    A thread of its own talks to the brokers, with ``acks=all`` and an idempotent producer. While no broker
    answers, events wait in memory; when one is back, all that was not acknowledged is sent, in order. An
    event may then come twice (with the same id), but none is lost as long as this process lives.

    Args:
        address: Where to.
        encoding: How embeddings are written.
        capacity: Events that may wait.
        emit_timeout_s: How long ``emit`` waits for room.
    """

    def __init__(
        self,
        address: KafkaAddress,
        *,
        encoding: EmbeddingEncoding = "float32-b64",
        capacity: int = 10_000,
        emit_timeout_s: float = 10.0,
    ) -> None:
        if capacity < 1 or not emit_timeout_s > 0:
            raise ValueError(
                f"expected capacity and emit_timeout_s above 0, got {capacity}, {emit_timeout_s}"
            )
        self._address, self._encoding = address, encoding
        self._capacity, self._emit_timeout_s = capacity, emit_timeout_s
        self._name = show_kafka(address)
        self._changed = threading.Condition()
        self._waiting: deque[BinaryMessage] = deque()
        self._sent: deque[tuple[BinaryMessage, Any]] = deque()
        self._trouble = ""
        self._closing = False
        self._producer: KafkaProducer | None = None
        self._worker = threading.Thread(target=self._work, name="kafka-sink", daemon=True)

    def connect(self, timeout_s: float) -> None:
        """See that the brokers answer and have the topic, then begin.

        Raises:
            SinkError: They do not.
        """
        self._producer = connect_producer(self._address, timeout_s)
        self._worker.start()

    def emit(self, events: Sequence[Event]) -> None:
        """Take some events; waits while too many are on their way.

        Raises:
            SinkError: There was no room in time; none of these events was taken.
        """
        messages = [to_binary(event, encoding=self._encoding) for event in events]
        with self._changed:
            if self._closing:
                raise ValueError("expected an open sink, got a closed one")
            has_room = self._changed.wait_for(
                lambda: not self._backlog or self._backlog + len(messages) <= self._capacity,
                self._emit_timeout_s,
            )
            if not has_room:
                raise SinkError(
                    f"{self._name}: {self._backlog} events wait and there is no room for more"
                    f"{self._because}; bring the brokers back, and start again"
                )
            self._waiting.extend(messages)
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Deliver what was taken.

        Raises:
            SinkError: Some events could not be delivered in time; says how many.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if self._closing:
                return
            self._changed.wait_for(lambda: not self._backlog, timeout_s)
            self._closing = True
            left, because = self._backlog, self._because
            self._changed.notify_all()
        if self._worker.is_alive():
            self._worker.join(max(0.5, deadline - time.monotonic()))
        if left:
            raise SinkError(f"{self._name}: {left} events were not delivered{because}")

    @property
    def _backlog(self) -> int:
        return len(self._waiting) + len(self._sent)

    @property
    def _because(self) -> str:
        return f" ({self._trouble})" if self._trouble else ""

    def _work(self) -> None:
        """Body of the thread: send, settle what is acknowledged, begin anew after trouble."""
        backoff_s = _FIRST_BACKOFF_S
        while not self._closing:
            try:
                if self._producer is None:
                    self._producer = connect_producer(self._address, _REQUEST_S)
                    log.info("kafka is back", sink=self._name, events=self._backlog)
                self._exchange(self._producer)
                backoff_s = _FIRST_BACKOFF_S
                self._trouble = ""
            except (KafkaError, SinkError) as exc:
                if not self._trouble:
                    log.warning("kafka does not take events; they wait in memory", sink=self._name)
                self._trouble = str(exc) if isinstance(exc, SinkError) else f"{type(exc).__name__}"
                self._give_up_producer()
                self._pause(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        self._give_up_producer()

    def _exchange(self, producer: KafkaProducer) -> None:
        """Send some of what waits; take note of what is acknowledged.

        Raises:
            KafkaError: Something was refused, or was not acknowledged in time.
        """
        with self._changed:
            if not self._backlog:
                self._changed.wait(_TICK_S)
        while self._waiting and len(self._sent) < _IN_FLIGHT:
            message = self._waiting[0]
            future = producer.send(
                self._address.topic, key=message.key, value=message.value, headers=message.headers
            )
            with self._changed:
                self._sent.append((message, future))
                self._waiting.popleft()
        if self._sent and not self._sent[0][1].is_done:
            with contextlib.suppress(KafkaError):  # looked at below
                self._sent[0][1].get(timeout=_TICK_S)
        with self._changed:
            while self._sent and self._sent[0][1].is_done:
                failure = self._sent[0][1].exception
                if failure is not None:
                    raise failure
                self._sent.popleft()
            self._changed.notify_all()

    def _give_up_producer(self) -> None:
        """Close the producer; what it did not get acknowledged waits again, in order."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)
        with self._changed:
            unsettled = [
                message for message, future in self._sent if not (future.is_done and future.exception is None)
            ]
            self._sent.clear()
            self._waiting.extendleft(reversed(unsettled))
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)


def probe_broker(address: str, *, timeout_s: float) -> str:
    """Whether a Kafka broker answers.

    Args:
        address: ``HOST:PORT``, or a whole ``kafka://`` address.
        timeout_s: How long it may take.

    Returns:
        What was found, for people.

    Raises:
        SinkError: It does not answer, or the address means nothing.
    """
    whole = address if address.startswith("kafka://") else f"kafka://{address}/facestream.doctor"
    parsed = parse_sink(whole)
    if not isinstance(parsed, KafkaAddress):
        raise SinkError(f"{address}: expected HOST:PORT")
    begun = time.monotonic()
    close_producer(_new_producer(parsed, timeout_s))
    return f"{','.join(parsed.brokers)} answers within {time.monotonic() - begun:.1f} s"


def show_kafka(address: KafkaAddress) -> str:
    """An address without its secrets."""
    return f"kafka://{','.join(address.brokers)}/{address.topic}"


def connect_producer(address: KafkaAddress, timeout_s: float) -> KafkaProducer:
    """A producer that has met its brokers and knows the topic.

    Raises:
        SinkError: No broker answers, or none has the topic.
    """
    producer = _new_producer(address, timeout_s)
    try:
        partitions = producer.partitions_for(address.topic)
    except KafkaError:
        partitions = None
    if not partitions:
        close_producer(producer)
        raise SinkError(
            f"{show_kafka(address)}: the brokers have no such topic, or not for this user; make it: "
            f"kafka-topics.sh --bootstrap-server {address.brokers[0]} --create --topic {address.topic}"
        )
    return producer


def close_producer(producer: KafkaProducer) -> None:
    """End a producer at once; what it was not able to send fails.

    Its own ``close`` leaves thread and sockets behind when records are pending and no broker answers.
    """
    producer._sender.force_close()  # noqa: SLF001 - there is no public way
    producer._sender.join(_CLOSE_S)  # noqa: SLF001
    with contextlib.suppress(KafkaError):
        producer.close(timeout=_CLOSE_S)


def _new_producer(address: KafkaAddress, timeout_s: float) -> KafkaProducer:
    _check_reachable(address, timeout_s)
    milliseconds = round(timeout_s * 1000)
    options: dict[str, Any] = {}
    if address.username is not None:
        options |= {
            "sasl_mechanism": address.mechanism,
            "sasl_plain_username": address.username,
            "sasl_plain_password": address.password,
        }
    if address.ca_file is not None:
        options["ssl_cafile"] = str(address.ca_file)
    clients: list[Any] = []

    def make_client(**settings: Any) -> Any:
        clients.append(KafkaProducer.DEFAULT_CONFIG["kafka_client"](**settings))
        return clients[0]

    try:
        return KafkaProducer(
            bootstrap_servers=list(address.brokers),
            client_id="facestream",
            security_protocol=address.security,
            acks="all",
            linger_ms=10,
            bootstrap_timeout_ms=milliseconds,
            max_block_ms=milliseconds,
            request_timeout_ms=round(_REQUEST_S * 1000),
            delivery_timeout_ms=round(_DELIVERY_S * 1000),
            reconnect_backoff_max_ms=1000,
            kafka_client=make_client,
            **options,
        )
    except (KafkaError, OSError, ValueError) as exc:
        for client in clients:  # a producer that was not finished leaves its sockets open
            client.close()
        login = ", the user name, the password" if address.username is not None else ""
        raise SinkError(
            f"{show_kafka(address)}: something listens there but does not let us in within {timeout_s:g} s "
            f"({type(exc).__name__}); check that it is Kafka, security={address.security}{login}"
        ) from None  # the cause may hold the password


def _check_reachable(address: KafkaAddress, timeout_s: float) -> None:
    """Connect to any of the brokers, since kafka-python does not tell why it could not."""
    reasons = []
    for broker in address.brokers:
        host, _, port = broker.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
        except (OSError, OverflowError) as exc:
            reasons.append(f"{broker}: {getattr(exc, 'strerror', None) or exc}")
        else:
            return
    raise SinkError(
        f"{show_kafka(address)}: no broker can be reached ({'; '.join(reasons)}); "
        "start it or correct the address"
    )
