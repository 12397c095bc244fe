"""Cameras behind HTTP: streams without an end, and single pictures that are asked for again and again."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from real_time import in_real_time
from web_camera import serve

from stream.video.frames import CameraState, CameraStatus, Frame, FrameSource
from stream.video.sources import open_source

WAIT_S = 20.0
USER, PASSWORD = "viewer", "hunter2/with@signs"


def picture(number: int, suffix: str = ".jpg") -> bytes:
    """Noise, so that it is some 8 kB, as small as cameras' pictures are."""
    image = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


def part(number: int, *, with_length: bool = True, kind: bytes = b"image/jpeg") -> bytes:
    jpeg = picture(number)
    length = b"Content-Length: %d\r\n" % len(jpeg) if with_length else b""
    return b"--frame\r\nContent-Type: " + kind + b"\r\n" + length + b"\r\n" + jpeg + b"\r\n"


def answer(request: BaseHTTPRequestHandler, kind: str, body: bytes, *, with_length: bool) -> None:
    request.send_response(200)
    request.send_header("Content-Type", kind)
    if with_length:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def held(kind: str, body: bytes) -> Iterator[str]:
    """A camera that sends so much and then holds the connection, as if its next picture took long."""
    over = threading.Event()

    def send(request: BaseHTTPRequestHandler) -> None:
        answer(request, kind, body, with_length=False)
        over.wait()

    with serve(send) as host:
        try:
            yield f"http://{host}/camera"
        finally:
            over.set()


def watch(uri: str, **arguments: object) -> FrameSource:
    defaults = {"analysis_fps": None, "open_timeout_s": WAIT_S, "stall_timeout_s": WAIT_S}
    return open_source(camera_id="door", uri=uri, **defaults | arguments)


def first(source: FrameSource, count: int) -> list[Frame]:
    frames = list(islice(source.frames(), count))
    source.close()
    return frames


@pytest.mark.parametrize("with_length", [True, False])
def test_motion_jpeg_shows_its_first_picture_at_once(with_length):
    body = part(0, with_length=with_length) + part(1, with_length=with_length) + b"--frame\r\n"
    with held("multipart/x-mixed-replace; boundary=frame", body) as uri:
        (frame,) = first(watch(uri), 1)
    assert frame.size_wh == (64, 48)


H264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! h264parse"
VP8 = "vp8enc deadline=1 keyframe-max-dist=10"
SOUND = "audiotestsrc num-buffers=150 ! avenc_aac ! m. m."


@pytest.mark.parametrize(
    ("kind", "coding"),
    [
        ("video/mp2t", f"{H264} config-interval=-1 ! mpegtsmux"),
        ("video/x-flv", f"{H264} ! flvmux streamable=true"),
        ("video/x-flv", f"{H264} ! flvmux streamable=true name=m {SOUND}"),
        ("video/x-matroska", f"{H264} ! matroskamux streamable=true"),
        ("video/webm", f"{VP8} ! webmmux streamable=true"),
        ("video/x-motion-jpeg", "jpegenc"),
        ("image/jpeg", "jpegenc"),
        ("", "jpegenc"),
    ],
    ids=["ts", "flv", "flv-sound", "mkv", "webm", "mjpeg", "jpegs", "jpegs-unnamed"],
)
def test_two_seconds_of_a_live_stream_are_enough_for_its_first_pictures(tmp_path, kind, coding):
    source = "videotestsrc num-buffers=20 pattern=ball ! video/x-raw,width=64,height=48,framerate=10/1"
    command = f"gst-launch-1.0 -q {source} ! {coding} ! filesink location={tmp_path}/stream"
    subprocess.run(shlex.split(command), check=True, timeout=300)
    with held(kind, Path(tmp_path, "stream").read_bytes()) as uri:
        assert len(first(watch(uri), 1)) == 1


@pytest.mark.parametrize("kind", [b"image/jpg", b"image/pjpeg", b"Image/JPEG"])
def test_motion_jpeg_may_have_other_names(kind):
    stream = b"".join(part(number, kind=kind) for number in range(3))
    with held("multipart/x-mixed-replace; boundary=frame", stream) as uri:
        source = watch(uri)
        too_late = threading.Timer(WAIT_S, source.close)
        too_late.start()
        assert len(first(source, 1)) == 1
        too_late.cancel()


