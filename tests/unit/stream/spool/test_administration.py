from __future__ import annotations

import os
from pathlib import Path

import pytest
from event_checks import face_event, identity_event
from typer.testing import CliRunner

from engine.errors import ConfigError, SinkError
from stream.cli.root import app
from stream.common.encryption import Sealer
from stream.events.event_types import Event
from stream.events.json_encoder import quick_binary
from stream.spool.administration import (
    erase_events,
    erase_from_spools,
    list_spools,
    look_at_spool,
    purge_spool,
)
from stream.spool.packed_records import pack, unpack
from stream.spool.spool import Spool

KEY = Sealer(bytes(range(32)))


def fill(spool: Spool, *events: Event) -> None:
    spool.append([pack(quick_binary(event)) for event in events], timeout_s=0)


def ids(spool: Spool) -> list[str]:
    batch = spool.read(spool.cursor)
    payloads = [] if batch is None else batch.payloads
    return [dict(unpack(payload).headers)["ce_id"].decode() for payload in payloads]


@pytest.mark.parametrize("sealer", [None, KEY], ids=["in the clear", "sealed"])
def test_a_person_is_erased_from_every_spool_also_while_it_is_used(
    tmp_path: Path, sealer: Sealer | None
) -> None:
    spools = [Spool(tmp_path / name, sealer=sealer) for name in ("faces-1", "faces-2")]
    for spool in spools:
        fill(spool, face_event(track_id="a"), face_event(track_id="b"), identity_event(track_id="b"))
        fill(
            spool,
            identity_event(track_id="c", person_id="p-2"),
            identity_event(track_id="a", person_id="p-2"),
        )
    gone = erase_from_spools(tmp_path, person_id="p-000017", track_ids=["a"], sealer=sealer)
    assert gone == 6
    for spool in spools:
        fill(spool, face_event(track_id="d"))
        assert ids(spool) == ["b.0", "c.0.identity.g-5c1e.12", "d.0"]
        spool.close()


def test_nothing_is_erased_with_another_key(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "faces", sealer=KEY)
    fill(spool, face_event())
    with pytest.raises(ConfigError, match="FACESTREAM_KEY"):
        erase_events(tmp_path, lambda _: True)
    assert len(ids(spool)) == 1
    spool.close()


def test_a_spool_is_looked_at_while_it_is_used_and_afterwards(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "faces", clock=lambda: 1000.0)
    fill(spool, *[face_event(sequence=number) for number in range(4)])
    first = spool.read(spool.cursor, want=2000)
    assert first is not None
    spool.settle(first.end)
    state = look_at_spool(tmp_path / "faces")
    assert (state.events, state.oldest_ms, state.damaged_bytes) == (4 - len(first.payloads), 1_000_000, 0)
    assert state.events > 0
    assert state.bytes == spool.stats().bytes
    assert state.holder == os.getpid()
    spool.close()
    assert look_at_spool(tmp_path / "faces").holder is None


def test_a_spool_is_given_up_by_whoever_wants_to_but_not_while_it_is_used(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "faces")
    fill(spool, face_event())
    with pytest.raises(SinkError, match="uses this spool"):
        purge_spool(tmp_path / "faces")
    spool.close()
    assert purge_spool(tmp_path / "faces") == 1
    assert list_spools(tmp_path) == []
    assert not (tmp_path / "faces").exists()


def test_the_command_shows_what_waits_and_what_is_damaged(tmp_path: Path) -> None:
    run = CliRunner()
    assert "nothing waits" in run.invoke(app, ["spool", "status", "--dir", str(tmp_path)]).output
    spool = Spool(tmp_path / "faces")
    fill(spool, face_event(sequence=0), face_event(sequence=1))
    spool.close()
    shown = run.invoke(app, ["spool", "status", "--dir", str(tmp_path)])
    assert (shown.exit_code, "nobody" in shown.output) == (0, True)
    (segment,) = sorted((tmp_path / "faces").glob("*1.spool"))
    content = bytearray(segment.read_bytes())
    content[100] ^= 1
    segment.write_bytes(content)
    assert run.invoke(app, ["spool", "status", "--dir", str(tmp_path)]).exit_code == 1
    assert run.invoke(app, ["spool", "purge", str(tmp_path / "faces")], input="n\n").exit_code == 1
    unanswered = run.invoke(app, ["spool", "purge", str(tmp_path / "faces")], input="")
    assert unanswered.exit_code == 2
    assert "error: nobody answers, and nothing was given up; add --yes" in unanswered.stderr
    assert (tmp_path / "faces").exists()
    given_up = run.invoke(app, ["spool", "purge", "--yes", str(tmp_path / "faces")])
    assert given_up.output.splitlines()[-1] == "given up: 1 event"
