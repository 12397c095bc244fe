from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from event_checks import camera_event
from seen import four_tracks_of_two, track, write_lines, write_sqlite

from engine.errors import SinkError, SourceError
from stream.events.event_types import TrackChange
from stream.sinks.track_history import newest_tracks, read_tracks


def test_the_newest_event_of_each_track_counts_whatever_the_order() -> None:
    events = [
        track(1, 0, sequence=2, quality=0.9),
        track(0, 0),
        track(1, 0, sequence=0, quality=0.1, change=TrackChange.APPEARED),
        camera_event(),
        track(0, 0),
    ]
    assert [(each.track_id, each.quality) for each in newest_tracks(events)] == [
        ("door-7f3a-0", 0.5),
        ("door-7f3a-1", 0.9),
    ]


@pytest.mark.parametrize("prefix", ["", "own"])
def test_tracks_are_read_from_either_kind_of_file(tmp_path: Path, prefix: str) -> None:
    events = [camera_event(), *four_tracks_of_two()]
    for kind, write in (("jsonl", write_lines), ("sqlite", write_sqlite)):
        path = write(tmp_path / f"events.{kind}", *events)
        tracks = read_tracks(f"{kind}:{path}" if prefix else str(path))
        assert [each.track_id for each in tracks] == [each.track_id for each in events[1:]]
        np.testing.assert_allclose(tracks[0].embedding, events[1].embedding, atol=1e-6)
        assert tracks[0].last_seen == events[1].last_seen


def test_damaged_records_are_passed_over(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "events.jsonl", track(0, 0))
    path.write_bytes(b"{torn\n\xff\n" + path.read_bytes() + b'{"specversion')
    assert len(read_tracks(str(path))) == 1
    path = write_sqlite(tmp_path / "events.db", track(0, 0), track(1, 1))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET data = 'torn' WHERE track_id = 'door-7f3a-0'")
    database.close()
    assert [each.track_id for each in read_tracks(str(path))] == ["door-7f3a-1"]


def test_files_without_tracks_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_tracks(str(tmp_path / "none.jsonl"))
    (tmp_path / "video.mp4").write_bytes(bytes(1000))
    with pytest.raises(SourceError, match="is not text"):
        read_tracks(str(tmp_path / "video.mp4"))
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE cats (name)").connection.close()
    with pytest.raises(SourceError, match="no such table: events"):
        read_tracks(str(tmp_path / "other.db"))
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\x00" + bytes(50))
    with pytest.raises(SourceError, match="no events can be read"):
        read_tracks(str(tmp_path / "torn.db"))
    with pytest.raises(SinkError):
        read_tracks("kafka://")
