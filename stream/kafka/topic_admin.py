"""Topics on a cluster: check that they exist with the right settings, and create missing ones."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import SinkError
from stream.common.logs import get_logger
from stream.kafka.address import KafkaAddress, parse_kafka, show_kafka
from stream.kafka.explanations import GRANT
from stream.kafka.kafka_python import (
    AuthorizationError,
    ConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
    NodeNotReadyError,
    NoError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
    UnknownTopicOrPartitionError,
    ask,
    for_code,
    open_client,
)
from stream.kafka.security import Entry, enter
from stream.kafka.topic_plan import TopicPlan, TopicState, plan_of, replicas

log = get_logger(__name__)


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


def connect_admin(address: KafkaAddress, timeout_s: float) -> KafkaAdminClient:
    """A client that looks at topics and changes them, and has met its brokers.

    Args:
        address: The cluster.
        timeout_s: How long it may take.

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
        brokers = ask(entry, admin, lambda: len(admin.describe_cluster()["brokers"]))
        return brokers, [_state(admin, entry, plan, brokers, awaited=awaited) for plan in plans]


def meet_topic(entry: Entry, right: str) -> None:
    """Check that the topic exists and that we have permission for it; create it if that is wanted.

    Args:
        entry: To the cluster; its address names the topic.
        right: ``READ`` or ``WRITE``, as Kafka calls it.

    Raises:
        SinkError: It is not, or we have not.
    """
    address = entry.address
    with contextlib.closing(_open_admin(entry)) as admin:
        topic = _describe(admin, entry, address.topic)
        if topic is None and address.create and right == "WRITE":
            _make_topic(admin, entry, plan_of(address.topic))
            topic = _describe(admin, entry, address.topic, awaited=True)
    _check_right(topic, address, right)


def _open_admin(entry: Entry) -> KafkaAdminClient:
    return open_client(KafkaAdminClient, entry, {"request_timeout_ms": round(entry.left_s * 1000)})


def _check_right(topic: Mapping[str, Any] | None, address: KafkaAddress, right: str) -> None:
    """Check that a topic exists and that we have permission for it (KIP-430), before the first record.

    Raises:
        SinkError: It is not, or we have not.
    """
    if topic is None:
        raise SinkError(
            f"{show_kafka(address)}: there is no such topic; create it: "
            f"facestream events topics {show_kafka(address)}"
        )
    rights = topic.get("authorized_operations")
    if rights and right not in rights:
        who = "this user" if address.username is None else f"the user {address.username}"
        raise SinkError(f"{show_kafka(address)}: {who} lacks permission to {right} the topic; {GRANT}")


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
    return ask(of_topic, admin, question)


def _make_topic(admin: KafkaAdminClient, entry: Entry, plan: TopicPlan) -> bool:
    """Make a topic where it is missing; whether it was made.

    Raises:
        SinkError: The brokers refuse.
    """
    brokers = ask(entry, admin, lambda: len(admin.describe_cluster()["brokers"]))
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
                f"{show_kafka(entry.address)}: there is no topic {plan.name}, and no permission to "
                f"create it; grant CREATE, or have it created: facestream events topics "
                f"{show_kafka(entry.address)}"
            ) from None
        return True

    made = ask(entry, admin, create)
    ask(entry, admin, lambda: admin.wait_for_topics([plan.name], timeout_ms=round(entry.left_s * 1000)))
    if made:
        log.info("created a topic", topic=plan.name, partitions=plan.partitions, replicas=replicas(brokers))
    return made


def _state(
    admin: KafkaAdminClient, entry: Entry, plan: TopicPlan, brokers: int, *, awaited: bool
) -> TopicState | None:
    topic = _describe(admin, entry, plan.name, awaited=awaited)
    if topic is None:
        return None
    resource = ConfigResource(ConfigResourceType.TOPIC, plan.name)
    found = ask(entry, admin, lambda: admin.describe_configs([resource], config_filter="all"))
    settings = found.get("topic", {}).get(plan.name, {})
    return TopicState(
        plan.name,
        partitions=len(topic["partitions"]),
        replicas=min(len(each["replica_nodes"]) for each in topic["partitions"]),
        settings={name: settings[name]["value"] for name in plan.settings(brokers) if name in settings},
    )
