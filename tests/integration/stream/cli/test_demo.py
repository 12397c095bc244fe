"""The demo: who is in it, and whether what it tells is what was to be seen."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from event_checks import face_event, identity_event
from typer.testing import CliRunner

from engine.compilation.sample_faces import load_hopper, load_portrait
from stream.app.settings import DetectionSettings, ModelSettings
from stream.app.wiring import open_models
from stream.cli.demo.cast import eileen_collins, grace_hopper, photograph, sam
from stream.cli.demo.clip import CAST, DURATION_S, compose, lobby
from stream.cli.demo.demo import Shots
from stream.cli.demo.story import Story, tell
from stream.cli.root import app
from stream.events.event_types import TrackChange
from stream.sinks.event_sink import FanOut


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_people_of_the_demo_are_found_and_told_apart(engine: str) -> None:
    stills = [photograph(who()) for who in (eileen_collins, grace_hopper, sam)]
    with open_models(ModelSettings(engine=engine, precision="fp32"), DetectionSettings()) as (find, embed):
        faces = find.detect(stills)
        assert [len(each) for each in faces] == [1, 1, 1]
        assert min(float(each.scores[0]) for each in faces) > 0.9
        crops = [embed.align(still, each.landmarks_xy) for still, each in zip(stills, faces, strict=True)]
        embeddings = embed.embed(np.concatenate(crops))
        originals = [load_portrait(), load_hopper()]
        found = [embed.align(each, find.detect([each])[0].landmarks_xy) for each in originals]
        uncut = embed.embed(np.concatenate(found))
    assert max(float(a @ b) for a, b in combinations(embeddings, 2)) < 0.25
    assert min(float(a @ b) for a, b in zip(embeddings, uncut, strict=False)) > 0.9


def test_who_is_away_is_not_in_the_picture() -> None:
    room, people = lobby(), [(who(), walk) for who, walk in CAST]
    for time_s in (0.0, DURATION_S):
        assert np.array_equal(compose(room, people, time_s), room)
    assert not np.array_equal(compose(room, people, 5.0), room)


def test_the_demo_tells_who_came_and_who_is_a_stranger(demo: tuple[Path, str]) -> None:
    out, said = demo
    story = [line for line in said.splitlines() if " to 0:" in line]
    assert len(story) == 4, said
    grace, eileen, drawn, grace_again = story
    assert "is Grace Hopper, recognised with 0." in grace
    assert "nobody who is enrolled" in eileen
    assert "still the same track" in eileen
    assert "is Sam, recognised" in drawn
    assert "is Grace Hopper again, recognised" in grace_again
    events = (out / "events.jsonl").read_text()
    assert events.count('"Grace Hopper"') == 2
    kinds = [events.count(f'"type":"facestream.{kind}.') for kind in ("track", "identity", "camera")]
    assert "{} of tracks, {} of identities, {} of the camera".format(*kinds) in said


def test_the_contact_sheet_has_the_story_s_scores() -> None:
    story, shots, picture = Story(FanOut([])), Shots(), np.zeros((8, 8, 3), np.uint8)
    story.emit([face_event(), identity_event(similarity=0.84)])
    shots(face_event(change=TrackChange.LEFT), picture)
    story.emit([face_event(change=TrackChange.LEFT)])
    (shot,), (told,) = shots.told(story.visits), tell(story.visits)
    assert shot.lines[0] == "#1  Ann Example, 0.84"
    assert "#1 is Ann Example, recognised with 0.84" in told


def test_the_demo_makes_all_that_it_names(demo: tuple[Path, str]) -> None:
    out, said = demo
    made = {path.name for path in out.iterdir()}
    assert made == {
        "clip.mp4",
        "annotated.mp4",
        "contact-sheet.png",
        "enrolled",
        "events.db",
        "events.jsonl",
    }
    assert all(f"{out}/{name}" in said for name in made - {"clip.mp4"})


def test_a_video_of_ones_own_leaves_the_demo_s_clip_and_stills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = earlier_demo(tmp_path / "out" / "demo")
    done = CliRunner().invoke(app, ["demo", "--source", "test://ball?frames=30"])
    assert done.exit_code == 0, done.output
    assert "nobody was seen" in done.stdout
    assert "2 events: 2 of the camera" in done.stdout
    assert len((tmp_path / "out" / "demo-source" / "events.jsonl").read_text().splitlines()) == 2
    assert contents(tmp_path / "out" / "demo") == kept


def test_a_folder_that_is_named_loses_the_results_alone(tmp_path: Path) -> None:
    kept = earlier_demo(tmp_path)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), "--source", "test://ball?frames=30"])
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2
    now = contents(tmp_path)
    assert {name: now[name] for name in ("clip.mp4", "Sam.png")} == {
        name: kept[name] for name in ("clip.mp4", "Sam.png")
    }


@pytest.mark.parametrize(
    ("source", "says", "code"),
    [
        ("nosuch.mp4", "nosuch.mp4: no such file; check the path", 1),
        ("garbage.mp4", "garbage.mp4: ", 1),
        ("out/demo/annotated.mp4", "is the file that --source reads; name another", 2),
    ],
)
def test_a_source_that_cannot_be_played_costs_nothing(
    source: str, says: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = earlier_demo(tmp_path / "out" / "demo")
    (tmp_path / "garbage.mp4").write_text("no video at all")
    done = CliRunner().invoke(app, ["demo", "--out", "out/demo", "--source", source])
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert contents(tmp_path / "out" / "demo") == kept


def earlier_demo(out: Path) -> dict[str, bytes]:
    """What an earlier demo has left, made up; its contents."""
    (out / "enrolled").mkdir(parents=True)
    for name in ("clip.mp4", "annotated.mp4", "events.jsonl", "enrolled/Sam.png"):
        (out / name).write_bytes(name.encode())
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
