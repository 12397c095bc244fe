"""The cost of getting events to Kafka: events a second and processor time, on one core."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from engine.backends.machine import one_core, this_machine
from engine.embeddings import unit_rows
from engine.errors import SinkError
from stream.console.progress import Progress
from stream.events.event_types import FaceEvent, TrackChange
from stream.events.json_encoder import quick_binary
from stream.kafka.address import KafkaAddress
from stream.kafka.delivery.spooled_sink import KafkaSink
from stream.kafka.topic_admin import connect_admin
from stream.spool.packed_records import pack
from stream.spool.spool import Spool

CAMERAS, EVENTS_OF_A_TRACK, DIFFERENT = 8, 5, 2000
EVENTS_AT_ONCE: Final = (1, 32)
_TIMEOUT_S: Final = 120.0
_CONNECT_S: Final = 10.0
_encode: Final = partial(quick_binary, encoding="int8-b64")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one way to send events, the median of the rounds.

    Attributes:
        events_at_once: In each ``emit``.
        track_states: Whether the latest state of each track was sent as well.
        events_per_s: From the first ``emit`` to the last acknowledgement.
        cpu_us: User and system time of the process, microseconds an event.
        spool_us: Of that, appending to the spool, measured on its own.
    """

    events_at_once: int
    track_states: bool
    events_per_s: float
    cpu_us: float
    spool_us: float


@dataclass(frozen=True, slots=True)
class EventBench:
    """What was measured.

    Attributes:
        events: In each round.
        record_bytes: Of a packed record.
        encode_us: Of ``cpu_us``: from the event to the packed record, measured on its own.
        costs: Of each way to send.
    """

    events: int
    record_bytes: int
    encode_us: float
    costs: tuple[Cost, ...]


