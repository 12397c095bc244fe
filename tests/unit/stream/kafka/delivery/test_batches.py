from __future__ import annotations

from types import SimpleNamespace

import pytest
from kafka.errors import KafkaTimeoutError, NotEnoughReplicasError
from kafka.producer.future import FutureProduceResult
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.structs import TopicPartition

from stream.events.kafka_record import BinaryMessage
from stream.kafka.delivery.batches import BatchSender, Delivery
from stream.kafka.kafka_python import KafkaError
from stream.spool.packed_records import pack, split

PLACE = TopicPartition("faces", 3)


class StandIn:
    """What of kafka-python's producer a batch is given to; its accumulator is the real one."""

    def __init__(self) -> None:
        self._accumulator = RecordAccumulator(batch_size=0, compression_attrs=4)
        self.woken = 0
        self._sender = SimpleNamespace(wakeup=self._wake)

    def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2, 3} if topic == PLACE.topic else set()

    def _wake(self) -> None:
        self.woken += 1

    def drain(self) -> list[object]:
        cluster = SimpleNamespace(leader_for_partition=lambda _: 1, partitions_for_broker=lambda _: [PLACE])
        ready, _, unknown = self._accumulator.ready(cluster)
        assert (ready, unknown) == ({1}, False)
        return list(self._accumulator.drain(cluster, ready, 1 << 20)[1])


def send(producer: StandIn, said: list[str]) -> Delivery:
    record = split(pack(BinaryMessage(b"door", b"{}", [("ce_id", b"1")])))
    sender = BatchSender(producer, lambda: said.append("done"))
    assert sender.partitions("faces") == 4
    delivery = sender.send("faces", 3, [(record.key, record.tail)] * 5, [7] * 5)
    sender.wake()
    return delivery


def test_a_batch_is_ready_at_once_and_told_of_when_it_was_acknowledged() -> None:
    producer, said = StandIn(), []
    delivery = send(producer, said)
    (batch,) = producer.drain()
    assert (batch.topic_partition, batch.records.next_offset(), producer.woken) == (PLACE, 5, 1)
    assert not delivery.is_done
    assert batch.complete(40, -1)
    assert (delivery.is_done, delivery.first_offset(), said) == (True, 40, ["done"])


def test_a_batch_that_failed_says_why() -> None:
    producer, said = StandIn(), []
    delivery = send(producer, said)
    (batch,) = producer.drain()
    failure = NotEnoughReplicasError("two of three are away")
    assert batch.complete_exceptionally(failure, lambda _: failure)
    assert said == ["done"]
    with pytest.raises(NotEnoughReplicasError, match="two of three"):
        delivery.first_offset()


def test_when_the_producer_is_ended_a_batch_fails() -> None:
    producer, said = StandIn(), []
    delivery = send(producer, said)
    producer._accumulator.abort_incomplete_batches()
    assert said == ["done"]
    with pytest.raises(KafkaError):
        delivery.first_offset()


def test_a_future_that_fails_as_a_whole_says_so_as_well() -> None:
    future = FutureProduceResult(PLACE)
    delivery = Delivery(future)
    assert not delivery.is_done
    future.failure(KafkaTimeoutError("too late"))
    with pytest.raises(KafkaTimeoutError, match="too late"):
        delivery.first_offset()


def test_a_batch_is_never_split_by_the_client() -> None:
    producer = StandIn()
    send(producer, [])
    (batch,) = producer.drain()
    assert batch.record_count == 1
