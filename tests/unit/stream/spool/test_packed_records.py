from __future__ import annotations

import pytest
from event_checks import camera_event, face_event, identity_event
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder

from stream.events.kafka_record import BinaryMessage, to_binary
from stream.kafka.delivery.batches import fill_batch, partition_of
from stream.spool.packed_records import MAX_RECORD_BYTES, frame_records, pack, split, unpack

messages = st.builds(
    BinaryMessage,
    key=st.binary(max_size=80),
    value=st.binary(max_size=300),
    headers=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=90))),
)


@given(messages, st.binary(max_size=40))
def test_what_was_packed_comes_back(message: BinaryMessage, state_key: bytes) -> None:
    packed = pack(message, state_key=state_key)
    assert unpack(packed) == message
    assert split(packed).state_key == state_key


@given(st.binary(max_size=200))
def test_no_bytes_bring_the_reader_down(raw: bytes) -> None:
    complaint = "not a packed record"
    try:
        unpack(raw)
    except ValueError as exc:
        complaint = str(exc)
    assert complaint.startswith("not a packed record")


@given(st.lists(st.tuples(messages, st.integers(0, 2**41)), min_size=1, max_size=20))
def test_a_batch_has_the_bytes_that_the_client_makes_itself(entries: list[tuple[BinaryMessage, int]]) -> None:
    theirs = MemoryRecordsBuilder(2, 0, 1 << 30)
    for message, time_ms in entries:
        theirs.append(time_ms, message.key, message.value, message.headers)
    records = [split(pack(message)) for message, _ in entries]
    ours = fill_batch([(each.key, each.tail) for each in records], [t for _, t in entries], compression=0)
    for builder in (ours, theirs):
        builder.set_producer_state(7, 1, 40, False)
        builder.close()
    assert ours.buffer() == theirs.buffer()
    assert ours.next_offset() == theirs.next_offset() == len(entries)


def test_a_compressed_batch_is_read_as_what_it_was() -> None:
    messages = [to_binary(event) for event in (face_event(), camera_event(), identity_event())]
    records = [split(pack(message)) for message in messages]
    builder = fill_batch([(each.key, each.tail) for each in records], [5, 7, 6])
    builder.set_producer_state(7, 1, 0, False)
    builder.close()
    batch = DefaultRecordBatch(bytes(builder.buffer()))
    assert batch.validate_crc()
    assert batch.compression_type == DefaultRecordBatchBuilder.CODEC_ZSTD
    read = list(batch)
    assert [(each.key, each.value, list(each.headers)) for each in read] == [
        (message.key, message.value, message.headers) for message in messages
    ]
    assert [each.timestamp for each in read] == [5, 7, 6]


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        pack(BinaryMessage(b"k" * 65_536, b"", []))
    with pytest.raises(ValueError, match=str(MAX_RECORD_BYTES)):
        pack(BinaryMessage(b"k", bytes(MAX_RECORD_BYTES), []))


def test_records_and_times_go_together() -> None:
    with pytest.raises(ValueError, match="zip"):
        frame_records([(b"k", b"t")], [], 0)


def test_a_key_goes_to_the_partition_that_every_client_puts_it_in() -> None:
    # Of the Java client's own test of murmur2 (UtilsTest): murmur2("21") is -973932308.
    assert partition_of(b"21", 1000) == (-973932308 & 0x7FFFFFFF) % 1000