def bench_events(
    address: KafkaAddress,
    *,
    console: Console,
    events: int = 60_000,
    rounds: int = 3,
    json_out: Path | None = None,
) -> EventBench:
    """Send events with embeddings of 128 int8 values through the spool to a real broker, on one core.

    Args:
        address: Brokers; topics are made and removed again.
        console: For the table.
        events: In each round, at least 1000.
        rounds: Of each way to send.
        json_out: File to write the figures to.

    Raises:
        SinkError: The brokers do not take them, or the file cannot be written.
        ValueError: A number is out of range.
    """
    if events < 1000 or rounds < 1:
        raise ValueError(f"expected at least 1000 events and 1 round, got {events} and {rounds}")
    some = make_events(DIFFERENT)
    ways = [(at_once, states) for states in (False, True) for at_once in EVENTS_AT_ONCE]
    with one_core(), Progress("events to Kafka", total=len(ways) * rounds) as progress:
        packed = [_pack(event) for event in some]
        encode_us = _time_us(lambda: [_pack(event) for event in some]) / len(some)
        spool_us = {at_once: _spool_us(packed, at_once) for at_once in EVENTS_AT_ONCE}
        measured: dict[tuple[int, bool], list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for at_once, states in ways:
                measured[at_once, states].append(
                    _send(address, some, events, at_once=at_once, track_states=states)
                )
                progress.advance()
    costs = tuple(
        Cost(
            at_once,
            states,
            events_per_s=median(rate for rate, _ in figures),
            cpu_us=median(cpu for _, cpu in figures),
            spool_us=spool_us[at_once],
        )
        for (at_once, states), figures in measured.items()
    )
    bench = EventBench(events, round(sum(map(len, packed)) / len(packed)), encode_us, costs)
    _show(bench, console)
    if json_out is not None:
        _write(bench, json_out)
    return bench


def make_events(count: int) -> list[FaceEvent]:
    """Events of several cameras with tracks of five events each, all numbers different."""
    rng = np.random.default_rng(20260301)
    vectors = unit_rows(rng.normal(size=(count, 128)).astype(np.float32))
    places = rng.uniform(0, 1280, (count, 18))
    begun = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    return [_event(number, vectors[number], places[number], begun) for number in range(count)]


def _event(number: int, vector: Any, places: Any, begun: datetime) -> FaceEvent:
    camera, sequence = number % CAMERAS, number // CAMERAS % EVENTS_OF_A_TRACK
    track = number // CAMERAS // EVENTS_OF_A_TRACK
    changes = [TrackChange.APPEARED, *[TrackChange.UPDATED] * 3, TrackChange.LEFT]
    at = begun + timedelta(microseconds=number * 40_123)
    return FaceEvent(
        change=changes[sequence],
        sequence=sequence,
        camera_id=f"camera-{camera}",
        run_id=f"{camera:012x}",
        track_id=f"{camera:012x}-{track}",
        at=at,
        frame_number=number,
        media_time_s=number * 0.040123,
        captured_at=at - timedelta(milliseconds=31),
        image_size_wh=(1280, 720),
        box_xyxy=tuple(places[:4].tolist()),
        landmarks_xy=places[4:14].reshape(5, 2).astype(np.float32),
        detection_score=float(places[0]) / 1280,
        quality=float(places[1]) / 1280,
        embedding=vector,
        embedding_model="sface",
        embedding_model_id="0123456789abcdef",
        embedding_mirrored=False,
        faces_seen=1 + sequence * 7,
        embeddings_made=1 + sequence,
        first_seen=begun + timedelta(seconds=track),
        last_seen=at,
        last_box_xyxy=tuple(places[14:].tolist()),
    )


def _send(
    address: KafkaAddress, some: Sequence[FaceEvent], count: int, *, at_once: int, track_states: bool
) -> tuple[float, float]:
    """Events a second, and microseconds of the processor an event."""
    address = replace(address, topic=f"facestream-bench-{uuid.uuid4().hex[:12]}")
    with tempfile.TemporaryDirectory(prefix="facestream-bench-") as folder:
        sink = KafkaSink(address, Spool(Path(folder) / "spool"), encode=_encode, track_states=track_states)
        try:
            sink.connect(_CONNECT_S)
            clock_s, cpu_s = time.perf_counter(), time.process_time()
            for begin in range(0, count, at_once):
                numbers = range(begin, min(begin + at_once, count))
                sink.emit([some[number % len(some)] for number in numbers])
            sink.close(_TIMEOUT_S)
            clock_s, cpu_s = time.perf_counter() - clock_s, time.process_time() - cpu_s
        finally:
            _remove(address)
    return count / clock_s, cpu_s / count * 1e6


def _remove(address: KafkaAddress) -> None:
    with closing(connect_admin(address, _CONNECT_S)) as admin:
        there = [topic for topic in admin.list_topics() if topic.startswith(address.topic)]
        if there:
            admin.delete_topics(there)


def _pack(event: FaceEvent) -> bytes:
    return pack(_encode(event), state_key=event.track_id.encode())


def _spool_us(packed: Sequence[bytes], at_once: int) -> float:
    """Microseconds to append a record."""
    groups = [packed[begin : begin + at_once] for begin in range(0, len(packed), at_once)]

    def append_all(spool: Spool) -> None:
        for group in groups:
            spool.append(group, timeout_s=1.0)

    with tempfile.TemporaryDirectory(prefix="facestream-bench-") as folder:
        spool = Spool(Path(folder) / "spool")
        try:
            return _time_us(lambda: append_all(spool)) / len(packed)
        finally:
            spool.close()


def _time_us(work: Callable[[], object]) -> float:
    work()
    figures = []
    for _ in range(5):
        begun_s = time.process_time()
        work()
        figures.append(time.process_time() - begun_s)
    return median(figures) * 1e6


def _show(bench: EventBench, console: Console) -> None:
    table = Table(
        title=f"{bench.events} events of {bench.record_bytes} bytes to Kafka, acknowledged, on one core",
        title_justify="left",
    )
    table.add_column("topic of states")
    for heading in ("events in an emit", "events/s", "CPU µs/event", "encode", "spool", "send"):
        table.add_column(heading, justify="right")
    for cost in bench.costs:
        send_us = cost.cpu_us - bench.encode_us - cost.spool_us
        table.add_row(
            "yes" if cost.track_states else "no",
            str(cost.events_at_once),
            f"{cost.events_per_s:.0f}",
            f"{cost.cpu_us:.1f}",
            f"{bench.encode_us:.1f}",
            f"{cost.spool_us:.1f}",
            f"{send_us:.1f}",
        )
    console.print(table)


def _write(bench: EventBench, path: Path) -> None:
    tree = {
        "format": "facestream-bench-events/1",
        "machine": asdict(this_machine()),
        **asdict(bench),
    }
    try:
        path.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")
    except OSError as exc:
        raise SinkError(f"{path}: cannot write the figures: {exc.strerror}; choose another place") from exc
