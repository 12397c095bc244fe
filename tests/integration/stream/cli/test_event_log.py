from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from event_checks import AT, camera_event, face_event, identity_event
from kafka import KafkaConsumer, TopicPartition
from kafka_server import KafkaServer
from schema_registry import schema_registry

from stream.events.cloudevents import from_json, to_json
from stream.events.codecs import EventFormat
from stream.events.event_types import CameraEvent, Event
from stream.events.schema_files import schema_text
from stream.sinks.event_sink import open_sink
from stream.spool.spool import Spool

WAIT_S = 300.0
COMMAND = (sys.executable, "-m", "stream.cli", "events")


def events_command(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def some_events(count: int) -> list[Event]:
    """Of three cameras, one after the other, a second apart."""
    return [
        face_event(
            camera_id=f"cam-{number % 3}",
            run_id=f"run-{number % 3}",
            track_id=f"run-{number % 3}-1",
            sequence=number // 3,
            at=AT + timedelta(seconds=number),
        )
        for number in range(count)
    ]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file of events without gaps."""
    events = [camera_event(sequence=0), identity_event(), *some_events(30)]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(to_json(event) + b"\n" for event in events))
    return path


def test_tail_shows_a_line_an_event_and_filters(log: Path):
    lines = events_command("tail", log).stdout.splitlines()
    assert len(lines) == 32
    assert "camera down: no frame for 3 s" in lines[0]
    (named,) = events_command("tail", log, "--person", "Ann Example").stdout.splitlines()
    assert "decided Ann Example" in named
    chosen = events_command("tail", log, "--camera", "cam-1", "--type", "track", "--limit", "3", "--json")
    assert [json.loads(line)["id"] for line in chosen.stdout.splitlines()] == [
        f"run-1-1.{n}" for n in range(3)
    ]
    since = (AT + timedelta(seconds=28)).isoformat()
    assert len(events_command("tail", log, "--since", since, "--track", "run-2-1").stdout.splitlines()) == 1


def test_tail_follows_a_file_until_it_is_told_to_stop(log: Path):
    tail = [*COMMAND, "tail", log, "--follow", "--json"]
    with subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        for _ in range(32):
            assert process.stdout.readline().startswith(b"{")
        told = f"at the end of {log}, waiting for more (Ctrl-C ends)\n"
        assert process.stderr.readline() == told.encode()
        with log.open("ab") as file:
            file.write(to_json(camera_event(sequence=1)) + b"\n")
        assert from_json(process.stdout.readline()) == camera_event(sequence=1)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("form", [["--json"], []])
def test_tail_ends_in_silence_when_nobody_reads(log: Path, form: list[str]):
    for _ in range(6):
        log.write_bytes(log.read_bytes() * 2)
    tail = [*COMMAND, "tail", log, *form]
    with subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == b""


def test_verify_says_that_there_is_nothing(tmp_path: Path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    done = events_command("verify", empty, code=1)
    assert (done.stdout, done.stderr) == ("", f"no event in {empty}\n")


def test_verify_finds_what_is_missing_late_repeated_and_spoilt(log: Path):
    assert "whole" in events_command("verify", log).stdout.splitlines()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:10], *lines[9:]]))
    assert "whole" in events_command("verify", log).stdout.splitlines(), "repeats are no fault"
    log.write_bytes(b"".join([*lines[:10], *lines[11:], b"{}\n"]))
    told = events_command("verify", log, code=1).stdout
    assert "track run-2-1: missing 2" in told
    assert "line 32: not an event of facestream" in told
    assert told.splitlines()[-1] == "not whole"


def test_replay_takes_a_range_of_times_and_keeps_ids_and_order(log: Path, tmp_path: Path):
    span = [(AT + timedelta(seconds=second)).isoformat() for second in (5, 20)]
    out = tmp_path / "part.jsonl"
    done = events_command("replay", log, "--sink", f"jsonl:{out}", "--from", span[0], "--to", span[1])
    assert done.stderr == "15 events replayed\n"
    assert out.read_bytes().splitlines() == [to_json(event) for event in some_events(20)[5:]]


def test_schemas_are_printed_as_they_are_kept():
    assert events_command("schema", "track").stdout == schema_text("track", "json")
    assert events_command("schema", "event").stdout == schema_text("event", "json")
    told = events_command("schema", "camera", "--format", "avro", "--release", "0.2.0").stdout
    assert told == schema_text("camera", "avro", release="0.2.0")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["tail", "no.jsonl"],
            "error: no.jsonl: there is no such file; name one that was written, or kafka://",
        ),
        (["verify", "."], "error: .: is a folder; name one"),
        (["tail", "LOG", "--type", "cat"], "error: --type cat: expected one of track"),
        (["tail", "LOG", "--since", "now"], "error: 'now': expected 90s, 10m"),
        (["replay", "LOG", "--sink", "jsonl:LOG"], "error: --sink LOG: is the file that SOURCE reads"),
        (
            ["replay", "LOG", "--sink", "jsonl:-", "--since", "1h", "--until", "2h"],
            "error: --since and --until: expected",
        ),
        (["schema", "event", "--format", "avro"], "error: event: expected a schema that is there"),
        (["schema", "track", "--release", "9"], "error: --release 9: expected one of 0.2.0"),
        (["tail", "LOG", "--registry", "host:8081"], "error: registry host:8081: expected http"),
    ],
)
def test_what_is_wrong_is_one_line(log: Path, arguments: list[str], reason: str):
    arguments = [each.replace("LOG", str(log)) for each in arguments]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith(reason.replace("LOG", str(log)))
    assert done.stderr.count("\n") == 1


def test_tail_says_where_nothing_is_to_be_shown(log: Path, tmp_path: Path):
    (tmp_path / "empty.jsonl").touch()
    told = events_command("tail", str(tmp_path / "empty.jsonl")).stderr
    assert told == f"no event in {tmp_path / 'empty.jsonl'}\n"
    assert (
        events_command("tail", str(log), "--camera", "x").stderr == f"no event that was asked for in {log}\n"
    )


# On a real broker.


@pytest.fixture
def topic() -> str:
    return f"facestream-events-{uuid.uuid4().hex[:12]}"


def fill(
    broker: str,
    topic: str,
    events: Sequence[Event],
    spool: Path,
    *,
    event_format: EventFormat = "json",
    registry: str | None = None,
) -> str:
    """Emit events to a topic, and wait until they are there."""
    sink = open_sink(
        f"kafka://{broker}/{topic}",
        event_format=event_format,
        registry=registry,
        spool_of=lambda _: Spool(spool),
        connect_timeout_s=WAIT_S,
    )
    sink.emit(events)
    sink.close(WAIT_S)
    return f"kafka://{broker}/{topic}"


def read(source: str, *options: str) -> list[Event]:
    lines = events_command("tail", source, "--json", "--no-follow", *options).stdout.splitlines()
    return [from_json(line) for line in lines]


def by_camera(events: Sequence[Event]) -> dict[str, list[bytes]]:
    cameras = sorted({event.camera_id for event in events})
    return {name: [to_json(event) for event in events if event.camera_id == name] for name in cameras}


@pytest.mark.kafka
@pytest.mark.parametrize("event_format", ["json", "avro", "protobuf"])
def test_a_topic_is_read_in_every_format(
    kafka_broker: str, topic: str, tmp_path: Path, event_format: EventFormat
):
    events = [camera_event(sequence=0), identity_event(), *some_events(40)]
    source = fill(kafka_broker, topic, events, tmp_path / "spool", event_format=event_format)
    assert by_camera(read(source)) == by_camera(events)
    assert "whole" in events_command("verify", source).stdout.splitlines()


@pytest.mark.kafka
def test_a_run_writes_the_format_that_it_is_told(kafka_broker: str, topic: str, tmp_path: Path):
    source, copy = f"kafka://{kafka_broker}/{topic}", tmp_path / "events.jsonl"
    done = subprocess.run(
        [
            *(*COMMAND[:-1], "run", "test://ball?frames=30", "--event-format", "avro"),
            *("--sink", source, "--sink", f"jsonl:{copy}"),
        ],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [from_json(line) for line in copy.read_bytes().splitlines()]
    assert by_camera(read(source)) == by_camera(written)
    with closing(KafkaConsumer(bootstrap_servers=kafka_broker, auto_offset_reset="earliest")) as all_of:
        all_of.assign([TopicPartition(topic, n) for n in all_of.partitions_for_topic(topic)])
        record = next(iter(all_of))
    assert dict(record.headers)["content-type"] == b"application/avro"
    assert record.value[0] == 0


@pytest.mark.kafka
def test_avro_with_a_registrys_ids_is_read_with_the_registry(kafka_broker: str, topic: str, tmp_path: Path):
    with schema_registry() as stand_in:
        source = fill(
            kafka_broker, topic, some_events(6), tmp_path / "s", event_format="avro", registry=stand_in.url
        )
        assert by_camera(read(source, "--registry", stand_in.url)) == by_camera(some_events(6))
    done = events_command("tail", source, "--no-follow")
    assert done.stdout == ""
    assert done.stderr.count("is not one of facestream's own; give its registry") == 6


@pytest.mark.kafka
def test_a_topic_is_replayed_into_another_in_another_format(kafka_broker: str, topic: str, tmp_path: Path):
    events = some_events(60)
    source = fill(kafka_broker, topic, events, tmp_path / "spool")
    span = [(AT + timedelta(seconds=second)).isoformat() for second in (10, 50)]
    target = f"{source}-again"
    done = events_command(
        *("replay", source, "--sink", target, "--since", span[0], "--until", span[1]),
        *("--event-format", "protobuf", "--rate", "500"),
    )
    assert done.stderr.splitlines()[-1] == "40 events replayed"
    assert by_camera(read(target)) == by_camera(events[10:50])
    assert "whole" not in events_command("verify", target, code=1).stdout.splitlines()
    assert "whole" in events_command("verify", target, "--partial").stdout.splitlines()


@pytest.mark.kafka
def test_verify_finds_a_gap_in_a_topic(kafka_broker: str, topic: str, tmp_path: Path):
    events = some_events(30)
    source = fill(kafka_broker, topic, [*events[:10], *events[11:], events[29]], tmp_path / "spool")
    told = events_command("verify", source, code=1).stdout
    assert "track run-1-1: missing 3" in told
    assert [line.split()[1] for line in told.splitlines() if "repeats" in line] == ["1"]


@pytest.mark.kafka
def test_tail_shows_what_comes_in_after_it_began(kafka_broker: str, topic: str, tmp_path: Path):
    source = fill(kafka_broker, topic, some_events(3), tmp_path / "spool")
    begun = datetime.now(UTC).isoformat()
    tail = [*COMMAND, "tail", source, "--json", "--follow"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        number = 0
        try:
            assert process.stderr
            told = process.stderr.readline().decode()
            assert told.startswith(f"at the end of {source}, waiting for more; older ones: --since 1h, all: ")
            while not _has_line(process):
                fill(kafka_broker, topic, [camera_event(sequence=number)], tmp_path / "spool")
                number += 1
            shown = from_json(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
    assert isinstance(shown, CameraEvent), "what was there before is not shown"
    assert read(source, "--since", begun) == [], "the events themselves are older"


@pytest.mark.kafka
def test_tail_goes_on_when_the_broker_was_killed_and_is_back(
    mortal_server: KafkaServer, topic: str, tmp_path: Path
):
    broker = mortal_server.start()
    source = fill(broker, topic, [camera_event(sequence=0)], tmp_path / "spool")
    tail = [*COMMAND, "tail", source, "--json", "--since", AT.isoformat()]
    with subprocess.Popen(tail, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert from_json(process.stdout.readline()) == camera_event(sequence=0)
            mortal_server.kill()
            mortal_server.start()
            fill(broker, topic, [camera_event(sequence=1)], tmp_path / "spool")
            assert from_json(process.stdout.readline()) == camera_event(sequence=1)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


@pytest.mark.kafka
def test_a_broker_that_went_away_is_said_in_one_line(mortal_server: KafkaServer, topic: str, tmp_path: Path):
    source = fill(mortal_server.start(), topic, some_events(3), tmp_path / "spool")
    mortal_server.kill()
    done = events_command("verify", source, code=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "it cannot be reached" in done.stderr


def _has_line(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout
    return bool(select.select([process.stdout], [], [], 0.5)[0])
