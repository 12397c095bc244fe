from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.video.container_check import iso_boxes, missing_bytes


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def open_list(kind: bytes, content: bytes) -> bytes:
    """As a recorder leaves it that was stopped hard: without its length."""
    return kind + bytes(4) + content


def element(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (1 << 56 | len(content)).to_bytes(8, "big") + content


def endless(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + b"\x01" + b"\xff" * 7 + content


def tag(content: bytes) -> bytes:
    length = len(content).to_bytes(3, "big")
    return b"\x09" + length + bytes(7) + content + (11 + len(content)).to_bytes(4, "big")


def asf_object(name: str, content: bytes) -> bytes:
    return bytes.fromhex(name) + (24 + len(content)).to_bytes(8, "little") + content


def asf(*, broadcast: int, data_length: int | None = None) -> bytes:
    about = bytes(88 - 24) + broadcast.to_bytes(4, "little") + (200).to_bytes(4, "little") * 2 + bytes(4)
    header = bytes(6) + asf_object("a1dcab8c47a9cf118ee400c00c205365", about)
    data = asf_object("3626b2758e66cf11a6d900aa0062ce6c", bytes(26) + (b"\x82" + bytes(199)) * 5)
    if data_length is not None:
        data = data[:16] + data_length.to_bytes(8, "little") + data[24:]
    return asf_object("3026b2758e66cf11a6d900aa0062ce6c", header) + data


def page(flags: int, content: bytes) -> bytes:
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([1, len(content)]) + content


def pack(content: bytes) -> bytes:
    header = b"\0\0\x01\xba\x44" + bytes(8) + b"\xf8"
    return header + b"\0\0\x01\xe0" + len(content).to_bytes(2, "big") + content


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "little") + bytes(8) + content


BLOB = bytes(random.Random(0).randbytes(301))
EBML = element("1a45dfa3", b"matroska")
CLUSTERS = element("1f43b675", element("e7", b"\0") + element("a3", BLOB)) * 3
MOVI = open_list(b"LIST", b"movi" + chunk(b"00dc", BLOB) * 3)
WHOLE = {
    "mp4": box(b"ftyp", b"isom0000") + box(b"moov", bytes(100)) + box(b"mdat", bytes(500)),
    "avi": chunk(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + BLOB) + chunk(b"LIST", b"movi" + BLOB)),
    "avi of two parts": chunk(b"RIFF", b"AVI " + BLOB) + chunk(b"RIFF", b"AVIX" + BLOB),
    "avi stopped hard": open_list(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + BLOB) + MOVI),
    "mkv": EBML + element("18538067", CLUSTERS),
    "live mkv": EBML + endless("18538067", CLUSTERS),
    "live webm": EBML + endless("18538067", endless("1f43b675", element("a3", BLOB) * 3)),
    "flv": b"FLV\x01\x01\0\0\0\x09" + bytes(4) + tag(BLOB) * 3,
    "wmv": asf(broadcast=0),
    "live wmv": asf(broadcast=1, data_length=0),
    "ogg": page(2, b"begin") + page(0, b"O" * 200) + page(4, b"O" * 200),
    "gif": b"GIF89a" + b"\x3c" * 500 + b"\0;",
    "ts": (b"\x47" + bytes(187)) * 20,
    "ts out of step": b"\x12" * 99 + (b"\x47" + bytes(187)) * 20,
    "m2ts": (bytes(4) + b"\x47" + bytes(187)) * 20,
    "mpg": pack(BLOB) * 5,
    "mpg with an end": pack(BLOB) * 5 + b"\0\0\x01\xb9",
    "ivf": b"DKIF\0\0\x20\0" + bytes(24) + frame(BLOB) * 3,
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_misses_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "film"
    path.write_bytes(WHOLE[kind])
    assert missing_bytes(path) == 0


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("cut", [20, 50, 99, 147])
def test_what_is_cut_off_is_missed(tmp_path: Path, kind: str, cut: int) -> None:
    path = tmp_path / "film"
    path.write_bytes(WHOLE[kind][:-cut])
    assert 0 < missing_bytes(path) <= cut


@pytest.mark.parametrize("kind", sorted(set(WHOLE) - {"gif"}))
@pytest.mark.parametrize(
    "tail", [b"\0", b"\0" * 4096, b"\xff" * 50, b"\x99\x12\xfe", b"Hello, this is a signature\n", BLOB * 9]
)
def test_what_is_behind_a_whole_file_is_not_taken_for_a_part(tmp_path: Path, kind: str, tail: bytes) -> None:
    path = tmp_path / "film"
    path.write_bytes(WHOLE[kind] + tail)
    assert missing_bytes(path) == 0


def transport_packet(payload: bytes, *, begins: bool = False) -> bytes:
    stuffing = 184 - len(payload)
    header = b"\x47" + (0x4000 * begins | 0x100).to_bytes(2, "big")
    if not stuffing:
        return header + b"\x10" + payload
    return header + b"\x30" + bytes([stuffing - 1]) + b"\xff" * (stuffing - 1) + payload


@pytest.mark.parametrize(("cut", "missing"), [(0, 0), (1, 100), (2, 284), (3, 468), (4, 0)])
def test_a_transport_stream_is_cut_within_what_its_packets_carry(
    tmp_path: Path, cut: int, missing: int
) -> None:
    content = b"\0\0\x01\xe0" + (4 * 184 + 100 - 6 - 184).to_bytes(2, "big") + bytes(4 * 184 + 94 - 184)
    parts = [content[n : n + 184] for n in range(0, len(content), 184)]
    picture = b"".join(transport_packet(part, begins=not n) for n, part in enumerate(parts))
    path = tmp_path / "film.ts"
    path.write_bytes((picture * 5)[: len(picture) * 5 - 188 * cut])
    assert missing_bytes(path) == missing


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv", "wmv"])
def test_what_the_header_states_is_missed_to_the_byte(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "film"
    path.write_bytes(WHOLE[kind][:-123])
    assert 122 <= missing_bytes(path) <= 123  # a chunk of odd length may do without its padding


def test_sizes_of_64_bits_and_open_ends_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    large = (1).to_bytes(4, "big") + b"mdat" + (116).to_bytes(8, "big") + bytes(60)
    path.write_bytes(box(b"ftyp", b"isom") + box(b"moov", b"") + large)
    assert missing_bytes(path) == 40
    path.write_bytes(box(b"ftyp", b"isom") + bytes(4) + b"mdat" + bytes(60))
    assert missing_bytes(path) == 0
    assert iso_boxes(path) == {b"ftyp", b"mdat"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7f" * 100,
        b"abc",
        WHOLE["mp4"] + b"\xff" * 50,
        WHOLE["mkv"] + b"\0" * 50,
        WHOLE["mpg"] + b"\0" * 50,
        WHOLE["ts"] + b"\0" * 50,
        b"\0\0\0\x01\x67 a bare stream",
    ],
)
def test_files_that_do_not_say_are_taken_for_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    assert missing_bytes(path) == 0


@given(
    begin=st.sampled_from([b"", *(content[:40] for content in WHOLE.values())]),
    content=st.binary(max_size=200),
)
def test_any_bytes_can_be_looked_at(
    tmp_path_factory: pytest.TempPathFactory, begin: bytes, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mp4"
    path.write_bytes(begin + content)
    assert missing_bytes(path) >= 0
    iso_boxes(path)
