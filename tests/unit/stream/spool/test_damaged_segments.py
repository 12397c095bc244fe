from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from captured import capture_logs
from hypothesis import given, settings
from hypothesis import strategies as st
from spools import flip, leave, read_all, records, segments

from stream.common.encryption import Sealer
from stream.spool.cursor_and_lock import Cursor, CursorFile, read_cursor
from stream.spool.framing import FRAME_BYTES, HEADER_BYTES
from stream.spool.spool import Spool

KEY = bytes(range(32))


@pytest.fixture(params=[None, KEY], ids=["in the clear", "sealed"])
def sealer(request: pytest.FixtureRequest) -> Sealer | None:
    return None if request.param is None else Sealer(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def told() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as entries:
        yield entries


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
    flip(segments(folder)[0], offset)
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
    flip(segments(folder)[0], 10)
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
    flip(segments(folder)[0], 10)
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
        "import os; from pathlib import Path; from stream.spool.spool import Spool\n"
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
