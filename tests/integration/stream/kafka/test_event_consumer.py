from __future__ import annotations

import asyncio
import threading
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime

import pytest
from captured import capture_logs
from event_checks import camera_event, identity_event
from event_topics import (
    WAIT_S,
    WholeTopic,
    by_track,
    ids,
    make_topic,
    stays,
    unreadable_headers,
    write_events,
    write_records,
)
from kafka_server import KafkaServer

from engine.errors import SinkError
from stream.events.event_types import Event
from stream.kafka.address import parse_kafka
from stream.kafka.consuming.asyncio_consumer import AsyncEventConsumer
from stream.kafka.consuming.event_consumer import BadRecord, EventConsumer, raise_bad
from stream.kafka.topic_admin import connect_admin
from stream.sinks.event_log import only_events, read_log

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def source(kafka_broker: str, topic: str) -> str:
    return make_topic(kafka_broker, topic)


def read_all(source: str, *, group: str | None = None) -> list[Event]:
    with WholeTopic(source, group=group) as events:
        return list(events)


def test_events_of_all_kinds_come_as_they_were_written(kafka_broker: str, topic: str, source: str) -> None:
    written = [camera_event(), *stays(), identity_event()]
    write_events(kafka_broker, topic, written)
    found = read_all(source)
    assert sorted(ids(found)) == sorted(ids(written))
    for camera_id in ("door", "cam-0", "cam-1", "cam-2"):
        assert ids(each for each in found if each.camera_id == camera_id) == ids(
            each for each in written if each.camera_id == camera_id
        )


def test_a_group_goes_on_where_it_ended_and_another_begins_anew(
    kafka_broker: str, topic: str, source: str
) -> None:
    write_events(kafka_broker, topic, stays())
    assert len(read_all(source, group="a")) == len(stays())
    more = stays(cameras=5)[3::5]
    write_events(kafka_broker, topic, more)
    assert ids(read_all(source, group="a")) == ids(more)
    assert len(read_all(source, group="b")) == len(stays()) + len(more)


def test_an_event_that_could_not_be_dealt_with_comes_again_and_nothing_before_it(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written)

    def fail_at_the_eighth() -> None:
        with WholeTopic(source, group="a") as events:
            for number, _ in enumerate(events):
                if number == 7:
                    raise RuntimeError("the door is jammed")

    with pytest.raises(RuntimeError, match="jammed"):
        fail_at_the_eighth()
    assert ids(read_all(source, group="a")) == ids(written[7:])


def test_an_event_at_which_the_loop_is_left_in_order_is_done(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written)
    with WholeTopic(source, group="a") as events:
        for number, _ in enumerate(events):
            if number == 7:
                break
    assert ids(read_all(source, group="a")) == ids(written[8:])


def test_what_was_committed_by_hand_does_not_come_again_after_an_error(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written)

    def fail_after_the_eighth() -> None:
        with EventConsumer(source, group="a", commit_every_s=600) as events:
            for number, _ in enumerate(events):
                if number == 7:
                    events.commit()
                    raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        fail_after_the_eighth()
    assert ids(read_all(source, group="a")) == ids(written[8:])


def test_repeats_are_left_out_and_counted(kafka_broker: str, topic: str, source: str) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, [*written[:8], *written[4:]])
    with WholeTopic(source, group=None) as events:
        assert ids(events) == ids(written)
        assert (events.stats.events, events.stats.repeats) == (len(written), 4)


def test_records_that_are_no_events_are_passed_over_and_told_of(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:3])
    write_records(
        kafka_broker, topic, [(b"cam-0", b"{", []), (b"cam-0", None, []), (None, b"\x80\x04N.", [])]
    )
    write_events(kafka_broker, topic, written[3:])
    bad: list[BadRecord] = []
    erased: list[str] = []
    consumer = WholeTopic(source, group="a", on_bad=bad.append, on_erased=erased.append)
    with consumer as events:
        assert ids(events) == ids(written)
    assert {each.value for each in bad} == {b"{", b"\x80\x04N."}
    assert erased == ["cam-0"]
    assert (consumer.stats.bad, consumer.stats.erased) == (2, 1)


