"""What several tests of the spool need."""

from __future__ import annotations

from pathlib import Path

from stream.spool.spool import Spool


def records(count: int, *, size: int = 100) -> list[bytes]:
    return [b"%06d" % number + bytes(size) for number in range(count)]


def read_all(spool: Spool, *, want: int = 1 << 20, settle: bool = False) -> list[bytes]:
    found: list[bytes] = []
    place = spool.cursor
    while (batch := spool.read(place, want=want)) is not None:
        found += batch.payloads
        place = batch.end
        if settle:
            spool.settle(place)
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


def leave(spool: Spool) -> None:
    """As kill -9 leaves it: nothing is written or removed any more; the lock goes with the process."""
    spool._free()
    spool._lock.release()


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
