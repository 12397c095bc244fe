"""Sources with several videos, or none, or one with something that is not looked at."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from camera_process import CameraProcess

from engine.errors import SourceError
from stream.video.frames import CameraState, CameraStatus, Frame
from stream.video.sources import open_source

SIZE = "video/x-raw,width=64,height=48,framerate=12/1"
RED, BLUE, SOUND = (
    *(
        f"videotestsrc {{0}} pattern={colour} ! {SIZE} ! x264enc tune=zerolatency"
        for colour in ("red", "blue")
    ),
    "audiotestsrc {0}",
)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a file with GStreamer."""
    folder = tmp_path_factory.mktemp("files")

    def write(name: str, muxer: str, *parts: str) -> Path:
        streams = " ".join(f"{part.format('num-buffers=12')} ! queue ! m." for part in parts)
        command = f"gst-launch-1.0 -q {muxer} name=m ! filesink location={folder / name} {streams}"
        subprocess.run(shlex.split(command), check=True, timeout=300)
        return folder / name

    return write


def colour_of(frame: Frame) -> str:
    blue, _, red = frame.image.mean((0, 1))
    return "red" if red > blue else "blue"


@pytest.mark.parametrize("muxer", ["mp4mux", "matroskamux", "mpegtsmux"])
def test_of_two_videos_in_a_file_the_named_one_is_watched(make, muxer):
    path = make(muxer, muxer, f"{RED} ! h264parse", f"{BLUE} ! h264parse")
    for video, colour in ((1, "red"), (2, "blue")):
        frames = list(open_source(camera_id="c", uri=str(path), video=video, analysis_fps=None).frames())
        assert [colour_of(frame) for frame in frames] == [colour] * 12
    with pytest.raises(SourceError, match="has no video 3, only 2; set video: 1 to 2"):
        list(open_source(camera_id="c", uri=str(path), video=3).frames())


def test_a_file_of_sound_alone_is_told(make):
    path = make("sound.mp4", "mp4mux", f"{SOUND} ! avenc_aac")
    with pytest.raises(SourceError, match="holds no video, only MPEG-4 AAC"):
        list(open_source(camera_id="c", uri=str(path)).frames())


def test_flv_may_begin_with_sound(make):
    path = make("sound-first.flv", "flvmux", f"{SOUND} ! avenc_aac", f"{RED} ! h264parse")
    assert len(list(open_source(camera_id="c", uri=str(path), analysis_fps=None).frames())) == 12


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_webm_with_an_alpha_channel_is_decoded(make, codec):
    path = make(
        f"{codec}.webm", "webmmux streamable=true", f"videotestsrc {{0}} ! {SIZE} ! {codec}enc deadline=1"
    )
    data = bytearray(path.read_bytes())
    tracks = data.index(b"\x16\x54\xae\x6b\x01")
    entry = data.index(b"\xae\x01", tracks)
    video = data.index(b"\xe0\x01", entry)
    for start in (tracks + 4, entry + 1, video + 1):  # sizes of eight bytes, after the ids
        size = int.from_bytes(data[start + 1 : start + 8], "big") + 4
        data[start + 1 : start + 8] = size.to_bytes(7, "big")
    data[video + 9 : video + 9] = b"\x53\xc0\x81\x01"  # AlphaMode 1
    path.write_bytes(data)
    assert len(list(open_source(camera_id="c", uri=str(path), analysis_fps=None).frames())) == 12


@pytest.fixture(scope="module")
def two_lenses() -> Iterator[str]:
    """An RTSP camera with sound and two videos, of which the second is announced last."""
    sound = f"{SOUND} ! alawenc ! rtppcmapay name=pay0 pt=8"
    videos = [
        f"{part} key-int-max=6 ! rtph264pay config-interval=1 name=pay{n} pt=96"
        for n, part in ((1, RED), (2, BLUE))
    ]
    process = CameraProcess("--launch", " ".join([sound, *videos]).format("is-live=true"))
    yield f"rtsp://127.0.0.1:{process.port}/live"
    process.kill()


def first_frame(uri: str, video: int) -> Frame:
    source = open_source(camera_id="c", uri=uri, video=video, open_timeout_s=60.0)
    frame = next(source.frames())
    source.close()
    return frame


def why_down(uri: str, **arguments: object) -> str:
    reasons: list[str] = []

    def note(status: CameraStatus) -> None:
        if status.state is CameraState.DOWN:
            reasons.append(status.reason)
            source.close()

    source = open_source(camera_id="c", uri=uri, on_status=note, open_timeout_s=60.0, **arguments)
    assert list(source.frames()) == []
    return reasons[0]


def test_of_two_videos_of_a_camera_the_named_one_is_watched(two_lenses):
    assert [colour_of(first_frame(two_lenses, video)) for video in (1, 2, 1)] == ["red", "blue", "red"]
    assert "has no video 3, only 2; set video: 1 to 2" in why_down(two_lenses, video=3)


def test_a_camera_of_sound_alone_is_told():
    sound = f"{SOUND} ! alawenc ! rtppcmapay name=pay0 pt=8".format("is-live=true")
    process = CameraProcess("--launch", sound)
    try:
        reason = why_down(f"rtsp://127.0.0.1:{process.port}/live")
    finally:
        process.kill()
    assert reason.endswith("holds no video, only audio; expected a video stream")
