"""Read events from Kafka: typed, without duplicates, and without skipping any.

    with EventConsumer("kafka://localhost:9092/faces", group="door-log") as events:
        for event in events:
            print(event.camera_id, event.event_id)

See docs/consumers.md.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from engine.errors import SinkError
from stream.common.logs import get_logger
from stream.events.codecs import SchemaLookup
from stream.events.event_types import Event
from stream.kafka.address import KafkaAddress, identities_of, parse_kafka, show_kafka
from stream.kafka.clients import connect_consumer
from stream.kafka.consuming.bad_records import BadRecord, ConsumerStats, log_bad, raise_bad
from stream.kafka.consuming.partitions import Partitions, Start
from stream.kafka.consuming.record_reader import RecordReader
from stream.kafka.explanations import explain_failure
from stream.kafka.kafka_python import KafkaError, OffsetAndMetadata, TopicPartition

__all__ = ["BadRecord", "ConsumerStats", "EventConsumer", "Start", "log_bad", "raise_bad"]

log = get_logger(__name__)

POLL_S: Final = 0.2
"""Longest poll of the brokers when no record comes."""

_CLOSE_S: Final = 5.0
_SESSION_MS: Final = 10_000  # how soon others take over from a consumer that was killed


class EventConsumer:
    """Events of a topic, one by one: an iterator, to be used in a ``with`` block.

    Delivery is at least once: an event counts as done when the next one is asked for, and events that are
    done are committed every ``commit_every_s``. After a crash, events that were not committed come again; to
    recognise them, store ``event.event_id``. Duplicates within the life of this consumer are dropped.

    Consumers of one group share the partitions, which are rebalanced when one joins or leaves. The events of
    one camera are in one partition, in order. While no broker answers, the iterator waits.

    Not thread-safe, except for ``stop``.

    Args:
        source: ``kafka://HOST:PORT/TOPIC`` with options as for ``facestream run --sink``; ``${NAME}`` is
            taken from the environment. The topic of ``identities=TOPIC`` is read as well.
        group: Name of the group; None reads all partitions and commits nothing.
        also: More topics of the same brokers. There is no order between topics.
        from_: Where a new group starts: ``earliest``, ``latest`` or a time with a time zone (of the records).
            Committed offsets take precedence.
        lookup: Finds Avro schemas that are not facestream's own, such as ``SchemaRegistry.schema``; other
            formats, and facestream's own schemas, need none.
        on_bad: Handles a record that is not an event: ``log_bad``, ``raise_bad``, or your own function.
        on_erased: Called with the key of a record without a value: on ``TOPIC.tracks``, the id of a track
            that was erased.
        on_assigned: Called with the numbers of newly assigned partitions of ``source``, before their first
            event.
        drop_repeats: Whether duplicates are dropped.
        commit_every_s: How often offsets are committed.
        batch: Maximum number of records fetched at once. They must be processed within five minutes, or the
            partitions move to another consumer: lower it if an event takes seconds.
        idle_s: The iterator ends when no event came for this long, counted from when the group has assigned
            its partitions; None waits forever.
        timeout_s: How long connecting may take.

    Raises:
        SinkError: The address is invalid.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        source: str | KafkaAddress,
        *,
        group: str | None,
        also: Sequence[str] = (),
        from_: Start = "earliest",
        lookup: SchemaLookup | None = None,
        on_bad: Callable[[BadRecord], None] = log_bad,
        on_erased: Callable[[str], None] | None = None,
        on_assigned: Callable[[tuple[int, ...]], None] | None = None,
        drop_repeats: bool = True,
        commit_every_s: float = 1.0,
        batch: int = 200,
        idle_s: float | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        _check(group, from_, commit_every_s=commit_every_s, batch=batch, idle_s=idle_s, timeout_s=timeout_s)
        self._address = parse_kafka(source, environment=os.environ) if isinstance(source, str) else source
        self._group, self._from = group, from_
        self._topics = tuple(dict.fromkeys((self._address.topic, identities_of(self._address).topic, *also)))
        self._reader = RecordReader(lookup, on_bad=on_bad, on_erased=on_erased, drop_repeats=drop_repeats)
        self._on_assigned = on_assigned
        self._commit_every_s, self._batch = commit_every_s, batch
        self._idle_s, self._timeout_s = idle_s, timeout_s
        self._stopping = threading.Event()
        self._fetched: deque[Any] = deque()
        self._in_hand: list[Any] = []
        self._done: dict[Any, int] = {}
        self._committed_s = self._unsettled_s = 0.0
        self._consumer: Any = None
        self._partitions: Partitions | None = None

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            SinkError: No broker answers or accepts the login, or there is no such topic.
        """
        if self._consumer is not None or self._stopping.is_set():
            raise ValueError("expected a new consumer; create another one")
        self._consumer = connect_consumer(
            self._address,
            group=self._group,
            timeout_s=self._timeout_s,
            # Records are fetched when all of those before are done, so that what kafka-python takes for
            # consumed then is done: it may commit it, above all before partitions go to another consumer.
            enable_auto_commit=self._group is not None,
            auto_commit_interval_ms=round(self._commit_every_s * 1000),
            max_poll_records=self._batch,
            auto_offset_reset="none",
            session_timeout_ms=_SESSION_MS,
            metrics_enabled=False,
        )
        self._partitions = Partitions(self._consumer, self._topics, self._from, group=self._group)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self._finish(commits=False)
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        since_s = time.monotonic()
        while not self._stopping.is_set():
            event = self.ready()
            if event is not None:
                return event
            if self.idles_since(since_s):
                break
            self.fetch(POLL_S)
        raise StopIteration

    @property
    def stats(self) -> ConsumerStats:
        """Counts of what was read so far."""
        return self._reader.stats

    def lag(self) -> dict[tuple[str, int], int]:
        """Number of unread records by topic and partition, as last reported by the brokers.

        Only for assigned partitions that records were fetched from. Sends no request.
        """
        return {} if self._partitions is None else self._partitions.lags(self._fetched)

    def stop(self) -> None:
        """End the iteration soon; may be called from any thread."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether ``stop`` or ``close`` was called."""
        return self._stopping.is_set()

    def idles_since(self, since_s: float) -> bool:
        """Whether to end because no event came since a time of ``time.monotonic``."""
        if self._idle_s is None:
            return False
        now_s = time.monotonic()
        if self._partitions is None or not self._partitions.is_settled:
            self._unsettled_s = now_s
            return False
        return now_s - max(since_s, self._unsettled_s) >= self._idle_s

    def take(self, most: int, *, wait_s: float) -> list[Event]:
        """Several events at once, for storing them in batches. Events returned before are done.

        Args:
            most: Maximum number of events, at least 1.
            wait_s: How long to wait for the first.

        Returns:
            Events in order; an empty list if none came in time.

        Raises:
            SinkError: Records cannot be read any longer, or ``on_bad`` raised it.
        """
        deadline_s = time.monotonic() + wait_s
        self._finish()
        while not self._fetched and not self._stopping.is_set():
            left_s = deadline_s - time.monotonic()
            self.fetch(max(0.0, min(POLL_S, left_s)))
            if left_s <= 0:
                break
        found: list[Event] = []
        try:
            while len(found) < most and (event := self._next_fetched()) is not None:
                found.append(event)
        except SinkError:
            if not found:  # else it comes again when these are done
                raise
        return found

    def commit(self) -> None:
        """Commit all events returned so far at once, including the last one.

        Raises:
            SinkError: It cannot be committed.
            ValueError: There is no group.
        """
        if self._group is None:
            raise ValueError("commit: expected a consumer of a group, got one without")
        self._finish(commits=False)
        try:
            self._consumer.commit(self._offsets(), timeout_ms=round(_CLOSE_S * 1000))
        except KafkaError as exc:
            raise self._error(exc) from exc
        self._committed_s = time.monotonic()

    def close(self) -> None:
        """Commit events that are done and leave the group; may be called twice.

        The last event counts as done when the ``with`` block ends without an error. After an error, or when
        ``close`` is called elsewhere, it comes again.
        """
        self._stopping.set()
        if self._consumer is None:
            return
        consumer, self._consumer = self._consumer, None
        for record in reversed([*self._in_hand, *self._fetched]):
            with suppress(ValueError):  # the partition went to another consumer
                consumer.seek(_partition(record), record.offset)
        self._in_hand, self._fetched = [], deque()
        try:
            consumer.close(autocommit=self._group is not None, timeout_ms=round(_CLOSE_S * 1000))
        except KafkaError as exc:
            log.warning("kafka: events may come again", source=self.name, reason=type(exc).__name__)

    @property
    def name(self) -> str:
        """The address, without secrets."""
        return show_kafka(self._address)

    def ready(self) -> Event | None:
        """The next fetched event, without waiting; None when ``fetch`` has to be called.

        All events returned before are done.

        Raises:
            SinkError: ``on_bad`` raised it.
        """
        self._finish()
        return self._next_fetched()

    def fetch(self, wait_s: float) -> None:
        """Fetch records for ``ready``, when it has returned all fetched ones.

        Args:
            wait_s: Longest wait for them.

        Raises:
            SinkError: Records cannot be read any longer.
            ValueError: The consumer is not open.
        """
        if self._consumer is None or self._partitions is None:
            raise ValueError("expected an open consumer; use it in a with block")
        if self._fetched:
            return
        try:
            found = self._partitions.poll(
                wait_s,
                on_assigned=self._welcome,
                on_unreadable=self._reader.pass_over,
                on_anew=self._reader.forget,
            )
        except KafkaError as exc:
            raise self._error(exc) from exc
        if self._partitions.take_revoked():  # kafka-python has committed what was done
            self._done.clear()
        self._fetched.extend(found)

    def _finish(self, *, commits: bool = True) -> None:
        """Mark returned events as done; commit them when it is time."""
        for record in self._in_hand:
            self._done[_partition(record)] = record.offset + 1
        self._in_hand.clear()
        if self._group is None or not commits or not self._done or not self._fetched:
            return
        if time.monotonic() - self._committed_s >= self._commit_every_s:
            self._committed_s = time.monotonic()
            self._consumer.commit_async(self._offsets())

    def _offsets(self) -> dict[Any, Any]:
        return {each: OffsetAndMetadata(offset, "", -1) for each, offset in self._done.items()}

    def _next_fetched(self) -> Event | None:
        while self._fetched:
            record = self._fetched.popleft()
            try:
                event = self._reader.read(record)
            except BaseException:  # it stays the next one; events returned before may be done
                self._fetched.appendleft(record)
                raise
            self._in_hand.append(record)
            if event is not None:
                return event
        return None

    def _welcome(self, partitions: list[Any]) -> None:
        numbers = tuple(each.partition for each in partitions if each.topic == self._address.topic)
        if self._on_assigned is not None and numbers:
            self._on_assigned(numbers)

    def _error(self, error: KafkaError) -> SinkError:
        return SinkError(f"{self.name}: {explain_failure(error, self._address)}")


def _partition(record: Any) -> Any:
    return TopicPartition(record.topic, record.partition)


def _check(
    group: str | None,
    start: Start,
    *,
    batch: int,
    idle_s: float | None,
    commit_every_s: float,
    timeout_s: float,
) -> None:
    if group is not None and not group:
        raise ValueError("group: expected a name, or None")
    if isinstance(start, datetime) and start.tzinfo is None:
        raise ValueError(f"from_: expected a time with a time zone, got {start}")
    if not isinstance(start, datetime) and start not in {"earliest", "latest"}:
        raise ValueError(f"from_: expected earliest, latest or a time, got {start!r}")
    if batch < 1 or not commit_every_s > 0 or not timeout_s > 0 or (idle_s is not None and not idle_s >= 0):
        raise ValueError(
            "expected batch, commit_every_s and timeout_s above 0 and idle_s of at least 0, "
            f"got {batch}, {commit_every_s}, {timeout_s} and {idle_s}"
        )
