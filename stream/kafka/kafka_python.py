"""The seam to kafka-python: the only file that imports ``kafka``.

Opens clients and asks brokers; what a feed of events asks for is in ``clients`` and ``topic_admin``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    IllegalSaslStateError,
    KafkaError,
    LogTruncationError,
    NodeNotReadyError,
    NoError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    for_code,
)
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector
from kafka.partitioner.default import murmur2
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from engine.errors import FacestreamError, SinkError
from stream.kafka.error_types import BrokersAwayError
from stream.kafka.explanations import explain_all
from stream.kafka.oauth import TokenSource
from stream.kafka.security import Entry

__all__ = [
    "AuthorizationError",
    "ConfigResource",
    "ConfigResourceType",
    "ConsumerRebalanceListener",
    "CorruptRecordError",
    "KafkaAdminClient",
    "KafkaConsumer",
    "KafkaError",
    "KafkaProducer",
    "LogTruncationError",
    "MemoryRecordsBuilder",
    "NoError",
    "NoOffsetForPartitionError",
    "NodeNotReadyError",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "ProducerBatch",
    "TopicAlreadyExistsError",
    "TopicPartition",
    "UnknownBrokerIdError",
    "UnknownTopicOrPartitionError",
    "ask",
    "close_producer",
    "for_code",
    "murmur2",
    "open_client",
]

_Client = TypeVar("_Client")
_Answer = TypeVar("_Answer")

# Asking again does not help.
_REFUSALS = (
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
    IllegalSaslStateError,
    AuthorizationError,
    FacestreamError,
)

_TICK_S = 0.05
_CLOSE_S: Final = 0.5


def open_client(kind: Callable[..., _Client], entry: Entry, settings: dict[str, Any]) -> _Client:
    """A client of kafka-python that has met its brokers.

    Args:
        kind: Its class.
        entry: To the cluster.
        settings: kafka-python's, over those of the entry.

    Raises:
        SinkError: None of them lets us in; says why.
    """
    managers: list[_Manager] = []

    def make_client(**given: Any) -> KafkaNetClient:
        net = NetworkSelector(**given)
        managers.append(_Manager(net, **given, socket_connection_setup_timeout_ms=round(entry.left_s * 1000)))
        return KafkaNetClient(net, managers[0])

    options = dict(entry.options)
    if entry.tokens is not None:
        options["sasl_oauth_token_provider"] = _BearerTokens(entry.tokens)
    try:
        return kind(
            bootstrap_timeout_ms=round(entry.left_s * 1000),
            kafka_client=make_client,
            **(options | settings),
        )
    except (KafkaError, FacestreamError, OSError) as exc:
        for manager in managers:  # a client that was not finished leaves its sockets open
            KafkaNetClient(manager._net, manager).close()  # noqa: SLF001
        failures = managers[0].failures if managers else {}
        refused = any(isinstance(each, _REFUSALS) for each in (exc, *failures.values()))
        error = SinkError if refused else BrokersAwayError
        raise error(explain_all(exc, failures, entry.address)) from None  # the cause may hold the password


def ask(entry: Entry, admin: KafkaAdminClient, question: Callable[[], _Answer]) -> _Answer:
    """Ask brokers something, again and again while one of them is away and there is time.

    Args:
        entry: To the cluster, and until when.
        admin: As ``open_client`` opens it.
        question: Asks ``admin``; may be called several times.

    Raises:
        SinkError: None answers in time, or they refuse; says why.
    """
    while True:
        try:
            return question()
        except KafkaError as exc:
            if not exc.retriable or time.monotonic() > entry.deadline_s:
                failures = admin._manager.failures  # noqa: SLF001 - our own
                error = BrokersAwayError if exc.retriable else SinkError
                raise error(explain_all(exc, failures, entry.address)) from exc
        time.sleep(_TICK_S)


def close_producer(producer: KafkaProducer) -> None:
    """End a producer at once; what it was not able to send fails.

    Its own ``close`` leaves thread and sockets behind when records are pending and no broker answers.
    """
    producer._sender.force_close()  # noqa: SLF001 - there is no public way
    producer._sender.join(_CLOSE_S)  # noqa: SLF001
    with contextlib.suppress(KafkaError):
        producer.close(timeout=_CLOSE_S)


class _Manager(KafkaConnectionManager):  # type: ignore[misc] # has no types
    """Keeps why brokers did not let us in, which kafka-python tells its log alone.

    A login that is refused is refused every time. kafka-python has a place for such failures, which it looks
    at before it connects again, but fills it for none of them.
    """

    def __init__(self, net: Any, **settings: Any) -> None:
        super().__init__(net, **settings)
        self.failures: dict[str, BaseException] = {}

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*args, **options)
        transport._sock_recv = partial(_data_first, transport._sock_recv)  # noqa: SLF001 - there is no other way
        return transport

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        await super()._connect(node, conn, **options)
        name = f"{node.host}:{node.port}"
        if not conn.init_future.failed():
            self.failures.pop(name, None)
            return
        failure = conn.init_future.exception
        self.failures[name] = failure
        if not self.bootstrapped and isinstance(failure, _REFUSALS):
            self._auth_failures[node.node_id] = failure


def _data_first(receive: Callable[[], tuple[bytes, Exception | None]]) -> tuple[bytes, Exception | None]:
    """What was received, before that the connection was ended then.

    kafka-python throws away what came together with the end: a broker's last words, such as why it refuses
    a login. The end is met again by the next read.
    """
    data, failure = receive()
    return data, None if data else failure


class _BearerTokens(AbstractTokenProvider):  # type: ignore[misc] # has no types
    """Hands our tokens to kafka-python, which asks for one whenever it logs in."""

    def __init__(self, source: TokenSource) -> None:
        super().__init__()
        self._source = source

    def token(self) -> str:
        return self._source.token()
