from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen import four_tracks_of_two, track

from engine.errors import ConfigError
from stream.clusters.html_report import write_report
from stream.clusters.track_groups import (
    Cluster,
    Merge,
    Split,
    find_cluster,
    group_tracks,
    load_edits,
    merge_clusters,
    save_edits,
    span,
    split_track,
)

CUT = 0.415


def numbers(clusters: list[Cluster]) -> list[list[int]]:
    return [[int(each.track_id.rpartition("-")[2]) for each in cluster.tracks] for cluster in clusters]


def test_tracks_are_grouped_by_person_in_the_order_of_their_coming() -> None:
    clusters = group_tracks(four_tracks_of_two(), CUT)
    assert numbers(clusters) == [[0, 2], [1, 3]]
    first = clusters[0]
    assert first.number == 1
    assert first.best.track_id == "door-7f3a-2"
    assert first.cameras == ("door",)
    assert (first.last_seen - first.first_seen).total_seconds() == 140
    assert first.seen_s == 40
    assert group_tracks([], CUT) == []


def test_tracks_of_several_models_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"several models, .*: other; sface-2021dec; choose one with --model"
    ):
        group_tracks([track(0, 0), track(1, 0, embedding_model="other")], CUT)


def test_models_of_one_name_are_told_apart_and_older_events_go_with_either() -> None:
    old = track(0, 0)
    first = track(1, 0, embedding_model_id="1" * 16, embedding_mirrored=False)
    second = track(2, 0, embedding_model_id="2" * 16, embedding_mirrored=False)
    mirrored = track(3, 0, embedding_model_id="1" * 16, embedding_mirrored=True)
    assert numbers(group_tracks([old, first], CUT)) == [[0, 1]]
    assert numbers(group_tracks([second, old], CUT)) == [[0, 2]]
    for others in ([old, first, second], [first, old, mirrored]):
        with pytest.raises(ConfigError, match="several models") as caught:
            group_tracks(others, CUT)
        assert str(others[-1].embedder) in str(caught.value)


def test_clusters_are_merged_and_tracks_split_off_by_hand_in_order() -> None:
    tracks = four_tracks_of_two()
    clusters = group_tracks(tracks, CUT)
    edits = merge_clusters(clusters, ["1", "door-7f3a-3"])
    assert numbers(group_tracks(tracks, CUT, edits)) == [[0, 1, 2, 3]]
    edits.append(split_track(clusters, "door-7f3a-2"))
    assert numbers(group_tracks(tracks, CUT, edits)) == [[0, 1, 3], [2]]
    again = [*edits, Merge("door-7f3a-3", "door-7f3a-2")]
    assert numbers(group_tracks(tracks, CUT, again)) == [[0, 1, 2, 3]], "a later word counts"
    assert numbers(group_tracks(tracks[:2], CUT, [Split("gone"), Merge("gone", "door-7f3a-1")])) == [[0], [1]]


def test_corrections_hold_when_more_is_seen() -> None:
    tracks = four_tracks_of_two()
    edits = [split_track(group_tracks(tracks, CUT), "door-7f3a-2")]
    more = [track(9, 5, first_seen=tracks[0].first_seen.replace(year=2020)), *tracks, track(7, 0)]
    assert numbers(group_tracks(more, CUT, edits)) == [[9], [0, 7], [1, 3], [2]]


def test_what_is_not_there_cannot_be_corrected() -> None:
    clusters = group_tracks(four_tracks_of_two(), CUT)
    with pytest.raises(ConfigError, match="there is no cluster 3; there are 1 to 2"):
        merge_clusters(clusters, ["1", "3"])
    with pytest.raises(ConfigError, match="two clusters or more"):
        merge_clusters(clusters, ["1", "door-7f3a-2"])
    with pytest.raises(ConfigError, match="got 'x', which is no track here"):
        merge_clusters(clusters, ["1", "x"])
    with pytest.raises(ConfigError, match="no track 'x' here"):
        split_track(clusters, "x")
    assert find_cluster(clusters, 2).number == 2


