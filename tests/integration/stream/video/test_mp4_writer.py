from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import FacestreamError, SinkError
from stream.video.gstreamer import bindings
from stream.video.gstreamer.decoding import DecodePipeline
from stream.video.gstreamer.elements import HARDWARE_DECODERS
from stream.video.mp4_writer import VideoWriter
from stream.video.sources import open_source


def grey(level: int, size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.full((size_wh[1], size_wh[0], 3), level, np.uint8)


def read(path: Path) -> list:
    return list(open_source(camera_id="film", uri=str(path), analysis_fps=None).frames())


def test_what_was_written_can_be_read(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (64, 48), 25) as video:
        for number in range(50):
            video.write(grey(4 * number + 20), 10 + number / 25)
    frames = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx([n / 25 for n in range(50)], abs=1e-3)
    assert [frame.image.mean() for frame in frames] == pytest.approx([4 * n + 20 for n in range(50)], abs=4)


def test_colours_keep_their_order(tmp_path, portrait):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (512, 512), 25) as video:
        video.write(portrait, 0.0)
    assert np.abs(read(path)[0].image.astype(int) - portrait).mean() < 5


def test_other_players_read_it(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (64, 48), 25) as video:
        for number in range(10):
            video.write(grey(128), number / 25)
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    assert fourcc in {b"avc1", b"h264"}
    pixels = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little")
    assert pixels == b"I420"  # what browsers play
    capture.release()


def test_times_may_vary_and_are_kept(tmp_path):
    path = tmp_path / "out.mp4"
    times_s = [0.0, 0.04, 0.5, 0.51, 2.0]
    with VideoWriter(path, (64, 48), 25) as video:
        for time_s in times_s:
            video.write(grey(100), time_s)
    assert [frame.time_s for frame in read(path)] == pytest.approx(times_s, abs=2e-3)


def test_times_that_do_not_rise_do_no_harm(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (64, 48), 25) as video:
        for time_s in [1.0, 1.0, 0.5, 1.04]:
            video.write(grey(100), time_s)
    assert len(read(path)) == 4


@pytest.mark.parametrize("size_wh", [(65, 48), (64, 49), (63, 47), (17, 16)])
def test_odd_sizes_are_cut_to_even_ones(tmp_path, size_wh):
    path = tmp_path / "out.mp4"
    image = grey(90, size_wh)
    image[:, : size_wh[0] // 2] = 200
    with VideoWriter(path, size_wh, 25) as video:
        for number in range(3):
            video.write(image, number / 25)
    frame = read(path)[0]
    assert frame.size_wh == (size_wh[0] // 2 * 2, size_wh[1] // 2 * 2)
    even = image[: frame.size_wh[1], : frame.size_wh[0]]
    assert np.abs(frame.image.astype(int) - even).mean() < 8


def test_the_file_is_whole_also_when_the_work_fails(tmp_path):
    path = tmp_path / "out.mp4"

    def work() -> None:
        with VideoWriter(path, (64, 48), 25) as video:
            video.write(grey(100), 0.0)
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        work()
    assert len(read(path)) == 1


def test_a_new_file_is_its_owners_alone(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", (64, 48), 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    assert (tmp_path / "out.mp4").stat().st_mode & 0o777 == 0o600


def test_without_a_frame_there_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", (64, 48), 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written_are_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    for path, says in {
        tmp_path: "is a folder",
        tmp_path / "none" / "out.mp4": "does not exist",
        tmp_path / "file" / "out.mp4": "does not exist",
    }.items():
        with pytest.raises(SinkError, match=says):
            VideoWriter(path, (64, 48), 25)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SinkError, match="may not be written"):
        VideoWriter(tmp_path / "out.mp4", (64, 48), 25)


def test_a_full_disk_is_told():
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)

    def work(count: int) -> None:
        with VideoWriter(Path("/dev/full"), (640, 480), 25) as video:
            for number in range(count):
                video.write(noise, number / 25)

    for count in (2, 200):  # told when the file is finished, and told while it is written
        begun = time.monotonic()
        with pytest.raises(SinkError, match="/dev/full: the video cannot be written"):
            work(count)
        assert time.monotonic() - begun < 60


def test_senseless_sizes_and_rates_are_refused(tmp_path):
    for size_wh, fps in (((15, 48), 25), ((64, 48), 0)):
        with pytest.raises(ValueError, match="expected 16 or more pixels and fps above 0"):
            VideoWriter(tmp_path / "out.mp4", size_wh, fps)


def test_images_of_another_size_are_refused(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", (64, 48), 25) as video, pytest.raises(ValueError, match="image"):
        video.write(grey(1, (48, 64)), 0.0)


def test_the_machine_says_what_it_has():
    assert bindings.version().split(".")[0] == "1"
    assert bindings.missing_elements(["videoconvert", "nosuchelement"]) == ["nosuchelement"]
    assert bindings.missing_elements() == []
    assert set(bindings.hardware_decoders()) <= set(HARDWARE_DECODERS)


def test_an_element_that_is_missing_is_told():
    with pytest.raises(FacestreamError, match="apt install"):
        DecodePipeline(launch="nosuchelement").start()
