from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from captured import capture_logs
from spools import leave, read_all, records, segments

from engine.errors import SinkError
from stream.spool.cursor_and_lock import SpoolFullError
from stream.spool.framing import HEADER_BYTES
from stream.spool.spool import LEAST_SPOOL_BYTES, Spool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def told() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as entries:
        yield entries


def test_a_full_spool_gives_up_the_oldest_and_counts_them(
    folder: Path, told: list[dict[str, object]]
) -> None:
    spool = Spool(folder, max_bytes=LEAST_SPOOL_BYTES)
    written = records(1000)
    for each in written:
        spool.append([each], timeout_s=0)
    kept = read_all(spool)
    stats = spool.stats()
    assert kept == written[-len(kept) :]
    assert stats.dropped_events == len(written) - len(kept) > 0
    assert stats.events == len(kept)
    assert stats.bytes <= LEAST_SPOOL_BYTES
    assert (
        sum(int(str(each["events"])) for each in told if "were dropped" in str(each["event"]))
        == stats.dropped_events
    )
    read_all(spool, settle=True)
    spool.close()


def test_a_reader_goes_on_behind_what_was_given_up(folder: Path) -> None:
    spool = Spool(folder, max_bytes=LEAST_SPOOL_BYTES)
    spool.append(records(10), timeout_s=0)
    batch = spool.read(spool.cursor, want=200)
    assert batch is not None
    for each in records(1000):
        spool.append([each], timeout_s=0)
    spool.settle(batch.end)  # acknowledged meanwhile, and gone
    following = spool.read(batch.end)
    assert following is not None
    assert following.payloads[0] == read_all(spool)[0]
    leave(spool)


def test_a_full_spool_that_blocks_refuses_in_time_and_takes_events_when_there_is_room(folder: Path) -> None:
    spool = Spool(folder, max_bytes=LEAST_SPOOL_BYTES, when_full="block")
    for _ in range(6):
        spool.append(records(80), timeout_s=0)
    with pytest.raises(SpoolFullError, match=r"wait in the spool, which is full .* raise spool.max_mib"):
        spool.append(records(80), timeout_s=0)
    waiting = spool.stats().events
    reader = threading.Timer(0.05, lambda: read_all(spool, settle=True))
    reader.start()
    spool.append(records(80), timeout_s=10.0)
    reader.join()
    assert spool.stats().dropped_events == 0
    assert waiting > 100
    leave(spool)


def _refuse(number: int) -> Callable[..., int]:
    def pwrite(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return pwrite


def test_a_full_disk_is_named_and_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(folder, when_full="block")
    spool.append([b"before"], timeout_s=0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _refuse(errno.ENOSPC))
        with pytest.raises(SpoolFullError, match="the disk is full"):
            spool.append([b"lost to the caller"], timeout_s=0)
    spool.append([b"after"], timeout_s=0)
    assert read_all(spool, settle=True) == [b"before", b"after"]
    spool.close()


def test_on_a_disk_that_stays_full_the_oldest_are_given_up_or_events_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.pwrite, 5000

    def pwrite(file: int, data: bytes, at: int) -> int:
        there = sum(path.stat().st_size for path in segments(folder))
        if len(data) > 24 and there + len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    spool = Spool(folder)
    for each in records(100):
        spool.append([each], timeout_s=0)
    kept = read_all(spool)
    assert kept == records(100)[-len(kept) :]
    assert spool.stats().dropped_events == 100 - len(kept) > 0
    with pytest.raises(SpoolFullError, match="the disk is full"):
        spool.append(records(60), timeout_s=0)
    leave(spool)


def test_a_disk_that_is_full_in_the_middle_of_a_write_leaves_no_half_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(folder)
    real = os.pwrite
    calls = iter([real, lambda file, data, at: real(file, data[:50], at), _refuse(errno.ENOSPC)])

    def pwrite(file: int, data: bytes, at: int) -> int:
        return next(calls)(file, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(SpoolFullError):
            spool.append([b"x" * 100], timeout_s=0)
    assert segments(folder)[0].stat().st_size == HEADER_BYTES
    spool.append([b"whole"], timeout_s=0)
    assert read_all(spool, settle=True) == [b"whole"]
    spool.close()


def test_a_broken_disk_is_another_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _refuse(errno.EIO))
        with pytest.raises(SinkError, match=r"cannot be used .*spool.dir") as caught:
            spool.append([b"x"], timeout_s=0)
    assert not isinstance(caught.value, SpoolFullError)
    spool.close()
