from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from event_checks import camera_event, face_event, identity_event
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SinkError
from stream.events.cloudevents import from_json, to_json
from stream.events.event_types import CameraEvent, Event, FaceEvent, IdentityEvent, TrackChange
from stream.sinks.event_sink import (
    FanOut,
    IdentitiesApart,
    JsonLinesAddress,
    KafkaAddress,
    SqliteAddress,
    open_sink,
    parse_sink,
)
from stream.sinks.json_lines import JsonLinesSink
from stream.sinks.sqlite import SqliteSink


def test_addresses() -> None:
    assert parse_sink("jsonl:-") == JsonLinesAddress(None)
    assert parse_sink("jsonl:out/e.jsonl") == JsonLinesAddress(Path("out/e.jsonl"))
    assert parse_sink("sqlite:/var/e.db") == SqliteAddress(Path("/var/e.db"))
    assert parse_sink("sqlite:e.db?keep_days=0.5") == SqliteAddress(Path("e.db"), keep_days=0.5)
    assert parse_sink("kafka://h:9092/faces") == KafkaAddress(("h:9092",), "faces")
    assert parse_sink("kafka://a:1,b:2/t") == KafkaAddress(("a:1", "b:2"), "t")


def test_a_login_goes_over_tls_unless_said_otherwise() -> None:
    address = parse_sink("kafka://me:p%40ss@h:1/t")
    assert address == KafkaAddress(("h:1",), "t", username="me", password="p@ss", security="SASL_SSL")
    plain = parse_sink("kafka://me:x@h:1/t?security=SASL_PLAINTEXT&mechanism=PLAIN")
    assert isinstance(plain, KafkaAddress)
    assert (plain.security, plain.mechanism) == ("SASL_PLAINTEXT", "PLAIN")
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "e.jsonl",
            "jsonl:",
            "sqlite:",
            "sqlite:e?keep_days=0",
            "sqlite:e?keep_days=nan",
            "sqlite:e?x=1",
        ),
        *("kafka:h:1/t", "mqtt://h/t", "kafka://h:x/t"),
        *("kafka://h:1", "kafka://h:1/a b", "kafka://h:1/t?what=1", "kafka://me@h:1/t"),
        *("kafka://h:1/t?security=SASL_SSL", "kafka://me:x@h:1/t?security=SSL", "kafka://h:1/t?security=TLS"),
    ],
)
def test_addresses_that_mean_nothing(text: str) -> None:
    with pytest.raises(SinkError, match=r"expected|known|go together"):
        parse_sink(text)


@given(st.text(max_size=40), st.text(min_size=3, alphabet="geheim", max_size=12))
def test_any_text_is_an_address_or_refused_without_its_password(text: str, secret: str) -> None:
    for candidate in (text, f"kafka://{text}", f"kafka://me:{secret}zz@h:1/{text}"):
        try:
            shown = repr(parse_sink(candidate))
        except SinkError as exc:
            shown = str(exc)
        assert f"{secret}zz" not in shown


def test_json_lines_are_appended_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for sequence in range(2):
        sink = open_sink(f"jsonl:{path}")
        sink.emit([face_event(sequence=sequence), camera_event(sequence=sequence)])
        sink.close(1.0)
        sink.close(1.0)
    assert len([from_json(line) for line in path.read_bytes().splitlines()]) == 4
    with path.open("ab") as file:
        file.write(b'{"torn": ')
    sink = JsonLinesSink(path)
    sink.emit([camera_event(sequence=9)])
    sink.close(1.0)
    *_, torn, last = path.read_bytes().splitlines()
    assert torn == b'{"torn": '
    assert from_json(last).sequence == 9


def test_a_full_disk_is_said() -> None:
    sink = JsonLinesSink(Path("/dev/full"))
    with pytest.raises(SinkError, match="make room"):
        sink.emit([camera_event()])
    sink.close(0.0)


def test_a_closed_sink_is_the_callers_mistake(tmp_path: Path) -> None:
    for sink in (JsonLinesSink(tmp_path / "e"), SqliteSink(tmp_path / "e.db")):
        sink.close(0.0)
        with pytest.raises(ValueError, match="closed"):
            sink.emit([camera_event()])


