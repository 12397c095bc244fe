"""Write identities to a topic with acknowledgement, and read them back when a partition is taken over."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from engine.errors import SinkError
from stream.common.logs import get_logger
from stream.common.printable import counted
from stream.events.codecs import Encoder, SchemaLookup, decode
from stream.events.event_types import IdentityEvent
from stream.kafka.address import KafkaAddress, show_kafka
from stream.kafka.clients import connect_consumer, connect_producer
from stream.kafka.consuming.polling import poll
from stream.kafka.error_types import BrokersAwayError
from stream.kafka.explanations import explain_failure
from stream.kafka.kafka_python import KafkaError, TopicPartition, close_producer
from stream.kafka.topic_admin import ensure_topic, topic_states
from stream.kafka.topic_plan import TopicPlan

log = get_logger(__name__)

_TYPES: Final = b"facestream.identity."
_TIMEOUT_S: Final = 10.0
_ACKNOWLEDGE_S: Final = 30.0
_SILENCE_S: Final = 4.0
_STALL_S: Final = 30.0
_POLL_S: Final = 0.2
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 5.0


def match_partitions(source: KafkaAddress, target: KafkaAddress) -> None:
    """Check that two topics have as many partitions, so that a camera's records have the same number in both.

    Args:
        source: Of the events.
        target: Of the answers; made where it is missing.

    Raises:
        SinkError: They have not, or there is no such topic.
    """
    wanted, found = (_partitions(address) for address in (source, target))
    if wanted is None:
        raise SinkError(f"{show_kafka(source)}: there is no such topic; see facestream events topics")
    if found is None and target.create:
        ensure_topic(target, _TIMEOUT_S, plan=TopicPlan(target.topic, wanted))
    elif found != wanted:
        raise SinkError(
            f"{show_kafka(target)}: expected {wanted} partitions, as many as {source.topic} has, "
            f"got {found or 'no such topic'}; give another topic (--to), which is created with that number"
        )


def _partitions(address: KafkaAddress) -> int | None:
    _, (state,) = topic_states(address, [TopicPlan(address.topic)], _TIMEOUT_S)
    return None if state is None else state.partitions


class IdentityTopic:
    """Where answers go to, and where those of an earlier process are found.

    Args:
        address: Of the topic, which is there.
        encode: How answers are written.
        stopping: When set, ``write`` does not wait for brokers any longer.
        lookup: Finds Avro schemas that are not facestream's own.
    """

    def __init__(
        self,
        address: KafkaAddress,
        encode: Encoder,
        *,
        stopping: threading.Event,
        lookup: SchemaLookup | None = None,
    ) -> None:
        self._address, self._encode = address, encode
        self._stopping, self._lookup = stopping, lookup
        self._producer: Any = None
        self._waits = False
        self.failures = 0
        """Times that answers were not acknowledged soon, or were refused and written again."""

    @property
    def name(self) -> str:
        """The address, without secrets."""
        return show_kafka(self._address)

    def connect(self) -> None:
        """Check that we may write, before anything is decided.

        Raises:
            SinkError: No broker answers or lets us in, there is no such topic, or no right to write to it.
        """
        self.close()
        self._producer = connect_producer(replace(self._address, create=False), _TIMEOUT_S)

    def write(self, answers: Sequence[IdentityEvent]) -> None:
        """Write answers, and wait until the brokers have acknowledged them.

        While no broker answers, it waits for one. What may not have arrived is written again, with the
        same ids.

        Raises:
            SinkError: The brokers do not let us write, or it was to stop before they had acknowledged all.
        """
        messages = [self._encode(answer) for answer in answers]
        backoff_s = _FIRST_BACKOFF_S
        while messages:
            try:
                self._send(messages)
            except (KafkaError, BrokersAwayError) as exc:
                why = explain_failure(exc, self._address)
            else:
                break
            self.close()
            if self._stopping.wait(backoff_s):
                lost = counted(len(messages), "answer")
                raise SinkError(f"{self.name}: {lost} could not be delivered ({why})")
            self._note_wait(len(messages), why)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        if self._waits:
            log.info("kafka takes answers again", topic=self.name)
        self._waits = False

    def _note_wait(self, answers: int, why: str) -> None:
        self.failures += 1
        if not self._waits:
            log.warning("answers are waiting for kafka", topic=self.name, answers=answers, reason=why)
        self._waits = True

    def _send(self, messages: Sequence[Any]) -> None:
        if self._producer is None:
            self._producer = connect_producer(self._address, _TIMEOUT_S)
        sent = [
            self._producer.send(
                self._address.topic, key=message.key, value=message.value, headers=message.headers
            )
            for message in messages
        ]
        patience_s = time.monotonic() + _SILENCE_S
        for each in sent:
            with suppress(KafkaError):  # the last line raises it
                each.get(timeout=max(0.0, patience_s - time.monotonic()))
            if not each.is_done and not self._waits:
                self._note_wait(len(sent), f"nothing was acknowledged for {_SILENCE_S:g} s")
            each.get(timeout=_ACKNOWLEDGE_S)

    def read_back(
        self, partitions: Sequence[int], *, since: datetime, gallery_id: str
    ) -> list[IdentityEvent]:
        """Answers that are in the topic already.

        Args:
            partitions: Numbers of those to look at.
            since: Only of what was written later, UTC.
            gallery_id: Only of those that this gallery gave.

        Returns:
            Those of each partition in order.

        Raises:
            BrokersAwayError: They cannot be read now.
            SinkError: They cannot be read.
        """
        consumer = connect_consumer(
            self._address, group=None, timeout_s=_TIMEOUT_S, auto_offset_reset="none", metrics_enabled=False
        )
        with closing(consumer):
            try:
                found = self._read(consumer, partitions, since)
            except KafkaError as exc:
                kind = BrokersAwayError if getattr(exc, "retriable", False) else SinkError
                raise kind(f"{self.name}: {explain_failure(exc, self._address)}") from exc
        return [answer for answer in found if answer.gallery_id == gallery_id]

    def _read(self, consumer: Any, numbers: Sequence[int], since: datetime) -> list[IdentityEvent]:
        partitions = [TopicPartition(self._address.topic, number) for number in numbers]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        since_ms = round(since.timestamp() * 1000)
        begins = consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        nexts = {each: ends[each] if begins.get(each) is None else begins[each].offset for each in partitions}
        for each, offset in nexts.items():
            consumer.seek(each, offset)
        found: list[IdentityEvent] = []
        moved_s = time.monotonic()
        while any(nexts[each] < ends[each] for each in partitions):
            for records in poll(consumer, _POLL_S)[0].values():
                found += [answer for record in records if (answer := self._answer(record)) is not None]
                moved_s = time.monotonic()
            nexts = {each: consumer.position(each) for each in partitions}
            if time.monotonic() - moved_s > _STALL_S:
                raise BrokersAwayError(f"{self.name}: no record for {_STALL_S:g} s; check the brokers")
        return found

    def _answer(self, record: Any) -> IdentityEvent | None:
        """None for what is no answer: tracks, of which there may be many, or another's."""
        if not any(name == "ce_type" and text.startswith(_TYPES) for name, text in record.headers):
            return None
        try:
            event = decode(record.headers, record.value, lookup=self._lookup)
        except ValueError:
            return None
        return event if isinstance(event, IdentityEvent) else None

    def close(self) -> None:
        """Free the producer; ``write`` makes another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)