@settings(max_examples=30)
@given(
    edits=st.lists(
        st.one_of(
            st.builds(Merge, st.text(max_size=9), st.text(max_size=9)), st.builds(Split, st.text(max_size=9))
        ),
        max_size=5,
    )
)
def test_corrections_are_kept_in_a_file(tmp_path: Path, edits: list[Merge | Split]) -> None:
    path = tmp_path / "events.jsonl.clusters.json"
    save_edits(edits, path)
    assert load_edits(path) == edits


def test_a_file_that_is_not_there_holds_no_corrections(tmp_path: Path) -> None:
    assert load_edits(tmp_path / "none.json") == []
    with pytest.raises(ConfigError, match="edits cannot be read"):
        load_edits(tmp_path)


WRONG = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"[]",
            b'{"format": "facestream-clusters/2", "edits": []}',
            b'{"format": "facestream-clusters/1"}',
            b'{"format": "facestream-clusters/1", "edits": [{"merge": ["a"]}]}',
            b'{"format": "facestream-clusters/1", "edits": [{"merge": ["a", 1]}]}',
            b'{"format": "facestream-clusters/1", "edits": [{"split": "a", "merge": ["a", "b"]}]}',
            b'{"format": "facestream-clusters/1", "edits": ["a"]}',
            b"[" * 100_000,
        ]
    ),
)


@given(raw=WRONG)
def test_files_of_something_else_are_refused_in_one_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "edits.json"
    path.write_bytes(raw)
    with pytest.raises(
        ConfigError, match=r"edits\.json: not a list of edits \([^\n]*\); fix it, or remove it"
    ):
        load_edits(path)


def test_the_page_shows_pictures_boxes_times_and_ids(tmp_path: Path) -> None:
    tracks = four_tracks_of_two()
    shot = np.full((40, 30, 3), 90, np.uint8)
    path = tmp_path / "page.html"
    clusters = group_tracks(tracks, CUT)
    write_report(clusters, {"door-7f3a-0": shot}, path, source="events.jsonl", cut=CUT)
    assert path.stat().st_mode & 0o777 == 0o600
    page = path.read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 1
    assert page.count("<svg ") == 3
    assert page.count("<section ") == 2
    assert "2 people in 4 tracks" in page
    assert "This page holds 1 picture of faces, not encrypted." in page
    assert "2026-03-01<br>12:30:15 to 12:30:35<br>quality 0.50" in page
    assert path.stat().st_mode & 0o777 == 0o600
    for each in tracks:
        assert f"<code>{each.track_id}</code>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_times_are_told_in_utc() -> None:
    first = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert span(first, first + timedelta(seconds=5)) == "2026-02-28 23:30:00 to 23:30:05"
    assert span(first, first + timedelta(hours=1)) == "2026-02-28 23:30:00 to 2026-03-01 00:30:00"


def test_the_page_shows_what_comes_from_anybody_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\u202e\"'"
    path = tmp_path / "page.html"
    clusters = [Cluster(1, (track(0, 0, camera_id=evil, track_id=evil),))]
    write_report(clusters, {}, path, source=evil, cut=CUT)
    page = path.read_text()
    assert page.count("<script") == 1
    assert "alert(1)</script>" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(ConfigError, match="the report cannot be written"):
        write_report(clusters, {}, tmp_path, source="x", cut=CUT)


def test_a_cluster_of_very_many_tracks_lists_the_worse_ones(tmp_path: Path) -> None:
    tracks = [track(number, 0) for number in range(40)]
    path = tmp_path / "page.html"
    write_report([Cluster(1, tuple(tracks))], {}, path, source="x", cut=CUT)
    page = path.read_text()
    assert page.count("<svg ") == 24
    assert "<summary>16 more</summary>" in page
    assert all(each.track_id in page for each in tracks)
