"""Whole batches to Kafka, made of packed records.

kafka-python takes records one at a time and spends most of a core on 15,000 of them a second: it checks,
copies and makes a future for each. Here a batch is filled at once and has one future; idempotence,
compression, requests and retries are kafka-python's. This reaches into its producer: tests hold the bytes
against those that it makes itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from stream.kafka.kafka_python import KafkaError, MemoryRecordsBuilder, ProducerBatch, TopicPartition, murmur2
from stream.spool.packed_records import frame_records

ZSTD: Final = 4
"""Number of the codec (Apache Kafka, "Record Batch", attributes)."""

_MAGIC: Final = 2
_CACHED_KEYS: Final = 1 << 16


class _Batch(ProducerBatch):  # type: ignore[misc]  # kafka-python has no types
    """A batch that is one thing for the producer: it is taken or refused, and never split."""

    record_count = 1


def fill_batch(
    records: Sequence[tuple[bytes, bytes]], times_ms: Sequence[int], *, compression: int = ZSTD
) -> Any:
    """kafka-python's builder of a batch, full.

    Args:
        records: Key and tail (``stream.spool.packed_records``) of each; at least one.
        times_ms: Of each, milliseconds since 1970.
        compression: Number of the codec; 0 for none.
    """
    builder = MemoryRecordsBuilder(_MAGIC, compression, 0)
    inner = builder._builder  # noqa: SLF001 - there is no public way to fill it at once
    inner._buffer += frame_records(records, times_ms, times_ms[0])  # noqa: SLF001
    inner._first_timestamp, inner._max_timestamp = times_ms[0], max(times_ms)  # noqa: SLF001
    inner._num_records, inner._last_offset = len(records), len(records) - 1  # noqa: SLF001
    builder._next_offset = len(records)  # noqa: SLF001
    return builder


class Delivery:
    """A batch on its way."""

    def __init__(self, future: Any) -> None:
        self._future = future

    @property
    def is_done(self) -> bool:
        """Whether it was acknowledged or has failed."""
        return bool(self._future.is_done)

    def first_offset(self) -> int:
        """Where the broker has put it; -1 where it does not say.

        Raises:
            KafkaError: It has failed.
        """
        if self._future.exception is not None:
            raise self._future.exception
        offset, _, failure_of = self._future.value
        if failure_of is not None:
            failure = failure_of(0)
            raise failure if isinstance(failure, KafkaError) else KafkaError(str(failure))
        return int(offset)


class BatchSender:
    """Gives whole batches to a producer, and lets it do the rest.

    Args:
        producer: Of ``stream.kafka.clients.connect_producer``.
        on_done: Called, in the producer's thread, whenever a batch was acknowledged or has failed.
    """

    def __init__(self, producer: Any, on_done: Callable[[], None]) -> None:
        self._producer, self._on_done = producer, on_done

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has.

        Raises:
            KafkaError: No broker says so in time.
        """
        return len(self._producer.partitions_for(topic))

    def send(
        self,
        topic: str,
        partition: int,
        records: Sequence[tuple[bytes, bytes]],
        times_ms: Sequence[int],
    ) -> Delivery:
        """Put a batch behind those of its partition.

        Args:
            topic: One that ``partitions`` was asked for.
            partition: From 0.
            records: Key and tail of each; at least one, and of no more bytes than the topic takes at once.
            times_ms: Of each.
        """
        place = TopicPartition(topic, partition)
        batch = _Batch(place, fill_batch(records, times_ms))
        batch.produce_future.add_both(lambda *_: self._on_done())
        accumulator = self._producer._accumulator  # noqa: SLF001 - as above
        with accumulator._tp_lock(place):  # noqa: SLF001
            accumulator._incomplete.add(batch)  # noqa: SLF001
            accumulator._batches[place].append(batch)  # noqa: SLF001
        return Delivery(batch.produce_future)

    def wake(self) -> None:
        """Tell the producer of what ``send`` has put there; otherwise it may look a little later."""
        self._producer._sender.wakeup()  # noqa: SLF001


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's clients put a key (its default partitioner): murmur2, positive, modulo."""
    return _hash(key) % partitions


@lru_cache(maxsize=_CACHED_KEYS)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF
