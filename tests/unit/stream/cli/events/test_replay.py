from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from event_checks import AT, camera_event, face_event, identity_event
from event_strategies import any_events
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, SinkError, SourceError
from stream.cli.events.replay import EventFilter, chosen, open_target, replay, show_event
from stream.events.cloudevents import to_json
from stream.events.event_types import Event
from stream.events.kafka_record import to_binary
from stream.events.parsing import MAX_EVENT_BYTES
from stream.kafka import clients
from stream.kafka.kafka_python import TopicPartition
from stream.sinks import event_log
from stream.sinks.event_log import Entry, parse_log, parse_time, read_log
from stream.sinks.event_sink import JsonLinesAddress, SqliteAddress
from stream.sinks.json_lines import JsonLinesSink
from stream.sinks.sqlite import SqliteSink

EVENTS: list[Event] = [
    camera_event(sequence=0, at=AT - timedelta(seconds=1)),
    face_event(),
    face_event(sequence=1, at=AT + timedelta(seconds=1)),
    identity_event(at=AT + timedelta(seconds=2)),
    face_event(camera_id="yard", track_id="yard-1", run_id="yard", at=AT + timedelta(seconds=3)),
]


def file_of(path: Path, events: Sequence[Event] = EVENTS) -> Path:
    sink = SqliteSink(path) if path.suffix == ".db" else JsonLinesSink(path)
    sink.emit(events)
    sink.close(1.0)
    return path


def ids(entries: Any) -> list[str]:
    return [entry.event.event_id for entry in entries]


@pytest.mark.parametrize("name", ["events.jsonl", "events.db"])
def test_a_file_is_read_in_its_order(tmp_path: Path, name: str):
    path = file_of(tmp_path / name)
    entries = list(read_log(str(path)))
    assert [to_json(entry.event) for entry in entries if entry.event] == [to_json(each) for each in EVENTS]
    assert entries[-1].done == 1.0
    prefix = "sqlite" if name.endswith("db") else "jsonl"
    assert ids(read_log(f"{prefix}:{path}")) == ids(entries)


@settings(max_examples=20)
@given(events=st.lists(any_events, max_size=6, unique_by=lambda event: event.event_id))
def test_a_table_gives_back_what_was_put_in(tmp_path_factory: pytest.TempPathFactory, events: list[Event]):
    path = file_of(tmp_path_factory.mktemp("table") / "events.db", events)
    read = [entry.event for entry in read_log(str(path))]
    assert sorted(to_json(event) for event in read if event) == sorted(to_json(event) for event in events)


def test_lines_that_are_no_events_are_told_with_their_place(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    good = to_json(camera_event())
    path.write_bytes(good + b"\n{}\n" + b" " * (3 * MAX_EVENT_BYTES) + b"\n" + good + b"\n" + good[:9])
    entries = list(read_log(str(path)))
    assert [entry.place for entry in entries if entry.problem] == ["line 2", "line 3", "line 5"]
    assert [bool(entry.event) for entry in entries] == [True, False, False, True, False]


def test_a_followed_file_gives_what_is_added_when_its_line_has_ended(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    line = to_json(camera_event()) + b"\n"
    path.write_bytes(line + line[:20])
    stopping = threading.Event()
    entries = read_log(str(path), follow=True, stopping=stopping)
    assert next(entries).event == camera_event()
    with path.open("ab") as file:
        file.write(line[20:])
    assert next(entries).event == camera_event()
    stopping.set()
    assert list(entries) == []


def test_rows_that_somebody_spoilt_are_told(tmp_path: Path):
    path = file_of(tmp_path / "events.db")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET data = 'x' WHERE id = 'door-7f3a-1.0'")
        database.execute("UPDATE events SET type = 'x' WHERE id = 'yard-1.0'")
    database.close()
    problems = [entry.place for entry in read_log(str(path)) if entry.problem]
    assert sorted(problems) == ["row 'door-7f3a-1.0'", "row 'yard-1.0'"]


def test_what_is_no_log_is_refused(tmp_path: Path):
    for source in ("jsonl:-", "kafka://x"):
        with pytest.raises(ConfigError, match="SOURCE"):
            parse_log(source)
    for source in ("nowhere", "http://me:geheim@x", "x" * 5000, "a\0b"):
        with pytest.raises(
            ConfigError, match=r"there is no such file; name one .* kafka://HOST/TOPIC"
        ) as told:
            parse_log(source)
        assert "sink" not in str(told.value)
        assert "geheim" not in str(told.value)
    with pytest.raises(ConfigError, match="is a folder"):
        parse_log(str(tmp_path))
    with pytest.raises(SourceError, match="cannot be read"):
        list(read_log(f"jsonl:{tmp_path / 'none'}"))
    with pytest.raises(SourceError, match="no such file"):
        list(read_log(f"sqlite:{tmp_path / 'none'}"))
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE a (b)")
    database.close()
    with pytest.raises(SourceError, match="no such table"):
        list(read_log(str(other)))
    with pytest.raises(ConfigError, match="cannot be followed"):
        read_log(str(other), follow=True)
    assert parse_log(str(other)) == SqliteAddress(other)
    assert parse_log(f"jsonl:{other}x") == JsonLinesAddress(Path(f"{other}x"))


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", timedelta(seconds=90)), ("2h", timedelta(hours=2)), ("7d", timedelta(days=7))]
)
def test_times_are_ago_or_absolute(text: str, ago: timedelta):
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert parse_time(text, now) == now - ago
    assert parse_time("2026-01-31T08:00:00+01:00", now) == datetime(2026, 1, 31, 7, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "2026-01-31", "2026-01-31T08:00:00", "yesterday", "-5m", "999999d"])
def test_other_times_are_refused(text: str):
    with pytest.raises(ConfigError, match="time zone"):
        parse_time(text, AT)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), [0, 1, 2, 3, 4]),
        (EventFilter(cameras=["yard"]), [4]),
        (EventFilter(kinds=["camera"]), [0]),
        (EventFilter(kinds=["track.appeared", "identity"]), [1, 2, 3, 4]),
        (EventFilter(kinds=["track.left"]), []),
        (EventFilter(tracks=["door-7f3a-1"]), [1, 2, 3]),
        (EventFilter(people=["Ann Example"]), [3]),
        (EventFilter(people=["p-000017"]), [3]),
        (EventFilter(people=["Bob"]), []),
        (EventFilter(since=AT + timedelta(seconds=1)), [2, 3, 4]),
        (EventFilter(since=AT + timedelta(seconds=1), until=AT + timedelta(seconds=3)), [2, 3]),
    ],
)
def test_filters(wanted: EventFilter, expected: list[int]):
    assert [at for at, event in enumerate(EVENTS) if wanted.wants(event)] == expected


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match=r"--type track\.gone: expected one of track, track\.appeared"):
        EventFilter(kinds=["track.gone"])


def test_what_is_shown_cannot_steer_a_terminal():
    line = show_event(camera_event(reason="a\x1b[2Jb\nc\u202e")).plain
    assert line.endswith("camera down: a?[2Jb?c?")


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_ends_of_the_calendar_are_shown_too(monkeypatch: pytest.MonkeyPatch, zone: str):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for at in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
            line = show_event(camera_event(at=at)).plain
            assert line.startswith(at.strftime("%Y-"))
    finally:
        monkeypatch.undo()
        time.tzset()


class ListSink:
    def __init__(self) -> None:
        self.batches: list[list[Event]] = []

    def emit(self, events: Sequence[Event]) -> None:
        self.batches.append(list(events))

    def close(self, timeout_s: float) -> None:
        pass


