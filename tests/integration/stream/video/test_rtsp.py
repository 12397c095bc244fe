from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from camera_process import CameraProcess
from captured import capture_logs
from real_time import in_real_time

from stream.video.frames import CameraState, CameraStatus, Frame
from stream.video.sources import open_source

WAIT_S = 60.0
PASSWORD = "hunter2/with@signs"
ENCODED = "hunter2%2Fwith%40signs"


class Watcher:
    """Iterates over a source in a thread of its own and keeps what it sees."""

    def __init__(self, uri: str, **arguments: object) -> None:
        self.frames: list[Frame] = []
        self.statuses: list[CameraStatus] = []
        self._changed = threading.Condition()
        self.source = open_source(
            camera_id="door",
            uri=uri,
            on_status=self._on_status,
            **{"stall_timeout_s": WAIT_S, "open_timeout_s": WAIT_S, "max_backoff_s": 0.5} | arguments,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _on_status(self, status: CameraStatus) -> None:
        with self._changed:
            self.statuses.append(status)
            self._changed.notify_all()

    def _run(self) -> None:
        for frame in self.source.frames():
            with self._changed:
                self.frames.append(frame)
                self._changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), self.states

    def wait_for_frames(self, count: int) -> None:
        wanted = len(self.frames) + count
        self.wait(lambda: len(self.frames) >= wanted)

    def wait_for_state(self, state: CameraState) -> CameraStatus:
        self.wait(lambda: self.statuses and self.statuses[-1].state is state)
        return self.statuses[-1]

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(status.state.value, status.reason) for status in self.statuses]

    def close(self) -> None:
        begun = time.monotonic()
        self.source.close()
        self._thread.join(WAIT_S)
        assert time.monotonic() - begun < WAIT_S / 2
        assert not self._thread.is_alive()


@pytest.fixture
def camera() -> Iterator[CameraProcess]:
    process = CameraProcess()
    yield process
    process.kill()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    watchers: list[Watcher] = []

    def start(uri: str, **arguments: object) -> Watcher:
        watchers.append(Watcher(uri, **arguments))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()


def assert_rising(frames: list[Frame]) -> None:
    assert all(a.number < b.number and a.time_s < b.time_s for a, b in pairwise(frames))
    assert all(a.captured_at <= b.captured_at for a, b in pairwise(frames))


