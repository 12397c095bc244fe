"""Counts of what a consumer read, and of records that are not events."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import SinkError
from stream.common.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is no event.

    Attributes:
        topic: Where it is.
        partition: Where there.
        offset: Where in the partition.
        key: Of the record.
        value: Of the record.
        reason: What is wrong with it, in one line.
        count: How many this consumer has met, with this one.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    reason: str
    count: int


def log_bad(record: BadRecord) -> None:
    """Skip a bad record; the 1st, 2nd, 4th, 8th and so on are logged as warnings."""
    if record.count & (record.count - 1) == 0:
        log.warning(
            "record skipped",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=record.reason,
            so_far=record.count,
        )


def raise_bad(record: BadRecord) -> None:
    """Stop at a bad record.

    Raises:
        SinkError: Always; says where it is.
    """
    raise SinkError(
        f"{record.topic}, partition {record.partition}, offset {record.offset}: {record.reason}; "
        "check what writes to this topic, or skip such records (on_bad=log_bad)"
    )


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What a consumer has met so far.

    Attributes:
        events: Given out.
        repeats: Left out, since they came before.
        bad: Records that are no events.
        erased: Records without a value, which say that a track was erased.
    """

    events: int = 0
    repeats: int = 0
    bad: int = 0
    erased: int = 0