class FakeStop(threading.Event):
    """Its waiting takes no time but moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now_s += timeout or 0.0
        return self.is_set()


def test_a_replay_keeps_to_its_rate_and_order():
    sink, stopping = ListSink(), FakeStop()
    seen: list[int] = []
    events = [(face_event(sequence=number), number / 100) for number in range(100)]
    count = replay(
        events,
        sink,
        stopping=stopping,
        most_per_s=50.0,
        on_progress=lambda count, _: seen.append(count),
        clock=lambda: stopping.now_s,
    )
    assert count == 100
    assert stopping.now_s == pytest.approx(2.0, abs=0.11)
    assert [event.sequence for batch in sink.batches for event in batch] == list(range(100))
    assert seen == sorted(seen)
    assert max(map(len, sink.batches)) == 5


def test_a_replay_stops_when_told():
    sink, stopping = ListSink(), FakeStop()
    stopping.set()
    assert replay([(face_event(), None)] * 1000, sink, stopping=stopping) == 200


def test_a_file_is_replayed_into_another(tmp_path: Path):
    source = file_of(tmp_path / "events.jsonl")
    with open_target(f"sqlite:{tmp_path / 'events.db'}", str(source)) as sink:
        events = chosen(read_log(str(source)), EventFilter(), on_problem=pytest.fail)
        assert replay(events, sink, stopping=threading.Event()) == len(EVENTS)
    assert ids(read_log(str(tmp_path / "events.db"))) == [event.event_id for event in EVENTS]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("kafka://a:1,b:2/faces", "kafka://b:2/faces"),
        ("jsonl:events", "jsonl:events"),
        ("sqlite:events", "sqlite:events"),
    ],
)
def test_a_log_is_not_replayed_into_itself(source: str, target: str):
    same = r"expected another place|is the file that SOURCE reads"
    with pytest.raises(ConfigError, match=same), open_target(target, source):
        pass


def test_problems_are_told_and_passed_over():
    told: list[Entry] = []
    entries = [Entry(None, "bad", "line 1", 0, None), Entry(None, "", "line 2", 0, None)]
    assert list(chosen(entries, EventFilter(), on_problem=told.append)) == []
    assert told == entries[:1]


class SilentConsumer:
    """A consumer whose brokers went away when it had read the first of two records."""

    closed = False

    def __init__(self, partition: Any) -> None:
        message = to_binary(camera_event())
        self._record = SimpleNamespace(
            partition=0, offset=0, value=message.value, headers=message.headers, topic_partition=partition
        )
        self._partition, self._batches = partition, [{partition: [self._record]}]

    def partitions_for_topic(self, topic: str) -> set[int]:
        assert topic == "faces"
        return {0}

    def assign(self, partitions: list[Any]) -> None:
        assert partitions == [self._partition]

    def end_offsets(self, partitions: list[Any], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, 2)

    def beginning_offsets(self, partitions: list[Any], **_: Any) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    def seek(self, partition: Any, offset: int) -> None:
        assert (partition, offset) == (self._partition, 0)

    def poll(self, **_: Any) -> dict[Any, list[Any]]:
        return self._batches.pop() if self._batches else {}

    def position(self, _partition: Any) -> int:
        return 0 if self._batches else 1

    def close(self, *, autocommit: bool) -> None:
        assert not autocommit
        self.closed = True


def test_brokers_that_go_away_while_a_topic_is_read_are_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    consumer = SilentConsumer(TopicPartition("faces", 0))
    monkeypatch.setattr(clients, "connect_consumer", lambda *_args, **_settings: consumer)
    monkeypatch.setattr(event_log, "_SILENCE_S", 0.01)
    entries = read_log("kafka://127.0.0.1:9/faces")
    first = next(entries)
    assert first == Entry(camera_event(), "", "partition 0, offset 0", 0, 0.5)
    with pytest.raises(SinkError, match="faces: no records for"):
        next(entries)
    assert consumer.closed


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b"{}"), "gzip -dc"),
        (bz2.compress(b"{}"), "bzip2 -dc"),
        (lzma.compress(b"{}"), "xz -dc"),
        (b"\0\0\0\x18ftypmp42" + b"\n" * 100, "is not text"),
        ("{}".encode("utf-16"), "is not text"),
        (b"{}", "its only line is not an event"),
        (b"a,b\n1,2\n", "none of its first 2 lines is an event"),
        (b"{}\n" * 100_000, "none of its first 20 lines is an event"),
    ],
)
@pytest.mark.parametrize("follow", [False, True])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, says: str, follow: bool):
    path = tmp_path / "some file"
    path.write_bytes(content)
    if follow and len(content) < 10 and content.isascii():
        return  # more may come
    read: list[Entry] = []
    with pytest.raises(SourceError, match=re.escape(says)) as told:
        read.extend(read_log(str(path), follow=follow))
    assert str(told.value).startswith(f"{path}: ")
    assert len(read) <= 20


def test_events_come_through_a_pipe(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(file_of(tmp_path / "e.jsonl").read_bytes(),))
    writer.start()
    entries = list(read_log(str(pipe)))
    writer.join()
    assert [to_json(entry.event) for entry in entries if entry.event] == [to_json(each) for each in EVENTS]
    assert entries[-1].done is None
