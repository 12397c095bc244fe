"""Check by its container whether a media file is complete: decoders take a truncation for the end.

Most containers are a row of units that state their lengths (boxes, chunks, elements, tags, pages, packets):
a file that ends within a unit, or within a unit around it, was cut off. GIF and Ogg mark their end. What says
nothing is taken for whole: a recording that was made live and has no length in its header, say, or a bare
stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

_HEAD: Final = 64
_MUCH: Final = 1 << 17
"""Bytes at either end of a file in which its first header or last unit is looked for."""

_Unit: TypeAlias = tuple[bytes, int, int]
"""Kind; bytes, header included, as far as they are declared; bytes to the next unit: less where the unit is
looked into, 0 where it goes on to the end of the file."""
_Parser: TypeAlias = Callable[[bytes], _Unit | None]
_Packets: TypeAlias = tuple[int, int, int | None]
"""Length of a file's packets, where the first one begins, and where in each its byte of sync is, if any."""


def missing_bytes(path: Path) -> int:
    """How much of a media file is cut off at its end.

    Known are MP4 and MOV, AVI, Matroska and WebM, FLV, ASF and WMV, Ogg, GIF, transport and program streams,
    and IVF.

    Args:
        path: Of any file.

    Returns:
        Bytes that are missing at least; 0 for a whole file, and for one that does not say.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_MUCH)
        if (row := _row_of(head)) is not None:
            parse, start = row
            return _walk(file, size, parse, start=start)[1]
        if (packets := _transport_packet(head) or _asf_packet(head)) is not None:
            return _missing_of_packets(file, size, packets)
        file.seek(max(0, size - _MUCH))
        tail = file.read(_MUCH)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return 0 if tail.rstrip(b"\0").endswith(b";") else 1
    if head.startswith(b"OggS"):
        return _missing_of_page(tail)
    return 0


def iso_boxes(path: Path) -> set[bytes]:
    """Kinds of the top-level boxes of an MP4 or MOV file; none for any other file.

    Args:
        path: Of any file.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return _walk(file, path.stat().st_size, _iso_box)[0]


def _row_of(head: bytes) -> tuple[_Parser, int] | None:
    """What reads the units of a file that begins so, and where the first one is."""
    row: tuple[_Parser, int] | None = None
    if _iso_box(head) is not None:
        row = _iso_box, 0
    elif head.startswith(b"RIFF"):
        row = _riff_chunk, 0
    elif head.startswith(b"\x1a\x45\xdf\xa3"):
        row = _ebml_element, 0
    elif head.startswith(b"FLV") and len(head) > 13:
        row = _flv_tag, int.from_bytes(head[5:9], "big") + 4
    elif head.startswith(_ASF_HEADER) and _asf_packet(head) is None:
        row = _asf_object, 0
    elif head.startswith(b"\0\0\x01\xba"):
        row = _program_unit, 0
    elif head.startswith(b"DKIF"):
        row = _ivf_frame, int.from_bytes(head[6:8], "little")
    return row


def _walk(file: BinaryIO, size: int, parse: _Parser, *, start: int = 0) -> tuple[set[bytes], int]:
    """Kinds of a file's units, and the bytes missing of them.

    Nothing is said of a file that is not made of such units from its beginning to its end.
    """
    position = end = start
    kinds: set[bytes] = set()
    while position < size:
        file.seek(position)
        head = file.read(_HEAD)
        if (unit := parse(head)) is None:
            return (kinds, max(0, end - size)) if len(head) < 8 else (set(), 0)
        kind, declared, step = unit
        kinds.add(kind)
        end = max(end, position + declared)
        if step == 0:
            break
        position += step
    return kinds, max(0, max(end, position) - size)


_ISO_BOXES: Final = (
    *(b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"moof", b"mfra", b"styp", b"sidx"),
    *(b"meta", b"uuid", b"udta", b"pdin", b"prft", b"emsg"),
)


