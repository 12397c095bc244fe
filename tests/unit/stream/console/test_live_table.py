from __future__ import annotations

import io
import json
import logging
import re

import pytest
from event_checks import camera_event, face_event, identity_event
from rich.console import Console
from rich.table import Table

from stream.cli.doctor import Finding, Verdict, show_findings
from stream.common.logs import configure_logging, get_logger
from stream.console.live_table import EventPrinter, LiveTable, RateMeter, camera_table, describe_event
from stream.console.terminal import open_console, text_table
from stream.events.event_types import TrackChange
from stream.pipeline.pipeline import CameraReport
from stream.video.frames import CameraState


def test_events_in_a_line():
    assert "camera down: no frame for 3 s" in describe_event(camera_event())
    line = describe_event(face_event(change=TrackChange.LEFT))
    assert "door  track door-7f3a-1 left  quality 0.74, 12 faces, 0.0 s in view" in line


def test_one_face_is_one_face():
    assert "quality 0.74, 1 face" in (line := describe_event(face_event(faces_seen=1)))
    assert "faces" not in line


def test_who_was_recognised_is_said_with_each_line_about_the_track(capsys: pytest.CaptureFixture[str]):
    printer = EventPrinter()
    printer.emit([face_event(), identity_event(person_name="Ann Example")])
    printer.emit([face_event(change=TrackChange.UPDATED), face_event(track_id="other")])
    printer.emit([face_event(change=TrackChange.UPDATED), identity_event(person_name=None)])
    appeared, decided, updated, other, corrected, unknown = capsys.readouterr().out.splitlines()
    assert "decided Ann Example" in decided
    assert all("Ann Example  quality" in line for line in (appeared, updated))
    assert not any("Ann" in line for line in (other, corrected, unknown))


def test_a_run_that_has_ended_shows_its_mean_rate(monkeypatch: pytest.MonkeyPatch):
    now_s = 0.0
    monkeypatch.setattr("stream.console.live_table.time.monotonic", lambda: now_s)
    out = Console(file=io.StringIO(), width=120)
    report = CameraReport("door", "rtsp://h/x", state=CameraState.UP)
    with LiveTable(out, {"door": report}):
        report.frames, now_s = 370, 37.0
        for _ in range(3):  # nothing comes any more
            now_s += 1.0
    assert "9.2" in out.file.getvalue()


def test_waiting_for_a_broker_after_the_end_does_not_lower_the_mean_rate(monkeypatch: pytest.MonkeyPatch):
    now_s = 0.0
    monkeypatch.setattr("stream.console.live_table.time.monotonic", lambda: now_s)
    report = CameraReport("door", "rtsp://h/x", state=CameraState.UP)
    with LiveTable(Console(file=io.StringIO(), width=120), {"door": report}) as table:
        report.frames, now_s, report.state = 370, 37.0, CameraState.ENDED
        assert table.rates() == {"door": 10.0}
        now_s += 10.0
    assert table.rates() == {"door": 10.0}


def test_the_rate_is_of_the_last_seconds():
    meter = RateMeter()
    rates = [meter.rate(10 * second, now_s=float(second)) for second in range(20)]
    assert rates[0] == 0.0
    assert abs(rates[-1] - 10.0) < 0.1


def test_the_table_shows_each_camera():
    out = Console(file=io.StringIO(), width=120)
    reports = [
        CameraReport("door", "rtsp://h/x", state=CameraState.UP, frames=12, lag_s=0.08),
        CameraReport("yard", "rtsp://h/y", state=CameraState.DOWN, dropped=3),
    ]
    out.print(camera_table(reports, {"door": 9.96}))
    text = out.file.getvalue()
    assert "80 ms" in text
    assert "10.0" in text
    assert "down" in text


@pytest.mark.parametrize("width", [80, 160])
def test_a_camera_that_is_down_shows_why_on_any_terminal(width: int):
    out = Console(file=io.StringIO(), width=width)
    reason = "rtsp://h/y: the server refused the user name or password"
    reports = [
        CameraReport("door", "rtsp://h/x", state=CameraState.UP, frames=1_234_567, lag_s=0.08),
        CameraReport("yard", "rtsp://h/y", state=CameraState.DOWN, reason=reason),
    ]
    out.print(camera_table(reports, {}, width=width))
    text = out.file.getvalue()
    assert "\u2026" not in text
    words = ["reason", "the", "server", "refused", "the", "user", "name", "or", "password", "lag"]
    assert set(words) <= set(text.split())
    assert "rtsp" not in text
    assert ("1234567" in text) == (width > 120)


