from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.video.camera_status import StatusReporter
from stream.video.frames import CameraState, CameraStatus
from stream.video.live_camera import backoff_s
from stream.video.playback import Credentials
from stream.video.sources import open_source


def test_waits_double_up_to_the_cap():
    waits = [backoff_s(attempt, most_s=30.0, draw=lambda: 1.0) for attempt in range(1, 10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@given(st.integers(1, 10**6), st.floats(0.1, 100), st.floats(0, 1))
def test_waits_are_spread_and_bounded(attempt, most_s, drawn):
    nominal = backoff_s(attempt, most_s=most_s, draw=lambda: 1.0)
    assert nominal / 2 <= backoff_s(attempt, most_s=most_s, draw=lambda: drawn) <= nominal <= most_s


def test_only_news_are_reported():
    told: list[CameraStatus] = []
    reporter = StatusReporter("door", told.append)
    reporter.tell(CameraState.DOWN, reason="refused", attempt=1)
    reporter.tell(CameraState.DOWN, reason="refused", attempt=2)
    reporter.tell(CameraState.DOWN, reason="gone", attempt=3)
    reporter.tell(CameraState.UP)
    assert [(status.state.value, status.reason, status.attempt) for status in told] == [
        ("down", "refused", 1),
        ("down", "gone", 3),
        ("up", "", 0),
    ]
    assert all(status.at.tzinfo is UTC for status in told)


def test_reasons_that_take_turns_are_told_once_and_one_that_stays_stands():
    told: list[str] = []
    reporter = StatusReporter("door", lambda status: told.append(status.reason))
    for reason in ["gone", "refused", "gone", "refused", "gone", "refused", "refused", "refused"]:
        reporter.tell(CameraState.DOWN, reason=reason)
    assert told == ["gone", "refused"]
    for reason in ["gone", "gone", "gone"]:
        reporter.tell(CameraState.DOWN, reason=reason)
    assert told == ["gone", "refused", "gone"]
    reporter.tell(CameraState.UP)
    reporter.tell(CameraState.DOWN, reason="refused")
    assert told[3:] == ["", "refused"]


@pytest.mark.parametrize(
    ("uri", "is_live"),
    [
        ("clip.mp4", False),
        ("test://ball?frames=3", False),
        ("test://ball", True),
        ("rtsp://cam/live.mp4", True),
        ("v4l2:///dev/video0", True),
        ("https://host/film.MP4?token=x", False),
        ("https://host/live/index.m3u8", True),
        ("http://host/mjpeg", True),
    ],
)
def test_what_is_live_is_known_before_it_is_opened(uri, is_live):
    assert open_source(camera_id="c", uri=uri).is_live is is_live


@pytest.mark.parametrize(
    ("uri", "ends", "is_live"),
    [
        ("https://host/film.mp4", False, True),
        ("https://host/film", True, False),
        ("test://ball", True, True),
        ("test://ball?frames=3", False, False),
        ("v4l2:///dev/video0", True, True),
        ("clip.mp4", False, False),
    ],
)
def test_whether_it_ends_can_be_said_of_what_is_on_the_network(uri, ends, is_live):
    assert open_source(camera_id="c", uri=uri, ends=ends).is_live is is_live


def test_a_recording_from_an_rtsp_server_keeps_the_servers_pace():
    assert open_source(camera_id="c", uri="rtsp://nvr/playback", ends=True).is_live


def test_a_file_played_in_real_time_is_live():
    assert open_source(camera_id="c", uri="clip.mp4", realtime=True).is_live


def test_frames_can_be_asked_for_once():
    for uri in ("clip.mp4", "test://ball"):
        source = open_source(camera_id="c", uri=uri)
        source.frames()
        with pytest.raises(ValueError, match="once"):
            source.frames()


def test_senseless_numbers_are_refused():
    for arguments in ({"uri": "test://", "stall_timeout_s": 0}, {"uri": "a.mp4", "folder_fps": 0}):
        with pytest.raises(ValueError, match="above 0"):
            open_source(camera_id="c", **arguments)


def test_credentials_do_not_show():
    assert "hunter2" not in repr(Credentials("admin", "hunter2"))
