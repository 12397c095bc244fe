from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from captured import capture_logs
from consumer_stand_in import StandInConsumer, Topics
from event_checks import face_event, identity_event
from event_topics import by_track, ids, stays
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from engine.errors import SinkError
from stream.events.codecs import encoder
from stream.events.event_types import Event
from stream.kafka.consuming import event_consumer as consumer_module
from stream.kafka.consuming.asyncio_consumer import AsyncEventConsumer
from stream.kafka.consuming.event_consumer import BadRecord, EventConsumer, log_bad, raise_bad
from stream.kafka.kafka_python import (
    CorruptRecordError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
)

SOURCE = "kafka://localhost:9092/faces"
DOOR = TopicPartition("faces", 0)


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, topics: Topics) -> list[StandInConsumer]:
    """kafka-python's consumers that were made."""
    found: list[StandInConsumer] = []

    def connect(_address: object, *, group: str | None, max_poll_records: int, **_: Any) -> StandInConsumer:
        found.append(StandInConsumer(topics, group=group, batch=max_poll_records))
        return found[-1]

    monkeypatch.setattr(consumer_module, "connect_consumer", connect)
    return found


def read_on(topics: Topics, **options: Any) -> list[str]:
    """Ids of all that comes to a group, by as many looks as it takes."""
    found: list[str] = []
    with EventConsumer(SOURCE, **{"group": "a"} | options) as events:
        for _ in range(len(topics.records) + 5):
            found += ids(events.take(1000, wait_s=0.0))
    return found


@pytest.mark.usefixtures("made")
def test_a_group_goes_on_where_it_ended(topics: Topics) -> None:
    written = stays()
    topics.write(written[:20])
    assert read_on(topics) == ids(written[:20])
    topics.write(written[20:])
    assert read_on(topics) == ids(written[20:])


@pytest.mark.usefixtures("made")
def test_what_is_not_given_out_yet_is_counted_by_partition(topics: Topics) -> None:
    topics.partitions = 2
    for camera, count in ((0, 5), (1, 3)):
        topics.write(face_event(camera_id=str(camera), sequence=n) for n in range(count))
    with EventConsumer(SOURCE, group="a", batch=4) as events:
        assert events.lag() == {}
        while not events.take(3, wait_s=0.0):
            pass
        assert sum(events.lag().values()) == 5
        assert set(events.lag()) == {("faces", 0), ("faces", 1)}
        while events.take(3, wait_s=0.0):
            pass
        assert events.lag() == {("faces", 0): 0, ("faces", 1): 0}


@pytest.mark.usefixtures("made")
def test_identities_that_are_apart_are_read_as_well(topics: Topics) -> None:
    topics.write(stays())
    topics.write([identity_event()], topic="names")
    found: list[str] = []
    with EventConsumer(f"{SOURCE}?identities=names", group="a") as events:
        for _ in range(5):
            found += ids(events.take(1000, wait_s=0.0))
    assert sorted(found) == sorted(ids([*stays(), identity_event()]))


@pytest.mark.usefixtures("made")
def test_without_a_group_everything_is_read_and_nothing_committed(topics: Topics) -> None:
    topics.write(stays())
    assert read_on(topics, group=None) == read_on(topics, group=None) == ids(stays())
    assert topics.committed == {}


@pytest.mark.usefixtures("made")
@given(batch=st.integers(1, 7), failing=st.integers(0, 19))
def test_the_event_in_hand_at_an_error_comes_again_and_none_before_it(batch: int, failing: int) -> None:
    written = stays(cameras=1)
    topics = Topics()
    consumers: list[StandInConsumer] = []
    with pytest.MonkeyPatch.context() as patch:

        def connect(_: object, *, group: str, max_poll_records: int, **__: Any) -> StandInConsumer:
            consumers.append(StandInConsumer(topics, group=group, batch=max_poll_records))
            return consumers[-1]

        patch.setattr(consumer_module, "connect_consumer", connect)
        topics.write(written)
        with pytest.raises(RuntimeError):
            fail_at(written[failing].event_id, batch=batch)
        assert read_on(topics) == ids(written[failing:])


def fail_at(event_id: str, **options: Any) -> None:
    with EventConsumer(SOURCE, group="a", **options) as events:
        for event in events:
            if event.event_id == event_id:
                raise RuntimeError


