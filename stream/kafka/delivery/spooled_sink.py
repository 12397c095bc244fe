"""Events to Kafka, by way of the spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from engine.errors import SinkError
from stream.common.logs import get_logger
from stream.events.event_types import Event, FaceEvent
from stream.events.json_encoder import quick_binary
from stream.events.kafka_record import BinaryMessage
from stream.kafka.address import KafkaAddress, show_kafka
from stream.kafka.clients import connect_producer
from stream.kafka.delivery.batches import BatchSender
from stream.kafka.delivery.delivery_thread import Courier
from stream.kafka.error_types import BrokersAwayError
from stream.kafka.explanations import explain_failure
from stream.kafka.kafka_python import KafkaError, close_producer
from stream.kafka.topic_admin import ensure_topic
from stream.kafka.topic_plan import TopicPlan
from stream.spool.cursor_and_lock import SpoolStats
from stream.spool.packed_records import pack
from stream.spool.spool import Spool

log = get_logger(__name__)

Encoder = Callable[[Event], BinaryMessage]

_TICK_S: Final = 0.25
_PACE_S: Final = 0.02  # so that what comes one by one goes in batches
_CONNECT_S: Final = 10.0
_DELIVERY_MS: Final = 12_000
_SILENCE_S: Final = 4.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.25, 8.0
_STOP_S: Final = 1.0
_TIDY_S: Final = 0.5
_SILENT_CLOSE_S: Final = 1.0


class KafkaSink:
    """Writes events to a spool, and from there to a topic.

    ``emit`` never waits for a broker: an event counts as emitted when it is in the spool. A thread delivers
    what is there, in order for each camera, with ``acks=all`` and an idempotent producer, and recovers
    from failures by itself. An event may be delivered twice, with the same id; none is lost.

    Args:
        address: Of the topic.
        spool: Owned by this sink from now on.
        encode: How events are written.
        track_states: Whether the latest state of each track goes to the compacted topic ``TOPIC.tracks``.
        emit_timeout_s: How long ``emit`` waits for room on the disk.
        sync_every_s: Interval of syncing the spool to disk; 0 syncs in every ``emit``.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        address: KafkaAddress,
        spool: Spool,
        *,
        encode: Encoder = quick_binary,
        track_states: bool = True,
        emit_timeout_s: float = 10.0,
        sync_every_s: float = 0.5,
    ) -> None:
        if not emit_timeout_s > 0 or not sync_every_s >= 0:
            raise ValueError(
                "expected emit_timeout_s above 0 and sync_every_s of at least 0, "
                f"got {emit_timeout_s}, {sync_every_s}"
            )
        self.name = show_kafka(address)
        self._address, self._spool, self._encode = address, spool, encode
        self._emit_timeout_s, self._sync_every_s = emit_timeout_s, sync_every_s
        self._states_topic = f"{address.topic}.tracks" if track_states else None
        self._courier = Courier(spool, topic=address.topic, states_topic=self._states_topic)
        self._producer: Any = None
        self._taken = spool.stats().events
        self._trouble = ""
        self._trouble_at = 0
        self._patience_s = _SILENCE_S
        self._sync_error: SinkError | None = None
        self._news, self._closing = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._deliver, name="kafka-sink", daemon=True),
            threading.Thread(target=self._keep, name="kafka-sink-spool", daemon=True),
        ]

    def connect(self, timeout_s: float) -> None:
        """Check that the brokers accept the connection and have the topic, then start.

        If no broker answers, start as well.

        Raises:
            SinkError: They do not, and waiting would not help: a wrong name, password or certificate.
                The spool is closed then.
        """
        try:
            self._open_producer(timeout_s)
        except (BrokersAwayError, KafkaError) as exc:
            self._note_trouble(exc)
        except BaseException:
            self._spool.close()
            raise
        for thread in self._threads:
            thread.start()

    def emit(self, events: Sequence[Event]) -> None:
        """Take some events.

        Raises:
            SpoolFullError: There was no room on the disk in time; none of these events was taken.
            SinkError: The disk failed, or the delivery thread crashed (a bug).
            ValueError: The sink is closed.
        """
        if self._closing.is_set():
            raise ValueError("expected an open sink, got a closed one")
        payloads = [
            pack(
                self._encode(event),
                state_key=event.track_id.encode() if isinstance(event, FaceEvent) else b"",
            )
            for event in events
        ]
        self._spool.append(payloads, timeout_s=self._emit_timeout_s)
        self._taken += len(payloads)
        if not self._news.is_set():
            self._news.set()
        if not self._sync_every_s:
            self._spool.sync()
        error, self._sync_error = self._sync_error, None
        if error is not None:
            raise error
        if not self._threads[0].is_alive():
            raise SinkError(
                f"{self.name}: the delivery thread has crashed; events are kept in {self._spool.folder}"
            )

    def stats(self) -> SpoolStats:
        """Counts of undelivered events; may be called from any thread."""
        return self._spool.stats()

    @property
    def is_delivering(self) -> bool:
        """Whether Kafka takes events, as far as is known; may be called from any thread."""
        return not self._trouble

    def close(self, timeout_s: float) -> None:
        """Deliver all events. Those that cannot be delivered in time stay in the spool for the next run.

        Logs how many were delivered, and that it waits where that takes longer than a second.

        Raises:
            SinkError: Events are left in the spool; says how many, and where.
        """
        if self._closing.is_set():
            return
        deadline = time.monotonic() + timeout_s
        if self._threads[0].is_alive():
            self._wait_until_delivered(timeout_s)
        self._closing.set()
        self._news.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(_STOP_S, deadline - time.monotonic()))
        left = self._spool.stats().events
        self._say_delivered()
        with ExitStack() as stack:
            stack.callback(self._spool.close)
            self._spool.sync()
        if left:
            because = f" ({self._trouble})" if self._trouble else ""
            raise SinkError(
                f"{self.name}: {left} events were not delivered{because}; they are kept "
                f"in {self._spool.folder}; the next run with this sink delivers them"
            )

    def _wait_until_delivered(self, timeout_s: float) -> None:
        """Wait for the brokers, and say so where they keep us waiting."""
        silent_s = min(_SILENT_CLOSE_S, timeout_s)
        if self._spool.wait_until_empty(silent_s) or timeout_s <= silent_s:
            return
        log.info(
            "waiting for kafka to take the rest",
            sink=self.name,
            waiting=self._spool.stats().events,
            at_most_s=round(timeout_s - silent_s),
        )
        self._spool.wait_until_empty(timeout_s - silent_s)

    def _say_delivered(self) -> None:
        """Log how many events Kafka has, of those of this run and those that waited before it."""
        stats = self._spool.stats()
        gone = self._taken - stats.events - stats.dropped_events
        if self._taken:
            log.info("delivered", sink=self.name, events=max(0, min(gone, self._courier.delivered)))

    def _deliver(self) -> None:
        """Body of the thread: send and settle, start again after trouble."""
        backoff_s = _FIRST_BACKOFF_S
        while not self._closing.is_set():
            delivered = self._courier.delivered
            try:
                if self._producer is None:
                    self._open_producer(_CONNECT_S)
                self._exchange()
            except (KafkaError, SinkError) as exc:
                self._note_trouble(exc)
                self._close_producer()
                if self._courier.delivered > delivered:
                    backoff_s = _FIRST_BACKOFF_S
                self._closing.wait(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        self._close_producer()

    def _exchange(self) -> None:
        """Send and settle until the end.

        Raises:
            KafkaError: Something was refused, or was not acknowledged in time.
            SinkError: The spool cannot be read.
        """
        while not self._closing.is_set():
            self._news.clear()
            now_s = time.monotonic()
            happened = self._courier.step(now_s)
            if self._trouble and self._courier.delivered > self._trouble_at:
                self._trouble = ""
                log.info("kafka takes events again", sink=self.name, waiting=self._spool.stats().events)
            elif not self._trouble and self._courier.silence_s(now_s) >= self._patience_s:
                self._note_trouble(
                    SinkError(
                        f"nothing was acknowledged for {self._patience_s:g} s; facestream doctor --broker "
                        "may tell why"
                    )
                )
                self._patience_s *= 2  # for lines that are slow and no worse
            if happened:
                self._closing.wait(_PACE_S)
            else:
                self._news.wait(_TICK_S)

    def _open_producer(self, timeout_s: float) -> None:
        """Meet the brokers and the topics.

        Raises:
            SinkError: That was not possible.
        """
        producer = connect_producer(
            self._address,
            timeout_s,
            compression_type="zstd",
            delivery_timeout_ms=_DELIVERY_MS,
            metrics_enabled=False,
        )
        with ExitStack() as stack:
            stack.callback(close_producer, producer)
            sender = BatchSender(producer, self._news.set)
            partitions = {self._address.topic: sender.partitions(self._address.topic)}
            if self._states_topic is not None:
                partitions[self._states_topic] = self._meet_states(
                    sender, partitions[self._address.topic], timeout_s
                )
            stack.pop_all()
        self._producer = producer
        self._courier.attach(sender, partitions)

    def _meet_states(self, sender: BatchSender, partitions: int, timeout_s: float) -> int:
        """How many partitions the topic of states has; makes it where it is missing."""
        topic = self._states_topic or ""
        if self._address.create:
            ensure_topic(self._address, timeout_s, plan=TopicPlan(topic, partitions, compacted=True))
        try:
            return sender.partitions(topic)
        except KafkaError as exc:
            raise SinkError(
                f"{self.name}: the topic {topic} cannot be used ({type(exc).__name__}); create it, or "
                "set events.track_states: false"
            ) from exc

    def _close_producer(self) -> None:
        self._patience_s = _SILENCE_S
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)

    def _note_trouble(self, exc: Exception) -> None:
        """Say it when trouble begins; the end of it is said as well."""
        words = str(exc) if isinstance(exc, SinkError) else explain_failure(exc, self._address)
        if not self._trouble:
            log.warning(
                "kafka does not take events; they wait in the spool",
                sink=self.name,
                reason=words,
                spool=str(self._spool.folder),
            )
            self._trouble_at = self._courier.delivered
        self._trouble = words

    def _keep(self) -> None:
        """Body of the thread that brings the spool to the disk, and what was delivered off it."""
        while not self._closing.wait(self._sync_every_s or _TIDY_S):
            try:
                self._spool.sync()
            except SinkError as exc:
                self._sync_error = exc
            with suppress(SinkError):  # a full disk, say, which matters when there is something to write
                self._spool.tidy()