@in_real_time
def test_pictures_without_times_have_those_at_which_they_come():
    def send(request: BaseHTTPRequestHandler) -> None:
        answer(request, "multipart/x-mixed-replace; boundary=frame", b"", with_length=False)
        for number in range(1000):
            request.wfile.write(part(number))
            time.sleep(0.2)

    with serve(send) as host:
        frames = first(watch(f"http://{host}/camera"), 8)
    assert frames[-1].time_s - frames[0].time_s == pytest.approx(1.4, abs=0.3)
    assert (frames[-1].captured_at - frames[0].captured_at).total_seconds() == pytest.approx(1.4, abs=0.3)


@pytest.mark.parametrize(
    ("suffix", "kind", "with_length"), [(".jpg", "image/jpeg", True), (".png", "image/png", False)]
)
def test_a_single_picture_is_asked_for_at_the_rate_of_analysis(suffix, kind, with_length):
    statuses: list[CameraStatus] = []
    asked: list[str] = []

    def send(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        answer(request, kind, picture(len(asked), suffix), with_length=with_length)

    with serve(send) as host:
        source = watch(f"http://{host}/snap{suffix}", analysis_fps=5.0, on_status=statuses.append)
        frames = first(source, 6)
    assert 6 <= len(asked) <= 7
    assert [status.state for status in statuses[:2]] == [CameraState.CONNECTING, CameraState.UP]
    assert CameraState.DOWN not in [status.state for status in statuses]
    assert source.stats().reconnects == 0
    assert [frame.number for frame in frames] == list(range(6))
    # Pictures arrive up to a poll apart from when they were asked for.
    assert frames[-1].time_s - frames[0].time_s > 0.5
    assert np.any(frames[0].image != frames[-1].image)


def test_a_single_picture_that_is_gone_is_an_outage():
    statuses: list[CameraStatus] = []
    asked: list[str] = []

    def send(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if len(asked) in (3, 4):
            request.send_error(404)
        else:
            answer(request, "image/jpeg", picture(0), with_length=True)

    with serve(send) as host:
        source = watch(f"http://{host}/snap.jpg", on_status=statuses.append)
        assert len(first(source, 4)) == 4
    assert [status.state.value for status in statuses[:4]] == ["connecting", "up", "down", "up"]
    assert source.stats().reconnects == 1


def is_basic(header: str) -> bool:
    return header == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def is_digest(header: str) -> bool:
    """Whether a header answers the challenge below (RFC 7616, section 3.4)."""
    fields = dict(re.findall(r'(\w+)="?([^",]*)"?', header.removeprefix("Digest ")))

    def md5(*words: str) -> str:
        return hashlib.md5(":".join(words).encode(), usedforsecurity=False).hexdigest()

    if not header.startswith("Digest ") or not {"uri", "nc", "cnonce", "response"} <= set(fields):
        return False
    who, what = md5(USER, "door", PASSWORD), md5("GET", fields["uri"])
    return fields["response"] == md5(who, "n0nce", fields["nc"], fields["cnonce"], "auth", what)


CHALLENGES = {
    "basic": ('Basic realm="door"', is_basic),
    "digest": ('Digest realm="door", nonce="n0nce", qop="auth", algorithm=MD5', is_digest),
}


@contextmanager
def locked(challenge: str, is_right: Callable[[str], bool]) -> Iterator[str]:
    """A camera that asks for a password, with a still picture and a stream."""
    over = threading.Event()

    def send(request: BaseHTTPRequestHandler) -> None:
        if not is_right(request.headers.get("Authorization", "")):
            request.send_response(401)
            request.send_header("WWW-Authenticate", challenge)
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif "snap" in request.path:
            answer(request, "image/jpeg", picture(0), with_length=True)
        else:
            answer(request, "multipart/x-mixed-replace; boundary=frame", part(0) + part(1), with_length=False)
            over.wait()

    with serve(send) as host:
        try:
            yield f"http://{host}"
        finally:
            over.set()


@pytest.mark.parametrize("scheme", CHALLENGES)
@pytest.mark.parametrize("path", ["snap.jpg", "stream"])
def test_user_name_and_password_open_pictures_and_streams(scheme, path):
    with locked(*CHALLENGES[scheme]) as site:
        assert len(first(watch(f"{site}/{path}", username=USER, password=PASSWORD), 1)) == 1


def test_a_wrong_password_for_a_picture_is_told():
    statuses: list[CameraStatus] = []
    with locked(*CHALLENGES["digest"]) as site:

        def note(status: CameraStatus) -> None:
            statuses.append(status)
            if status.state is CameraState.DOWN:
                source.close()

        source = watch(f"{site}/snap.jpg", username=USER, password="wrongword", on_status=note)
        assert first(source, 1) == []
    assert "refused the user name or password" in statuses[1].reason
    assert "wrongword" not in statuses[1].reason
