"""Which partitions a consumer has, and where it begins in each of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

from stream.common.logs import get_logger
from stream.kafka.consuming.broker_watch import BrokerWatch
from stream.kafka.consuming.polling import poll
from stream.kafka.kafka_python import (
    ConsumerRebalanceListener,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicPartition,
)

Start: TypeAlias = Literal["earliest", "latest"] | datetime

log = get_logger(__name__)

_REQUEST_S: Final = 10.0


class Partitions:
    """The partitions of some topics that a consumer has.

    A new one begins where its group has committed, or else where the user wants to begin.

    Args:
        consumer: kafka-python's, of no topic yet, with ``auto_offset_reset="none"``: it then says where it
            cannot begin, and never commits a place that nobody has chosen.
        topics: What it shall read.
        start: Where to begin when nothing is committed.
        group: Its group; None reads all partitions.
    """

    def __init__(self, consumer: Any, topics: Sequence[str], start: Start, *, group: str | None) -> None:
        self._consumer, self._start, self._group = consumer, start, group
        self._lock = threading.Lock()
        self._known: set[Any] = set()
        self._waiting: set[Any] = set()
        self._revoked = self._joined = False
        self._topic_ids: dict[str, Any] = dict.fromkeys(topics)
        self._watch = BrokerWatch(consumer, topics)
        # A group's members need to know them before they share them.
        whole = {
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic) or ()
        }
        if group is not None:
            consumer.subscribe(list(topics), listener=_Listener(self))
            return
        consumer.assign(sorted(whole))
        self.assigned(whole)

    def poll(
        self,
        wait_s: float,
        *,
        on_assigned: Callable[[list[Any]], None],
        on_unreadable: Callable[[str, int, int], None],
        on_anew: Callable[[], None],
    ) -> list[Any]:
        """Some records, once each partition has begun.

        Args:
            wait_s: How long to wait for them at most.
            on_assigned: Called with new partitions before any of their records is fetched. When it raises,
                they stand still, and the next ``poll`` calls it again.
            on_unreadable: Called with topic, partition and offset of a record that kafka-python cannot parse,
                and that is skipped.
            on_anew: Called when a topic is another one than before, under the same name. It is read from its
                beginning; some of its records may have come already.

        Raises:
            KafkaError: They cannot be read, and waiting does not help.
        """
        self._watch.look(time.monotonic())
        self._welcome(on_assigned)
        self._keep_joining()
        try:
            found, unreadable = poll(self._consumer, wait_s)
            if unreadable is not None:
                on_unreadable(*unreadable)
            if anew := self._topics_made_anew():
                on_anew()
            return [each for records in found.values() for each in records if each.topic not in anew]
        except NoOffsetForPartitionError as exc:
            self._begin(sorted(exc.args[0]))
        except OffsetOutOfRangeError as exc:
            self._begin_at_what_is_left(list(exc.args[0]))
        except LogTruncationError as exc:
            for each, safe in exc.divergent_offsets.items():
                log.warning("brokers have lost records", topic=each.topic, partition=each.partition)
                if safe is not None:
                    self._consumer.seek(each, safe.offset)
            self._begin_at_what_is_left(
                [each for each, safe in exc.divergent_offsets.items() if safe is None]
            )
        return []

    @property
    def is_settled(self) -> bool:
        """Whether the group has given out its partitions, none perhaps, and all of ours have begun."""
        with self._lock:
            return self._joined and not self._waiting

    def lags(self, waiting: Iterable[Any]) -> dict[tuple[str, int], int]:
        """By topic and number, records that the brokers have told of and that are not done with.

        Partitions that nothing was fetched of so far are left out. Asks no broker.

        Args:
            waiting: Records that ``poll`` has given out and that count as well.
        """
        states = dict(self._consumer._subscription.assignment)  # noqa: SLF001 - position() may ask brokers
        found = Counter((each.topic, each.partition) for each in waiting)
        for each, state in states.items():
            if state.highwater is not None and state.position is not None:
                found[each.topic, each.partition] += max(0, state.highwater - state.position.offset)
        return dict(found)

    def take_revoked(self) -> bool:
        """Whether partitions were given back since this was asked last."""
        with self._lock:
            revoked, self._revoked = self._revoked, False
        return revoked

    def _welcome(self, on_assigned: Callable[[list[Any]], None]) -> None:
        with self._lock:
            waiting = sorted(self._waiting)
        if not waiting:
            return
        on_assigned(waiting)
        with self._lock:
            ready = self._waiting.intersection(waiting)  # a rebalance may have taken some
            self._waiting -= ready
            self._consumer.resume(*ready)

    def _keep_joining(self) -> None:
        """Go on with a join of the group that took longer than a poll.

        Where new partitions were its reason, kafka-python 3.0.12 forgets to look for its end: it is no member
        any more, says nothing, and turns round and round in ``poll``.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - there is no public way
        if coordinator.rejoining:
            coordinator.request_rejoin()

    def _begin(self, partitions: list[Any]) -> None:
        """Begin where nothing was committed."""
        if self._start == "earliest":
            self._consumer.seek_to_beginning(*partitions)
        elif self._start == "latest":
            self._consumer.seek_to_end(*partitions)
        else:
            since_ms = max(0, round(self._start.timestamp() * 1000))
            found = self._consumer.offsets_for_times(
                dict.fromkeys(partitions, since_ms), timeout_ms=round(_REQUEST_S * 1000)
            )
            for each in partitions:
                if (first := found.get(each)) is None:
                    self._consumer.seek_to_end(each)
                else:
                    self._consumer.seek(each, first.offset)

    def _begin_at_what_is_left(self, partitions: list[Any]) -> None:
        """The brokers have nothing where we want to go on: it was kept too long, or they lost it."""
        for each in partitions:
            log.warning(
                "records are gone; reading continues at the oldest that is left",
                topic=each.topic,
                partition=each.partition,
            )
            self._consumer.seek_to_beginning(each)

    def _topics_made_anew(self) -> set[str]:
        """Topics that are others than before, under the same name: where we were in them means nothing."""
        anew = set()
        for topic, before in self._topic_ids.items():
            now = self._consumer._cluster.topic_id(topic)  # noqa: SLF001 - there is no public way
            if now is None or now == before:
                continue
            self._topic_ids[topic] = now
            if before is not None:
                anew.add(topic)
                log.warning("the topic was recreated; reading starts at its beginning", topic=topic)
        partitions = [each for each in self._consumer.assignment() if each.topic in anew]
        if partitions:
            self._consumer.seek_to_beginning(*partitions)
        return anew

    def assigned(self, partitions: Iterable[Any]) -> None:
        """Called by kafka-python, on its own thread, with all that we have now."""
        now = set(partitions)
        with self._lock:
            self._waiting = (self._waiting & now) | (now - self._known)
            self._known, self._joined = now, True
            self._consumer.pause(*self._waiting)

    def revoked(self, *, lost: bool) -> None:
        """Called by kafka-python, on its own thread: they may go, or have gone to others already."""
        with self._lock:
            self._revoked = True
            if lost:
                self._known.clear()
                self._waiting.clear()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # has no types
    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions

    def on_partitions_revoked(self, revoked: set[Any]) -> None:  # noqa: ARG002 - all of them
        self._partitions.revoked(lost=False)

    def on_partitions_assigned(self, assigned: set[Any]) -> None:
        self._partitions.assigned(assigned)

    def on_partitions_lost(self, lost: set[Any]) -> None:  # noqa: ARG002 - all of them
        self._partitions.revoked(lost=True)
