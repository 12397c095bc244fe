"""Fetch records from Kafka, skipping those that kafka-python cannot parse. All polling goes through here."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from stream.kafka.kafka_python import CorruptRecordError

_REQUEST_S: Final = 10.0


class Unreadable(NamedTuple):
    """Where a record stood that cannot be parsed, such as one whose headers' names are not UTF-8.

    Attributes:
        topic: Name.
        partition: Number.
        offset: Of the record.
    """

    topic: str
    partition: int
    offset: int


def poll(
    consumer: Any, wait_s: float, *, most: int | None = None
) -> tuple[dict[Any, list[Any]], Unreadable | None]:
    """Some records by partition, or the place of one that cannot be parsed and is skipped.

    Polling again after kafka-python has met such a record would never come back: 3.0.12 takes the same batch
    up again and does not see that nothing comes of it.

    Args:
        consumer: kafka-python's, with partitions.
        wait_s: How long to wait for records at most.
        most: Records at once; None leaves it to the consumer's setting.

    Raises:
        KafkaError: They cannot be read.
    """
    try:
        return dict(consumer.poll(timeout_ms=round(wait_s * 1000), max_records=most)), None
    except CorruptRecordError as exc:
        if not _is_malformed(exc):
            raise
        return {}, _pass_over(consumer)


def _pass_over(consumer: Any) -> Unreadable:
    failed = consumer._fetcher._next_partition_records  # noqa: SLF001 - the error does not say where
    partition = failed.topic_partition
    offset = int(consumer.position(partition, timeout_ms=round(_REQUEST_S * 1000)))
    consumer.seek(partition, offset + 1)
    return Unreadable(partition.topic, partition.partition, offset)


def _is_malformed(error: CorruptRecordError) -> bool:
    """Whether a record is as its writer made it and still cannot be parsed: no checksum failed."""
    return isinstance(error.__context__, (ValueError, IndexError))