def test_sqlite_takes_a_repeat_once_and_keeps_the_newest_state(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    appeared = face_event(sequence=0, quality=0.5)
    left = face_event(change=TrackChange.LEFT, sequence=1, quality=0.8)
    for batch in ([appeared, camera_event()], [left], [appeared, left], []):
        sink = SqliteSink(path)
        sink.emit(batch)
        sink.close(1.0)
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM events").fetchone() == (3,)
    ((state, quality, blob),) = database.execute("SELECT state, quality, embedding FROM tracks")
    (data,) = database.execute("SELECT data FROM events WHERE type LIKE '%left%'").fetchone()
    database.close()
    assert (state, quality) == ("left", 0.8)
    np.testing.assert_array_equal(np.frombuffer(blob, "<f4"), left.embedding)
    assert json.loads(data)["quality"] == 0.8


def test_sqlite_keeps_the_newest_answer_to_who_it_is(tmp_path: Path) -> None:
    corrected = identity_event(sequence=4, person_id=None, person_name=None, previous_person_id="p-000017")
    sink = SqliteSink(tmp_path / "events.db")
    sink.emit([identity_event(sequence=1), corrected])
    sink.emit([identity_event(sequence=1)])
    sink.close(1.0)
    with closing(sqlite3.connect(tmp_path / "events.db")) as database:
        rows = database.execute("SELECT track_id, person_id, sequence FROM identities").fetchall()
        assert rows == [("door-7f3a-1", None, 4)]
        assert database.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_sqlite_deletes_what_was_kept_long_enough(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "events.db", keep_days=7)
    old, young = datetime.now(UTC) - timedelta(days=8), datetime.now(UTC)
    sink.emit(
        [
            face_event(track_id="old", at=old, last_seen=old),
            identity_event(track_id="old", at=old),
            face_event(track_id="young", at=young, last_seen=young),
        ]
    )
    sink.close(1.0)
    with closing(sqlite3.connect(tmp_path / "events.db")) as database:
        for table in ("events", "tracks"):
            assert database.execute(f"SELECT track_id FROM {table}").fetchall() == [("young",)]
        assert database.execute("SELECT count(*) FROM identities").fetchone() == (0,)


def test_sqlite_erases_a_track_from_the_files_bytes(tmp_path: Path) -> None:
    gone, stays = (
        face_event(track_id="gone-1"),
        face_event(track_id="stays-1", embedding=np.eye(128, dtype=np.float32)[0]),
    )
    sink = SqliteSink(tmp_path / "events.db")
    sink.emit([gone, stays, identity_event(track_id="gone-1", person_name="Zebedee")])
    secrets = (b"Zebedee", gone.embedding.tobytes(), to_json(gone)[-200:-20])
    assert sink.erase(["gone-1", "nobody"]) == 2
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    sink.close(1.0)
    assert not [each for each in secrets if each in raw]
    assert b"stays-1" in raw


def test_sqlite_takes_over_a_file_of_the_first_version(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    SqliteSink(path).close(0.0)
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DROP TABLE identities; PRAGMA user_version = 1;")
    sink = SqliteSink(path)
    sink.emit([identity_event()])
    sink.close(1.0)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT person_name FROM identities").fetchone() == ("Ann Example",)


def test_a_new_file_of_json_lines_is_its_owners_alone(tmp_path: Path) -> None:
    JsonLinesSink(tmp_path / "events.jsonl").close(1.0)
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_new_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    SqliteSink(tmp_path / "events.db").close(0.0)
    assert (tmp_path / "events.db").stat().st_mode & 0o777 == 0o600


def test_sqlite_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "e.db")
    reader = sqlite3.connect(tmp_path / "e.db", timeout=0.1)
    for sequence in range(3):
        sink.emit([camera_event(sequence=sequence)])
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (sequence + 1,)
    reader.close()
    sink.close(0.0)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but longer than a header of SQLite would be " * 9)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    newer = SqliteSink(tmp_path / "newer.db")
    newer.close(0.0)
    database = sqlite3.connect(tmp_path / "newer.db")
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    for name, words in [
        ("text", "not a database"),
        ("other.db", "another program"),
        ("newer.db", "version 99"),
    ]:
        before = (tmp_path / name).read_bytes()
        with pytest.raises(SinkError, match=words):
            SqliteSink(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


class Failing:
    """A sink that is out of order."""

    def emit(self, events: Sequence[Event]) -> None:
        raise SinkError(f"no place for {len(events)}")

    def close(self, timeout_s: float) -> None:  # noqa: ARG002 - the contract's
        raise SinkError("already broken")


def test_a_failing_sink_does_not_keep_events_from_the_others(tmp_path: Path) -> None:
    both = FanOut([Failing(), JsonLinesSink(tmp_path / "e.jsonl")])
    with pytest.raises(SinkError, match="no place for 1"):
        both.emit([camera_event()])
    with pytest.raises(SinkError, match="already broken"):
        both.close(1.0)
    assert len((tmp_path / "e.jsonl").read_bytes().splitlines()) == 1


def test_identities_go_where_few_may_read_them(tmp_path: Path) -> None:
    apart = IdentitiesApart(JsonLinesSink(tmp_path / "faces"), JsonLinesSink(tmp_path / "names"))
    apart.emit([face_event(), identity_event(), camera_event()])
    apart.emit([identity_event(sequence=1)])
    apart.close(1.0)
    written = {name: (tmp_path / name).read_bytes().splitlines() for name in ("faces", "names")}
    assert [type(from_json(line)) for line in written["faces"]] == [FaceEvent, CameraEvent]
    assert [type(from_json(line)) for line in written["names"]] == [IdentityEvent, IdentityEvent]
    broken = IdentitiesApart(Failing(), JsonLinesSink(tmp_path / "names"))
    with pytest.raises(SinkError, match="no place for 1"):
        broken.emit([identity_event(), camera_event()])
    assert len((tmp_path / "names").read_bytes().splitlines()) == 3