@pytest.mark.usefixtures("made")
def test_the_event_at_which_the_loop_is_left_in_order_is_done(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written)
    with EventConsumer(SOURCE, group="a") as events:
        for event in events:
            if event.event_id == written[7].event_id:
                break
    assert read_on(topics) == ids(written[8:])


def test_what_is_done_of_a_batch_is_committed_in_time(made: list[StandInConsumer], topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written)
    with EventConsumer(SOURCE, group="a", commit_every_s=1e-9) as events:
        for _ in range(6):
            next(events)
        assert made[0].async_commits[-1] == {DOOR: 5}, "the sixth is in hand"
        events.commit()
        assert topics.committed == {DOOR: 6}


def test_partitions_that_went_to_another_are_not_committed(
    made: list[StandInConsumer], topics: Topics
) -> None:
    topics.partitions = 2
    topics.write(stays(cameras=2))
    with EventConsumer(SOURCE, group="a", batch=3) as events:
        for _ in range(3):
            next(events)
        mine = next(iter(topics.records))
        made[0].rebalance({each for each in topics.records if each != mine})
        next(events)
        topics.committed.clear()
        events.commit()
        assert mine not in topics.committed


def test_new_partitions_are_told_of_before_their_events_come(
    made: list[StandInConsumer], topics: Topics
) -> None:
    topics.partitions = 2
    topics.write(stays(cameras=2))
    first, second = sorted(topics.records)
    told: list[tuple[int, ...]] = []
    with EventConsumer(SOURCE, group="a", on_assigned=told.append) as events:
        made[0].rebalance({first})
        found = events.take(1000, wait_s=0.0) + events.take(1000, wait_s=0.5)
        assert told == [(first.partition,)]
        assert len(by_track(found)) == 4
        topics.committed[second] = 0  # it could begin at once
        made[0].rebalance({first, second})
        events.take(1000, wait_s=0.0)
        assert told == [(first.partition,)], "nothing of it was fetched yet"
        assert len(events.take(1000, wait_s=0.5)) > 0
        assert told == [(first.partition,), (second.partition,)], "the one that stayed is not new"


def test_a_partition_stands_still_until_it_could_be_prepared(
    topics: Topics, made: list[StandInConsumer]
) -> None:
    assert made == []
    topics.write(stays(cameras=1))
    troubles = [SinkError("brokers are unreachable")]

    def prepare(_: tuple[int, ...]) -> None:
        if troubles:
            raise troubles.pop()

    with EventConsumer(SOURCE, group="a", on_assigned=prepare) as events:
        assert events.take(100, wait_s=0.0) == []
        with pytest.raises(SinkError, match="unreachable"):
            events.take(100, wait_s=0.0)
        assert ids(events.take(100, wait_s=0.5)) == ids(stays(cameras=1))


