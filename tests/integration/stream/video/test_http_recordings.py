from __future__ import annotations

import base64
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from real_time import in_real_time

from engine.errors import SourceError
from stream.video.frames import CameraState, CameraStatus, Frame
from stream.video.sources import open_source


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(b"viewer:hunter2").decode()
        if self.path.startswith("/locked/") and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="films"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[str]:
    """Address of a web server with a film and an HLS stream."""
    folder: Path = tmp_path_factory.mktemp("site")
    for name in ("locked", "hls", "live"):
        (folder / name).mkdir()
    size = "video/x-raw,width=160,height=120,framerate=30/1"
    video = f"videotestsrc num-buffers={{}} ! {size} ! x264enc key-int-max=15"
    film = video.format(90) + f" ! mp4mux faststart=true ! filesink location={folder}/film.mp4"
    playlist_path = folder / "hls" / "index.m3u8"
    # not hlssink2, which hangs now and then at the end of so short a video
    sink = f"hlssink target-duration=1 playlist-length=0 max-files=0 playlist-location={playlist_path}"
    hls = video.format(60) + f" ! h264parse ! mpegtsmux ! {sink} location={folder}/hls/%d.ts"
    for pipeline in (film, hls):
        subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, timeout=300)
    film_bytes = (folder / "film.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(film_bytes[: len(film_bytes) // 2])
    (folder / "locked" / "film.mp4").write_bytes((folder / "film.mp4").read_bytes())
    playlist = playlist_path.read_text()
    assert "#EXT-X-ENDLIST" in playlist
    (folder / "live" / "index.m3u8").write_text(playlist.replace("#EXT-X-ENDLIST", ""))
    for segment in (folder / "hls").glob("*.ts"):
        (folder / "live" / segment.name).write_bytes(segment.read_bytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_film_ends_like_a_file(site):
    source = open_source(camera_id="web", uri=f"http://{site}/film.mp4", analysis_fps=None)
    assert [frame.number for frame in source.frames()] == list(range(90))


def test_a_film_that_the_server_has_in_part_is_told(site):
    source = open_source(camera_id="web", uri=f"http://{site}/cut.mp4", analysis_fps=None)
    frames: list[Frame] = []
    with pytest.raises(SourceError, match=r"of 3\.0 s: the video is cut off"):
        frames.extend(source.frames())
    assert 10 < len(frames) < 60


def test_user_name_and_password_are_sent(site):
    source = open_source(
        camera_id="web", uri=f"http://viewer:hunter2@{site}/locked/film.mp4", analysis_fps=None
    )
    assert len(list(source.frames())) == 90


@pytest.mark.parametrize(
    ("path", "says"),
    [("none.mp4", "no such stream"), ("locked/film.mp4", "refused the user name or password")],
)
def test_what_is_not_to_be_had_is_told(site, path, says):
    source = open_source(camera_id="web", uri=f"http://viewer:wrongword@{site}/{path}?token=sesame99")
    with pytest.raises(SourceError, match=says) as caught:
        list(source.frames())
    assert "wrongword" not in str(caught.value)
    assert "sesame99" not in str(caught.value)


def test_a_server_that_is_not_there_is_told():
    source = open_source(camera_id="web", uri="http://127.0.0.1:9/film.mp4")
    with pytest.raises(SourceError, match="Connection refused"):
        list(source.frames())


@in_real_time
def test_hls_on_demand_plays_in_its_own_time_and_ends_where_that_is_said(site):
    statuses: list[CameraStatus] = []
    source = open_source(
        camera_id="web",
        uri=f"http://{site}/hls/index.m3u8",
        analysis_fps=None,
        ends=True,
        realtime=True,
        on_status=statuses.append,
    )
    frames = list(source.frames())
    assert source.stats().decoded == 60
    assert (frames[-1].captured_at - frames[0].captured_at).total_seconds() == pytest.approx(59 / 30, abs=0.4)
    assert [status.state for status in statuses] == [
        CameraState.CONNECTING,
        CameraState.UP,
        CameraState.ENDED,
    ]


def test_hls_on_demand_is_a_camera_unless_said_otherwise(site):
    source = open_source(camera_id="web", uri=f"http://{site}/hls/index.m3u8", analysis_fps=None)
    for _ in source.frames():
        if source.stats().reconnects == 1:
            source.close()
    assert source.stats().reconnects == 1


@in_real_time
def test_live_hls_that_stops_is_down(site):
    statuses: list[CameraStatus] = []

    def note(status: CameraStatus) -> None:
        statuses.append(status)
        if status.state is CameraState.DOWN:
            source.close()

    uri = f"http://{site}/live/index.m3u8"
    source = open_source(camera_id="web", uri=uri, stall_timeout_s=1.0, on_status=note)
    assert len(list(source.frames())) > 5
    states = [status.state for status in statuses]
    assert states == [CameraState.CONNECTING, CameraState.UP, CameraState.DOWN, CameraState.ENDED]


def test_a_host_of_no_proxy_is_asked_directly(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    source = open_source(camera_id="a", uri=f"http://{site}/film.mp4")
    with pytest.raises(SourceError, match=r"cannot connect to the proxy 127\.0\.0\.1 port 1"):
        next(source.frames())
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    frames = open_source(camera_id="a", uri=f"http://{site}/film.mp4").frames()
    assert next(frames).image.shape == (120, 160, 3)
    frames.close()