def test_a_bad_record_can_stop_the_consumer_and_stays_where_it_is(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:3])
    write_records(kafka_broker, topic, [(b"cam-0", b"{", [])])
    for expected in (written[:3], []):
        found: list[Event] = []
        with (
            pytest.raises(SinkError, match=r"partition \d, offset 3: not an event of facestream"),
            WholeTopic(source, group="a", on_bad=raise_bad) as events,
        ):
            found.extend(events)
        assert ids(found) == ids(expected)


def test_a_record_whose_headers_cannot_be_decoded_does_not_stop_the_consumer(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:3])
    write_records(kafka_broker, topic, [(b"cam-0", b"{}", unreadable_headers())])
    write_events(kafka_broker, topic, written[3:])
    with WholeTopic(source, group="a") as events:
        assert ids(events) == ids(written)
        assert events.stats.bad == 1


def test_whoever_reads_a_whole_topic_goes_on_behind_such_a_record(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:3])
    write_records(kafka_broker, topic, [(b"cam-0", b"{}", unreadable_headers())])
    write_events(kafka_broker, topic, written[3:])
    entries = list(read_log(source))
    assert [entry.problem for entry in entries if entry.event is None] == ["not a record that can be parsed"]
    assert ids(entry.event for entry in entries if entry.event is not None) == ids(written)
    assert ids(only_events(read_log(source), "the topic")) == ids(written)


@pytest.mark.parametrize("group", [None, "late"])
def test_reading_can_begin_at_the_end_or_at_a_time(
    kafka_broker: str, topic: str, source: str, group: str | None
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:6])
    time.sleep(0.05)  # Kafka's times are in milliseconds
    now = datetime.now(UTC)
    time.sleep(0.05)
    write_events(kafka_broker, topic, written[6:9])
    with WholeTopic(source, group=group, from_=now) as events:
        assert ids(events) == ids(written[6:9])
    later = None if group is None else "later"
    with WholeTopic(source, group=later, from_="latest") as events:
        assert ids(events) == []
        write_events(kafka_broker, topic, written[9:])
        assert ids(events) == ids(written[9:])


def test_a_group_that_began_at_the_end_goes_on_where_it_was_even_when_it_has_read_nothing(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:6])
    with WholeTopic(source, group="late", from_="latest") as events:
        assert list(events) == []
    write_events(kafka_broker, topic, written[6:])
    with WholeTopic(source, group="late", from_="latest") as events:
        assert ids(events) == ids(written[6:])


