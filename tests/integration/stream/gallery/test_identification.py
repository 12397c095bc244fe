from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from event_checks import face_event
from event_topics import WAIT_S, WholeTopic, by_track, make_topic, write_events
from kafka_server import KafkaServer
from people import MODEL, gallery_of, template, vector

from engine.errors import SinkError
from stream.events.event_types import Event, FaceEvent, IdentityChange, IdentityEvent, TrackChange
from stream.gallery.identification.decisions_topic import match_partitions
from stream.kafka.address import KafkaAddress, parse_kafka
from stream.kafka.clients import connect_consumer
from stream.kafka.kafka_python import TopicPartition

pytestmark = pytest.mark.kafka

NAMES = ("Ann", "Bob", "Cid")


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    path = tmp_path / "people.db"
    gallery_of(path, *NAMES).close()
    return path


class Identify:
    """``facestream identify`` in a process of its own."""

    def __init__(self, source: str, gallery: Path, *options: str) -> None:
        self._source = parse_kafka(source)
        self._told = gallery.parent / f"{uuid.uuid4().hex}.log"
        environment = {name: value for name, value in os.environ.items() if name != "FACESTREAM_KEY"}
        command = [
            sys.executable,
            "-m",
            "stream.cli",
            "identify",
            source,
            "--gallery",
            str(gallery),
            *options,
        ]
        with self._told.open("w") as told:
            self._process = subprocess.Popen(command, env=environment, stderr=told)

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while words not in self._told.read_text("utf-8"):
            assert self._process.poll() is None, self._told.read_text("utf-8")
            assert time.monotonic() < deadline, self._told.read_text("utf-8")
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WAIT_S)

    def finish(self, group: str = "facestream-identify") -> str:
        """Let it answer all that stands in the topic, and end it."""
        deadline = time.monotonic() + WAIT_S
        with closing(connect_consumer(self._source, group=group, timeout_s=WAIT_S)) as kafka:
            topic = self._source.topic
            ends = kafka.end_offsets([TopicPartition(topic, n) for n in kafka.partitions_for_topic(topic)])
            while any((kafka.committed(each) or 0) < end for each, end in ends.items()):
                assert self._process.poll() is None, self._told.read_text("utf-8")
                assert time.monotonic() < deadline, self._told.read_text("utf-8")
                time.sleep(0.05)
        return self.stop()

    def stop(self) -> str:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, *, expected: int = 0) -> str:
        self._process.wait(WAIT_S)
        told = self._told.read_text("utf-8")
        assert self._process.returncode == expected, told
        return told


Start = Callable[..., Identify]


