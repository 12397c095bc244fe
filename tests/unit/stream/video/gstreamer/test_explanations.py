import socket

import pytest

from stream.video.gstreamer.bindings import PipelineFailure
from stream.video.gstreamer.explanations import connect_trouble, plain_words, proxy_for, silence_trouble

OPEN_FAILED = PipelineFailure("resource", 7, "Could not open resource for reading and writing.")


@pytest.mark.parametrize(
    ("domain", "code", "message", "says"),
    [
        ("resource", 15, "Unauthorized", "refused the user name or password"),
        ("resource", 3, "Not Found", "no such stream"),
        ("resource", 5, "Internal Server Error", "Internal Server Error"),
        ("resource", 9, "Could not read from resource.", "reading failed"),
        ("stream", 4, "Could not determine type of stream.", "not a video"),
        ("stream", 9, "This file contains no playable streams.", "cut off or damaged"),
        ("stream", 7, "No valid frames decoded", "No valid frames decoded"),
        ("library", 1, "Something", "Something"),
    ],
)
def test_failures_are_told_in_plain_words(domain, code, message, says):
    words = plain_words(PipelineFailure(domain, code, message, "details\nof two lines"))
    assert says in words
    assert "\n" not in words


def test_a_missing_decoder_and_missing_video_are_told_apart():
    audio = "no suitable plugins found:\nMissing decoder: MPEG-4 AAC (audio/mpeg, mpegversion=(int)4)\n"
    assert "holds no video, only MPEG-4 AAC" in plain_words(PipelineFailure("core", 12, "Missing.", audio))
    video = audio + "Missing decoder: H.265 (Main Profile) (video/x-h265, stream-format=(string)hvc1)\n"
    words = plain_words(PipelineFailure("core", 12, "Missing.", video))
    assert "no decoder for H.265 (Main Profile)" in words
    assert "apt install" in words


def test_the_operating_system_is_asked_why_a_server_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listening = connect_trouble(f"rtsp://127.0.0.1:{port}/live", OPEN_FAILED)
        unread = connect_trouble(f"rtsp://127.0.0.1:{port}/live", PipelineFailure("resource", 9, "no answer"))
        silent = silence_trouble(f"http://127.0.0.1:{port}/live")
    assert listening is not None
    assert "does not speak rtsp as expected, or says nothing" in listening
    assert unread == listening
    assert "takes the connection, but sends no video" in silent
    closed = connect_trouble(f"rtsp://127.0.0.1:{port}/live", OPEN_FAILED)
    assert closed is not None
    assert "Connection refused" in closed
    assert "Connection refused" in silence_trouble(f"http://127.0.0.1:{port}/live")


def test_a_failure_that_says_enough_is_left_alone():
    refused = PipelineFailure("resource", 15, "Unauthorized")
    assert connect_trouble("rtsp://127.0.0.1:1/live", refused) is None


@pytest.mark.parametrize(
    ("uri", "named", "direct", "proxy"),
    [
        ("http://camera/a.jpg", "http://proxy:3128", "", ("proxy", 3128)),
        ("https://camera/a.jpg", "http://user:word@proxy:3128/", "", ("proxy", 3128)),
        ("http://camera/a.jpg", "proxy", "", ("proxy", 80)),
        ("http://camera/a.jpg", "", "", None),
        ("http://camera/a.jpg", "http://proxy:3128", "camera", None),
        ("http://camera.lan:81/a.jpg", "http://proxy:3128", "other, .lan", None),
        ("http://[::1]:81/a.jpg", "http://proxy:3128", "*", None),
        ("rtsp://camera/a", "http://proxy:3128", "", None),
    ],
)
def test_which_sources_are_asked_through_a_proxy(
    uri: str, named: str, direct: str, proxy: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", named)
    monkeypatch.setenv("no_proxy", direct)
    assert proxy_for(uri) == proxy


def test_a_proxy_that_is_not_there_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://somebody:secret@127.0.0.1:{port}")
        words = connect_trouble("http://192.0.2.1/film.mp4", OPEN_FAILED)
    assert words is not None
    assert words.startswith(f"cannot connect to the proxy 127.0.0.1 port {port} (Connection refused)")
    assert "secret" not in words
