from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from PIL import Image
from real_time import in_real_time

from engine.errors import FacestreamError, SourceError
from stream.video.frames import CameraState, Frame, FrameSource
from stream.video.sources import open_source

WAIT_S = 60.0
FPS = 30
COUNT = 60
WIDTH, HEIGHT = 180, 100


def numbered_image(number: int) -> np.ndarray:
    """Eight stripes, white where the number has a bit."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            image[:, 20 * bit : 20 * bit + 20] = 255
    return image


def read_number(image: np.ndarray) -> int:
    return sum(1 << bit for bit in range(8) if image[HEIGHT // 2, 20 * bit + 10].mean() > 127)


def gst(*pipeline: str, data: bytes | None = None) -> None:
    words = [word for part in pipeline for word in part.split()]
    subprocess.run(["gst-launch-1.0", "-q", *words], input=data, check=True, timeout=300)


def encode(path: Path, images: list[np.ndarray], tail: str) -> Path:
    height, width, _ = images[0].shape
    raw = f"fdsrc ! rawvideoparse format=bgr width={width} height={height} framerate={FPS}/1 ! videoconvert"
    data = b"".join(image.tobytes() for image in images)
    gst(raw, f"! {tail} ! filesink location={path}", data=data)
    return path


H264 = "x264enc speed-preset=ultrafast key-int-max=10 ! h264parse"


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds of numbered frames."""
    images = [numbered_image(number) for number in range(COUNT)]
    return encode(tmp_path_factory.mktemp("clips") / "numbers.mp4", images, f"{H264} ! mp4mux")


def open_file(path: Path | str, **arguments: object) -> FrameSource:
    return open_source(**{"camera_id": "film", "uri": str(path), "analysis_fps": None} | arguments)


def test_every_frame_comes_with_its_number_and_time(clip):
    start_at = datetime(2026, 1, 2, tzinfo=UTC)
    source = open_file(clip, start_at=start_at)
    frames = list(source.frames())
    assert [frame.number for frame in frames] == list(range(COUNT))
    assert [read_number(frame.image) for frame in frames] == list(range(COUNT))
    assert [frame.time_s for frame in frames] == pytest.approx([n / FPS for n in range(COUNT)], abs=1e-3)
    assert frames[30].captured_at - start_at == timedelta(seconds=frames[30].time_s)
    assert {frame.camera_id for frame in frames} == {"film"}
    stats = source.stats()
    assert (stats.decoded, stats.skipped, stats.dropped) == (COUNT, 0, 0)


def test_only_the_frames_to_be_looked_at_come(clip):
    source = open_file(clip, analysis_fps=15.0)
    frames = list(source.frames())
    assert [frame.number for frame in frames] == list(range(0, COUNT, 2))
    assert [read_number(frame.image) for frame in frames] == [frame.number for frame in frames]
    assert source.stats().skipped == COUNT // 2


def test_a_slow_consumer_of_a_file_loses_nothing(clip):
    numbers = []
    for frame in open_file(clip).frames():
        time.sleep(0.005)
        numbers.append(frame.number)
    assert numbers == list(range(COUNT))


def test_kept_images_stay_as_they_were(clip):
    frames = []
    for frame in open_file(clip).frames():
        assert frame.image.flags.owndata
        frames.append(frame)
    assert all(read_number(frame.image) == frame.number for frame in frames)


def test_real_time_takes_real_time(clip):
    source = open_file(clip, realtime=True)
    begun = time.monotonic()
    frames = list(source.frames())
    assert time.monotonic() - begun >= 0.9 * (COUNT - 1) / FPS
    assert len(frames) + source.stats().dropped == COUNT
    assert all(read_number(frame.image) == frame.number for frame in frames)


@in_real_time
def test_in_real_time_a_slow_consumer_gets_the_newest(clip):
    source = open_file(clip, realtime=True)
    frames = []
    for frame in source.frames():
        frames.append(frame)
        time.sleep(0.3)
    assert 5 <= len(frames) <= 9
    assert source.stats().dropped == COUNT - len(frames)
    assert all(read_number(frame.image) == frame.number for frame in frames)


def test_a_loop_goes_on_in_number_and_time(clip):
    source = open_file(clip, loop=True)
    frames = list(islice(source.frames(), 2 * COUNT + 10))
    source.close()
    assert [frame.number for frame in frames] == list(range(2 * COUNT + 10))
    assert [read_number(frame.image) for frame in frames] == [n % COUNT for n in range(2 * COUNT + 10)]
    steps = [b.time_s - a.time_s for a, b in pairwise(frames)]
    assert steps == pytest.approx([1 / FPS] * len(steps), abs=2e-3)