@pytest.fixture
def identify() -> Iterator[Start]:
    """Starts one, which ends with the test at the latest."""
    started: list[Identify] = []

    def start(source: str, gallery: Path, *options: str) -> Identify:
        started.append(Identify(source, gallery, *options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def look(track: int, sequence: int) -> np.ndarray:
    """A track's embedding: every fourth is a stranger's, and some are recognised late."""
    who = track % (len(NAMES) + 1)
    if who == len(NAMES) or (track % 5 == 0 and sequence < 2):
        return vector(1000 + track)
    return vector(2000 + 10 * track + sequence, near=vector(who), cosine=0.85)


def name_of(track: int) -> str | None:
    who = track % (len(NAMES) + 1)
    return None if who == len(NAMES) else NAMES[who]


def seen(camera: int, track: int, sequence: int, *, events: int) -> FaceEvent:
    change = TrackChange.APPEARED if sequence == 0 else TrackChange.UPDATED
    return face_event(
        change=TrackChange.LEFT if sequence == events - 1 else change,
        sequence=sequence,
        camera_id=f"cam-{camera}",
        run_id=f"run-{camera}",
        track_id=f"run-{camera}-{track}",
        embedding=look(track, sequence),
        embedding_model=MODEL.name,
    )


def answers_in(source: str) -> list[IdentityEvent]:
    """All answers with their repeats."""
    with WholeTopic(source, group=None, drop_repeats=False) as events:
        return [event for event in events if isinstance(event, IdentityEvent)]


def test_every_track_is_answered_rightly_and_once_although_a_process_of_the_group_is_killed(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    cameras, tracks, events = 8, 25, 4
    source = make_topic(kafka_broker, topic)
    written = [
        seen(camera, track, sequence, events=events)
        for track in range(tracks)
        for sequence in range(events)
        for camera in range(cameras)
    ]
    half = threading.Event()

    def write() -> None:
        for first in range(0, len(written), 20):
            write_events(kafka_broker, topic, written[first : first + 20])
            if first >= len(written) // 2:
                half.set()
            time.sleep(0.1)  # cameras write as time goes on

    processes = [identify(source, gallery) for _ in range(2)]
    for process in processes:
        process.wait_for("partitions taken over")
    writer = threading.Thread(target=write)
    writer.start()
    assert half.wait(WAIT_S)
    processes[0].kill()
    writer.join(WAIT_S)
    deadline = time.monotonic() + 2 * WAIT_S
    found: dict[str, list[Event]] = {}
    while len(found) < cameras * tracks and time.monotonic() < deadline:
        time.sleep(0.2)
        found = by_track(answers_in(source))
    told = processes[1].stop()
    found = by_track(answers_in(source))
    assert len(found) == cameras * tracks, told
    for track_id, answers in found.items():
        assert answers[-1].person_name == name_of(int(track_id.rsplit("-", 1)[1])), track_id
        decided = {each.event_id for each in answers if each.change is IdentityChange.DECIDED}
        assert len(decided) == 1, answers
        evidence = {(each.sequence, each.gallery_version) for each in answers}
        assert len({each.event_id for each in answers}) == len(evidence)
        corrected = [each for each in answers if each.change is IdentityChange.CORRECTED]
        assert all(each.previous_person_id != each.person_id for each in corrected)


def test_who_is_enrolled_meanwhile_is_named_and_the_next_process_remembers_what_was_said(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    source = f"{make_topic(kafka_broker, topic)}?identities={topic}.names"
    dora = vector(77)

    def event(sequence: int) -> FaceEvent:
        return face_event(sequence=sequence, embedding=dora, embedding_model=MODEL.name)

    write_events(kafka_broker, topic, [event(0)])
    identify(source, gallery).finish()
    write_events(kafka_broker, topic, [event(1)])
    assert "1 event of tracks, 0 answers" in identify(source, gallery).finish()
    from stream.gallery.people import Gallery

    with Gallery.open(gallery, sealer=None) as opened:
        opened.enrol("Dora", [template(dora)])
    write_events(kafka_broker, topic, [event(2)])
    assert "1 event of tracks, 1 answer" in identify(source, gallery).finish()
    first, second = answers_in(source)
    assert answers_in(f"kafka://{kafka_broker}/{topic}") == []
    assert (first.change, first.person_name) == (IdentityChange.DECIDED, None)
    assert (second.change, second.person_name, second.sequence) == (IdentityChange.CORRECTED, "Dora", 2)
    assert second.reason == "the gallery has changed"


def test_one_topic_tells_of_a_track_and_then_who_it_is(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    source = make_topic(kafka_broker, topic)
    evidence = [seen(camera, 1, sequence, events=3) for sequence in range(3) for camera in range(3)]
    write_events(kafka_broker, topic, evidence)
    told = identify(source, gallery).finish()
    assert "9 events of tracks, 3 answers" in told
    again = identify(source, gallery, "--group", "another").finish("another")
    assert "9 events of tracks, 0 answers" in again, "what is answered is read back, and is no evidence"
    with WholeTopic(source, group=None, drop_repeats=False) as events:
        found = by_track(events)
    assert len(found) == 3
    for of_track in found.values():
        assert [event.sequence for event in of_track] == [0, 1, 2, 0]
        assert isinstance(of_track[-1], IdentityEvent)
        assert of_track[-1].person_name == "Bob"


def test_tracks_of_another_model_are_passed_over_and_told_of(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    source = make_topic(kafka_broker, topic)
    other = face_event(embedding=vector(0), embedding_model="another", track_id="t-1")
    write_events(kafka_broker, topic, [other, face_event(embedding=vector(1), embedding_model=MODEL.name)])
    told = identify(source, gallery).finish()
    assert "tracks of another model are skipped" in told
    assert "1 event of tracks, 1 answer, 1 of another model skipped" in told
    assert "0 events of tracks" in identify(source, gallery, "--idle", "0.5").wait(), "they are done"


def test_a_topic_for_answers_with_other_partitions_is_refused(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    make_topic(kafka_broker, topic, partitions=4)
    make_topic(kafka_broker, f"{topic}.few", partitions=2)
    source = KafkaAddress((kafka_broker,), topic)
    with pytest.raises(
        SinkError, match=r"few: expected 4 partitions, as many as .* has, got 2; give another"
    ):
        match_partitions(source, KafkaAddress((kafka_broker,), f"{topic}.few"))
    with pytest.raises(SinkError, match="there is no such topic"):
        match_partitions(KafkaAddress((kafka_broker,), f"{topic}.none"), source)
    nowhere = f"kafka://{kafka_broker}/{topic}.none"
    for _ in range(2):
        told = identify(nowhere, gallery).wait(expected=1)
        assert f"{nowhere}: there is no such topic; create it: facestream events topics {nowhere}" in told
    with pytest.raises(SinkError, match="got no such topic"):
        match_partitions(source, KafkaAddress((kafka_broker,), f"{topic}.none", create=False))


def test_metrics_are_served_while_it_runs(
    kafka_broker: str, topic: str, gallery: Path, identify: Start
) -> None:
    source = make_topic(kafka_broker, topic)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    write_events(kafka_broker, topic, [seen(camera, 1, 0, events=3) for camera in range(6)])
    process = identify(source, gallery, "--metrics", listen)
    process.wait_for("partitions taken over")
    deadline = time.monotonic() + WAIT_S
    shown = ""
    while 'decided_total{answer="known"} 6.0' not in shown and time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=60) as answer:
            shown = answer.read().decode()
        time.sleep(0.05)
    process.stop()
    assert "facestream_identify_events_total 6.0" in shown
    assert "facestream_identify_gallery_people 3.0" in shown
    assert 'facestream_identify_lag_records{partition="' in shown
    assert "facestream_identify_search_seconds_bucket" in shown


def test_it_goes_on_when_the_broker_that_was_killed_is_back(
    mortal_server: KafkaServer, topic: str, gallery: Path, identify: Start
) -> None:
    broker = mortal_server.start()
    source = make_topic(broker, topic)
    process = identify(source, gallery)
    process.wait_for("partitions taken over")
    first = [seen(camera, 0, 0, events=3) for camera in range(4)]
    second = [seen(camera, 0, 2, events=3) for camera in range(4)]
    others = [seen(camera, 1, 0, events=3) for camera in range(4)]
    write_events(broker, topic, first)
    assert wait_for_answers(source, 4)
    mortal_server.kill()
    mortal_server.start()
    write_events(broker, topic, [*second, *others])
    found = wait_for_answers(source, 12)
    told = process.stop()
    assert len(found) == 12, told
    assert {name: [each.person_name for each in of] for name, of in by_track(found).items()} == {
        f"run-{camera}-{track}": names
        for camera in range(4)
        for track, names in ((0, [None, "Ann"]), (1, ["Bob"]))
    }


def wait_for_answers(source: str, count: int) -> list[IdentityEvent]:
    deadline = time.monotonic() + 2 * WAIT_S
    found: list[IdentityEvent] = []
    while len(found) < count and time.monotonic() < deadline:
        time.sleep(0.2)
        found = answers_in(source)
    return found
