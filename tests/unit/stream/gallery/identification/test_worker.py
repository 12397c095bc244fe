from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from captured import capture_logs
from consumer_stand_in import StandInConsumer, Topics
from event_checks import camera_event, face_event, identity_event
from people import MODEL, gallery_of, vector
from prometheus_client import CollectorRegistry

from engine.errors import ConfigError, GalleryError, SinkError
from stream.cli.identify import describe, parse_listen, parse_start
from stream.events.event_types import FaceEvent, IdentityEvent
from stream.events.kafka_record import to_binary
from stream.gallery.identification import decisions_topic as topic_module
from stream.gallery.identification.decisions_topic import IdentityTopic
from stream.gallery.identification.identifier import Identifier
from stream.gallery.identification.metrics import IdentifyMetrics, search_histogram
from stream.gallery.identification.worker import IdentifyService, IdentifyStats, run_service
from stream.gallery.people import Gallery
from stream.kafka.address import KafkaAddress
from stream.kafka.error_types import BrokersAwayError
from stream.kafka.kafka_python import KafkaError, TopicPartition

ADDRESS = KafkaAddress(("localhost:9092",), "faces.identities")


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob") as opened:
        yield opened


class Answers:
    """In the place of a topic."""

    def __init__(self, *known: IdentityEvent) -> None:
        self.known, self.written = list(known), list[IdentityEvent]()
        self.failures = 0

    def write(self, answers: Sequence[IdentityEvent]) -> None:
        self.written += answers

    def read_back(
        self, partitions: Sequence[int], *, since: datetime, gallery_id: str
    ) -> list[IdentityEvent]:
        assert partitions
        assert gallery_id
        assert since.tzinfo is UTC
        return self.known


def service(gallery: Gallery, topic: Answers) -> IdentifyService:
    stopping = threading.Event()
    stopping.set()  # so that nothing is waited for
    return IdentifyService(gallery, Identifier(gallery), topic, stopping=stopping)  # type: ignore[arg-type]


def seen(person: int, **changes: Any) -> FaceEvent:
    return face_event(embedding=vector(person), embedding_model=MODEL.name, **changes)


def test_tracks_are_answered_and_other_events_passed_by(gallery: Gallery) -> None:
    topic = Answers()
    serving = service(gallery, topic)
    serving.answer([seen(0), camera_event(), identity_event(), seen(1, track_id="t-2")])
    serving.answer([])
    assert [each.person_name for each in topic.written] == ["Ann", "Bob"]
    assert (serving.stats.events, serving.stats.tracks) == (2, 2)
    assert (serving.stats.known, serving.stats.unknown, serving.stats.corrected) == (2, 0, 0)


def test_whoever_takes_over_does_not_say_again_what_was_said(gallery: Gallery) -> None:
    first = Answers()
    service(gallery, first).answer([seen(0)])
    second = Answers(*first.written)
    serving = service(gallery, second)
    serving.restore((0, 1), since=datetime.now(UTC) - timedelta(hours=1))
    serving.answer([seen(0), seen(0, sequence=1)])
    assert second.written == []
    assert serving.stats.restored == 1


def test_metrics_tell_what_was_done_and_what_waits(gallery: Gallery) -> None:
    times, searches = iter(range(100)), search_histogram()
    topic = Answers(identity_event())
    serving = IdentifyService(
        gallery,
        Identifier(gallery),
        topic,  # type: ignore[arg-type]
        stopping=threading.Event(),
        clock=lambda: float(next(times)),
        on_search=searches.observe,
    )
    registry = CollectorRegistry()
    for each in (IdentifyMetrics(serving, clock=lambda: 100.0), searches):
        registry.register(each)
    serving.restore((0,), since=datetime.now(UTC))
    stranger = face_event(embedding=vector(99), embedding_model=MODEL.name, track_id="t-2")
    other = face_event(embedding=vector(0), embedding_model="facenet")
    serving.answer([seen(0, track_id="t-1"), stranger, other])
    serving.answer([seen(1, track_id="t-2", sequence=1), camera_event()])
    serving.answer([])
    serving.note_lag({0: 3, 11: 0})
    serving.note_error("read")
    topic.failures = 2

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"facestream_identify_{name}", labels)

    assert (value("events_total"), value("tracks_total"), value("passed_over_total")) == (3, 2, 1)
    assert (value("decided_total", answer="known"), value("decided_total", answer="unknown")) == (1, 1)
    assert (value("corrected_total"), value("restored_total")) == (1, 1)
    assert (value("lag_records", partition="0"), value("lag_records", partition="11")) == (3, 0)
    assert [value("errors_total", at=at) for at in ("read", "write", "gallery")] == [1, 2, 0]
    assert (value("gallery_version"), value("gallery_people")) == (gallery.version, 2)
    assert value("search_seconds_count") == 2
    assert value("search_seconds_sum") == 2
    assert 90 < (value("idle_seconds") or 0) < 100


