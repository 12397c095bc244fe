"""The command as a user meets it, in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from event_checks import validate_event
from real_time import in_real_time

from stream.common.encryption import KEY_VARIABLE, Sealer
from stream.events.cloudevents import from_json
from stream.events.event_types import CameraChange, CameraEvent, Event, FaceEvent, TrackChange
from stream.gallery.best_shots import BestShots
from stream.video.drawing import save_png

COMMAND = (sys.executable, "-m", "stream.cli")
TIMEOUT_S = 300


def facestream(
    *args: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | (env or {}),
        cwd=cwd,
    )


def read_events(text: str) -> list[Event]:
    events = []
    for line in text.splitlines():
        validate_event(json.loads(line))
        events.append(from_json(line))
    return events


def assert_one_line(done: subprocess.CompletedProcess[str], words: str, *, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "[info" not in line)
    assert line.startswith("error: "), line
    assert words in line


@pytest.fixture(scope="module")
def first_run(portrait_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a run with all outputs has made."""
    folder = tmp_path_factory.mktemp("run")
    done = facestream(
        *("run", portrait_clip, "--sink", f"jsonl:{folder}/events.jsonl"),
        *("--sink", f"sqlite:{folder}/events.db", "--render", folder / "out.mp4"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for told in (f"events={folder}/events.jsonl", f"events={folder}/events.db", f"video={folder}/out.mp4"):
        assert f"written {told}" in done.stderr.replace("'", "").replace("  ", " ")
    return folder


def test_one_person_who_leaves_and_comes_back_is_one_track(first_run: Path) -> None:
    events = read_events((first_run / "events.jsonl").read_text())
    assert isinstance(events[0], CameraEvent)
    assert events[0].change is CameraChange.UP
    assert isinstance(events[-1], CameraEvent)
    assert events[-1].change is CameraChange.DOWN
    faces = [event for event in events if isinstance(event, FaceEvent)]
    assert len({event.track_id for event in faces}) == 1
    assert faces[0].change is TrackChange.APPEARED
    assert faces[-1].change is TrackChange.LEFT
    assert [event.sequence for event in faces] == list(range(len(faces)))
    assert 0.5 <= faces[0].media_time_s < 1.0
    assert (faces[-1].last_seen - faces[-1].first_seen).total_seconds() > 17.0


def test_sqlite_holds_the_same_events(first_run: Path) -> None:
    lines = [json.loads(line) for line in (first_run / "events.jsonl").read_text().splitlines()]
    with sqlite3.connect(first_run / "events.db") as database:
        rows = database.execute("SELECT id, type, data FROM events").fetchall()
        tracks = database.execute("SELECT state, length(embedding) FROM tracks").fetchall()
    database.close()
    assert {(row[0], row[1]): json.loads(row[2]) for row in rows} == {
        (line["id"], line["type"]): line["data"] for line in lines
    }
    assert tracks == [("left", 4 * 128)]


def test_the_rendered_video_shows_every_frame_that_was_looked_at(first_run: Path) -> None:
    from stream.video.gstreamer.decoding import count_frames

    assert count_frames((first_run / "out.mp4").as_uri()) == 200


def test_a_second_run_gives_the_same_ids(first_run: Path, portrait_clip: Path) -> None:
    again = facestream("run", portrait_clip, "--no-realtime")  # jsonl:- where no terminal is
    before = (first_run / "events.jsonl").read_text()
    assert [event.event_id for event in read_events(again.stdout)] == [
        event.event_id for event in read_events(before)
    ]


def test_pictures_are_kept_where_the_configuration_says_so(short_clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "facestream.yaml"
    config.write_text(f"best_shots: {{dir: {tmp_path}/shots, keep_days: 7}}")
    key = base64.b64encode(bytes(range(32))).decode()
    done = facestream("run", short_clip, "--config", config, env={KEY_VARIABLE: key})
    assert done.returncode == 0, done.stderr
    (track_id,) = {event.track_id for event in read_events(done.stdout) if isinstance(event, FaceEvent)}
    (file,) = (tmp_path / "shots").iterdir()
    assert file.name == f"{track_id}.jpg.sealed"
    shot = BestShots(tmp_path / "shots", sealer=Sealer(bytes(range(32)))).read(track_id)
    assert shot is not None
    assert min(shot.shape[:2]) > 60


def test_several_sources_at_once_and_a_bad_one_among_them(
    portrait: object, tmp_path: Path, short_clip: Path
) -> None:
    folder = tmp_path / "frames"
    for number in range(30):
        save_png(portrait, folder / f"{number}.png")
    done = facestream(
        *(
            "run",
            folder,
            "test://ball?frames=50",
            tmp_path / "missing.mp4",
            short_clip,
            "--sink",
            "jsonl:-",
        )
    )
    assert_one_line(done, "missing.mp4: no such file")
    events = read_events(done.stdout)
    appeared = [e.camera_id for e in events if isinstance(e, FaceEvent) and e.change is TrackChange.APPEARED]
    assert sorted(appeared) == ["frames", "portrait"]
    down = [e for e in events if isinstance(e, CameraEvent) and e.change is CameraChange.DOWN]
    assert sorted(event.camera_id for event in down) == ["frames", "missing", "portrait", "test-ball"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"these are words and no video\n" * 50, "not a video"),
        (b"", "empty"),
    ],
)
def test_a_file_that_is_no_video(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert_one_line(facestream("run", path), words)


def test_a_truncated_file_is_read_as_far_as_it_goes(portrait_clip: Path, tmp_path: Path) -> None:
    whole = portrait_clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    done = facestream("run", tmp_path / "cut.mp4")
    assert_one_line(done, "cut.mp4")


@pytest.mark.parametrize(
    ("option", "model", "words"),
    [
        ("--embedder", "yunet", "is a detector"),
        ("--detector", "sface", "is not a detector"),
        ("--embedder", "nobody", "no such model"),
    ],
)
def test_a_model_that_does_something_else(option: str, model: str, words: str, short_clip: Path) -> None:
    code = 1 if model == "nobody" else 2
    assert_one_line(facestream("run", short_clip, option, model), words, code=code)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert_one_line(facestream("run", tmp_path), "no picture")


def test_bad_arguments_are_said_before_anything_begins(tmp_path: Path) -> None:
    clip = "test://ball?frames=1"
    config = tmp_path / "c.yaml"
    config.write_text("cameras: [{id: a, uri: 'test://ball?frames=1', pasword: geheim}]")
    assert_one_line(facestream("run", "gopher://x"), "unknown scheme")
    assert_one_line(facestream("run", "--config", config), "pasword: unknown key", code=2)
    assert_one_line(facestream("run", "--config", tmp_path / "none.yaml"), "cannot read", code=2)
    assert_one_line(facestream("run"), "nothing to watch", code=2)
    assert_one_line(facestream("run", "rtsp://${NOT_SET_AT_ALL}@h/x"), "NOT_SET_AT_ALL is not set", code=2)
    assert_one_line(facestream("run", clip, "--sink", "mqtt://h/t"), "expected kafka://")
    assert_one_line(facestream("run", clip, "--sink", f"jsonl:{tmp_path}/no/e"), "mkdir -p")
    assert_one_line(facestream("run", clip, "--sink", f"sqlite:{tmp_path}"), "cannot be opened")
    assert_one_line(
        facestream("run", clip, "--sink", "kafka://127.0.0.1:x/t"), "expected kafka://HOST[:PORT]"
    )
    assert_one_line(facestream("run", clip, "--metrics", "nowhere"), "expected HOST:PORT", code=2)
    assert_one_line(facestream("run", clip, "--render", tmp_path / "x.avi"), ".mp4")


def test_without_a_broker_events_wait_and_are_counted(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    done = facestream("run", "test://ball?frames=1", "--sink", "kafka://127.0.0.1:1/t", env=env)
    assert done.returncode == 1
    assert "they wait in the spool" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "error: kafka://127.0.0.1:1/t: 2 events were not delivered"
    )
    assert "cannot be reached" in done.stderr
    assert "2" in facestream("spool", "status", env=env).stdout


def test_a_model_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    from engine.models.catalogue import load_model

    package = load_model("yunet", cache_dir=tmp_path)
    package.save(tmp_path / "yunet.json")
    package.onnx_path.write_bytes(package.onnx_path.read_bytes() + b"\0")
    config = tmp_path / "c.yaml"
    config.write_text(f"models: {{detector: {tmp_path}/yunet.json}}")
    assert_one_line(facestream("run", "test://ball?frames=1", "--config", config), "SHA-256")


@in_real_time
def test_a_password_is_nowhere(tmp_path: Path) -> None:
    done = facestream(
        *(
            "run",
            "rtsp://viewer:${CAMERA_PASSWORD}@127.0.0.1:1/x",
            "--max-seconds",
            "1",
            "--log-format",
            "json",
        ),
        *("--sink", f"jsonl:{tmp_path}/e.jsonl", "--debug"),
        env={"CAMERA_PASSWORD": "geheim-9"},
    )
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line) for line in done.stderr.splitlines())
    said = done.stdout + done.stderr + (tmp_path / "e.jsonl").read_text()
    assert "camera down" in said
    assert "geheim-9" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_tracks_and_exits_in_order(
    number: signal.Signals, portrait_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "events.jsonl"
    process = subprocess.Popen(
        [*COMMAND, "run", str(portrait_clip), "--realtime", "--sink", f"jsonl:{out}"], stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (out.exists() and b"appeared" in out.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        begun = time.monotonic()
        _, said = process.communicate(timeout=TIMEOUT_S)
        assert time.monotonic() - begun < 15.0, "the clip goes on for longer"
    finally:
        process.kill()
    assert process.returncode == 0, said
    last = [type(event).__name__ + " " + event.change.value for event in read_events(out.read_text())][-2:]
    assert last == ["FaceEvent left", "CameraEvent down"]


def test_a_closed_terminal_closes_tracks_and_a_second_hangup_changes_nothing(
    portrait_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "events.jsonl"
    child, terminal = pty.fork()
    if child == 0:
        command = [*COMMAND, "run", str(portrait_clip), "--realtime", "--sink", f"jsonl:{out}"]
        os.execv(command[0], command)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not (out.exists() and b"appeared" in out.read_bytes()):
            assert time.monotonic() < deadline
            if select.select([terminal], [], [], 0.05)[0]:
                os.read(terminal, 65536)
        os.close(terminal)  # which the kernel tells the process as SIGHUP
        os.kill(child, signal.SIGHUP)
        _, status = os.waitpid(child, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(status) == 0
    left, down = read_events(out.read_text())[-2:]
    assert (left.change, down.change) == (TrackChange.LEFT, CameraChange.DOWN)
    assert isinstance(down, CameraEvent)
    assert down.planned is True


@in_real_time
def test_max_seconds_ends_in_order() -> None:
    done = facestream("run", "test://ball", "--max-seconds", "1", "--sink", "jsonl:-")
    assert done.returncode == 0, done.stderr
    up, down = read_events(done.stdout)
    assert (up.change, down.change) == (CameraChange.UP, CameraChange.DOWN)
    assert isinstance(down, CameraEvent)
    assert down.planned is True
    assert "warning" not in done.stderr


def test_doctor_finds_what_the_tests_run_on() -> None:
    done = facestream("doctor", env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout
    for word in ("GStreamer", "openvino", "onnxruntime", "SHA-256 checked", "decodes H.264", "telemetry"):
        assert word in done.stdout
    done = facestream("doctor", "--broker", "127.0.0.1:1", env={"COLUMNS": "200"})
    assert done.returncode == 1
    assert "no broker accepts the connection" in done.stdout


def in_a_shell(words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", words], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=os.environ
    )


def test_a_closed_standard_error_is_one_that_nobody_reads() -> None:
    done = in_a_shell(f"{shlex.join(COMMAND)} models show sface <&- 2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert "SHA-256" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        "run 'test://ball?frames=3' --sink jsonl:-",
        "events tail {events}",
        "faces find {photo} --json",
        "models show sface",
        "--version",
    ],
)
def test_what_cannot_be_printed_is_an_error(words: str, first_run: Path) -> None:
    photo = first_run / "photo.png"
    save_png(np.full((64, 64, 3), 128, np.uint8), photo)
    words = words.format(events=shlex.quote(f"{first_run}/events.jsonl"), photo=shlex.quote(str(photo)))
    for where, told in ((">&-", "standard output is closed"), (">/dev/full", "No space left on device")):
        assert_one_line(in_a_shell(f"{shlex.join(COMMAND)} {words} {where}"), told)


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.4])
def test_ctrl_c_while_the_command_loads_leaves_no_trace(after_s: float) -> None:
    program = "import time; from stream.cli import entry; print('here', flush=True); entry.main()"
    command = subprocess.Popen(
        [sys.executable, "-c", program, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "here\n"
    time.sleep(after_s)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=TIMEOUT_S)
    assert command.returncode == 130
    assert said.count("\n") <= 1, said


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("doctor", "looking at this machine"),
        ("models verify yunet", "verifying yunet"),
        ("faces compare a.jpg b.jpg", "loading"),
        ("bench events --broker 127.0.0.1:1", "loading"),
    ],
)
def test_a_terminal_hears_at_once_what_a_command_does(words: str, first: str) -> None:
    terminal, inside = pty.openpty()
    command = subprocess.Popen(
        [*COMMAND, *words.split()], stdout=subprocess.DEVNULL, stderr=inside, stdin=subprocess.DEVNULL
    )
    os.close(inside)
    said = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            said += chunk
    os.close(terminal)
    command.wait(TIMEOUT_S)
    assert first in said.decode().splitlines()[0]


def test_a_run_says_first_that_it_loads_models() -> None:
    done = facestream("run", "test://ball?frames=3", "--sink", "jsonl:/dev/null")
    first, *rest = done.stderr.splitlines()
    assert "loading models detector=yunet embedder=sface" in first
    assert "yunet-2023mar runs on" in rest[0]


def test_help_says_what_there_is() -> None:
    done = facestream("--help")
    assert done.returncode == 0
    for command in ("run", "demo", "doctor", "bench"):
        assert command in done.stdout
