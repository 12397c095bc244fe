"""Events to Kafka. The only file that imports ``kafka`` (kafka-python)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog
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
from stream.kafka_address import KafkaAddress, parse_kafka, show_kafka
from stream.kafka_entry import Entry, enter
from stream.kafka_errors import BrokersAwayError
from stream.kafka_failures import GRANT, explain_all, explain_failure
from stream.kafka_topics import TopicPlan, TopicState, plan_of, replicas
from stream.oauth import TokenSource

__all__ = [
    "ConsumerRebalanceListener",
    "CorruptRecordError",
    "KafkaError",
    "LogTruncationError",
    "MemoryRecordsBuilder",
    "NoOffsetForPartitionError",
    "OffsetAndMetadata",
    "OffsetOutOfRangeError",
    "ProducerBatch",
    "TopicPartition",
    "close_producer",
    "connect_admin",
    "connect_consumer",
    "connect_producer",
    "ensure_topic",
    "explain_failure",
    "murmur2",
    "probe_broker",
    "show_kafka",
    "topic_states",
]

log = structlog.get_logger(__name__)

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
_DELIVERY_S: Final = 20.0
_REQUEST_S: Final = 10.0
_CLOSE_S: Final = 0.5


def probe_broker(address: str, *, timeout_s: float, environment: Mapping[str, str] | None = None) -> str:
    """Whether a Kafka broker answers and lets us in.

    Args:
        address: ``HOST:PORT``, or a whole ``kafka://`` address, whose topic is looked at as well.
        timeout_s: How long it may take.
        environment: Where ``${NAME}`` in the address is looked up.

    Returns:
        What was found, for people.

    Raises:
        SinkError: It does not answer or let us in, or the address means nothing.
    """
    has_topic = address.startswith("kafka://")
    whole = address if has_topic else f"kafka://{address}/facestream.doctor"
    parsed = parse_kafka(whole, environment=environment)
    begun = time.monotonic()
    entry = enter(parsed, timeout_s)
    with contextlib.closing(_open_admin(entry)) as admin:
        topic = _describe(admin, entry, parsed.topic) if has_topic else None
        if has_topic and (topic is not None or not parsed.create):
            _check_right(topic, parsed, "WRITE")
    return f"{','.join(parsed.brokers)} answers within {time.monotonic() - begun:.1f} s"


def connect_producer(address: KafkaAddress, timeout_s: float, **settings: Any) -> KafkaProducer:
    """A producer that has met its brokers and may write to the topic, which is made where it is missing.

    Args:
        address: Where to.
        timeout_s: How long it may take.
        **settings: kafka-python's, over those that this function sets: ``acks="all"``, idempotent.

    Raises:
        SinkError: No broker answers or lets us in, or there is no topic for us; says which.
    """
    return _connect(
        KafkaProducer,
        address,
        timeout_s,
        "WRITE",
        {
            "acks": "all",
            "linger_ms": 10,
            "max_block_ms": round(timeout_s * 1000),
            "delivery_timeout_ms": round(_DELIVERY_S * 1000),
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
    """A consumer that has met its brokers and may read the topic. It commits nothing by itself.

    Args:
        address: Where from; its topic must be there.
        group: Consumers of one group share the partitions; None for a consumer on its own.
        timeout_s: How long it may take.
        topics: What is subscribed to; nothing when empty, and partitions may be assigned.
        **settings: kafka-python's, over those that this function sets: ``auto_offset_reset="earliest"``,
            ``enable_auto_commit=False``.

    Returns:
        The consumer; close it with ``close(autocommit=False)``.

    Raises:
        SinkError: No broker answers or lets us in, or there is no topic for us. Reading fails with the same
            error as writing: it is the same Kafka that is out of order.
    """
    consumer = _connect(
        KafkaConsumer,
        address,
        timeout_s,
        "READ",
        {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False} | settings,
    )
    if topics:
        consumer.subscribe(list(topics))
    return consumer


def connect_admin(address: KafkaAddress, timeout_s: float) -> KafkaAdminClient:
    """A client that looks at topics and changes them, and has met its brokers.

    Raises:
        SinkError: No broker answers or lets us in; says why.
    """
    return _open_admin(enter(address, timeout_s))


def ensure_topic(address: KafkaAddress, timeout_s: float, *, plan: TopicPlan | None = None) -> bool:
    """Make a topic where it is missing. One that is there is left as it is.

    Args:
        address: The cluster, and the topic where there is no plan.
        timeout_s: How long it may take.
        plan: How the topic is to be; when not given, the address's topic as ``plan_of`` has it.

    Returns:
        Whether it was made now.

    Raises:
        SinkError: No broker answers or lets us in, or the user may not make it.
    """
    entry = enter(address, timeout_s)
    with contextlib.closing(_open_admin(entry)) as admin:
        wanted = plan or plan_of(address.topic)
        # Who may not make topics is told so before anybody looks whether there is one.
        return _describe(admin, entry, wanted.name) is None and _make_topic(admin, entry, wanted)


def topic_states(
    address: KafkaAddress, plans: Sequence[TopicPlan], timeout_s: float, *, awaited: bool = False
) -> tuple[int, list[TopicState | None]]:
    """How topics are.

    Args:
        address: The cluster.
        plans: Which topics, and which of their settings are of interest.
        timeout_s: How long it may take.
        awaited: Whether they were all made, and brokers that have not heard of it are asked again.

    Returns:
        How many brokers there are, and for each topic its state, None where it is missing.

    Raises:
        SinkError: No broker answers or lets us in, or the user may not look at a topic.
    """
    entry = enter(address, timeout_s)
    with contextlib.closing(_open_admin(entry)) as admin:
        brokers = _ask(entry, admin, lambda: len(admin.describe_cluster()["brokers"]))
        return brokers, [_state(admin, entry, plan, brokers, awaited=awaited) for plan in plans]


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


def _connect(
    kind: Callable[..., _Client],
    address: KafkaAddress,
    timeout_s: float,
    right: str,
    settings: dict[str, Any],
) -> _Client:
    """A client whose topic is there, with the right that it will need.

    Raises:
        SinkError: It is not; says why.
    """
    entry = enter(address, timeout_s)
    with contextlib.closing(_open_admin(entry)) as admin:
        _meet_topic(admin, entry, right)
    request_ms = round(_REQUEST_S * 1000)
    return _open(
        kind, entry, {"allow_auto_create_topics": False, "request_timeout_ms": request_ms} | settings
    )


def _open_admin(entry: Entry) -> KafkaAdminClient:
    return _open(KafkaAdminClient, entry, {"request_timeout_ms": round(entry.left_s * 1000)})


def _open(kind: Callable[..., _Client], entry: Entry, settings: dict[str, Any]) -> _Client:
    """A client of kafka-python that has met its brokers.

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


