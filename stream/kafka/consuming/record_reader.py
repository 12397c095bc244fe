"""From records to events: skips and counts duplicates and what is not an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stream.events.codecs import SchemaLookup, decode
from stream.events.dedup import RepeatFilter
from stream.events.event_types import Event
from stream.kafka.consuming.bad_records import BadRecord, ConsumerStats


class RecordReader:
    """Reads records of Kafka, one after the other; trusts none.

    Args:
        lookup: Finds Avro schemas that are not facestream's own.
        on_bad: Called with a record that is not an event.
        on_erased: Called with the key of a record without a value.
        drop_repeats: Whether duplicates are dropped.
    """

    def __init__(
        self,
        lookup: SchemaLookup | None,
        *,
        on_bad: Callable[[BadRecord], None],
        on_erased: Callable[[str], None] | None,
        drop_repeats: bool,
    ) -> None:
        self._lookup, self._on_bad, self._on_erased = lookup, on_bad, on_erased
        self._filter = RepeatFilter() if drop_repeats else None
        self._stats = ConsumerStats()

    @property
    def stats(self) -> ConsumerStats:
        """What was met so far."""
        return self._stats

    def read(self, record: Any) -> Event | None:
        """The event of a record; None when there is nothing to give out.

        Whatever is raised, by ``on_bad``, ``on_erased`` or the lookup, leaves the counts as they were: the
        record may be read again.

        Args:
            record: kafka-python's.
        """
        before = self._stats
        try:
            event = self._read(record)
        except BaseException:
            self._stats = before
            raise
        if event is not None:
            self._stats = replace(self._stats, events=self._stats.events + 1)
        return event

    def forget(self) -> None:
        """What came may have come out of order, so that what comes is not to be taken for repeats."""
        if self._filter is not None:
            self._filter = RepeatFilter()

    def pass_over(self, topic: str, partition: int, offset: int) -> None:
        """Tell of a record that Kafka's client cannot parse.

        Args:
            topic: Of the record.
            partition: Of the record.
            offset: Of the record.
        """
        where = topic, partition, offset
        self._tell_bad(BadRecord(*where, None, b"", "not a record that can be parsed", self._stats.bad + 1))

    def _read(self, record: Any) -> Event | None:
        stats = self._stats
        if record.value is None:
            self._stats = replace(stats, erased=stats.erased + 1)
            if self._on_erased is not None:
                self._on_erased((record.key or b"").decode(errors="replace"))
            return None
        try:
            event = decode(record.headers, record.value, lookup=self._lookup)
        except ValueError as exc:
            where = record.topic, record.partition, record.offset
            self._tell_bad(BadRecord(*where, record.key, record.value, str(exc), stats.bad + 1))
            return None
        if self._filter is not None and not self._filter.is_new(event):
            self._stats = replace(stats, repeats=stats.repeats + 1)
            return None
        return event

    def _tell_bad(self, record: BadRecord) -> None:
        self._stats = replace(self._stats, bad=record.count)
        self._on_bad(record)
