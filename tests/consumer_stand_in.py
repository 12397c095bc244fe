"""A stand-in for kafka-python's consumer, with its topics in memory."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from kafka import TopicPartition

from stream.events.codecs import Encoder
from stream.events.event_types import Event
from stream.events.kafka_record import to_binary
from stream.kafka.kafka_python import NoOffsetForPartitionError


@dataclass
class Topics:
    """What brokers keep: records, and what a group has committed."""

    partitions: int = 1
    records: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[Any, int] = field(default_factory=dict)
    topic_id: int = 1

    def make_anew(self) -> None:
        self.records.clear()
        self.committed.clear()
        self.topic_id += 1

    def write(self, events: Iterable[Event], *, topic: str = "faces", encode: Encoder = to_binary) -> None:
        for event in events:
            message = encode(event)
            partition = TopicPartition(topic, sum(message.key) % self.partitions)
            self.put(partition, message.key, message.value, message.headers)

    def put(
        self,
        partition: Any,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]] | None = None,
        *,
        timestamp: int = 0,
    ) -> None:
        log = self.records[partition]
        log.append(
            SimpleNamespace(
                topic=partition.topic,
                partition=partition.partition,
                offset=len(log),
                key=key,
                value=value,
                headers=headers or [],
                timestamp=timestamp,
            )
        )


class StandInConsumer:
    """Answers as kafka-python's does; what it is told to raise, the next ``poll`` raises."""

    def __init__(self, topics: Topics, *, group: str | None, batch: int) -> None:
        self._topics, self._group, self._batch = topics, group, batch
        self._positions: dict[Any, int] = {}
        self._paused: set[Any] = set()
        self._listener: Any = None
        self._joining: set[Any] | None = None
        self.raises: deque[BaseException] = deque()
        self.polls_until_joined = 0
        self.async_commits: list[dict[Any, int]] = []
        self.is_closed = False
        broker = SimpleNamespace(host="localhost", port=9092)
        self._coordinator = SimpleNamespace(rejoining=False)
        self._cluster = SimpleNamespace(topic_id=lambda _: topics.topic_id, brokers=lambda: [broker])
        self._manager = SimpleNamespace(failures={})

    @property
    def _subscription(self) -> SimpleNamespace:
        return SimpleNamespace(
            assignment={
                each: SimpleNamespace(
                    highwater=None if position < 0 else len(self._topics.records[each]),
                    position=None if position < 0 else SimpleNamespace(offset=position),
                )
                for each, position in self._positions.items()
            }
        )

    def partitions_for_topic(self, topic: str) -> set[int]:
        assert topic
        return set(range(self._topics.partitions))

    def subscribe(self, topics: list[str], *, listener: Any) -> None:
        self._listener = listener
        self.rebalance({TopicPartition(each, n) for each in topics for n in range(self._topics.partitions)})

    def rebalance(self, partitions: set[Any]) -> None:
        """The next ``poll`` finds these partitions assigned."""
        self._joining = partitions

    def assign(self, partitions: list[Any]) -> None:
        self._positions = dict.fromkeys(partitions, -1)

    def assignment(self) -> set[Any]:
        return set(self._positions)

    def paused(self) -> set[Any]:
        return set(self._paused)

    def pause(self, *partitions: Any) -> None:
        self._paused.update(partitions)

    def resume(self, *partitions: Any) -> None:
        self._paused.difference_update(partitions)

    def poll(self, *, timeout_ms: int, max_records: int | None = None) -> dict[Any, list[Any]]:
        assert timeout_ms >= 0
        assert max_records is None
        self.polls_until_joined -= 1
        if self._joining is not None and self.polls_until_joined < 0:
            self._rejoin(self._joining)
        if self.raises:
            raise self.raises.popleft()
        for each in [one for one, position in self._positions.items() if position < 0]:
            self._positions[each] = self._topics.committed.get(each, -1) if self._group else -1
        if missing := {each for each, position in self._positions.items() if position < 0}:
            raise NoOffsetForPartitionError(missing)
        found: dict[Any, list[Any]] = {}
        left = self._batch
        for each in sorted(set(self._positions) - self._paused):
            begin = self._positions[each]
            if records := self._topics.records[each][begin : begin + left]:
                found[each], left = records, left - len(records)
                self._positions[each] += len(records)
        return found

    def _rejoin(self, partitions: set[Any]) -> None:
        self._commit_positions()
        self._listener.on_partitions_revoked(set(self._positions))
        self._positions = {each: self._positions.get(each, -1) for each in partitions}
        self._joining = None
        self._listener.on_partitions_assigned(partitions)

    def _commit_positions(self) -> None:
        self._topics.committed |= {each: n for each, n in self._positions.items() if n >= 0}

    def position(self, partition: Any, timeout_ms: int | None = None) -> int:
        assert timeout_ms is None or timeout_ms > 0
        return self._positions[partition]

    def seek(self, partition: Any, offset: int) -> None:
        if partition not in self._positions:
            raise ValueError("Unassigned partition")
        self._positions[partition] = offset

    def seek_to_beginning(self, *partitions: Any) -> None:
        self._positions |= dict.fromkeys(partitions, 0)

    def seek_to_end(self, *partitions: Any) -> None:
        self._positions |= {each: len(self._topics.records[each]) for each in partitions}

    def offsets_for_times(self, times: dict[Any, int], timeout_ms: int = 1) -> dict[Any, Any]:
        assert timeout_ms > 0
        return {
            each: next((record for record in self._topics.records[each] if record.timestamp >= since), None)
            for each, since in times.items()
        }

    def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        return {each: len(self._topics.records[each]) for each in partitions}

    def commit(self, offsets: dict[Any, Any], timeout_ms: int) -> None:
        assert timeout_ms > 0
        self._topics.committed |= {each: offset.offset for each, offset in offsets.items()}

    def commit_async(self, offsets: dict[Any, Any]) -> None:
        self.async_commits.append({each: offset.offset for each, offset in offsets.items()})
        self._topics.committed |= self.async_commits[-1]

    def close(self, *, autocommit: bool = False, timeout_ms: int = 1) -> None:
        assert timeout_ms > 0
        self.is_closed = True
        if autocommit:
            self._commit_positions()
