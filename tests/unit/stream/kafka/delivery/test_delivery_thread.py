from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from captured import capture_logs
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SinkError
from stream.events.kafka_record import BinaryMessage
from stream.kafka.delivery.delivery_thread import Courier
from stream.kafka.kafka_python import KafkaError
from stream.spool.packed_records import pack
from stream.spool.spool import Spool

TOPIC, STATES = "faces", "faces.tracks"


class TooLargeError(KafkaError):
    errno = 10


class FakeDelivery:
    def __init__(self) -> None:
        self.is_done = False
        self._outcome: int | KafkaError = -1

    def end(self, outcome: int | KafkaError) -> None:
        self.is_done, self._outcome = True, outcome

    def first_offset(self) -> int:
        if isinstance(self._outcome, KafkaError):
            raise self._outcome
        return self._outcome


class FakeSender:
    """Holds what it was given until the test says what became of it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, list[bytes], FakeDelivery]] = []

    def send(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]], times_ms: Sequence[int]
    ) -> FakeDelivery:
        assert len(records) == len(times_ms) > 0
        delivery = FakeDelivery()
        self.sent.append((topic, partition, [tail for _, tail in records], delivery))
        return delivery

    def wake(self) -> None:
        pass


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def record(camera: int, number: int, *, size: int = 10) -> bytes:
    message = BinaryMessage(b"cam-%d" % camera, b"%d:%d" % (camera, number) + bytes(size), [])
    return pack(message, state_key=b"track-%d" % camera)


def courier_of(spool: Spool, *, states: bool = False) -> Courier:
    return Courier(spool, topic=TOPIC, states_topic=STATES if states else None)


def attach(courier: Courier, partitions: int = 4, **more: int) -> FakeSender:
    sender = FakeSender()
    courier.attach(sender, {TOPIC: partitions, **more})  # type: ignore[arg-type]
    return sender


def test_what_was_acknowledged_is_settled(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier)
    assert not courier.step(0.0)
    spool.append([record(camera, 0) for camera in range(4)], timeout_s=0)
    assert courier.step(0.0)
    assert sum(len(tails) for _, _, tails, _ in sender.sent) == 4
    for _, _, _, delivery in sender.sent[:-1]:
        delivery.end(5)
    courier.step(0.0)
    assert not spool.wait_until_empty(0), "one partition has not answered"
    sender.sent[-1][3].end(5)
    courier.step(0.0)
    assert spool.wait_until_empty(0)
    assert courier.delivered == 4


def test_silence_is_what_passes_without_any_answer_to_what_was_sent(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 8)
    courier.step(5.0)
    assert courier.silence_s(100.0) == 0.0, "nothing was sent"
    spool.append([record(camera, 0) for camera in range(8)], timeout_s=0)
    courier.step(100.0)
    assert len(sender.sent) > 2
    assert courier.silence_s(103.0) == 3.0
    sender.sent[0][3].end(1)
    courier.step(104.0)
    assert courier.silence_s(105.5) == 1.5, "one of them answered"
    for _, _, _, delivery in sender.sent[1:]:
        delivery.end(1)
    courier.step(106.0)
    assert courier.silence_s(200.0) == 0.0, "all is acknowledged"


def test_a_partition_has_one_batch_on_its_way_so_that_none_is_overtaken(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    for number in range(3):
        spool.append([record(0, number)], timeout_s=0)
        courier.step(0.0)
    assert len(sender.sent) == 1
    sender.sent[0][3].end(KafkaError("lost"))
    with pytest.raises(KafkaError, match="lost"):
        courier.step(0.0)
    sender = attach(courier, 1)
    for _ in range(4):
        courier.step(0.0)
        if sender.sent:
            sender.sent[-1][3].end(len(sender.sent))
    assert [tails[0][1:4] for _, _, tails, _ in sender.sent] == [b"0:0", b"0:1", b"0:2"]
    courier.step(0.0)
    assert spool.wait_until_empty(0)


def test_another_producer_repeats_only_what_was_not_acknowledged(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 8)
    spool.append([record(camera, 0) for camera in range(8)], timeout_s=0)
    courier.step(0.0)
    assert len(sender.sent) > 2
    sender.sent[0][3].end(1)
    courier.step(0.0)
    first = attach(courier, 8)
    courier.step(0.0)
    again = {tail for _, _, tails, _ in first.sent for tail in tails}
    assert again == {tail for _, _, tails, _ in sender.sent[1:] for tail in tails}


def test_when_partitions_are_added_it_begins_at_what_is_settled(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    spool.append([record(camera, 0) for camera in range(8)], timeout_s=0)
    courier.step(0.0)
    assert len(sender.sent) == 1
    sender = attach(courier, 8)
    courier.step(0.0)
    assert sum(len(tails) for _, _, tails, _ in sender.sent) == 8
    assert len(sender.sent) > 1


def test_the_latest_state_of_each_track_goes_to_a_topic_of_its_own(spool: Spool) -> None:
    courier = courier_of(spool, states=True)
    sender = attach(courier, 1, **{STATES: 1})
    spool.append([record(0, 0), record(1, 0), record(0, 1)], timeout_s=0)
    spool.append([pack(BinaryMessage(b"cam-0", b"of the camera", []))], timeout_s=0)
    courier.step(0.0)
    by_topic = {topic: [tail[1:4] for tail in tails] for topic, _, tails, _ in sender.sent}
    assert by_topic == {TOPIC: [b"0:0", b"1:0", b"0:1", b"of "], STATES: [b"0:1", b"1:0"]}
    for _, _, _, delivery in sender.sent:
        if delivery is not sender.sent[-1][3]:
            delivery.end(0)
    courier.step(0.0)
    assert not spool.wait_until_empty(0), "the states belong to it"


def test_a_batch_that_the_topic_does_not_take_at_once_is_halved_until_it_does(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    spool.append([record(0, number) for number in range(8)], timeout_s=0)
    seen: list[bytes] = []
    done = 0
    for _ in range(60):
        courier.step(0.0)
        for _, _, tails, delivery in sender.sent[done:]:
            if len(tails) > 2:
                delivery.end(TooLargeError())
            else:
                seen += tails
                delivery.end(len(seen))
        done = len(sender.sent)
    assert [tail[1:4] for tail in seen] == [b"0:%d" % number for number in range(8)]
    assert spool.wait_until_empty(0)


def test_one_event_that_is_too_large_stays_and_is_named(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    spool.append([record(0, 0)], timeout_s=0)
    courier.step(0.0)
    sender.sent[0][3].end(TooLargeError())
    with pytest.raises(SinkError, match=r"faces does not take an event of \d+ bytes; raise its max.message"):
        courier.step(0.0)
    sender = attach(courier, 1)
    courier.step(0.0)
    sender.sent[0][3].end(3)
    courier.step(0.0)
    assert spool.wait_until_empty(0)


def test_large_backlogs_go_in_batches_that_a_topic_takes(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    spool.append([record(0, number, size=100_000) for number in range(12)], timeout_s=0)
    for _ in range(30):
        courier.step(0.0)
        for *_, delivery in sender.sent:
            if not delivery.is_done:
                delivery.end(len(sender.sent))
    assert all(sum(map(len, tails)) < 900_000 for _, _, tails, _ in sender.sent)
    assert len(sender.sent) > 1
    assert spool.wait_until_empty(0)


def test_a_broker_that_lost_what_it_had_is_said_once(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    with capture_logs() as told:
        for number, offset in enumerate((100, 103, 0, 1)):
            spool.append([record(0, number)], timeout_s=0)
            courier.step(0.0)
            sender.sent[-1][3].end(offset)
            courier.step(0.0)
    assert [(each["expected_offset"], each["offset"]) for each in told] == [(104, 0)]


def test_on_a_slow_line_less_is_sent_at_once_until_it_gets_through(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 8)
    spool.append([record(camera, 0, size=200_000) for camera in range(16)], timeout_s=0)
    counts = []
    for _ in range(6):
        courier.step(0.0)
        counts.append(len(sender.sent))
        sender = attach(courier, 8)
    assert counts == sorted(counts, reverse=True)
    assert (counts[0] > 3, counts[-1]) == (True, 1)
    for _ in range(60):
        courier.step(0.0)
        for *_, delivery in sender.sent:
            if not delivery.is_done:
                delivery.end(1 << 40)
    assert spool.wait_until_empty(0)


def test_a_broker_that_never_answers_is_given_up(spool: Spool) -> None:
    courier = courier_of(spool)
    attach(courier, 1)
    spool.append([record(0, 0)], timeout_s=0)
    courier.step(0.0)
    courier.step(59.0)
    with pytest.raises(KafkaError, match="no answer"):
        courier.step(61.0)


def test_what_is_no_record_is_passed_over(spool: Spool) -> None:
    courier = courier_of(spool)
    sender = attach(courier, 1)
    spool.append([b"?", record(0, 1)], timeout_s=0)
    with capture_logs() as told:
        courier.step(0.0)
    assert [each["log_level"] for each in told] == ["warning"]
    sender.sent[0][3].end(0)
    courier.step(0.0)
    assert spool.wait_until_empty(0)


@given(st.data())
@settings(max_examples=60)
def test_whatever_happens_every_event_arrives_and_a_camera_keeps_its_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    spool = Spool(tmp_path_factory.mktemp("s") / "spool")
    courier = courier_of(spool)
    sender = attach(courier, 3)
    arrived: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    written: list[tuple[int, bytes]] = []
    done = 0

    def settle_some(*, all_well: bool) -> None:
        for _, partition, tails, delivery in list(sender.sent):
            what = "ok" if all_well else data.draw(st.sampled_from(["ok", "wait", "lost", "ok but not said"]))
            if delivery.is_done or what == "wait":
                continue
            if what != "lost":
                arrived[partition] += tails
            delivery.end(KafkaError("lost") if "o" in what and what != "ok" else len(arrived[partition]))

    for _ in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 3))):
            camera = data.draw(st.integers(0, 4))
            payload = record(camera, done)
            written.append((camera, payload))
            done += 1
            spool.append([payload], timeout_s=0)
        try:
            courier.step(0.0)
            settle_some(all_well=False)
        except KafkaError:
            sender = attach(courier, 3)
    sender = attach(courier, 3)
    while not spool.wait_until_empty(0):
        courier.step(0.0)
        settle_some(all_well=True)
    for camera in range(5):
        name = b"%d:" % camera
        sent = [payload[payload.index(name) :].rstrip(b"\0") for each, payload in written if each == camera]
        found = [tail[1:].rstrip(b"\0") for tails in arrived.values() for tail in tails]
        assert list(dict.fromkeys(each for each in found if each.startswith(name))) == sent
    spool.close()