def _iso_box(head: bytes) -> _Unit | None:
    """ISO/IEC 14496-12, section 4.2."""
    length, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if kind not in _ISO_BOXES:
        return None
    if length == 1 and len(head) >= 16:
        length = int.from_bytes(head[8:16], "big")
    return (kind, length, length) if length >= 8 else (kind, 0, 0)


_RIFF_KINDS: Final = re.compile(
    rb"RIFF|LIST|JUNK|junk|idx1|[0-9A-Fa-f]{2}(?:d[bcd]|wb|pc|tx|sb|iv)|ix[0-9A-Fa-f]{2}"
    rb"|avih|str[hdfn]|indx|dmlh|vprp|I[A-Z]{3}|fmt |fact|data|bext|cue |id3 |ID3 "
)
"""Of AVI, also within its lists, and of WAV."""


def _riff_chunk(head: bytes) -> _Unit | None:
    """AVI and its kind; a recorder that was stopped hard has left lengths of 0: its chunks are looked at."""
    kind, length = head[:4], int.from_bytes(head[4:8], "little")
    if len(head) < 8 or not _RIFF_KINDS.fullmatch(kind):
        return None
    if kind in {b"RIFF", b"LIST"} and length in {0, 0xFFFFFFFF}:
        return kind, 0, 12
    return kind, 8 + length, 8 + length + length % 2


_EBML_KINDS: Final = frozenset(
    bytes.fromhex(kind)
    for kind in (
        *("1a45dfa3", "18538067", "ec", "bf"),  # head, segment; void, checksum anywhere
        *("114d9b74", "1549a966", "1654ae6b", "1f43b675", "1c53bb6b", "1941a469", "1043a770", "1254c367"),
        *("e7", "5854", "a7", "ab", "a3", "a0", "af"),  # within a cluster
    )
)
_EBML_UNKNOWN: Final = tuple((1 << 7 * width) - 1 for width in range(9))


def _ebml_element(head: bytes) -> _Unit | None:
    """Matroska and WebM (RFC 8794, sections 4 to 6); elements without a length are looked into."""
    id_width = 9 - head[0].bit_length()
    if id_width > 4 or len(head) <= id_width:
        return None
    size_width = 9 - head[id_width].bit_length()
    header = id_width + size_width
    if size_width > 8 or len(head) < header:
        return None
    length = int.from_bytes(head[id_width:header], "big") & ((1 << 7 * size_width) - 1)
    kind = head[:id_width]
    if kind not in _EBML_KINDS:
        return None
    return (
        (kind, 0, header) if length == _EBML_UNKNOWN[size_width] else (kind, header + length, header + length)
    )


def _flv_tag(head: bytes) -> _Unit | None:
    """Adobe's Flash Video File Format, version 10.1, annex E.4; each tag is followed by its length."""
    if head[0] & 0x1F not in {8, 9, 18} or head[0] >> 6 or any(head[8:11]) or len(head) < 4:
        return None  # reserved bits and the number of the stream are 0
    length = 11 + int.from_bytes(head[1:4], "big") + 4
    return head[:1], length, length


_ASF_HEADER: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA_HEADER: Final = 50
_ASF_OBJECTS: Final = (
    _ASF_HEADER,
    bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"),  # data
    bytes.fromhex("33000890e5b1cf1189f400a0c90349cb"),  # simple index
    bytes.fromhex("d329e2d6da35d111903400a0c90349be"),  # index
    bytes.fromhex("f803b1fead12644c840f2a1d2f7ad48c"),  # media object index
    bytes.fromhex("d03fb73c4a0c0348953dedf7b6228f0c"),  # timecode index
)


def _asf_object(head: bytes) -> _Unit | None:
    """Advanced Systems Format, revision 01.20.03, section 2.1."""
    length = int.from_bytes(head[16:24], "little")
    if head[:16] not in _ASF_OBJECTS or length < 24:
        return None
    return head[:16], length, length


