"""Connected producers and consumers that have permission for their topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from stream.kafka.address import KafkaAddress
from stream.kafka.kafka_python import KafkaConsumer, KafkaProducer, open_client
from stream.kafka.security import enter
from stream.kafka.topic_admin import meet_topic

_Client = TypeVar("_Client")

_DELIVERY_S: Final = 20.0
_REQUEST_S: Final = 10.0


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
    **settings: Any,
) -> KafkaConsumer:
    """A consumer that has met its brokers and may read the topic. It commits nothing by itself.

    Ask it for the topic's partitions before anything else: 3.0.12 forgets to look for the topics that are
    subscribed to while it meets its brokers, and finds them five minutes later.

    Args:
        address: Where from; its topic must be there.
        group: Consumers of one group share the partitions; None for a consumer on its own.
        timeout_s: How long it may take.
        **settings: kafka-python's, over those that this function sets: ``auto_offset_reset="earliest"``,
            ``enable_auto_commit=False``.

    Returns:
        The consumer; close it with ``close(autocommit=False)``.

    Raises:
        SinkError: No broker answers or lets us in, or there is no topic for us. Reading fails with the same
            error as writing: it is the same Kafka that is out of order.
    """
    return _connect(
        KafkaConsumer,
        address,
        timeout_s,
        "READ",
        {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False} | settings,
    )


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
    meet_topic(entry, right)
    request_ms = round(_REQUEST_S * 1000)
    return open_client(
        kind, entry, {"allow_auto_create_topics": False, "request_timeout_ms": request_ms} | settings
    )
