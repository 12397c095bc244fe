from __future__ import annotations

import json
import re
import secrets
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from people import MODEL, SEALER, vector
from seen import four_tracks_of_two, track, write_lines, write_sqlite
from typer.testing import CliRunner, Result

from engine.errors import SourceError
from engine.models.catalogue import load_model
from stream.cli.root import app
from stream.clusters.shot_reader import read_shots
from stream.events.cloudevents import to_json
from stream.gallery.best_shots import BestShots
from stream.gallery.people import Gallery
from stream.sinks.event_sink import open_sink


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["cluster", *(str(arg) for arg in args)])


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "events.jsonl", *four_tracks_of_two())


def frames(folder: Path, count: int, size_wh: tuple[int, int] = (1280, 720)) -> Path:
    """A folder of pictures, each of its own grey."""
    folder.mkdir()
    for number in range(count):
        image = np.full((size_wh[1], size_wh[0], 3), 20 + 5 * number, np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def test_tracks_are_grouped_corrected_and_taken_back(events: Path) -> None:
    assert "2 people in 4 tracks" in run(events).stdout
    assert run(events, "--show", 1).stdout.split()[0] == "door-7f3a-0"
    assert "1 person in 4 tracks" in run(events, "--merge", "1,2").stdout
    edits = events.with_name("events.jsonl.clusters.json")
    assert json.loads(edits.read_text())["edits"] == [{"merge": ["door-7f3a-0", "door-7f3a-1"]}]
    assert "2 people in 4 tracks" in run(events, "--split", "door-7f3a-3").stdout
    assert "2 people in 4 tracks" in run(events).stdout
    assert "1 person in 4 tracks" in run(events, "--undo").stdout
    assert "2 people in 4 tracks" in run(events, "--undo").stdout
    done = run(events, "--undo")
    assert (done.exit_code, "nothing was merged or split yet" in done.stderr) == (2, True)
    assert "4 people in 4 tracks" in run(events, "--cut", "0.99").stdout
    assert "1 person in 2 tracks" in run(events, "--min-quality", "0.52", "--cut", "-1").stdout


@pytest.mark.parametrize("name", ["{folder}/sface.json", "../sface.json", "x" * 5000, ".", "mtcnn"])
def test_an_events_model_is_no_path(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes events would choose which files of this machine are read as models."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    load_model("sface").save(tmp_path / "sface.json")
    named = name.format(folder=tmp_path)
    tracks = [replace(each, embedding_model=named) for each in four_tracks_of_two()]
    done = run(write_lines(tmp_path / "events.jsonl", *tracks))
    assert (done.exit_code, "which is no model here; give --cut" in done.stderr) == (2, True), done.stderr


def test_what_could_steer_a_terminal_is_not_obeyed(tmp_path: Path) -> None:
    tracks = [replace(each, camera_id="door\x1b[2J[/b]") for each in four_tracks_of_two()]
    events = write_lines(tmp_path / "events.jsonl", *tracks)
    for options in ((), ("--show", 1)):
        done = run(events, *options)
        assert done.exit_code == 0, done.stderr
        assert "door?[2J[/b]" in done.stdout
        assert "\x1b" not in done.stdout
    done = run(tmp_path / "nothing\x1b[2J.jsonl")
    assert "nothing?[2J.jsonl" in done.stderr


def test_a_page_is_written_with_shots_from_the_video_or_those_that_were_kept(tmp_path: Path) -> None:
    tracks = [track(number, number % 2, frame_number=number) for number in range(4)]
    source = write_sqlite(tmp_path / "events.db", *tracks)
    folder = frames(tmp_path / "frames", 3)
    kept = BestShots(tmp_path / "shots")
    kept(tracks[3], np.full((50, 50, 3), 200, np.uint8))
    page = tmp_path / "page.html"
    done = run(source, "--report", page, "--video", folder, "--shots", tmp_path / "shots")
    assert done.exit_code == 0, done.stderr
    assert "page.html: best shots: 4" in done.stdout
    assert len(re.findall('<img src="data:image/jpeg', page.read_text())) == 4
    assert "best shots: 4" in run(source, "--report", page).stdout, "they come from where they came before"
    done = run(source, "--report", page, "--no-pictures")
    assert "best shots: 0; tracks without one: 4" in done.stdout
    shutil.rmtree(folder)
    lost = run(source, "--report", page)
    assert lost.exit_code == 0, lost.stderr
    assert "best shots: 1; tracks without one: 3" in lost.stdout
    assert "note: pictures of before are missing" in lost.stderr
    other = run(source, "--report", page, "--edits", tmp_path / "other.json")
    assert "best shots: 0; tracks without one: 4 (--video and --shots say where" in other.stdout
    named = run(source, "--report", page, "--video", f"door={frames(folder, 3)}")
    assert "best shots: 4" in named.stdout


def test_who_is_enrolled_is_called_by_name_now_and_later(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACESTREAM_KEY", raising=False)
    path, page = tmp_path / "people.gallery", tmp_path / "page.html"
    Gallery.create(path, MODEL, sealer=None).close()
    done = run(events, "--enrol", "door-7f3a-1=Tony <b>", "--gallery", path, "--report", page)
    assert done.exit_code == 0, done.stderr
    for told in (done, run(events, "--report", page)):
        assert re.search(r"^ *2 +Tony <b> +2 ", told.stdout, re.MULTILINE), told.stdout
        assert "<bdi>Tony &lt;b&gt;</bdi>" in page.read_text()
        assert "Person 1<" in page.read_text()
        assert "Person 2" not in page.read_text()
    with Gallery.open(path, sealer=None) as gallery:
        gallery.rename("Tony <b>", "Tony")
    assert re.search(r"^ *2 +Tony +2 ", run(events).stdout, re.MULTILINE)
    path.unlink()
    gone = run(events)
    assert gone.exit_code == 0
    assert "note: nobody is called by name" in gone.stderr
    assert run(events, "--gallery", path).exit_code == 1
    wrong = run(events, "--enrol", "1=Ann", "--gallery", tmp_path / "wrong")
    assert wrong.exit_code == 1
    assert str(path) in run(events).stderr, "what did not work is not remembered"


def test_corrections_and_names_go_into_one_command(events: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.gallery"
    Gallery.create(path, MODEL, sealer=None).close()
    done = run(events, "--split", "door-7f3a-2", "--enrol", "door-7f3a-2=Ann", "--gallery", path)
    assert done.exit_code == 0, done.stderr
    assert "Ann: 1 of 1 track enrolled" in done.stdout
    assert "3 people in 4 tracks" in done.stdout


def test_shots_are_cut_from_the_frames_of_the_tracks(tmp_path: Path) -> None:
    folder = frames(tmp_path / "frames", 5)
    told: list[tuple[int, int]] = []
    shots = read_shots(
        [track(0, 0, frame_number=1), track(1, 0, frame_number=3), track(2, 0, camera_id="gate")],
        {"door": str(folder)},
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert {name: int(shot.mean()) for name, shot in shots.items()} == {"door-7f3a-0": 25, "door-7f3a-1": 35}
    assert told[-1] == (3, 4)
    other = frames(tmp_path / "other", 2, size_wh=(640, 360))
    assert read_shots([track(0, 0, frame_number=1)], {"door": str(other)}) == {}
    with pytest.raises(SourceError, match="only a file or a folder"):
        read_shots([track(0, 0)], {"door": "rtsp://127.0.0.1:1/x"})


def test_a_cluster_is_enrolled_as_a_person(
    events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACESTREAM_KEY", raising=False)
    path = tmp_path / "people.gallery"
    Gallery.create(path, MODEL, sealer=None).close()
    done = run(events, "--enrol", "1=Ann", "--enrol", "2=Bo Lee", "--gallery", path)
    assert done.exit_code == 0, done.stderr
    assert "Ann: 2 of 2 tracks enrolled" in done.stdout
    with Gallery.open(path, sealer=None) as gallery:
        assert {each.name: each.templates for each in gallery.people()} == {"Ann": 2, "Bo Lee": 2}
        near = [each.embedding @ vector(0) for each in gallery.templates(gallery.find("Ann").id)]
    assert min(near) > 0.85
    again = run(events, "--enrol", "1=Ann", "--gallery", path)
    assert "Ann: 0 of 2 tracks enrolled" in again.stdout
    assert "refused: door-7f3a-2: it is enrolled already" in again.stderr
    sealed = tmp_path / "sealed.gallery"
    Gallery.create(sealed, MODEL, sealer=SEALER).close()
    assert run(events, "--enrol", "1=Ann", "--gallery", sealed).exit_code == 1


def of_model(digit: str) -> dict[str, object]:
    return {"embedding_model_id": digit * 16, "embedding_mirrored": True}


def test_a_model_is_chosen_among_those_of_one_name(tmp_path: Path) -> None:
    events = [track(number, 0, **of_model(str(number % 2))) for number in range(4)]
    path = write_lines(tmp_path / "events.jsonl", *events)
    told = run(path, "--model", "sface-2021dec, mirrored (11111111)").stdout
    assert "1 person in 2 tracks" in told


def test_wrong_words_are_told_of_in_one_line(events: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "strange.jsonl", track(0, 0, embedding_model="mine"))
    mixed = write_lines(tmp_path / "mixed.jsonl", track(0, 0), track(1, 0, embedding_model="mine"))
    alike = write_lines(
        *(tmp_path / "alike.jsonl", track(0, 0, **of_model("1")), track(1, 0, **of_model("2")))
    )
    two = write_lines(tmp_path / "two.jsonl", track(0, 0), track(1, 0, camera_id="gate"))
    for args, message in [
        ((events, "--merge", "1,x"), "expected numbers or tracks such as 3,7, got 'x'"),
        ((events, "--merge", "1,2", "--enrol", "1=Ann", "--gallery", "x"), "correct first, since numbers"),
        ((events, "--merge", "1"), "expected two clusters or more"),
        ((events, "--show", 9), "there is no cluster 9; there are 1 to 2"),
        ((events, "--video", "x.mp4"), "give --report FILE.html too"),
        ((events, "--enrol", "1=Ann"), "--enrol: give --gallery FILE too"),
        (
            (events, "--enrol", "Ann", "--gallery", "x"),
            "expected a person or a track here and a name such as 3=Ann",
        ),
        ((events, "--enrol", "1=\x07", "--gallery", "x"), "U+0007, which cannot be seen"),
        ((events, "--model", "other"), "choose --model of sface-2021dec"),
        ((events, "--report", "x.html", "--shots", tmp_path / "none"), "no such folder"),
        ((tmp_path / "strange.jsonl",), "no preset similarity is known for mine"),
        ((mixed,), "several models"),
        ((alike,), "several models"),
        ((two, "--report", "x.html", "--video", "x.mp4"), "expected CAMERA=PATH with one of door, gate"),
        ((tmp_path / "none.jsonl",), "check the path"),
        (("kafka://127.0.0.1:1/faces", "--merge", "1,2"), "give --edits FILE.json"),
        (("kafka://127.0.0.1:1/faces", "--merge", "1,2", "--edits", tmp_path / "e.json"), "no broker"),
    ]:
        done = run(*args)
        assert done.exit_code in {1, 2}
        assert message in done.stderr, done.stderr
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
    assert "1 person in 1 track" in run(mixed, "--model", "sface-2021dec").stdout


@pytest.mark.parametrize("name", ["a[/red]b", "\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe", "a\nb"])
def test_names_from_anybody_do_nothing_to_a_terminal(tmp_path: Path, name: str) -> None:
    source = write_lines(tmp_path / "events.jsonl", track(0, 0, camera_id=name, track_id=name))
    shown = "".join(char if char.isprintable() else "?" for char in name)
    for args in ((), ("--show", 1)):
        done = run(source, *args)
        assert done.exit_code == 0, done.output
        assert set(done.stdout) - {"\n"} == {char for char in done.stdout if char.isprintable()}
        assert shown[:8] in done.stdout.replace("\n", "")


@pytest.mark.kafka
def test_the_tracks_of_a_topic_are_grouped(kafka_broker: str, tmp_path: Path) -> None:
    address = f"kafka://{kafka_broker}/clusters-{secrets.token_hex(4)}"
    sink = open_sink(address)
    sink.emit([*four_tracks_of_two(), track(1, 1, sequence=3)])
    sink.close(120.0)
    edits = tmp_path / "corrections.json"
    assert "2 people in 4 tracks" in run(address).stdout
    assert "1 person in 4 tracks" in run(address, "--merge", "1,2", "--edits", edits).stdout
    assert "1 person in 4 tracks" in run(address, "--edits", edits).stdout
    done = run(address, "--split", "door-7f3a-0")
    assert (done.exit_code, "give --edits FILE.json" in done.stderr) == (2, True)


def test_tracks_are_grouped_as_they_leave(tmp_path: Path) -> None:
    first, second, *later = four_tracks_of_two()
    events = write_lines(tmp_path / "events.jsonl", first, second)
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "stream.cli", "cluster", str(events), "--follow"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            with events.open("ab") as file:
                file.write(b"".join(to_json(event) + b"\n" for event in later))
            lines += [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            lines += process.stdout.readlines()
        finally:
            process.kill()
    people = [re.search(r"person (\d), (.*)", line).groups() for line in lines[:4]]  # type: ignore[union-attr]
    assert people == [
        ("1", "somebody new"),
        ("2", "somebody new"),
        ("1", "seen before"),
        ("2", "seen before"),
    ]
    assert lines[4] == "2 people in 4 tracks\n"
    assert process.returncode == 0


def test_following_goes_with_nothing_that_needs_all_tracks(events: Path) -> None:
    result = run(events, "--follow", "--report", "page.html")
    assert result.exit_code == 2
