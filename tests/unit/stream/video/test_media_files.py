import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SourceError
from stream.video.media_files import check_media_file, list_pictures, natural_key


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(box(b"ftyp", b"isom") + box(b"mdat", bytes(500))[:-100])
    for name, says in {
        "missing.mp4": "no such file",
        "empty.mp4": "0 bytes",
        "cut.mp4": "no moov box",
        ".": "not a regular file",
    }.items():
        with pytest.raises(SourceError, match=says) as caught:
            check_media_file(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_pictures_come_in_the_order_that_people_expect(tmp_path):
    for name in ["f10.jpg", "f9.JPG", "f1.png", "f2.bmp", "f02.webp", "notes.txt", "f.jpeg"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    names = [path.name for path in list_pictures(tmp_path)]
    assert names == ["f.jpeg", "f1.png", "f02.webp", "f2.bmp", "f9.JPG", "f10.jpg"]


@given(st.lists(st.text("a1²0._", min_size=1, max_size=6), unique=True, max_size=20))
def test_natural_order_is_an_order(names):
    once = sorted(map(Path, names), key=natural_key)
    backwards = once[::-1]
    assert sorted(backwards, key=natural_key) == once


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no picture among 0 files"):
        list_pictures(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match="all 1 pictures are empty"):
        list_pictures(tmp_path)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("192.0.2.5", "rtsp://192.0.2.5"),
        ("192.0.2.5:554/stream1", "rtsp://192.0.2.5:554/stream1"),
        ("camera.local:8554/x", "rtsp://camera.local:8554/x"),
        ("rtsp/host/x", "rtsp://host/x"),  # as Path has rtsp//host/x
        ("rtsp:/host/x", "rtsp://host/x"),
        ("http:host/x", "http://host/x"),
    ],
)
def test_an_address_without_its_scheme_is_told_from_a_missing_file(path, meant):
    with pytest.raises(SourceError, match=f"for a camera on the network write {re.escape(meant)}$"):
        check_media_file(Path(path))


@pytest.mark.parametrize("path", ["1.2.3.mp4", "http.mp4", "clips/rtsp/a.mp4", "10:30.mp4", "rtsp"])
def test_a_missing_file_is_not_taken_for_a_camera(path):
    with pytest.raises(SourceError, match=r"no such file; check the path$"):
        check_media_file(Path(path))