def _ask(entry: Entry, admin: KafkaAdminClient, question: Callable[[], _Answer]) -> _Answer:
    """Ask brokers something, once more where one of them is away.

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


def _meet_topic(admin: KafkaAdminClient, entry: Entry, right: str) -> None:
    """See that the topic is there and that we have the right to it; make it where that is wanted.

    Raises:
        SinkError: It is not, or we have not.
    """
    address = entry.address
    topic = _describe(admin, entry, address.topic)
    if topic is None and address.create and right == "WRITE":
        _make_topic(admin, entry, plan_of(address.topic))
        topic = _describe(admin, entry, address.topic, awaited=True)
    _check_right(topic, address, right)


def _check_right(topic: Mapping[str, Any] | None, address: KafkaAddress, right: str) -> None:
    """See that a topic is there and that we have the right to it (KIP-430), before the first record.

    Raises:
        SinkError: It is not, or we have not.
    """
    if topic is None:
        raise SinkError(
            f"{show_kafka(address)}: there is no such topic; make it: "
            f"facestream events topics {show_kafka(address)}"
        )
    rights = topic.get("authorized_operations")
    if rights and right not in rights:
        who = "this user" if address.username is None else f"the user {address.username}"
        raise SinkError(f"{show_kafka(address)}: {who} has no right to {right} the topic; {GRANT}")


def _describe(
    admin: KafkaAdminClient, entry: Entry, name: str, *, awaited: bool = False
) -> dict[str, Any] | None:
    """What the brokers know of a topic; None where they have none of that name.

    The broker that is asked may be the last to hear of a topic that was made; ``awaited`` asks until it has.

    Raises:
        SinkError: They do not tell.
    """

    def question() -> dict[str, Any] | None:
        (topic,) = admin.describe_topics([name])
        failure = for_code(topic["error_code"])
        if failure is UnknownTopicOrPartitionError and not awaited:
            return None
        if failure is not NoError:
            raise failure
        return dict(topic)

    of_topic = replace(entry, address=replace(entry.address, topic=name))
    return _ask(of_topic, admin, question)


def _make_topic(admin: KafkaAdminClient, entry: Entry, plan: TopicPlan) -> bool:
    """Make a topic where it is missing; whether it was made.

    Raises:
        SinkError: The brokers refuse.
    """
    brokers = _ask(entry, admin, lambda: len(admin.describe_cluster()["brokers"]))
    topic = {
        "num_partitions": plan.partitions,
        "replication_factor": replicas(brokers),
        "configs": plan.settings(brokers),
    }

    def create() -> bool:
        admin._controller_id = None  # noqa: SLF001 - the one that it knows may be away
        try:
            admin.create_topics({plan.name: topic})
        except TopicAlreadyExistsError:
            return False
        except (UnknownBrokerIdError, RuntimeError) as exc:  # the controller is changing
            raise NodeNotReadyError("controller") from exc
        except AuthorizationError:
            raise SinkError(
                f"{show_kafka(entry.address)}: there is no topic {plan.name}, and no right to make it; "
                f"grant CREATE, or have it made: facestream events topics {show_kafka(entry.address)}"
            ) from None
        return True

    made = _ask(entry, admin, create)
    _ask(entry, admin, lambda: admin.wait_for_topics([plan.name], timeout_ms=round(entry.left_s * 1000)))
    if made:
        log.info("made a topic", topic=plan.name, partitions=plan.partitions, replicas=replicas(brokers))
    return made


def _state(
    admin: KafkaAdminClient, entry: Entry, plan: TopicPlan, brokers: int, *, awaited: bool
) -> TopicState | None:
    topic = _describe(admin, entry, plan.name, awaited=awaited)
    if topic is None:
        return None
    resource = ConfigResource(ConfigResourceType.TOPIC, plan.name)
    found = _ask(entry, admin, lambda: admin.describe_configs([resource], config_filter="all"))
    settings = found.get("topic", {}).get(plan.name, {})
    return TopicState(
        plan.name,
        partitions=len(topic["partitions"]),
        replicas=min(len(each["replica_nodes"]) for each in topic["partitions"]),
        settings={name: settings[name]["value"] for name in plan.settings(brokers) if name in settings},
    )