def test_a_terminal_of_80_columns_has_room_for_every_figure():
    out = Console(file=io.StringIO(), width=80)
    report = CameraReport(
        "a-camera-of-the-longest-name-that-there-may-be-in-a-file-of-settings",
        "rtsp://h/x",
        state=CameraState.CONNECTING,
        frames=1_234_567,
        tracks=12_345,
        events=123_456,
        dropped=12_345,
        lag_s=1.234,
    )
    out.print(camera_table([report], {report.camera_id: 29.97}))
    text = out.file.getvalue()
    assert "\u2026" not in text
    for shown in ("frames/s", "dropped", "connecting", "1234567", "12345", "123456", "1234 ms"):
        assert shown in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_of_texts_cuts_nothing_off():
    out = Console(file=io.StringIO(), width=40)
    table = text_table("", "file")
    table.add_row("SHA-256", "0123456789abcdef" * 4)
    out.print(table)
    assert sum(map(out.file.getvalue().count, "0123456789")) >= 40
    assert "\u2026" not in out.file.getvalue()


WIDE = Table("what", "found", "a path", title="found here")
WIDE.add_row("GStreamer", "a few words that go on and on for a while", "/usr/lib/" + "long/" * 8)
WIDE.add_row("大厅", "nothing", "")


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
def test_no_terminal_breaks_a_word_of_a_table(width: int):
    out = open_console()
    out.file, out.width, out._force_terminal = io.StringIO(), width, True
    out.print(WIDE)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue())
    words = {word for column in WIDE.columns for cell in column.cells for word in cell.split()}
    assert words <= set(text.split())
    assert "\u2026" not in text


def test_a_pipe_gets_a_table_in_plain_lines():
    out = open_console()
    out.file, out.width = io.StringIO(), 40
    out.print(WIDE)
    path = "/usr/lib/" + "long/" * 8
    assert out.file.getvalue().splitlines() == [
        "found here",
        "what       found                                      a path",
        f"GStreamer  a few words that go on and on for a while  {path}",
        "大厅       nothing",
    ]


@pytest.mark.parametrize("width", [40, 200])
def test_a_command_to_copy_has_a_line_of_its_own(width: int):
    out = open_console()
    out.file, out.width, out._force_terminal = io.StringIO(), width, True
    command = "sudo apt install gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav"
    found = [Finding("decodes AV1", Verdict.FAILED, "no decoder", command), Finding("x", Verdict.OK, "y")]
    show_findings(found, out)
    assert f"    {command}" in re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue()).splitlines()


def test_secrets_in_logs_are_hidden():
    out = io.StringIO()
    configure_logging(fmt="json", stream=out)
    try:
        get_logger("test").info("opening", uri="rtsp://viewer:geheim@h/x?token=geheim")
    finally:
        logging.getLogger("facestream").handlers.clear()
    entry = json.loads(out.getvalue())
    assert entry["event"] == "opening"
    assert entry["uri"].startswith("rtsp://")
    assert "geheim" not in out.getvalue()


def test_what_could_steer_a_terminal_is_not_obeyed_in_logs():
    out = io.StringIO()
    configure_logging(stream=out, colors=False)
    try:
        get_logger("test").warning("down", camera="door\x1b]0;title\x07", reason="no\x1b[2J answer")
        try:
            int("1\x1b[2J")
        except ValueError as exc:
            error = ValueError("first\x1b[2J\nsecond")
            get_logger("test").warning("failed", exc_info=error.with_traceback(exc.__traceback__))
    finally:
        logging.getLogger("facestream").handlers.clear()
    assert "\x1b" not in out.getvalue()
    assert "camera=door?]0;title?" in out.getvalue()
    assert "ValueError: first?[2J\nsecond" in out.getvalue(), "a trace keeps its lines"
