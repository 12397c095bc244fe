from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from fault_producer import numbered_event
from kafka import KafkaConsumer, TopicPartition
from kafka_cluster import KafkaCluster

from stream.kafka.address import parse_kafka
from stream.kafka.topic_admin import connect_admin

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(1200),
]

EVENTS = int(os.environ.get("FACESTREAM_FAULT_EVENTS") or 0)
IN_FULL = EVENTS > 0
WAIT_S = 240.0
TOPIC = "faces"

Fault = Callable[[], None]


class Producer:
    """The process that emits, started again whenever it ends too early, as a service would be."""

    def __init__(self, address: str, folder: Path, total: int) -> None:
        self._folder, self.total, self._allowed = folder, total, 0
        self._command = [
            sys.executable,
            str(Path(__file__).parents[3] / "fault_producer.py"),
            address,
            folder,
        ]
        (folder / "total").write_text(str(total))
        self._allow(0)
        self.starts = 0
        self._finished = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def allow_more(self, count: int) -> None:
        self._allowed = min(self.total, self._allowed + count)
        self._allow(self._allowed)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    def finish(self) -> None:
        """Let it emit the rest, and wait until all is delivered."""
        self._allow(-1)
        assert self._finished.wait(WAIT_S), f"not delivered in time: {self.log()[-2000:]}"

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def end(self) -> None:
        self._finished.set()
        self.kill()
        self._keeper.join(60.0)

    def _allow(self, count: int) -> None:
        path = self._folder / "allowed.new"
        path.write_text(str(count))
        path.rename(self._folder / "allowed")

    def _keep(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with (self._folder / "log").open("ab") as log:
            while not self._finished.is_set():
                self.starts += 1
                self._process = subprocess.Popen(self._command, stderr=log, env=environment)
                if self._process.wait() == 0:
                    self._finished.set()


@dataclass(frozen=True)
class Found:
    """What a topic holds: ids of each camera's events, in order, with repeats; and the last of each track."""

    cameras: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


def read_everything(address: str) -> Found:
    found = Found()
    with closing(
        KafkaConsumer(
            bootstrap_servers=address.split(","), enable_auto_commit=False, request_timeout_ms=30_000
        )
    ) as consumer:
        places = [
            TopicPartition(topic, number)
            for topic in (TOPIC, f"{TOPIC}.tracks")
            for number in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        deadline = time.monotonic() + WAIT_S
        while any(consumer.position(place) < ends[place] for place in places):
            assert time.monotonic() < deadline, "the topics could not be read in time"
            for place, records in consumer.poll(timeout_ms=500, max_records=5000).items():
                for record in records:
                    event_id = dict(record.headers)["ce_id"].decode()
                    if place.topic == TOPIC:
                        found.cameras.setdefault(record.key.decode(), []).append(event_id)
                    else:
                        found.states[record.key.decode()] = event_id
    return found


def check(found: Found, total: int) -> int:
    """Every event has arrived and each camera's order holds; how many repeats there are."""
    expected: dict[str, list[str]] = {}
    states: dict[str, str] = {}
    for number in range(total):
        event = numbered_event(number)
        expected.setdefault(event.camera_id, []).append(event.event_id)
        states[event.track_id] = event.event_id
    assert found.cameras.keys() == expected.keys()
    for camera_id, ids in expected.items():
        assert list(dict.fromkeys(found.cameras[camera_id])) == ids, f"{camera_id}: in order, repeats aside"
    assert found.states == states, "the topic of states ends with the last state of each track"
    return sum(map(len, found.cameras.values())) - total


def run_faults(
    cluster: KafkaCluster, folder: Path, *, total: int, faults_of: Callable[[Producer, str], Sequence[Fault]]
) -> None:
    begun = time.monotonic()
    bootstrap = cluster.start()
    address = f"kafka://{bootstrap}/{TOPIC}"
    producer = Producer(address, folder, total)
    try:
        faults = faults_of(producer, address)
        producer.allow_more(total // (len(faults) + 1))
        for fault in faults:
            producer.allow_more(total // (len(faults) + 1))
            time.sleep(0.7)  # some events are on their way when it strikes
            fault()
        producer.finish()
        repeats = check(read_everything(bootstrap), total)
        print(
            f"{cluster.nodes} broker(s): {total} events, {len(faults)} faults, "
            f"{producer.starts} starts of the producer, {repeats} repeats, {time.monotonic() - begun:.0f} s"
        )
        print(producer.log())
    finally:
        producer.end()
        cluster.stop()


def breakages(
    cluster: KafkaCluster,
) -> tuple[Callable[[int], Fault], Callable[[int], Fault], Callable[[int], Fault]]:
    """Killing, freezing and cutting off a node, each for a while."""

    def killing(node: int) -> Fault:
        def fault() -> None:
            cluster.kill(node)
            time.sleep(1.0)
            cluster.revive(node)

        return fault

    def freezing(node: int) -> Fault:
        def fault() -> None:
            cluster.freeze(node)
            time.sleep(4.0)
            cluster.thaw(node)

        return fault

    def cutting(node: int) -> Fault:
        def fault() -> None:
            cluster.cut(node)
            time.sleep(3.0)
            cluster.mend(node)

        return fault

    return killing, freezing, cutting


def moving_leaders(address: str) -> Fault:
    """The second copy of each partition comes to the front, and the leaders are chosen anew."""

    def fault() -> None:
        with closing(connect_admin(parse_kafka(address), 20.0)) as admin:
            before = _leaders(admin)
            (topic,) = admin.describe_topics([TOPIC])
            wanted = {
                TopicPartition(TOPIC, each["partition_index"]): [*copies[1:], copies[0]]
                for each in topic["partitions"]
                for copies in [each["replica_nodes"]]
            }
            admin.alter_partition_reassignments(wanted)
            deadline = time.monotonic() + WAIT_S
            while _leaders(admin) == before and time.monotonic() < deadline:
                admin.elect_leaders(0, {TOPIC: list(before)}, raise_errors=False)
                time.sleep(0.2)
            assert _leaders(admin) != before

    return fault


def _leaders(admin: Any) -> dict[int, int]:
    (topic,) = admin.describe_topics([TOPIC])
    return {each["partition_index"]: each["leader_id"] for each in topic["partitions"]}


def test_one_broker_that_dies_freezes_and_is_cut_off_costs_no_event(
    kafka_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = KafkaCluster(kafka_home, tmp_path, nodes=1)
    killing, freezing, cutting = breakages(cluster)

    def faults_of(producer: Producer, _address: str) -> list[Fault]:
        kills = [killing(1) for _ in range(10 if IN_FULL else 4)]
        return [kills[0], producer.kill, freezing(1), *kills[1:], producer.kill, cutting(1)]

    run_faults(cluster, tmp_path, total=EVENTS or 25_000, faults_of=faults_of)
    _tell(capsys)


def test_a_cluster_of_three_that_is_broken_in_every_way_costs_no_event(
    kafka_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = KafkaCluster(kafka_home, tmp_path, nodes=3)
    killing, freezing, cutting = breakages(cluster)

    def faults_of(producer: Producer, address: str) -> list[Fault]:
        nodes = cycle((1, 2, 3))
        kills = [killing(next(nodes)) for _ in range(10 if IN_FULL else 1)]

        def wiping() -> None:
            cluster.wipe(3)
            time.sleep(1.0)
            cluster.revive(3)

        return [
            kills[0],
            freezing(2),
            producer.kill,
            moving_leaders(address),
            *kills[1:],
            cutting(1),
            producer.kill,
            wiping,
        ]

    run_faults(cluster, tmp_path, total=EVENTS or 25_000, faults_of=faults_of)
    _tell(capsys)


def _tell(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of a full run, for whoever has asked for it."""
    text = capsys.readouterr().out
    if IN_FULL:
        with capsys.disabled():
            print(f"\n{text}")
