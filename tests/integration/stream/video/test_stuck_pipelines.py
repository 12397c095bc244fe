from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_process import CameraProcess

from stream.video.frame_sampler import FrameGate
from stream.video.frames import CameraState, CameraStatus
from stream.video.gstreamer.bindings import PipelineFailure
from stream.video.gstreamer.decoding import DecodePipeline
from stream.video.gstreamer.encoding import EncodePipeline
from stream.video.sources import open_source

WAIT_S = 60.0
LIVE = "videotestsrc is-live=true ! capsfilter caps=video/x-raw,width=64,height=48"


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that comes only when the test is over, so that whoever waits for it is stuck."""
    event = threading.Event()
    yield event
    event.set()


def stick(pipeline: DecodePipeline, reached: threading.Event) -> None:
    pipeline.start()
    assert reached.wait(WAIT_S)


def test_a_pipeline_that_does_not_stop_is_left_behind(never):
    reached, left = threading.Event(), threading.Event()

    def gate(*_: object) -> bool:
        reached.set()
        return never.wait()

    pipeline = DecodePipeline(launch=LIVE, gate=gate, on_abandoned=left.set)
    stick(pipeline, reached)
    pipeline.close()  # would wait for ever
    assert left.is_set()
    pipeline.close()  # once more, which does nothing


def test_a_pipeline_that_stops_is_not_counted():
    reached, left = threading.Event(), threading.Event()
    pipeline = DecodePipeline(launch=LIVE, gate=lambda *_: bool(reached.set()), on_abandoned=left.set)
    stick(pipeline, reached)
    pipeline.close()
    assert not left.is_set()


@pytest.mark.parametrize("has_passed", [False, True])
def test_a_camera_comes_back_though_its_pipeline_is_stuck(never, monkeypatch, has_passed):
    admit, calls, statuses = FrameGate.admit, [], []

    def stuck_at_the_third(*arguments: object, **options: object) -> bool:
        calls.append(arguments)
        is_third = len(calls) == 3
        if is_third and not has_passed:
            never.wait()
        passes = admit(*arguments, **options)
        if is_third and has_passed:  # the picture is on its way, and never arrives
            never.wait()
        return passes

    monkeypatch.setattr(FrameGate, "admit", stuck_at_the_third)

    def note(status: CameraStatus) -> None:
        statuses.append(status.state)

    source = open_source(
        camera_id="door",
        uri="test://ball?size=64x48",
        analysis_fps=None,
        stall_timeout_s=0.5,
        open_timeout_s=WAIT_S,
        on_status=note,
    )
    too_late = threading.Timer(WAIT_S, source.close)
    too_late.start()
    for frame in source.frames():
        if source.stats().reconnects == 1 and frame.number > 5:
            break
    too_late.cancel()
    assert source.stats().abandoned == 1
    assert statuses[:4] == [CameraState.CONNECTING, CameraState.UP, CameraState.DOWN, CameraState.UP]
    source.close()


def test_a_file_that_does_not_open_is_told(tmp_path):
    fifo = tmp_path / "film.mp4"
    os.mkfifo(fifo)
    pipeline = DecodePipeline(fifo.as_uri())
    with pytest.raises(PipelineFailure, match=r"no answer within 0\.2 s"):
        pipeline.start(timeout_s=0.2)
    pipeline.close()
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # lets go the thread that waits for a writer


def test_closing_ends_the_wait_for_a_file_that_does_not_open(tmp_path):
    fifo = tmp_path / "film.mp4"
    os.mkfifo(fifo)
    pipeline = DecodePipeline(fifo.as_uri())
    thread = threading.Thread(target=pipeline.start, kwargs={"timeout_s": 10 * WAIT_S})
    thread.start()
    pipeline.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


def test_a_video_that_cannot_be_opened_for_writing_is_told(tmp_path):
    fifo = tmp_path / "out.mp4"
    os.mkfifo(fifo)
    with pytest.raises(PipelineFailure, match=r"no answer within 0\.2 s"):
        EncodePipeline(str(fifo), size_wh=(64, 48), fps=10, timeout_s=0.2)
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


def test_the_process_ends_with_a_pipeline_left_behind():
    program = (
        "import threading\n"
        "from stream.video.gstreamer.decoding import DecodePipeline\n"
        "reached = threading.Event()\n"
        "def gate(*_):\n"
        "    reached.set()\n"
        "    threading.Event().wait()\n"
        f"pipeline = DecodePipeline(launch={LIVE!r}, gate=gate)\n"
        "pipeline.start()\n"
        "assert reached.wait(60)\n"
        "pipeline.close()\n"
        "print('closed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


@pytest.fixture
def hasty_camera(tmp_path: Path) -> Iterator[CameraProcess]:
    """Motion JPEG that comes as fast as it is taken, in pictures of thousands of packets."""
    noise = np.random.default_rng(0).integers(0, 256, (1528, 2040, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "0.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    process = CameraProcess(
        "--launch",
        f"multifilesrc location={tmp_path}/%d.jpg loop=true caps=image/jpeg,framerate=10/1 "
        "! jpegparse ! rtpjpegpay name=pay0 pt=26",
    )
    yield process
    process.kill()


def test_a_camera_that_sends_faster_than_is_decoded_stops_at_once(hasty_camera, monkeypatch):
    admit = FrameGate.admit

    def slowly(*arguments: object, **options: object) -> bool:
        time.sleep(0.3)  # meanwhile the jitter buffer fills
        return admit(*arguments, **options)

    monkeypatch.setattr(FrameGate, "admit", slowly)
    source = open_source(
        camera_id="door", uri=f"rtsp://127.0.0.1:{hasty_camera.port}/live", analysis_fps=None
    )
    frames = source.frames()
    while next(frames).number < 4:
        pass
    source.close()
    assert list(frames) == []
    assert source.stats().abandoned == 0