def test_tracks_of_another_model_are_passed_over_and_told_of_now_and_then(gallery: Gallery) -> None:
    serving = service(gallery, Answers())
    other = seen(0, embedding_model_id="b" * 16)
    with capture_logs() as logs:
        for _ in range(5):
            serving.answer([other, seen(0)])
    assert [each["so_far"] for each in logs] == [1, 2, 4]
    assert logs[0]["models"] == [f"{MODEL.name} (bbbbbbbb)"]
    assert serving.stats.passed_over == 5
    assert describe(serving.stats) == "5 events of tracks, 1 answer, 5 of another model skipped"


def test_a_gallery_that_cannot_be_read_twice_ends_it(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, failures = service(gallery, Answers()), [GalleryError("moving"), GalleryError("gone")]
    read = Identifier.identify

    def identify(self: Identifier, events: Sequence[FaceEvent], now_s: float) -> list[IdentityEvent]:
        if failures:
            raise failures.pop(0)
        return read(self, events, now_s)

    monkeypatch.setattr(Identifier, "identify", identify)
    with pytest.raises(GalleryError, match="gone"):
        serving.answer([seen(0)])
    failures.append(GalleryError("moving"))
    serving.answer([seen(0)])
    assert serving.stats.answers == 1


class Source:
    """In the place of a consumer: gives out what it was given, or raises it, and idles then."""

    def lag(self) -> dict[tuple[str, int], int]:
        return {("faces", 7): len(self._batches)}

    def __init__(self, *batches: Any) -> None:
        self._batches = list(batches)

    def idles_since(self, since_s: float) -> bool:
        assert since_s > 0
        return not self._batches

    def take(self, most: int, *, wait_s: float) -> list[Any]:
        assert most > 0
        assert wait_s > 0
        batch = self._batches.pop(0) if self._batches else []
        if isinstance(batch, BaseException):
            raise batch
        return batch


def test_it_goes_on_while_brokers_are_away_and_ends_when_it_idles(gallery: Gallery) -> None:
    topic, told = Answers(), list[IdentifyStats]()
    source: Any = Source([seen(0)], BrokersAwayError("nobody there"), [seen(1, track_id="t-2")])
    stopping = threading.Event()
    stopping.wait = lambda _: False  # type: ignore[method-assign] # waits for nothing
    run_service(source, service(gallery, topic), stopping=stopping, on_progress=told.append)
    assert len(topic.written) == 2
    assert [each.answers for each in told] == [1, 2, 2]
    assert [each.errors["read"] for each in told] == [0, 1, 1]
    assert [each.lag for each in told] == [{7: 2}, {7: 0}, {7: 0}]
    stopping.set()
    run_service(source, service(gallery, topic), stopping=stopping)


def test_it_ends_at_what_waiting_does_not_mend(gallery: Gallery) -> None:
    source: Any = Source(SinkError("no right to the topic"))
    with pytest.raises(SinkError, match="no right"):
        run_service(source, service(gallery, Answers()), stopping=threading.Event())


class Producer:
    """Acknowledges, or not."""

    def __init__(self, *failures: BaseException) -> None:
        self._failures, self.sent = list(failures), list[bytes]()

    def send(self, _topic: str, *, key: bytes, value: bytes, headers: object) -> Any:
        assert key
        assert headers
        self.sent.append(value)
        failure = self._failures.pop(0) if self._failures else None

        def get(timeout: float) -> None:
            assert timeout > 0
            if failure is not None:
                raise failure

        return SimpleNamespace(get=get, is_done=True)


def test_answers_that_were_not_acknowledged_are_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    producers: list[Any] = [Producer(KafkaError()), BrokersAwayError("nobody there"), Producer()]
    used: list[Producer] = []

    def connect(*_: object) -> Producer:
        made = producers.pop(0)
        if isinstance(made, BaseException):
            raise made
        used.append(made)
        return made

    monkeypatch.setattr(topic_module, "connect_producer", connect)
    monkeypatch.setattr(topic_module, "close_producer", lambda _: None)
    stopping = threading.Event()
    stopping.wait = lambda _: False  # type: ignore[method-assign] # waits for nothing
    topic = IdentityTopic(ADDRESS, to_binary, stopping=stopping)
    with capture_logs() as logs:
        topic.write([identity_event(), identity_event(sequence=1)])
    assert [len(each.sent) for each in used] == [2, 2]
    assert [each["event"] for each in logs] == ["answers are waiting for kafka", "kafka takes answers again"]
    assert topic.failures == 2
    topic.write([identity_event(sequence=2)])
    assert len(used) == 2, "a producer that is well is kept"
    stopping.set()
    stopping.wait = lambda _: True  # type: ignore[method-assign]
    used[1].__init__(KafkaError())  # type: ignore[misc]
    with pytest.raises(SinkError, match="1 answer could not be delivered"):
        topic.write([identity_event(sequence=3)])
    topic.write([])


def test_answers_that_are_not_acknowledged_soon_are_told_of_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        """Is acknowledged when it is asked for the third time."""

        def __init__(self) -> None:
            self.asked = 0

        @property
        def is_done(self) -> bool:
            return self.asked > 2

        def get(self, timeout: float) -> None:
            assert timeout >= 0
            self.asked += 1
            if self.asked == 1:
                raise KafkaError("not yet")

    producer = SimpleNamespace(send=lambda *_, **__: Slow())
    monkeypatch.setattr(topic_module, "connect_producer", lambda *_: producer)
    topic = IdentityTopic(ADDRESS, to_binary, stopping=threading.Event())
    with capture_logs() as logs:
        topic.write([identity_event(), identity_event(sequence=1)])
        topic.write([])
    assert [each["event"] for each in logs] == ["answers are waiting for kafka", "kafka takes answers again"]
    assert logs[0]["reason"] == "nothing was acknowledged for 4 s"
    assert topic.failures == 1


def test_answers_are_read_back_from_a_time_on_and_what_is_no_answer_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics, partition = Topics(partitions=2), TopicPartition("faces.identities", 1)
    for second in range(4):
        others = (face_event(), identity_event(sequence=second, gallery_id="other"))
        for event in (identity_event(sequence=second), *others):
            message = to_binary(event)
            topics.put(partition, message.key, message.value, message.headers, timestamp=1000 * second)
        topics.put(partition, None, b"{", timestamp=1000 * second)
    topics.put(TopicPartition("faces.identities", 0), None, b"{")
    consumer = StandInConsumer(topics, group=None, batch=2)
    monkeypatch.setattr(topic_module, "connect_consumer", lambda *_, **__: consumer)
    topic = IdentityTopic(ADDRESS, to_binary, stopping=threading.Event())
    mine = identity_event().gallery_id
    found = topic.read_back([0, 1], since=datetime.fromtimestamp(2, UTC), gallery_id=mine)
    assert [each.sequence for each in found] == [2, 3]
    assert consumer.is_closed


@pytest.mark.parametrize("text", ["earliest", "latest"])
def test_a_beginning_is_a_word(text: str) -> None:
    assert parse_start(text) == text


def test_a_beginning_is_a_time() -> None:
    assert parse_start("2026-03-01T12:30:00Z") == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    local = parse_start("2026-03-01")
    assert isinstance(local, datetime)
    assert local.tzinfo is not None
    ago = parse_start("2h")
    assert isinstance(ago, datetime)
    assert ago < datetime.now(UTC)
    with pytest.raises(ConfigError, match=r"--since: expected earliest or latest; or .*expected 90s, 10m"):
        parse_start("yesterday")


def test_metrics_are_served_at_a_host_and_port() -> None:
    assert parse_listen("127.0.0.1:9100") == ("127.0.0.1", 9100)
    with pytest.raises(ConfigError, match="--metrics: expected HOST:PORT, got 'nowhere'"):
        parse_listen("nowhere")
