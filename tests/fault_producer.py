"""A process that emits numbered events to Kafka, can be killed at any moment, and goes on where it was.

Arguments: address, folder. The folder holds ``allowed`` (events that may have been emitted by now; -1 once no
more come) and ``emitted`` (events whose ``emit`` has returned), both written by whole.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from event_checks import face_event

from stream.common.logs import configure_logging
from stream.events.event_types import FaceEvent, TrackChange
from stream.kafka.address import parse_kafka
from stream.kafka.delivery.spooled_sink import KafkaSink
from stream.spool.spool import Spool

CAMERAS, EVENTS_OF_A_TRACK, GROUP = 8, 5, 20
EVENTS_A_SECOND = 4000
CLOSE_S = 90.0

VECTORS = np.random.default_rng(7).normal(size=(64, 128)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
CHANGES = [TrackChange.APPEARED, *[TrackChange.UPDATED] * (EVENTS_OF_A_TRACK - 2), TrackChange.LEFT]


def numbered_event(number: int) -> FaceEvent:
    """The event with this number: its camera, its place in the camera's order, its id."""
    camera, place = number % CAMERAS, number // CAMERAS
    sequence = place % EVENTS_OF_A_TRACK
    return face_event(
        change=CHANGES[sequence],
        camera_id=f"cam-{camera}",
        run_id=f"run-{camera}",
        track_id=f"run-{camera}-{place // EVENTS_OF_A_TRACK}",
        sequence=sequence,
        frame_number=place,
        embedding=VECTORS[number % len(VECTORS)],
    )


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    configure_logging(colors=False)
    sink = KafkaSink(parse_kafka(address), Spool(folder / "spool"))
    sink.connect(10.0)
    journal = os.open(folder / "emitted", os.O_RDWR | os.O_CREAT)
    number = int(os.pread(journal, 20, 0) or b"0")
    while (allowed := int((folder / "allowed").read_text())) >= 0 or number < _total(folder):
        until = allowed if allowed >= 0 else _total(folder)
        if number >= until:
            time.sleep(0.02)
            continue
        upper = min(until, number + GROUP)
        sink.emit([numbered_event(each) for each in range(number, upper)])
        number = upper
        os.pwrite(journal, b"%-20d" % number, 0)
        time.sleep(GROUP / EVENTS_A_SECOND)
    sink.close(CLOSE_S)


def _total(folder: Path) -> int:
    return int((folder / "total").read_text())


if __name__ == "__main__":
    main()