def _asf_packet(head: bytes) -> _Packets | None:
    """Data packets of a file that was written while it was sent, so that its lengths are void (sec. 3.2)."""
    place = head.find(_ASF_FILE)
    flags, packet = head[place + 88 : place + 92], int.from_bytes(head[place + 92 : place + 96], "little")
    if not head.startswith(_ASF_HEADER) or place < 0 or not packet or not int.from_bytes(flags, "little") & 1:
        return None
    return packet, int.from_bytes(head[16:24], "little") + _ASF_DATA_HEADER, None


def _program_unit(head: bytes) -> _Unit | None:
    """A pack header or packet of an MPEG program stream (ISO/IEC 13818-1, section 2.5)."""
    if head[:3] != b"\0\0\x01" or len(head) < 14:
        return (head[:4], 4, 4) if head[:4] == b"\0\0\x01\xb9" else None
    if head[3] == 0xB9:
        return head[3:4], 4, 4
    if head[3] == 0xBA:
        length = 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
    elif head[3] > 0xBA and (content := int.from_bytes(head[4:6], "big")):
        length = 6 + content
    else:
        return None
    return head[3:4], length, length


def _ivf_frame(head: bytes) -> _Unit | None:
    """Length and timestamp, whose upper half is 0 within years of video."""
    content = int.from_bytes(head[:4], "little")
    return (b"", 12 + content, 12 + content) if len(head) >= 4 and content and not any(head[8:12]) else None


_SYNC: Final = 0x47
_TRANSPORT_PACKETS: Final = ((188, 0), (192, 4), (204, 0))
_FEW: Final = 5


def _transport_packet(head: bytes) -> _Packets | None:
    """ISO/IEC 13818-1, section 2.4.3; also with the time stamps of Blu-ray, or with parity."""
    for length, sync_at in _TRANSPORT_PACKETS:
        for start in range(length):
            syncs = head[start + sync_at :: length][:_FEW]
            if len(syncs) == _FEW and set(syncs) == {_SYNC}:
                return length, start, sync_at
    return None


def _missing_of_packets(file: BinaryIO, size: int, packets: _Packets) -> int:
    """Of the last packet; nothing is said where the file is out of step at its end."""
    length, start, sync_at = packets
    rest = max(0, size - start) % length
    if sync_at is None:  # packets of ASF begin all alike, with how their errors are corrected
        file.seek(start)
        first = file.read(1)
        file.seek(size - rest)
        return length - rest if rest and file.read(1) == first else 0
    if rest <= sync_at:  # so little may be anything
        rest = 0
    file.seek(max(start, size - rest - _MUCH // length * length) + sync_at)
    tail = file.read()
    if set(tail[::length]) != {_SYNC}:
        return 0
    return length - rest if rest else _missing_of_pes(tail, length)


def _missing_of_pes(packets: bytes, length: int) -> int:
    """Of what the last packets of a transport stream carry, where its length is stated (section 2.4.3.6)."""
    left: dict[int, int] = {}
    for place in range(0, len(packets), length):
        packet = packets[place : place + _TRANSPORT_PACKETS[0][0]]
        stream, control = int.from_bytes(packet[1:3], "big") & 0x1FFF, packet[3] >> 4 & 3
        payload = packet[{1: 4, 3: 5 + packet[4]}.get(control, len(packet)) :]
        if packet[1] & 0x40:  # begins a packet of the elementary stream
            declared = int.from_bytes(payload[4:6], "big") if payload[:3] == b"\0\0\x01" else 0
            left[stream] = 6 + declared - len(payload) if declared else 0
        elif left.get(stream):
            left[stream] -= len(payload)
    return max(0, *left.values(), 0)


def _missing_of_page(tail: bytes) -> int:
    """Of the last page of an Ogg file, which must be whole and marked as the last (RFC 3533, section 6)."""
    place = tail.rfind(b"OggS")
    header = tail[place : place + 27]
    if place < 0 or len(header) < 27:
        return 1
    lacing = tail[place + 27 : place + 27 + header[26]]
    missing = place + 27 + header[26] + sum(lacing) - len(tail)
    return max(0, missing) if missing > 0 or header[5] & 4 else 1
