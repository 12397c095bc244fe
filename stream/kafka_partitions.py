"""Which partitions a consumer has, and where it begins in each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from stream.kafka import ConsumerRebalanceListener, CorruptRecordError, TopicPartition

Start: TypeAlias = Literal["earliest", "latest"] | datetime

_REQUEST_S: Final = 10.0


class Partitions:
    """The partitions of a topic that a consumer has.

    A new one stands still until ``prepare`` was called: it begins where its group has committed, or else
    where the user wants to begin.

    Args:
        consumer: kafka-python's, of no topic yet.
        topic: What it shall read.
        start: Where to begin when nothing is committed.
        group: Its group; None reads all partitions.
    """

    def __init__(self, consumer: Any, topic: str, start: Start, *, group: str | None) -> None:
        self._consumer, self._start, self._group = consumer, start, group
        self._lock = threading.Lock()
        self._known: set[Any] = set()
        self._waiting: set[Any] = set()
        self._revoked = False
        numbers = consumer.partitions_for_topic(topic) or ()  # a group needs to know them before it shares
        if group is not None:
            consumer.subscribe([topic], listener=_Listener(self))
            return
        whole = {TopicPartition(topic, number) for number in numbers}
        consumer.assign(sorted(whole))
        self.assigned(whole)

    def prepare(self, on_assigned: Callable[[tuple[int, ...]], None] | None) -> None:
        """Let new partitions begin, where there are any.

        Args:
            on_assigned: Called before, with their numbers. When it raises, they stand still, and ``prepare``
                may be called again.

        Raises:
            KafkaError: The brokers do not say where to begin.
        """
        with self._lock:
            waiting = sorted(self._waiting)
        if not waiting:
            return
        with suppress(ValueError):  # another rebalance took one of them; the next prepare has the others
            self._place(waiting)
            if on_assigned is not None:
                on_assigned(tuple(each.partition for each in waiting))
            with self._lock:
                self._waiting.difference_update(waiting)
            self._consumer.resume(*waiting)

    def take_revoked(self) -> bool:
        """Whether partitions were given back since this was asked last."""
        with self._lock:
            revoked, self._revoked = self._revoked, False
        return revoked

    def pass_over_unreadable(self) -> tuple[int, int]:
        """Go on behind the record at which kafka-python failed.

        Another ``poll`` without this would never come back: kafka-python 3.0.12 takes the same batch up again
        and does not see that nothing comes of it.

        Returns:
            Number of the partition, and the record's offset.
        """
        failed = self._consumer._fetcher._next_partition_records  # noqa: SLF001 - the error does not say where
        partition = failed.topic_partition
        offset = int(self._consumer.position(partition, timeout_ms=round(_REQUEST_S * 1000)))
        self._consumer.seek(partition, offset + 1)
        return partition.partition, offset

    def _place(self, partitions: list[Any]) -> None:
        if self._start == "earliest":
            return  # kafka-python's own way
        timeout_ms = round(_REQUEST_S * 1000)
        fresh = [
            each
            for each in partitions
            if self._group is None or self._consumer.committed(each, timeout_ms=timeout_ms) is None
        ]
        if self._start == "latest" and fresh:
            self._consumer.seek_to_end(*fresh)
        elif isinstance(self._start, datetime):
            since_ms = max(0, round(self._start.timestamp() * 1000))
            found = self._consumer.offsets_for_times(dict.fromkeys(fresh, since_ms), timeout_ms=timeout_ms)
            for each in fresh:
                if (first := found.get(each)) is None:
                    self._consumer.seek_to_end(each)
                else:
                    self._consumer.seek(each, first.offset)

    def assigned(self, partitions: Iterable[Any]) -> None:
        """Called by kafka-python, on its own thread, with all that we have now."""
        now = set(partitions)
        with self._lock:
            self._waiting = (self._waiting & now) | (now - self._known)
            self._known = now
            self._consumer.pause(*self._waiting)

    def revoked(self, *, lost: bool) -> None:
        """Called by kafka-python, on its own thread: they may go, or have gone to others already."""
        with self._lock:
            self._revoked = True
            if lost:
                self._known.clear()
                self._waiting.clear()


def is_malformed(error: CorruptRecordError) -> bool:
    """Whether a record is as its writer made it and still cannot be parsed: no checksum failed."""
    return isinstance(error.__context__, (ValueError, IndexError))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # has no types
    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def on_partitions_revoked(self, revoked: set[Any]) -> None:  # noqa: ARG002 - all of them
        self._partitions.revoked(lost=False)

    def on_partitions_assigned(self, assigned: set[Any]) -> None:
        self._partitions.assigned(assigned)

    def on_partitions_lost(self, lost: set[Any]) -> None:  # noqa: ARG002 - all of them
        self._partitions.revoked(lost=True)