def test_states_are_told(clip, tmp_path):
    states = []
    list(open_file(clip, on_status=lambda status: states.append(status.state)).frames())
    assert states == [CameraState.CONNECTING, CameraState.UP, CameraState.ENDED]
    states.clear()
    with pytest.raises(SourceError):
        list(open_file(tmp_path / "none.mp4", on_status=lambda status: states.append(status.state)).frames())
    assert states == [CameraState.CONNECTING, CameraState.DOWN]


@pytest.mark.parametrize(
    "tail", [f"{H264} ! matroskamux", f"{H264} ! mpegtsmux", "jpegenc ! avimux", "vp8enc ! webmmux"]
)
def test_other_containers_give_the_same_frames(tmp_path, tail):
    images = [numbered_image(number) for number in range(20)]
    path = encode(tmp_path / "clip", images, tail)
    frames = list(open_file(path).frames())
    assert [read_number(frame.image) for frame in frames] == list(range(20))
    assert frames[-1].time_s == pytest.approx(19 / FPS, abs=2e-3)


def test_rows_whose_length_is_no_multiple_of_four_are_read_right():
    frame = next(open_file("test://gradient?frames=1&size=321x99").frames())
    assert frame.size_wh == (321, 99)
    assert np.ptp(frame.image, axis=1).max() <= 1  # each row of this pattern has one colour
    assert np.ptp(frame.image, axis=0).min() > 200


def test_channels_are_blue_green_red():
    frame = next(open_file("test://red?frames=1&size=64x48").frames())
    assert frame.image[24, 32].tolist() == pytest.approx([0, 0, 255], abs=3)


def turn(path: Path) -> None:
    """Let an MP4 file say that it was filmed sideways."""
    data = bytearray(path.read_bytes())
    one = (1 << 16).to_bytes(4, "big")
    quarter_turn = bytes(4) + one + bytes(4) + (-1 << 16).to_bytes(4, "big", signed=True)
    matrix_at = data.index(b"tkhd") + 44
    data[matrix_at : matrix_at + 20] = quarter_turn + bytes(4)
    path.write_bytes(data)


def test_a_video_that_was_filmed_sideways_is_turned_upright(tmp_path):
    path = encode(tmp_path / "phone.mp4", [numbered_image(3)] * 10, f"{H264} ! mp4mux")
    turn(path)
    frame = next(open_file(path).frames())
    assert frame.size_wh == (HEIGHT, WIDTH)
    assert frame.image[:30].mean() > 200  # the white stripes, once left, are now above
    assert frame.image[60:].mean() < 50


