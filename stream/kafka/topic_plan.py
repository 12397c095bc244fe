"""The topics that facestream uses, and their settings: numbers only, no broker."""

from __future__ import annotations

from dataclasses import dataclass, field

PARTITIONS = 12
"""Of a topic that is made: 12 consumers can share the work, and 2, 3, 4 or 6 share it evenly."""

RETENTION_S = 7 * 24 * 3600.0
"""How long events are kept where nothing else is said: a week."""

REPLICAS = 3
"""Copies of a topic, where there are as many brokers."""

_COMPACTION_LAG_S = 3600.0


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How a topic is to be.

    Attributes:
        name: Of the topic.
        partitions: At least 1. Records of one key stay in one of them, and in order.
        retention_s: How long records are kept, above 0; None keeps them for good.
        compacted: Whether only the latest record of a key is kept.
    """

    name: str
    partitions: int = PARTITIONS
    retention_s: float | None = RETENTION_S
    compacted: bool = False

    def __post_init__(self) -> None:
        if self.partitions < 1 or (self.retention_s is not None and not self.retention_s > 0):
            raise ValueError(
                f"expected partitions and retention_s above 0, got {self.partitions}, {self.retention_s}"
            )

    def settings(self, brokers: int) -> dict[str, str]:
        """Kafka's settings of the topic, by their names there.

        Args:
            brokers: How many the cluster has.
        """
        cleanup = ["compact"] if self.compacted else []
        if self.retention_s is not None or not self.compacted:
            cleanup.append("delete")
        milliseconds = -1 if self.retention_s is None else round(self.retention_s * 1000)
        found = {"cleanup.policy": ",".join(cleanup), "retention.ms": str(milliseconds)}
        if self.compacted:
            found["max.compaction.lag.ms"] = str(round(_COMPACTION_LAG_S * 1000))
        if replicas(brokers) >= REPLICAS:
            found["min.insync.replicas"] = "2"
        return found


@dataclass(frozen=True, slots=True)
class TopicState:
    """How a topic is.

    Attributes:
        name: Of the topic.
        partitions: How many there are.
        replicas: Copies of each partition.
        settings: Kafka's, by name, as far as they were asked for.
    """

    name: str
    partitions: int
    replicas: int
    settings: dict[str, str] = field(default_factory=dict)


def replicas(brokers: int) -> int:
    """Copies of a topic in a cluster of so many brokers."""
    return max(1, min(REPLICAS, brokers))


def plan_of(name: str) -> TopicPlan:
    """How a topic of this name is to be, where nothing else is said: one of states keeps the latest."""
    return TopicPlan(name, compacted=name.endswith(".tracks"))


def plan_topics(
    topic: str,
    *,
    identities: str | None = None,
    partitions: int = PARTITIONS,
    retention_s: float | None = RETENTION_S,
) -> tuple[TopicPlan, ...]:
    """The topics of one feed of events: the events, and the latest state of each track.

    Args:
        topic: Of the events; the other is ``TOPIC.tracks``.
        identities: Of who each track is, where that does not stand among the events.
        partitions: Of each, so that a camera's or a track's records meet in one consumer.
        retention_s: How long records are kept; None for good.
    """
    plans = (
        TopicPlan(topic, partitions, retention_s),
        TopicPlan(f"{topic}.tracks", partitions, retention_s, compacted=True),
    )
    return plans if identities is None else (*plans, TopicPlan(identities, partitions, retention_s))


def differences(plan: TopicPlan, state: TopicState, *, brokers: int) -> tuple[str, ...]:
    """What is not as planned, for people: ``partitions 4, expected 12``.

    Args:
        plan: How it is to be.
        state: How it is.
        brokers: How many the cluster has.
    """
    found = {"partitions": str(state.partitions), "replicas": str(state.replicas)} | state.settings
    expected = {"partitions": str(plan.partitions), "replicas": str(replicas(brokers))}
    expected |= plan.settings(brokers)
    return tuple(
        f"{name} {found.get(name, 'not known')}, expected {value}"
        for name, value in expected.items()
        if sorted(found.get(name, "").split(",")) != sorted(value.split(","))
    )
