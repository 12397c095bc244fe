"""Servers that play recordings: to a camera's name an end is a failure, to ``ends: true`` it is the end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from camera_process import CameraProcess
from captured import capture_logs
from web_camera import serve

from engine.errors import SourceError
from stream.video.frames import CameraState, CameraStatus
from stream.video.sources import open_source

FRAMES = 12


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same film as ``film.mp4`` and ``film.flv``."""
    folder = tmp_path_factory.mktemp("films")
    size = "video/x-raw,width=160,height=120,framerate=25/1"
    video = f"videotestsrc num-buffers={FRAMES} ! {size} ! x264enc ! h264parse"
    for muxer, name in (("mp4mux", "film.mp4"), ("flvmux streamable=true", "film.flv")):
        command = f"gst-launch-1.0 -q {video} ! {muxer} ! filesink location={folder / name}"
        subprocess.run(command.split(), check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def player(films: Path) -> Iterator[str]:
    """Address of a recorder that plays half a second to each client, and says that it is as long."""
    process = CameraProcess("--file", str(films / "film.mp4"), "--unshared")
    yield f"rtsp://127.0.0.1:{process.port}/live"
    process.kill()


def test_a_camera_whose_server_comes_to_an_end_is_tried_again(player):
    statuses: list[CameraStatus] = []
    source = open_source(camera_id="door", uri=player, analysis_fps=None, on_status=statuses.append)
    for _ in source.frames():
        if source.stats().reconnects == 2:
            break
    source.close()
    states = [status.state.value for status in statuses[:6]]
    assert states == ["connecting", "up", "down", "up", "down", "up"]
    assert "the server announced 0.5 s" in statuses[2].reason
    assert "ends: true" in statuses[2].reason


def test_a_recording_ends(player):
    statuses: list[CameraStatus] = []
    source = open_source(
        camera_id="door", uri=player, ends=True, analysis_fps=None, on_status=statuses.append
    )
    assert len(list(source.frames())) > FRAMES / 2
    assert [status.state for status in statuses] == [
        CameraState.CONNECTING,
        CameraState.UP,
        CameraState.ENDED,
    ]


def test_a_recording_that_breaks_off_is_told():
    process = CameraProcess()
    uri = f"rtsp://127.0.0.1:{process.port}/live"
    source = open_source(camera_id="door", uri=uri, ends=True)
    frames = source.frames()
    next(frames)
    process.kill()
    with pytest.raises(SourceError, match="the stream ended"):
        list(frames)


def test_a_recording_that_is_not_there_is_told(player):
    with pytest.raises(SourceError, match="no such stream"):
        list(open_source(camera_id="door", uri=f"{player}/none", ends=True).frames())


@pytest.fixture(scope="module")
def site(films: Path) -> Iterator[str]:
    """A web server that does not say how long its answers are."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write((films / Path(request.path).name).read_bytes())

    with serve(send) as host:
        yield f"http://{host}"


def test_what_is_a_film_only_by_its_name_must_not_just_end(site):
    with capture_logs() as logs, pytest.raises(SourceError, match=r"ends: false .* ends: true") as caught:
        list(open_source(camera_id="web", uri=f"{site}/film.flv").frames())
    assert "the stream ended" in str(caught.value)
    assert ["does not say how long" in log["event"] for log in logs if log["log_level"] == "warning"] == [
        True
    ]


def test_a_film_that_is_said_to_end_may_end(site):
    source = open_source(camera_id="web", uri=f"{site}/film.flv", ends=True, analysis_fps=None)
    assert len(list(source.frames())) == FRAMES


def test_a_camera_that_has_the_name_of_a_film_is_tried_again(site):
    source = open_source(camera_id="web", uri=f"{site}/film.flv", ends=False, analysis_fps=None)
    for _ in source.frames():
        if source.stats().reconnects == 1:
            source.close()
    assert source.stats().reconnects == 1
