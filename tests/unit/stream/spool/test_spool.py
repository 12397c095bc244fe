from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spools import leave, read_all, records, segments

from engine.errors import ConfigError, SinkError
from stream.common.encryption import Sealer
from stream.spool.cursor_and_lock import spool_folder
from stream.spool.spool import LEAST_SPOOL_BYTES, Spool

KEY = bytes(range(32))


@pytest.fixture(params=[None, KEY], ids=["in the clear", "sealed"])
def sealer(request: pytest.FixtureRequest) -> Sealer | None:
    return None if request.param is None else Sealer(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


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
        "import sys, time; from pathlib import Path; from stream.spool.spool import Spool\n"
        f"spool = Spool(Path({str(folder)!r})); spool.append([b'kept'], timeout_s=0)\n"
        "print('there', flush=True); time.sleep(600)"
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


def test_a_folder_that_another_process_is_just_clearing_away_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cleared = os.open, list[Path]()

    def open_late(path: Path, flags: int, mode: int = 0o777) -> int:
        if not cleared:
            folder.rmdir()
            cleared.append(folder)
        return real(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_late)
        Spool(folder).close()
    assert cleared
    folder.touch()
    with pytest.raises(SinkError, match="File exists"):
        Spool(folder)


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
