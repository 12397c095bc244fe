"""Events to Kafka. The only file that imports ``kafka`` (kafka-python)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import structlog
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError
from kafka.net.compat import KafkaNetClient

from engine.errors import SinkError
from stream.cloudevents import BinaryMessage, to_binary
from stream.events import Event
from stream.kafka_address import KafkaAddress, parse_kafka, show_kafka
from stream.kafka_topics import TopicPlan, replicas
from stream.wire import EmbeddingEncoding

__all__ = [
    "KafkaError",
    "KafkaSink",
    "close_producer",
    "connect_admin",
    "connect_consumer",
    "connect_producer",
    "ensure_topic",
    "probe_broker",
    "show_kafka",
]

log = structlog.get_logger(__name__)

_Client = TypeVar("_Client")

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
    parsed = parse_kafka(whole)
    begun = time.monotonic()
    connect_admin(parsed, timeout_s).close()
    return f"{','.join(parsed.brokers)} answers within {time.monotonic() - begun:.1f} s"


def connect_producer(address: KafkaAddress, timeout_s: float, **settings: Any) -> KafkaProducer:
    """A producer that has met its brokers and knows the topic, which is made where it is missing.

    Args:
        address: Where to.
        timeout_s: How long it may take.
        **settings: kafka-python's, over those that this function sets: ``acks="all"``, idempotent.

    Raises:
        SinkError: No broker answers or lets us in, or there is no topic for us.
    """
    _meet_topic(address, timeout_s)
    return _open(
        KafkaProducer,
        address,
        timeout_s,
        {
            "acks": "all",
            "linger_ms": 10,
            "max_block_ms": round(timeout_s * 1000),
            "delivery_timeout_ms": round(_DELIVERY_S * 1000),
            "allow_auto_create_topics": False,
        }
        | settings,
    )


def connect_consumer(
    address: KafkaAddress,
    *,
    group: str | None,
    timeout_s: float,
    topics: Sequence[str] = (),
    **settings: Any,
) -> KafkaConsumer:
    """A consumer that has met its brokers and knows the topic. It commits nothing by itself.

    Args:
        address: Where from; its topic must be there.
        group: Consumers of one group share the partitions; None for a consumer on its own.
        timeout_s: How long it may take.
        topics: What is subscribed to; nothing when empty, and partitions may be assigned.
        **settings: kafka-python's, over those that this function sets: ``auto_offset_reset="earliest"``,
            ``enable_auto_commit=False``, CRCs checked.

    Returns:
        The consumer; close it with ``close(autocommit=False)``.

    Raises:
        SinkError: No broker answers or lets us in, or there is no topic for us. Reading fails with the same
            error as writing: it is the same Kafka that is out of order.
    """
    _meet_topic(address, timeout_s, reading=True)
    consumer = _open(
        KafkaConsumer,
        address,
        timeout_s,
        {
            "group_id": group,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
            "allow_auto_create_topics": False,
        }
        | settings,
    )
    if topics:
        consumer.subscribe(list(topics))
    return consumer


def connect_admin(address: KafkaAddress, timeout_s: float) -> KafkaAdminClient:
    """A client that looks at and changes topics, and has met its brokers.

    Raises:
        SinkError: No broker answers or lets us in.
    """
    return _open(KafkaAdminClient, address, timeout_s, {"request_timeout_ms": round(timeout_s * 1000)})


def ensure_topic(address: KafkaAddress, timeout_s: float, *, plan: TopicPlan | None = None) -> bool:
    """Make a topic where it is missing. One that is there is left as it is.

    Args:
        address: The cluster, and the topic where there is no plan.
        timeout_s: How long it may take.
        plan: How the topic is to be; when not given, the address's topic as ``TopicPlan`` has it.

    Returns:
        Whether it was made now.

    Raises:
        SinkError: No broker answers or lets us in, or the user may not make it.
    """
    with contextlib.closing(connect_admin(address, timeout_s)) as admin:
        return _make_topic(admin, address, plan or TopicPlan(address.topic))


def _meet_topic(address: KafkaAddress, timeout_s: float, *, reading: bool = False) -> None:
    """See that there is the topic; make it where that is wanted.

    Raises:
        SinkError: There is none.
    """
    with contextlib.closing(connect_admin(address, timeout_s)) as admin:
        (found,) = admin.describe_topics([address.topic])
        if found["error_code"] == UnknownTopicOrPartitionError.errno and address.create and not reading:
            _make_topic(admin, address, TopicPlan(address.topic))
        elif found["error_code"]:
            raise SinkError(
                f"{show_kafka(address)}: the brokers have no such topic, or not for this user; make it: "
                f"facestream events topics kafka://{address.brokers[0]}/{address.topic}"
            )


def _make_topic(admin: KafkaAdminClient, address: KafkaAddress, plan: TopicPlan) -> bool:
    try:
        brokers = len(admin.describe_cluster()["brokers"])
        admin.create_topics(
            {
                plan.name: {
                    "num_partitions": plan.partitions,
                    "replication_factor": replicas(brokers),
                    "configs": plan.settings(brokers),
                }
            },
            wait_for_metadata=True,
        )
    except TopicAlreadyExistsError:
        return False
    except KafkaError as exc:
        raise SinkError(
            f"{show_kafka(address)}: the topic {plan.name} could not be made ({type(exc).__name__})"
        ) from exc
    return True


def close_producer(producer: KafkaProducer) -> None:
    """End a producer at once; what it was not able to send fails.

    Its own ``close`` leaves thread and sockets behind when records are pending and no broker answers.
    """
    producer._sender.force_close()  # noqa: SLF001 - there is no public way
    producer._sender.join(_CLOSE_S)  # noqa: SLF001
    with contextlib.suppress(KafkaError):
        producer.close(timeout=_CLOSE_S)


def _open(
    kind: Callable[..., _Client], address: KafkaAddress, timeout_s: float, settings: dict[str, Any]
) -> _Client:
    """A client of kafka-python that has met its brokers.

    Raises:
        SinkError: No broker answers or lets us in.
    """
    _check_reachable(address, timeout_s)
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
        clients.append(KafkaNetClient(**settings))
        return clients[0]

    try:
        return kind(
            bootstrap_servers=list(address.brokers),
            client_id="facestream",
            security_protocol=address.security,
            bootstrap_timeout_ms=round(timeout_s * 1000),
            reconnect_backoff_max_ms=1000,
            kafka_client=make_client,
            **({"request_timeout_ms": round(_REQUEST_S * 1000)} | options | settings),
        )
    except (KafkaError, OSError, ValueError) as exc:
        for client in clients:  # one that was not finished leaves its sockets open
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
