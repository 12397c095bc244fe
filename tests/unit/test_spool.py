from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError, SinkError
from stream.sealing import Sealer
from stream.spool import LEAST_SPOOL_BYTES, Spool
from stream.spool_files import Cursor, CursorFile, SpoolFullError, read_cursor, spool_folder
from stream.spool_frames import FRAME_BYTES, HEADER_BYTES

KEY = bytes(range(32))


@pytest.fixture(params=[None, KEY], ids=["in the clear", "sealed"])
def sealer(request: pytest.FixtureRequest) -> Sealer | None:
    return None if request.param is None else Sealer(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def told() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


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


@given(st.lists(st.lists(st.binary(max_size=300), max_size=5), max_size=12), st.integers(1, 2000))
@settings(max_examples=40)
def test_what_was_appended_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[bytes]], want: int
) -> None:
    spool = Spool(tmp_path_factory.mktemp("s") / "spool")
    for group in groups:
        spool.append(group, timeout_s=0)
    assert read_all(spool, want=want) == [each for group in groups for each in group]
    spool.close()


def test_the_next_process_reads_what_was_not_settled(folder: Path, sealer: Sealer | None) -> None:
    spool = Spool(folder, sealer=sealer)
    spool.append(records(10), timeout_s=0)
    first = spool.read(spool.cursor, want=400)
    assert first is not None
    spool.settle(first.end)
    leave(spool)
    spool = Spool(folder, sealer=sealer)
    assert first.payloads + read_all(spool) == records(10)
    assert spool.stats().events == 10 - len(first.payloads) > 0
    spool.append([b"more"], timeout_s=0)
    assert read_all(spool)[-2:] == [records(10)[-1], b"more"]
    spool.close()


def test_a_folder_of_which_everything_was_delivered_is_cleared_away(folder: Path) -> None:
    spool = Spool(folder)
    spool.append(records(3), timeout_s=0)
    assert not spool.wait_until_empty(0)
    read_all(spool, settle=True)
    assert spool.wait_until_empty(0)
    spool.close()
    spool.close()
    assert not folder.exists()


def test_what_is_delivered_leaves_the_disk(folder: Path) -> None:
    spool = Spool(folder, max_bytes=LEAST_SPOOL_BYTES)
    for _ in range(50):
        spool.append(records(20), timeout_s=0)
        read_all(spool, settle=True)
    assert spool.stats().bytes < 2 * LEAST_SPOOL_BYTES // 8 + 3000
    assert len(segments(folder)) <= 2
    assert spool.stats().dropped_events == 0
    spool.close()


def test_what_was_delivered_is_off_the_disk_when_nothing_waits(folder: Path) -> None:
    spool = Spool(folder)
    spool.append([b"a face of somebody"], timeout_s=0)
    spool.tidy()
    assert read_all(spool, settle=True) == [b"a face of somebody"]
    spool.tidy()
    spool.tidy()
    assert not any(b"a face" in path.read_bytes() for path in folder.iterdir())
    assert spool.stats().bytes == 0
    spool.append([b"another"], timeout_s=0)
    leave(spool)
    spool = Spool(folder)
    assert read_all(spool, settle=True) == [b"another"]
    spool.close()