def narrow(path: Path, aspect: str, tail: str, size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A video of which each pixel is to be shown with this ratio of width to height."""
    width, height = size_wh
    data = np.full((6, height, width, 3), 90, np.uint8)
    data[:, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    gst(
        f"fdsrc ! rawvideoparse format=bgr width={width} height={height} framerate={FPS}/1",
        f"pixel-aspect-ratio={aspect} ! videoconvert ! {tail} ! filesink location={path}",
        data=data.tobytes(),
    )
    return path


def shown_size(frame: Frame) -> tuple[int, int]:
    """Width and height of the white patch, which is half of the picture."""
    white = frame.image.min(axis=2) > 170
    return int(white.any(axis=0).sum()), int(white.any(axis=1).sum())


@pytest.mark.parametrize(
    ("aspect", "size_wh"),
    [
        ("2/1", (360, 100)),
        ("1/2", (180, 200)),
        ("12/11", (196, 100)),
        ("10/11", (180, 110)),
        ("1/1", (180, 100)),
        ("99/1", (180, 100)),
    ],
)
@pytest.mark.parametrize("mux", ["mp4mux", "matroskamux", "mpegtsmux"])
def test_pictures_have_square_pixels(tmp_path, mux, aspect, size_wh):
    frames = list(open_file(narrow(tmp_path / "film", aspect, f"{H264} ! {mux}")).frames())
    assert {frame.size_wh for frame in frames} == {size_wh}
    assert shown_size(frames[-1]) == pytest.approx((size_wh[0] / 2, size_wh[1] / 2), abs=4)


def test_pixels_are_square_in_a_turned_video_too(tmp_path):
    path = narrow(tmp_path / "phone.mp4", "2/1", f"{H264} ! mp4mux")
    turn(path)
    frame = next(open_file(path).frames())
    assert frame.size_wh == (100, 360)
    assert shown_size(frame) == pytest.approx((50, 180), abs=4)


def test_pixels_that_change_their_shape_midway_are_followed(tmp_path):
    tail = "x264enc speed-preset=ultrafast ! video/x-h264,stream-format=byte-stream"
    parts = [narrow(tmp_path / str(n), aspect, tail) for n, aspect in enumerate(["1/1", "2/1", "1/1"])]
    path = tmp_path / "film.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    sizes = [frame.size_wh for frame in open_file(path).frames()]
    assert [sizes[0], sizes[9], sizes[-1]] == [(180, 100), (360, 100), (180, 100)]


def test_interlaced_video_shows_no_combs(tmp_path):
    path = tmp_path / "tv.mkv"
    gst(
        "videotestsrc num-buffers=50 pattern=ball motion=hsweep",
        "! video/x-raw,format=I420,width=320,height=240",
        "! interlace field-pattern=1:1 ! x264enc interlaced=true ! h264parse ! matroskamux",
        f"! filesink location={path}",
    )
    frames = list(open_file(path).frames())
    assert [frame.number for frame in frames] == list(range(25))
    green = np.array([frame.image[..., 1] for frame in frames]).astype(int)
    combs = np.abs(2 * green[:, 1:-1] - green[:, :-2] - green[:, 2:]).mean()
    assert combs < 2  # 4.3 where the fields are left as they are


def test_a_counted_test_pattern_ends():
    frames = list(open_file("test://ball?frames=12&size=64x48&fps=10").frames())
    assert [frame.number for frame in frames] == list(range(12))
    assert frames[-1].time_s == pytest.approx(1.1)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory, clip) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is not a video.\n" * 20)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "no_index.mp4").write_bytes(clip.read_bytes()[:2000])
    (folder / "no_pictures").mkdir()
    (folder / "empty_pictures").mkdir()
    (folder / "empty_pictures" / "1.jpg").touch()
    (folder / "broken_pictures").mkdir()
    (folder / "broken_pictures" / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    gst(
        "audiotestsrc num-buffers=20 ! audioconvert ! avenc_aac ! mp4mux",
        f"! filesink location={folder}/sound.mp4",
    )
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.mp4", "no such file"),
        ("empty.mp4", "0 bytes"),
        ("text.mp4", "not a video"),
        ("noise.mp4", "not a video"),
        ("no_index.mp4", "no moov box"),
        ("sound.mp4", "holds no video, only MPEG-4 AAC"),
        ("no_pictures", "no picture"),
        ("empty_pictures", "empty"),
        ("broken_pictures", "none of 1 pictures"),
    ],
)
def test_bad_input_gets_one_clear_line(bad_files, name, says):
    with pytest.raises(SourceError, match=says) as caught:
        list(open_file(bad_files / name).frames())
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_file_that_is_cut_off_gives_what_is_left_and_then_the_error(clip, tmp_path):
    whole = tmp_path / "front.mp4"
    gst(f"filesrc location={clip} ! qtdemux ! h264parse ! mp4mux faststart=true ! filesink location={whole}")
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: -whole.stat().st_size // 3])
    frames: list[Frame] = []
    with pytest.raises(SourceError, match="cut off after"):
        frames.extend(open_file(path).frames())
    assert 10 < len(frames) < COUNT
    assert all(read_number(frame.image) == frame.number for frame in frames)


@pytest.mark.parametrize(
    "tail",
    [
        "jpegenc ! avimux",
        f"{H264} ! matroskamux",
        "vp8enc deadline=1 ! webmmux streamable=true",
        f"{H264} ! flvmux",
        f"{H264} ! mpegtsmux",
        f"{H264} ! mp4mux fragment-duration=200",
        "theoraenc ! oggmux",
        "avenc_wmv2 ! asfmux",
    ],
)
def test_whatever_its_container_is_a_cut_is_told(tmp_path, tail):
    noise = np.random.default_rng(0).integers(0, 60, (20, HEIGHT, WIDTH, 3), np.uint8)
    images = [cv2.add(numbered_image(number) // 4 * 3, noise[number]) for number in range(20)]
    path = encode(tmp_path / "film", images, tail)
    whole = [read_number(frame.image) for frame in open_file(path).frames()]
    path.write_bytes(path.read_bytes()[: 2 * path.stat().st_size // 3 + 1])
    frames: list[Frame] = []
    with pytest.raises(SourceError, match="cut off after"):
        frames.extend(open_file(path).frames())
    assert 0 < len(frames) < len(whole) == 20
    assert [read_number(frame.image) for frame in frames[:-1]] == whole[: len(frames) - 1]


def gif(path: Path, portrait: np.ndarray, count: int) -> Path:
    images = [Image.fromarray(portrait[..., ::-1]).resize((96, 96)).rotate(n) for n in range(count)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)
    return path


@pytest.mark.parametrize("count", [1, 2, 20])
def test_an_animation_ends(tmp_path, portrait, count):
    path = gif(tmp_path / "nod.gif", portrait, count)
    assert len(list(open_file(path, open_timeout_s=WAIT_S).frames())) == count


def test_an_animation_that_is_cut_off_is_told(tmp_path, portrait):
    path = gif(tmp_path / "nod.gif", portrait, 20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames: list[Frame] = []
    with pytest.raises(SourceError, match="cut off after"):
        frames.extend(open_file(path, open_timeout_s=WAIT_S).frames())
    assert 5 < len(frames) < 15


def moving(portrait: np.ndarray, count: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(portrait[n : n + 240, 2 * n : 2 * n + 320]) for n in range(count)]


def seen(path: Path) -> dict[float, Frame]:
    return {round(frame.time_s, 2): frame for frame in open_file(path).frames()}


def largest_change(frame: Frame, whole: Frame) -> float:
    """Grey levels, in the cell of 8 by 8 that changed most."""
    change = np.abs(frame.image.astype(int) - whole.image).mean(axis=2)
    return float(change.reshape(8, 30, 8, 40).mean(axis=(1, 3)).max())


@pytest.mark.parametrize(
    "tail",
    [
        # One thread makes the same bytes in each run. Decoders do not notice every change; they do these.
        "x264enc threads=1 speed-preset=ultrafast key-int-max=15 ! h264parse ! mpegtsmux",
        "x264enc threads=1 speed-preset=veryfast bframes=2 key-int-max=15 ! h264parse ! matroskamux",
        "avenc_wmv2 gop-size=15 bitrate=1000000 ! asfmux",
    ],
)
def test_damaged_pictures_are_known_until_the_next_key_frame(tmp_path, portrait, tail):
    path = encode(tmp_path / "film", moving(portrait, 60), tail)
    whole = seen(path)
    assert not any(frame.is_damaged for frame in whole.values())
    data = bytearray(path.read_bytes())
    for place in (30, 60):
        start = place * len(data) // 100
        data[start : start + 30] = bytes(byte ^ 0x55 for byte in data[start : start + 30])
    path.write_bytes(data)
    source = open_file(path)
    frames = {round(frame.time_s, 2): frame for frame in source.frames()}
    changed = {time_s for time_s, frame in frames.items() if largest_change(frame, whole[time_s]) > 10}
    flagged = {time_s for time_s, frame in frames.items() if frame.is_damaged}
    assert changed
    assert changed <= flagged
    assert len(flagged) <= 31  # two groups of pictures at the most, and what is shown before the next
    assert source.stats().damaged == source.stats().dropped == len(flagged)


def test_a_source_that_gives_nothing_is_given_up(tmp_path):
    pipe = tmp_path / "video.mp4"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="not a regular file"):
        list(open_file(pipe).frames())


@pytest.fixture
def pictures(tmp_path) -> Path:
    for number in (1, 2, 9, 10, 11):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), numbered_image(number))
    return tmp_path


def test_a_folder_plays_in_natural_order(pictures):
    frames = list(open_file(pictures).frames())
    assert [read_number(frame.image) for frame in frames] == [1, 2, 9, 10, 11]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


def test_a_folder_may_hold_pictures_of_every_kind(tmp_path):
    for number, end in enumerate(("jpg", "jpe", "JFIF", "png", "webp", "avif", "tif", "bmp", "gif"), 1):
        form = {"jpg": "JPEG", "jpe": "JPEG", "JFIF": "JPEG", "tif": "TIFF"}.get(end, end)
        PIL.Image.fromarray(numbered_image(number)).save(tmp_path / f"frame{number}.{end}", form)
    frames = list(open_file(tmp_path).frames())
    assert [read_number(frame.image) for frame in frames] == list(range(1, 10))


def test_a_broken_picture_is_passed_over(pictures):
    (pictures / "frame3.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    (pictures / "frame4.png").touch()
    source = open_file(pictures)
    frames = list(source.frames())
    assert [read_number(frame.image) for frame in frames] == [1, 2, 9, 10, 11]
    assert [frame.number for frame in frames] == [0, 1, 4, 5, 6]
    assert source.stats().dropped == 2


def test_a_folder_can_be_thinned_and_looped(pictures):
    source = open_file(pictures, analysis_fps=12.5, loop=True)
    frames = list(islice(source.frames(), 6))
    source.close()
    assert [read_number(frame.image) for frame in frames] == [1, 9, 11, 1, 9, 11]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.08, 0.16, 0.2, 0.28, 0.36])


def test_a_folder_in_real_time_takes_real_time(pictures):
    begun = time.monotonic()
    source = open_file(pictures, realtime=True, folder_fps=10.0)
    frames = list(source.frames())
    assert time.monotonic() - begun >= 0.4
    assert len(frames) + source.stats().dropped == 5


def playlist(kind: str, server: socket.socket) -> str:
    """A file of text that tells a player to fetch its video from us."""
    there = f"http://127.0.0.1:{server.getsockname()[1]}"
    if kind == "hls":
        return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{there}/1.ts\n#EXT-X-ENDLIST\n"
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" minBufferTime="PT1S" '
        'mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{there}/1.mp4'
        '</BaseURL><SegmentBase indexRange="0-9"/></Representation></AdaptationSet></Period></MPD>'
    )


@pytest.mark.parametrize("kind", ["hls", "dash"])
def test_a_file_that_is_a_playlist_makes_us_reach_nobody(tmp_path, kind):
    path = tmp_path / "holiday.mp4"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        path.write_text(playlist(kind, server))
        with pytest.raises(SourceError, match="holds no video, only application/"):
            list(open_file(path, open_timeout_s=5).frames())
        with pytest.raises(BlockingIOError):  # nobody waits at the door
            server.accept()


def test_a_playlist_that_is_named_as_one_is_followed(tmp_path):
    path = tmp_path / "holiday.m3u8"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        path.write_text(playlist("hls", server))
        with pytest.raises(SourceError, match="no frame for 1 s"):
            list(open_file(path, open_timeout_s=1).frames())
        server.accept()[0].close()


def test_a_frame_that_would_fill_the_memory_is_refused(tmp_path):
    data = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = (64).to_bytes(2, "big") + (20_000).to_bytes(2, "big")
    path = tmp_path / "wide.mp4"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="larger than 16384 pixels"):
        list(open_file(path).frames())


@pytest.mark.parametrize("uri", ["test://ball", "test://ball?frames=100000"])
def test_close_ends_the_iteration_in_another_thread(uri):
    source = open_file(uri)
    seen = threading.Event()
    numbers: list[int] = []

    def consume() -> None:
        for frame in source.frames():
            numbers.append(frame.number)
            seen.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert seen.wait(WAIT_S)
    begun = time.monotonic()
    source.close()
    source.close()
    thread.join(WAIT_S)
    assert time.monotonic() - begun < WAIT_S
    assert not thread.is_alive()


def test_close_frees_a_source_whose_consumer_does_not_come_back(clip):
    source = open_file(clip)
    frames = source.frames()
    next(frames)
    source.close()
    assert list(frames) == []


def test_a_source_closed_before_it_began_gives_nothing(clip):
    for uri in (clip, "test://ball"):
        source = open_file(uri)
        source.close()
        assert list(source.frames()) == []


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_nothing_is_left_behind(clip, tmp_path):
    def use() -> None:
        source = open_file(clip)
        next(source.frames())
        source.close()
        with pytest.raises(FacestreamError):
            list(open_file(tmp_path / "none.mp4").frames())

    for _ in range(3):
        use()
    # Half of what one left behind each time would make.
    descriptors, threads = open_descriptors() + 10, native_threads() + 10
    for _ in range(20):
        use()
    deadline = time.monotonic() + WAIT_S
    while (open_descriptors() > descriptors or native_threads() > threads) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_descriptors() <= descriptors
    assert native_threads() <= threads


@pytest.mark.faces
def test_every_clip_plays_to_its_end(face_data):
    for path in sorted((face_data / "clips").iterdir()):
        source = open_file(path, analysis_fps=2.0)
        times = [frame.time_s for frame in source.frames()]
        assert len(times) >= 5, path.name
        assert all(a < b for a, b in pairwise(times)), path.name
        assert source.stats().decoded >= 50, path.name