def test_a_group_shares_the_work_and_takes_over_from_who_leaves(
    kafka_broker: str, topic: str, source: str
) -> None:
    written = stays(cameras=16, tracks=2)
    found: dict[str, list[Event]] = {"first": [], "second": []}
    consumers = {name: EventConsumer(source, group="a", batch=5) for name in found}

    def work(name: str) -> None:
        with consumers[name] as events:
            found[name].extend(events)

    def count() -> int:
        return len({event.event_id for each in found.values() for event in each})

    def wait_for(wanted: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while count() < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        assert count() == wanted

    threads = [threading.Thread(target=work, args=(name,)) for name in found]
    for thread in threads:
        thread.start()
    write_events(kafka_broker, topic, written[:80])
    wait_for(80)
    consumers["first"].stop()
    threads[0].join(WAIT_S)
    write_events(kafka_broker, topic, written[80:])
    wait_for(len(written))
    consumers["second"].stop()
    threads[1].join(WAIT_S)
    everything = [*found["first"], *found["second"]]
    assert sorted(ids(everything)) == sorted(ids(written)), "once each"
    for events in by_track(everything).values():
        assert [event.sequence for event in events] == sorted(event.sequence for event in events)


def test_a_topic_that_grows_is_joined_again_in_as_many_looks_as_it_takes(topic: str, source: str) -> None:
    with EventConsumer(source, group="a") as events:
        for partitions in range(4, 7):
            if partitions > 4:
                with closing(connect_admin(parse_kafka(source), WAIT_S)) as admin:
                    admin.create_partitions({topic: partitions})
            deadline = time.monotonic() + WAIT_S / 4
            while len(events._consumer.assignment()) < partitions and time.monotonic() < deadline:
                events._consumer._cluster.request_update()
                events.fetch(0.004)  # too short for a join
            assert len(events._consumer.assignment()) == partitions


def test_it_goes_on_when_a_broker_that_was_killed_is_back(mortal_server: KafkaServer, topic: str) -> None:
    broker = mortal_server.start()
    source = make_topic(broker, topic)
    written = stays(cameras=1)
    write_events(broker, topic, written[:8])
    with capture_logs() as told, EventConsumer(source, group="a") as events:
        found = [next(events) for _ in range(8)]
        mortal_server.kill()
        deadline = time.monotonic() + WAIT_S
        while "brokers are unreachable" not in str(told) and time.monotonic() < deadline:
            assert events.take(1, wait_s=0.5) == []
        mortal_server.start()
        write_events(broker, topic, written[8:])
        deadline = time.monotonic() + WAIT_S
        while len(found) < len(written) and time.monotonic() < deadline:
            found += events.take(100, wait_s=1.0)
    assert ids(found) == ids(written)
    assert [each["event"].partition(";")[0] for each in told if each["event"].startswith("brokers")] == [
        "brokers are unreachable",
        "brokers are back",
    ]
    assert read_all(source, group="a") == []


def test_a_topic_that_is_missing_is_named(kafka_broker: str, topic: str) -> None:
    with (
        pytest.raises(SinkError, match=rf"{topic}: .*no such topic"),
        EventConsumer(f"kafka://{kafka_broker}/{topic}", group="a"),
    ):
        pass


def test_asyncio_reads_the_same(kafka_broker: str, topic: str, source: str) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written)

    async def read() -> list[Event]:
        async with AsyncEventConsumer(WholeTopic(source, group="a")) as events:
            found = [event async for event in events]
            await events.commit()
            return found

    assert ids(asyncio.run(read())) == ids(written)
    assert read_all(source, group="a") == []


def test_an_async_for_that_is_cancelled_loses_nothing(kafka_broker: str, topic: str, source: str) -> None:
    written = stays(cameras=1)
    write_events(kafka_broker, topic, written[:10])

    async def read() -> list[Event]:
        found: list[Event] = []
        async with AsyncEventConsumer(EventConsumer(source, group="a")) as events:
            deadline = time.monotonic() + WAIT_S
            while len(found) < len(written) and time.monotonic() < deadline:
                try:
                    found.append(await asyncio.wait_for(anext(events), 0.03))
                except TimeoutError:
                    if len(found) == 10:
                        await asyncio.to_thread(write_events, kafka_broker, topic, written[10:])
        return found

    assert ids(asyncio.run(read())) == ids(written)
    assert read_all(source, group="a") == []


def test_it_goes_on_when_a_broker_comes_back_empty(mortal_server: KafkaServer, topic: str) -> None:
    broker = mortal_server.start()
    source = make_topic(broker, topic)
    written = stays(cameras=1)
    write_events(broker, topic, written[:8])
    with EventConsumer(source, group="a") as events:
        found = [next(events) for _ in range(8)]
        mortal_server._run("wipe")
        assert events.take(1, wait_s=1.0) == []
        mortal_server.start()
        make_topic(broker, topic)
        write_events(broker, topic, written[6:])
        deadline = time.monotonic() + 2 * WAIT_S
        while {*ids(found)} != {*ids(written)} and time.monotonic() < deadline:
            found += events.take(100, wait_s=1.0)
    assert {*ids(found)} == {*ids(written)}