def test_files_are_for_their_owner_alone(folder: Path) -> None:
    spool = Spool(folder)
    spool.append([b"x"], timeout_s=0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    spool.close()


def test_what_is_sealed_cannot_be_read_in_the_file_nor_with_another_key(folder: Path) -> None:
    spool = Spool(folder, sealer=Sealer(KEY))
    spool.append([b"a face of somebody"], timeout_s=0)
    leave(spool)
    assert not any(b"a face" in path.read_bytes() for path in folder.iterdir())
    for other in (None, Sealer(bytes(32))):
        with pytest.raises(ConfigError, match="FACESTREAM_KEY"):
            Spool(folder, sealer=other)
    spool = Spool(folder, sealer=Sealer(KEY))  # and the failed attempts have not kept the lock
    assert read_all(spool) == [b"a face of somebody"]
    spool.close()


def test_a_spool_in_the_clear_is_taken_up_when_there_is_a_key_now(folder: Path) -> None:
    spool = Spool(folder)
    spool.append([b"before"], timeout_s=0)
    leave(spool)
    spool = Spool(folder, sealer=Sealer(KEY))
    spool.append([b"after"], timeout_s=0)
    assert read_all(spool) == [b"before", b"after"]
    spool.close()


def test_one_process_has_a_spool_and_is_named(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from stream.spool import Spool\n"
        f"spool = Spool(Path({str(folder)!r})); spool.append([b'kept'], timeout_s=0)\n"
        "print('there', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        with pytest.raises(SinkError, match=f"process {other.pid} uses this spool"):
            Spool(folder)
        other.send_signal(signal.SIGKILL)
    spool = Spool(folder)
    assert read_all(spool) == [b"kept"]
    spool.close()


def test_a_torn_tail_is_cut_off_and_no_damage(folder: Path, sealer: Sealer | None) -> None:
    spool = Spool(folder, sealer=sealer)
    spool.append(records(5), timeout_s=0)
    leave(spool)
    path = segments(folder)[0]
    os.truncate(path, path.stat().st_size - 30)
    spool = Spool(folder, sealer=sealer)
    assert read_all(spool) == records(4)
    assert spool.stats().damaged_places == 0
    spool.close()


@pytest.mark.parametrize("where", ["mark", "length", "checksum", "time", "payload"])
def test_a_damaged_record_costs_itself_and_is_counted(
    folder: Path, sealer: Sealer | None, where: str, told: list[dict[str, object]]
) -> None:
    spool = Spool(folder, sealer=sealer)
    spool.append(records(9), timeout_s=0)
    size = segments(folder)[0].stat().st_size
    length = (size - HEADER_BYTES) // 9
    offset = (
        HEADER_BYTES + 4 * length + {"mark": 0, "length": 6, "checksum": 9, "time": 13, "payload": 60}[where]
    )
    _flip(segments(folder)[0], offset)
    assert read_all(spool) == [each for number, each in enumerate(records(9)) if number != 4]
    stats = spool.stats()
    assert (stats.damaged_places, stats.damaged_bytes) == (1, length)
    (entry,) = [each for each in told if "damaged" in str(each["event"])]
    assert (entry["file"], entry["bytes"]) == (str(segments(folder)[0]), length)
    read_all(spool, settle=True)
    assert spool.wait_until_empty(0)
    spool.close()


def test_a_damaged_header_of_a_clear_segment_costs_nothing(folder: Path) -> None:
    spool = Spool(folder)
    spool.append(records(5), timeout_s=0)
    leave(spool)
    _flip(segments(folder)[0], 10)
    spool = Spool(folder)
    assert read_all(spool) == records(5)
    spool.close()


def test_a_damaged_header_of_a_sealed_segment_costs_that_segment_and_is_said(
    folder: Path, told: list[dict[str, object]]
) -> None:
    for _ in range(2):
        spool = Spool(folder, sealer=Sealer(KEY))
        spool.append(records(5), timeout_s=0)
        leave(spool)
    _flip(segments(folder)[0], 10)
    spool = Spool(folder, sealer=Sealer(KEY))
    assert read_all(spool) == records(5)
    (left,) = folder.glob("*.damaged")
    assert spool.stats().damaged_bytes == left.stat().st_size
    assert any(each.get("file") == str(left) for each in told)
    spool.close()


@given(st.data())
@settings(max_examples=60)
def test_any_damage_costs_what_it_touches_and_no_more(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s") / "spool"
    spool = Spool(folder)
    written = records(20)
    spool.append(written, timeout_s=0)
    spool.append([b"the end"], timeout_s=0)
    path = segments(folder)[0]
    content = bytearray(path.read_bytes())
    length = FRAME_BYTES + len(written[0])
    begin = data.draw(st.integers(HEADER_BYTES, HEADER_BYTES + 19 * length))
    junk = data.draw(st.binary(min_size=1, max_size=min(500, HEADER_BYTES + 20 * length - begin)))
    content[begin : begin + len(junk)] = junk
    path.write_bytes(content)
    touched = range((begin - HEADER_BYTES) // length, (begin + len(junk) - 1 - HEADER_BYTES) // length + 1)
    found = read_all(spool)
    assert found[-1] == b"the end"
    expected = [each for number, each in enumerate(written) if number not in touched]
    assert [each for each in found if each in set(expected)] == expected
    leave(spool)


def test_records_that_are_to_go_are_overwritten_and_the_rest_stays(
    folder: Path, sealer: Sealer | None
) -> None:
    spool = Spool(folder, sealer=sealer)
    spool.append(records(6), timeout_s=0)
    first = spool.read(spool.cursor, want=300)
    assert first is not None
    spool.settle(first.end)
    before = segments(folder)[0].read_bytes()
    gone = {records(6)[0], records(6)[3], records(6)[4]}
    assert spool.erase(lambda payload: payload in gone) == 3
    assert spool.erase(lambda payload: payload in gone) == 0
    left = [each for each in records(6)[len(first.payloads) :] if each not in gone]
    assert spool.stats().events == len(left)
    assert read_all(spool) == left
    after = segments(folder)[0].read_bytes()
    assert len(after) == len(before)
    if sealer is None:
        assert b"000003" not in after
        assert b"000005" in after
    leave(spool)
    spool = Spool(folder, sealer=sealer)
    assert read_all(spool, settle=True) == left
    assert spool.stats().events == 0
    spool.close()


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
        sum(int(str(each["events"])) for each in told if "given up" in str(each["event"]))
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


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"spool.dir"):
        Spool(tmp_path / "file" / "spool")


def test_the_age_of_the_oldest_is_told(folder: Path) -> None:
    now_s = [1000.0]
    spool = Spool(folder, clock=lambda: now_s[0])
    assert spool.stats().oldest_s == 0.0
    spool.append([b"old"], timeout_s=0)
    now_s[0] = 1030.0
    spool.append([b"new"], timeout_s=0)
    assert spool.stats().oldest_s == 30.0
    first = spool.read(spool.cursor, want=30)
    assert first is not None
    spool.settle(first.end)
    now_s[0] = 1040.0
    assert spool.stats().oldest_s == 10.0
    leave(spool)


def test_a_cursor_that_is_ahead_of_the_data_does_not_hide_new_events(folder: Path) -> None:
    spool = Spool(folder)
    spool.append(records(5), timeout_s=0)
    read_all(spool, settle=True)
    leave(spool)
    path = segments(folder)[0]
    os.truncate(path, HEADER_BYTES + 10)  # the power went: what was delivered had not come to the disk
    spool = Spool(folder)
    spool.append([b"new"], timeout_s=0)
    assert read_all(spool, settle=True) == [b"new"]
    spool.close()


def test_a_cursor_survives_a_torn_slot(tmp_path: Path) -> None:
    cursor = CursorFile(tmp_path)
    cursor.write(Cursor(3, 40))
    cursor.write(Cursor(3, 80))
    cursor.close()
    whole = (tmp_path / "cursor").read_bytes()
    assert read_cursor(tmp_path) == Cursor(3, 80)
    found = set()
    for at in range(len(whole)):
        torn = bytearray(whole)
        torn[at] ^= 1
        (tmp_path / "cursor").write_bytes(torn)
        found.add(read_cursor(tmp_path))
    assert found == {Cursor(3, 40), Cursor(3, 80)}
    (tmp_path / "cursor").write_bytes(b"nothing")
    assert read_cursor(tmp_path) is None
    cursor = CursorFile(tmp_path)
    cursor.write(Cursor(4, 50))
    assert read_cursor(tmp_path) == Cursor(4, 50)
    cursor.close()


def test_a_lost_cursor_costs_repeats_and_no_event(folder: Path) -> None:
    spool = Spool(folder)
    spool.append(records(5), timeout_s=0)
    read_all(spool, settle=True)
    spool.append([b"new"], timeout_s=0)
    leave(spool)
    (folder / "cursor").unlink()
    spool = Spool(folder)
    assert read_all(spool, settle=True) == [*records(5), b"new"]
    spool.close()


def test_a_process_that_is_killed_while_it_writes_loses_nothing_that_it_has_said(folder: Path) -> None:
    code = (
        "import os; from pathlib import Path; from stream.spool import Spool\n"
        f"spool = Spool(Path({str(folder)!r}))\n"
        "number = 0\n"
        "while True:\n"
        "    spool.append([b'%d' % number + bytes(5000)] * 3, timeout_s=0)\n"
        "    os.write(1, b'%d\\n' % number)\n"
        "    number += 1\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 30.0
        said = b""
        while said.count(b"\n") < 200 and time.monotonic() < deadline:
            said += os.read(process.stdout.fileno(), 4096)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
    last = int(said.split()[-1])
    spool = Spool(folder)
    found = [int(each.rstrip(b"\0")) for each in read_all(spool)]
    assert found[: 3 * (last + 1)] == [number for number in range(last + 1) for _ in range(3)]
    assert spool.stats().damaged_places == 0
    leave(spool)


def test_syncing_reaches_the_disk_and_is_done_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    spool = Spool(folder)
    spool.append([b"x"], timeout_s=0)
    spool.sync()
    spool.sync()
    assert len(synced) == 1
    leave(spool)


def test_each_sink_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = [spool_folder(f"kafka://{host}/faces", within=tmp_path) for host in ("a:1", "b:1", "a:1")]
    assert folders[0] == folders[2] != folders[1]
    assert all(folder.name.startswith("faces-") for folder in folders)


def test_what_makes_no_sense_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        Spool(folder, max_bytes=10)
    spool = Spool(folder)
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.append([b"x"], timeout_s=0)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
