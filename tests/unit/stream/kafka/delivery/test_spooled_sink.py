from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from captured import capture_logs
from event_checks import camera_event, face_event, identity_event
from prometheus_client import CollectorRegistry, generate_latest

from engine.errors import SinkError
from stream.app.metrics import SpoolMetrics
from stream.app.settings import SpoolSettings
from stream.app.wiring import open_sinks
from stream.events.event_types import Event
from stream.events.kafka_record import to_binary
from stream.kafka.address import parse_kafka
from stream.kafka.delivery.spooled_sink import KafkaSink
from stream.sinks.event_sink import SpooledSink
from stream.spool.cursor_and_lock import SpoolFullError
from stream.spool.packed_records import split, unpack
from stream.spool.spool import Spool

EVENTS: list[Event] = [face_event(), camera_event(), identity_event()]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"kafka://127.0.0.1:{taken.getsockname()[1]}/faces"


@pytest.fixture
def make_sink(nobody: str, tmp_path: Path) -> Iterator[Callable[..., KafkaSink]]:
    made: list[KafkaSink] = []

    def make(*, max_bytes: int = 1 << 20, **options: object) -> KafkaSink:
        spool = Spool(tmp_path / "spool", max_bytes=max_bytes, when_full="block")
        made.append(KafkaSink(parse_kafka(nobody), spool, **options))  # type: ignore[arg-type]
        made[-1].connect(2.0)
        return made[-1]

    yield make
    for sink in made:
        with pytest.raises(SinkError, match="not delivered") if sink.stats().events else nullcontext():
            sink.close(0.0)


def test_without_a_broker_events_wait_and_the_end_says_how_many(
    make_sink: Callable[..., KafkaSink], tmp_path: Path
) -> None:
    sink = make_sink()
    sink.emit(EVENTS)
    assert sink.stats().events == 3
    with pytest.raises(SinkError, match=r"3 events were not delivered \(.*cannot be reached") as caught:
        sink.close(0.0)
    assert str(tmp_path / "spool") in str(caught.value)
    sink.close(0.0)
    spool = Spool(tmp_path / "spool")
    batch = spool.read(spool.cursor)
    assert batch is not None
    assert [unpack(payload) for payload in batch.payloads] == [to_binary(event) for event in EVENTS]
    assert [split(payload).state_key for payload in batch.payloads] == [b"door-7f3a-1", b"", b""]
    spool.close()


def test_the_end_says_that_it_waits_for_a_broker(make_sink: Callable[..., KafkaSink]) -> None:
    sink = make_sink()
    sink.emit(EVENTS)
    with capture_logs() as told, pytest.raises(SinkError, match="3 events were not delivered"):
        sink.close(1.5)
    (waits,) = [each for each in told if each["event"] == "waiting for kafka to take the rest"]
    assert (waits["waiting"], waits["sink"]) == (3, sink.name)
    assert [each["events"] for each in told if each["event"] == "delivered"] == [0]


def test_the_frames_do_not_wait_for_brokers(make_sink: Callable[..., KafkaSink]) -> None:
    sink = make_sink()
    begun_s = time.monotonic()
    for _ in range(200):
        sink.emit([EVENTS[0]])
    assert time.monotonic() - begun_s < 30.0, "one wait for a broker each would take longer"
    assert sink.stats().events == 200


def test_a_full_spool_refuses_events_and_stays_in_order(make_sink: Callable[..., KafkaSink]) -> None:
    sink = make_sink(max_bytes=1 << 16, emit_timeout_s=0.05)
    sink.emit([EVENTS[0]] * 40)
    with pytest.raises(SpoolFullError, match=r"raise spool.max_mib"):
        sink.emit([EVENTS[0]] * 40)
    assert sink.stats().events == 40


def test_each_event_can_be_brought_to_the_disk_itself(
    make_sink: Callable[..., KafkaSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(Spool, "sync", lambda _self: synced.append(True))
    sink = make_sink(sync_every_s=0)
    for number in range(3):
        assert len(synced) == number
        sink.emit(EVENTS)


def test_a_disk_that_fails_to_sync_is_said_at_the_next_event(
    make_sink: Callable[..., KafkaSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Spool) -> None:
        raise SinkError("the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "sync", fail)
        sink = make_sink(sync_every_s=0.01)
        deadline_s = time.monotonic() + 60.0
        while sink._sync_error is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
        with pytest.raises(SinkError, match="the disk is broken"):
            sink.emit(EVENTS)
        sink._sync_every_s = 0


def test_what_waiting_does_not_mend_is_fatal_and_gives_the_spool_back(tmp_path: Path) -> None:
    sink = KafkaSink(parse_kafka("kafka://no-such-host.invalid:9092/faces"), Spool(tmp_path / "spool"))
    with pytest.raises(SinkError, match="cannot be reached"):
        sink.connect(2.0)
    Spool(tmp_path / "spool").close()


def test_a_closed_sink_takes_nothing(make_sink: Callable[..., KafkaSink]) -> None:
    sink = make_sink()
    sink.close(0.0)
    with pytest.raises(ValueError, match="closed"):
        sink.emit(EVENTS)


def test_numbers_that_make_no_sense_are_refused(nobody: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with pytest.raises(ValueError, match="emit_timeout_s"):
        KafkaSink(parse_kafka(nobody), spool, emit_timeout_s=0)
    with pytest.raises(ValueError, match="sync_every_s"):
        KafkaSink(parse_kafka(nobody), spool, sync_every_s=-1)
    spool.close()


def test_what_waits_is_a_metric(make_sink: Callable[..., KafkaSink]) -> None:
    sink = make_sink()
    sink.emit(EVENTS)
    assert isinstance(sink, SpooledSink)
    registry = CollectorRegistry()
    registry.register(SpoolMetrics([sink]))
    text = generate_latest(registry).decode()
    label = f'{{sink="{sink.name}"}}'
    assert f"facestream_sink_up{label} 0.0" in text
    assert f"facestream_spool_events{label} 3.0" in text
    assert f"facestream_spool_dropped_events_total{label} 0.0" in text
    assert f"facestream_spool_oldest_seconds{label}" in text


def test_the_configuration_says_where_a_spool_is_and_the_environment_seals_it(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESTREAM_KEY", "A" * 43 + "=")
    sinks = open_sinks([nobody], spool=SpoolSettings(dir=tmp_path))
    sinks.emit([face_event(track_id="a-telling-name")])
    with pytest.raises(SinkError, match=str(tmp_path)):
        sinks.close(0.0)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("faces-")
    assert not any(b"a-telling-name" in path.read_bytes() for path in folder.iterdir())


def test_identities_apart_wait_in_a_spool_of_their_own(nobody: str, tmp_path: Path) -> None:
    sinks = open_sinks([f"{nobody}?identities=names"], spool=SpoolSettings(dir=tmp_path))
    sinks.emit(EVENTS)
    waiting = {sink.name.rpartition("/")[2]: sink.stats().events for sink in sinks.spooled}
    assert waiting == {"faces": 2, "names": 1}
    with pytest.raises(SinkError, match=r"faces: 2 events were not delivered"):
        sinks.close(0.0)
