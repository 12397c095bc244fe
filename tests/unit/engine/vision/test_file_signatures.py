from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PictureError
from engine.vision.file_signatures import is_cut_off, picture_kind


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (bytes(5000), "nothing but zero bytes"),
        (b"\xff", "it is cut off after 1 bytes"),
        (b"\x89PNG", "it is cut off after 4 bytes"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "an MP4 or QuickTime video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "an MP4 or QuickTime video"),
        (b"\0\0\0\x08wide\0\0\0\x08mdat", "an MP4 or QuickTime video"),
        (b"RIFF\x10\0\0\0AVI LIST", "an AVI video"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0", "Matroska or WebM video"),
        ((b"G" + bytes(187)) * 4, "an MPEG transport stream, which is a video"),
        ((bytes(4) + b"G" + bytes(187)) * 4, "an MPEG transport stream, which is a video"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"<!DOCTYPE html><html>not found</html>", "a web page"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b'{"error": 404}', "it is text"),
        ("Grüße".encode(), "it is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a camera's raw file"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x01\x02\x03\xff\xfe", r"unknown kind \(it begins with 01 02 03 ff fe\)"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(data: bytes, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        picture_kind(data)


@pytest.mark.parametrize(
    ("brands", "kind"),
    [
        ([b"heic", b"mif1", b"heic"], "HEIC"),
        ([b"mif1", b"heic"], "HEIC"),
        ([b"heix"], "HEIC"),
        ([b"avif", b"mif1", b"miaf"], "AVIF"),
        ([b"mif1", b"avif", b"miaf"], "AVIF"),
        ([b"avis", b"msf1"], "AVIF"),
    ],
)
def test_brands_tell_heic_from_avif(brands: list[bytes], kind: str) -> None:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    assert picture_kind((4 + len(body)).to_bytes(4, "big") + body) == kind


@given(
    st.sampled_from(
        [b"II*\0", b"MM\0*", b"\0\0\0\x18ftypheic", b"\0\0\0\x18ftypavif", b"BM", b"GIF89a", b"RIFF"]
    ),
    st.binary(max_size=200),
)
def test_any_bytes_have_a_name(head: bytes, tail: bytes) -> None:
    try:
        kind = picture_kind(head + tail)
    except PictureError as exc:
        assert str(exc).startswith("it is ")  # noqa: PT017 - or it has a kind
    else:
        assert is_cut_off(kind, head + tail) in {True, False}