@pytest.mark.usefixtures("made")
def test_repeats_are_left_out_unless_they_are_wanted(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write([*written[:8], *written[4:]])
    assert read_on(topics, group="a") == ids(written)
    assert read_on(topics, group=None, drop_repeats=False) == ids([*written[:8], *written[4:]])


@pytest.mark.usefixtures("made")
def test_a_topic_may_hold_all_formats(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written[:5])
    topics.write(written[5:10], encode=encoder("avro", "int8-b64"))
    topics.write(written[10:], encode=encoder("protobuf"))
    assert read_on(topics) == ids(written)


@pytest.mark.usefixtures("made")
def test_a_time_is_where_a_new_group_begins(topics: Topics) -> None:
    for number in range(6):
        topics.put(DOOR, b"k", None, timestamp=number * 1000)
    erased: list[str] = []
    read_on(topics, from_=datetime.fromtimestamp(4, UTC), on_erased=erased.append)
    assert len(erased) == 2
    read_on(topics, group=None, from_=datetime.fromtimestamp(40, UTC), on_erased=erased.append)
    assert len(erased) == 2, "later than all: it begins at the end"
    read_on(topics, from_=datetime.fromtimestamp(0, UTC), on_erased=erased.append)
    assert len(erased) == 2, "it has committed already"


@pytest.mark.usefixtures("made")
@given(
    records=st.lists(
        st.tuples(
            st.none() | st.binary(max_size=30),
            st.none() | st.binary(max_size=200),
            st.lists(
                st.tuples(st.sampled_from(["ce_id", "ce_type", "content-type", "x"]), st.binary(max_size=40)),
                max_size=4,
            ),
        ),
        max_size=8,
    )
)
def test_any_record_is_passed_over_or_told_of(records: list[tuple[Any, Any, Any]]) -> None:
    topics, bad = Topics(), list[BadRecord]()
    for record in records:
        topics.put(DOOR, *record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            consumer_module,
            "connect_consumer",
            lambda *_, **__: StandInConsumer(topics, group=None, batch=100),
        )
        assert read_on(topics, group=None, on_bad=bad.append) == []
    assert [each.offset for each in bad] == [n for n, each in enumerate(records) if each[1] is not None]
    assert all("\n" not in each.reason for each in bad)


def test_of_many_bad_records_only_some_are_logged() -> None:
    with capture_logs() as logs:
        for count in range(1, 101):
            log_bad(BadRecord("faces", 0, count, None, b"", "not an event", count))
    assert [each["so_far"] for each in logs] == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.usefixtures("made")
def test_a_bad_record_can_stop_everything(topics: Topics) -> None:
    topics.write(stays(cameras=1)[:2])
    topics.put(DOOR, None, b"{")
    with pytest.raises(SinkError, match="faces, partition 0, offset 2: not an event of facestream"):
        read_on(topics, on_bad=raise_bad)
    assert topics.committed == {DOOR: 2}


def test_what_is_gone_from_the_brokers_is_told_and_the_rest_read(
    made: list[StandInConsumer], topics: Topics
) -> None:
    written = stays(cameras=1)
    topics.write(written)
    with capture_logs() as logs, EventConsumer(SOURCE, group="a", drop_repeats=False, batch=5) as events:
        found = [next(events) for _ in range(5)]
        made[0].raises.append(OffsetOutOfRangeError({DOOR: 5}))
        found += [next(events) for _ in range(5)]
        made[0].raises.append(LogTruncationError({DOOR: SimpleNamespace(offset=3)}))
        found += [next(events)]
        made[0].raises.append(LogTruncationError({DOOR: None}))
        found += [next(events) for _ in range(5)]
    assert ids(found[5:10]) == ids(written[:5])
    assert found[10].event_id == written[3].event_id
    assert ids(found[15:]) == ids(written[:1])
    assert sum(each["event"].startswith("records are gone") for each in logs) == 2


@pytest.mark.usefixtures("made")
def test_a_topic_that_was_made_anew_is_read_from_its_beginning(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written[:8])
    with EventConsumer(SOURCE, group="a") as events:
        found = [next(events) for _ in range(8)]
        topics.make_anew()
        topics.write(written[6:])
        found += [next(events) for _ in range(14)]
    assert ids(found) == [*ids(written[:8]), *ids(written[6:])]


def test_what_is_read_of_a_topic_before_it_is_known_to_be_new_leaves_nothing_out(
    made: list[StandInConsumer], topics: Topics
) -> None:
    written = stays(cameras=1)
    topics.write(written[:8])
    with EventConsumer(SOURCE, group="a") as events:
        found = [next(events) for _ in range(8)]
        topics.make_anew()
        topics.topic_id -= 1  # it has not got about yet
        topics.write(written[6:])
        found += [next(events) for _ in range(6)]
        assert ids(found[8:]) == ids(written[14:])
        topics.topic_id += 1
        found += [next(events) for _ in range(14)]
    assert made[0].is_closed
    assert ids(found[14:]) == ids(written[6:])


def test_other_troubles_of_kafka_end_the_iteration_in_plain_words(
    made: list[StandInConsumer], topics: Topics
) -> None:
    topics.write(stays(cameras=1))
    with EventConsumer(SOURCE, group="a", batch=5) as events:
        next(events)
        made[0].raises.append(CorruptRecordError("failed crc check"))
        with pytest.raises(SinkError, match=r"kafka://localhost:9092/faces: .*CorruptRecordError"):
            list(events)
        made[0].raises.append(KafkaError())
        with pytest.raises(SinkError, match=r"kafka://localhost:9092/faces: .*KafkaError"):
            list(events)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the consumer, which goes on by a second whenever it is asked for."""
    now_s = [0.0]

    def monotonic() -> float:
        now_s[0] += 1.0
        return now_s[0]

    monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=monotonic))
    return now_s


@pytest.mark.usefixtures("clock")
def test_it_does_not_idle_while_the_group_gives_out_its_partitions(
    topics: Topics, made: list[StandInConsumer]
) -> None:
    topics.write(stays(cameras=1))
    with EventConsumer(SOURCE, group="a", idle_s=10.0) as events:
        made[0].polls_until_joined = 20
        assert ids(events) == ids(stays(cameras=1))
    with EventConsumer(SOURCE, group="a", idle_s=10.0) as events:
        made[1].rebalance(set())
        assert ids(events) == [], "others have all of them"


@pytest.mark.usefixtures("made", "clock")
def test_it_ends_when_it_idles_and_when_it_is_stopped(topics: Topics) -> None:
    topics.write(stays(cameras=1))
    with EventConsumer(SOURCE, group="a", idle_s=10.0) as events:
        assert len(list(events)) == 20
        topics.write([face_event()])
        assert len(list(events)) == 1
        events.stop()
        assert list(events) == []
        assert events.take(1, wait_s=10.0) == []
    assert events.stats.events == 21


def test_it_is_closed_once_and_not_opened_again(made: list[StandInConsumer]) -> None:
    consumer = EventConsumer(SOURCE, group="a")
    with pytest.raises(ValueError, match="with block"):
        consumer.fetch(0.0)
    with consumer:
        pass
    consumer.close()
    assert made[0].is_closed
    with pytest.raises(ValueError, match="create another one"), consumer:
        pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": ""}, "group: expected a name"),
        ({"from_": "begin"}, "from_: expected earliest, latest or a time, got 'begin'"),
        ({"from_": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
        ({"batch": 0}, "got 0"),
        ({"commit_every_s": 0.0}, "above 0"),
        ({"idle_s": -1.0}, "at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EventConsumer(SOURCE, **{"group": "a"} | options)
    with pytest.raises(SinkError, match="expected kafka://"):
        EventConsumer("localhost:9092", group="a")


@pytest.mark.usefixtures("made")
def test_only_a_group_can_commit() -> None:
    with EventConsumer(SOURCE, group=None) as events, pytest.raises(ValueError, match="got one without"):
        events.commit()


def test_a_login_is_taken_from_the_environment_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "s3cret/@")
    consumer = EventConsumer("kafka://ann:${KAFKA_PASSWORD}@localhost:9092/faces", group="a")
    assert consumer.name == SOURCE
    assert "s3cret" not in repr(consumer)


@pytest.mark.usefixtures("made")
def test_asyncio_reads_the_same_and_a_cancelled_wait_loses_nothing(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written[:10])

    async def go() -> list[str]:
        found: list[str] = []
        async with AsyncEventConsumer(EventConsumer(SOURCE, group="a", batch=3, idle_s=60.0)) as events:
            while len(found) < 20:
                try:
                    found.append((await asyncio.wait_for(anext(events), 0.005)).event_id)
                except TimeoutError:
                    if len(found) == 10:
                        topics.write(written[10:])
            await events.commit()
            assert events.stats.events == 20
            events.stop()
            assert [event async for event in events] == []
        return found

    assert asyncio.run(go()) == ids(written)
    assert topics.committed == {DOOR: 20}


@pytest.mark.usefixtures("made")
def test_asyncio_does_not_touch_what_the_thread_is_still_at(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.write(stays(cameras=1))
    fetch, ready = EventConsumer.fetch, EventConsumer.ready
    fetching: list[str] = []

    def slow_fetch(self: EventConsumer, wait_s: float) -> None:
        fetching.append("now")
        time.sleep(0.02)
        fetch(self, wait_s)
        fetching.clear()

    def checked_ready(self: EventConsumer) -> Event | None:
        assert not fetching
        return ready(self)

    monkeypatch.setattr(EventConsumer, "fetch", slow_fetch)
    monkeypatch.setattr(EventConsumer, "ready", checked_ready)

    async def go() -> list[str]:
        found: list[str] = []
        async with AsyncEventConsumer(EventConsumer(SOURCE, group="a", batch=4)) as events:
            while len(found) < 20:
                with suppress(TimeoutError):
                    found.append((await asyncio.wait_for(anext(events), 0.005)).event_id)
        return found

    assert asyncio.run(go()) == ids(stays(cameras=1))


@pytest.mark.usefixtures("made")
def test_asyncio_treats_an_error_as_the_plain_consumer_does(topics: Topics) -> None:
    written = stays(cameras=1)
    topics.write(written)

    async def go() -> None:
        async with AsyncEventConsumer(EventConsumer(SOURCE, group="a")) as events:
            async for event in events:
                if event.event_id == written[7].event_id:
                    raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(go())
    assert read_on(topics) == ids(written[7:])