@in_real_time
def test_frames_arrive(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live", analysis_fps=None)
    door.wait_for_frames(25)
    assert [state for state, _ in door.states] == ["connecting", "up"]
    assert door.frames[0].size_wh == (160, 120)
    assert door.frames[0].image.max() > 200  # the ball is there
    # Who comes in the middle of a group of ten pictures may lack what the first of them build on.
    assert not any(frame.is_damaged for frame in door.frames[10:25])
    assert_rising(door.frames)
    first, last = door.frames[0], door.frames[24]
    by_media, by_clock = last.time_s - first.time_s, (last.captured_at - first.captured_at).total_seconds()
    assert by_media == pytest.approx(by_clock, abs=0.3)
    assert by_media == pytest.approx((last.number - first.number) / 25, abs=0.1)
    door.close()
    assert door.statuses[-1].state is CameraState.ENDED


LOSSY = (
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=8 bitrate=1000 "
    "! rtph264pay pt=96 mtu=400 ! identity name=pay0 drop-probability=0.02"
)


def test_pictures_of_which_packets_were_lost_are_damaged(watch):
    camera = CameraProcess("--launch", LOSSY)
    try:
        door = watch(f"rtsp://127.0.0.1:{camera.port}/live", analysis_fps=None)

        def has_both() -> bool:
            damaged = [frame.is_damaged for frame in door.frames]
            return damaged.count(True) >= 5 and damaged.count(False) >= 5

        door.wait(has_both)
        stats = door.source.stats()
        assert 5 <= stats.damaged <= stats.dropped
    finally:
        camera.kill()


def test_a_camera_may_send_over_udp_alone(watch):
    camera = CameraProcess("--udp")
    try:
        door = watch(f"rtspu://127.0.0.1:{camera.port}/live")
        door.wait_for_frames(3)
        refused = watch(f"rtsp://127.0.0.1:{camera.port}/live")
        assert "rtspu:// UDP" in refused.wait_for_state(CameraState.DOWN).reason
    finally:
        camera.kill()


@in_real_time
def test_frames_are_thinned(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live", analysis_fps=5.0)
    door.wait_for_frames(6)
    first, last = door.frames[0], door.frames[5]
    assert last.time_s - first.time_s == pytest.approx(1.0, abs=0.1)
    assert door.source.stats().skipped >= 15


@in_real_time
def test_a_late_consumer_gets_the_newest_frame(camera):
    source = open_source(camera_id="door", uri=f"rtsp://127.0.0.1:{camera.port}/live", analysis_fps=None)
    frames = source.frames()
    first = next(frames)
    time.sleep(1.0)
    next(frames)
    third = next(frames)
    assert third.number - first.number >= 15
    assert third.time_s - first.time_s == pytest.approx(1.05, abs=0.3)
    assert source.stats().dropped >= 15
    source.close()


def test_a_killed_camera_is_down_and_comes_back(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live")
    door.wait_for_frames(5)
    camera.kill()
    assert "the stream ended" in door.wait_for_state(CameraState.DOWN).reason
    door.wait(lambda: "Connection refused" in door.statuses[-1].reason)
    before = len(door.frames)
    again = CameraProcess("--port", str(camera.port))
    try:
        door.wait_for_state(CameraState.UP)
        door.wait_for_frames(5)
        assert_rising(door.frames)
        assert door.frames[before].time_s - door.frames[before - 1].time_s > 0.3  # time went on meanwhile
        assert door.source.stats().reconnects == 1
    finally:
        again.kill()


def test_a_frozen_camera_is_down_and_comes_back(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live", stall_timeout_s=1.0)
    door.wait_for_frames(5)
    camera.signal(signal.SIGSTOP)
    status = door.wait_for_state(CameraState.DOWN)
    assert "no frame for 1 s" in status.reason
    camera.signal(signal.SIGCONT)
    door.wait_for_state(CameraState.UP)
    door.wait_for_frames(5)
    assert_rising(door.frames)


def test_a_frozen_camera_does_not_hold_up_the_end(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live")
    door.wait_for_frames(5)
    camera.signal(signal.SIGSTOP)
    door.close()
    late = watch(f"rtsp://127.0.0.1:{camera.port}/live")
    late.wait_for_state(CameraState.CONNECTING)
    late.close()
    camera.signal(signal.SIGCONT)


@pytest.mark.parametrize("zone", ["%1", "%251"])
def test_an_ipv6_address_may_have_a_zone(zone, watch):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    camera = CameraProcess("--host", "::1")
    try:
        door = watch(f"rtsp://[::1{zone}]:{camera.port}/live")
        door.wait_for_frames(1)
    finally:
        camera.kill()


def test_a_wrong_path_is_told(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/garden")
    assert "no such stream" in door.wait_for_state(CameraState.DOWN).reason


def test_a_closed_port_is_told(watch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    door = watch(f"rtsp://127.0.0.1:{port}/live")
    assert "Connection refused" in door.wait_for_state(CameraState.DOWN).reason


def test_a_server_that_says_nothing_is_given_up(watch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        door = watch(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", open_timeout_s=0.5)
        reason = door.wait_for_state(CameraState.DOWN).reason
        assert "no frame for 0.5 s: 127.0.0.1 port" in reason
        assert "takes the connection, but sends no video" in reason


@pytest.fixture
def locked_camera() -> Iterator[CameraProcess]:
    process = CameraProcess("--user", "admin", "--password", PASSWORD)
    yield process
    process.kill()


@pytest.mark.parametrize("in_uri", [True, False])
def test_the_right_password_opens(locked_camera, watch, in_uri):
    host = f"127.0.0.1:{locked_camera.port}/live"
    if in_uri:
        door = watch(f"rtsp://admin:{ENCODED}@{host}")
    else:
        door = watch(f"rtsp://{host}", username="admin", password=PASSWORD)
    door.wait_for_frames(3)


def test_a_wrong_password_is_told_and_not_tried_at_once_again(locked_camera, watch):
    door = watch(f"rtsp://admin:wrongword@127.0.0.1:{locked_camera.port}/live", max_backoff_s=60.0)
    status = door.wait_for_state(CameraState.DOWN)
    assert "refused the user name or password" in status.reason
    time.sleep(1.5)  # a camera that can be reached would have been tried again by now
    assert door.states[1:] == [("down", status.reason)]
    assert door.source._failed_attempts == 1


def test_no_password_is_ever_told(locked_camera, watch, capfd):
    with capture_logs() as logs:
        right = watch(f"rtsp://admin:{ENCODED}@127.0.0.1:{locked_camera.port}/live?token=sesame99")
        wrong = watch(f"rtsp://admin:wrongword@127.0.0.1:{locked_camera.port}/live")
        missing = watch(f"rtsp://admin:{ENCODED}@127.0.0.1:{locked_camera.port}/other?token=sesame99")
        for door in (right, wrong, missing):
            door.wait(lambda door=door: len(door.statuses) >= 2)
        locked_camera.kill()
        right.wait_for_state(CameraState.DOWN)
        for door in (right, wrong, missing):
            door.close()
    written = capfd.readouterr()
    told = f"{logs} {right.statuses} {wrong.statuses} {missing.statuses} {written.out} {written.err}"
    assert "127.0.0.1" in told
    for secret in ("hunter2", "wrongword", "with@signs", "sesame99", "admin"):
        assert secret not in told


@in_real_time
def test_one_camera_does_not_notice_that_another_dies(camera, watch):
    neighbour = CameraProcess()
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live")
    garden = watch(f"rtsp://127.0.0.1:{neighbour.port}/live")
    door.wait_for_frames(3)
    garden.wait_for_frames(3)
    neighbour.kill()
    garden.wait_for_state(CameraState.DOWN)
    before = len(door.frames)
    door.wait_for_frames(15)
    assert [state for state, _ in door.states] == ["connecting", "up"]
    gaps = [b.time_s - a.time_s for a, b in pairwise(door.frames[before - 3 :])]
    assert max(gaps) < 0.5


@in_real_time
def test_a_gate_that_lets_little_pass_is_no_stall(camera, watch):
    door = watch(f"rtsp://127.0.0.1:{camera.port}/live", analysis_fps=0.5, stall_timeout_s=1.0)
    door.wait_for_frames(2)
    assert [state for state, _ in door.states] == ["connecting", "up"]


def test_connecting_again_and_again_leaves_nothing_behind(camera):
    def use() -> None:
        source = open_source(camera_id="door", uri=f"rtsp://127.0.0.1:{camera.port}/live")
        next(source.frames())
        source.close()

    def held() -> tuple[int, int]:
        return tuple(len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("fd", "task"))

    for _ in range(3):
        use()
    most = [before + 5 for before in held()]  # half of what one left behind each time would make
    for _ in range(10):
        use()
    deadline = time.monotonic() + WAIT_S
    while any(now > limit for now, limit in zip(held(), most, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(now <= limit for now, limit in zip(held(), most, strict=True))
