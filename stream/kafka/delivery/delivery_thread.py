"""From the spool to Kafka: what is sent when, and what may be settled.

Each partition has a lane with one batch on its way at a time, so that a batch which fails can never be
overtaken by the next one: the first copies of a camera's events arrive in order whatever happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from engine.errors import SinkError
from stream.common.logs import get_logger
from stream.kafka.delivery.batches import BatchSender, Delivery, partition_of
from stream.kafka.kafka_python import KafkaError
from stream.spool.cursor_and_lock import Batch, Cursor
from stream.spool.packed_records import split
from stream.spool.spool import Spool

log = get_logger(__name__)

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

_Record: TypeAlias = tuple[bytes, bytes]
"""Key and tail (``stream/spool/packed_records.py``)."""

_MOST_HELD_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 20
_BATCH_BYTES: Final = 600_000  # a topic takes 1 MB at once unless it was told otherwise
_WINDOW_BYTES: Final = 4 << 20
_NO_ANSWER_S: Final = 60.0
_TOO_LARGE: Final = (10, 18)  # Kafka's error codes MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE


@dataclass(slots=True)
class _Chunk:
    """A piece of the spool, and how many parcels of it are not acknowledged."""

    end: Cursor
    size: int
    left: int = 0


@dataclass(slots=True)
class _Parcel:
    """What goes to one partition at once."""

    chunk: _Chunk
    records: list[_Record]
    times_ms: list[int]

    @property
    def size(self) -> int:
        return sum(len(key) + len(tail) for key, tail in self.records)


@dataclass(slots=True)
class _Lane:
    """A partition's parcels; the first is on its way when there is a delivery."""

    parcels: deque[_Parcel] = field(default_factory=deque)
    delivery: Delivery | None = None
    sent_at_s: float = 0.0
    sent_bytes: int = 0


class Courier:
    """Takes records out of the spool, in order, and settles them when they were acknowledged.

    It outlives producers: ``attach`` gives it a new one, which sends what the old one had not delivered.

    Args:
        spool: Where the records are.
        topic: Where they go.
        states_topic: Where the latest state of each track goes as well; None for nowhere.
    """

    def __init__(self, spool: Spool, *, topic: str, states_topic: str | None) -> None:
        self._spool, self._topic, self._states_topic = spool, topic, states_topic
        self._sender: BatchSender | None = None
        self._partitions: dict[str, int] = {}
        self._position = spool.cursor
        self._chunks: deque[_Chunk] = deque()
        self._held_bytes = 0
        self._lanes: dict[Place, _Lane] = {}
        self._offsets: dict[Place, int] = {}
        self._batch_bytes, self._window_bytes = _BATCH_BYTES, _WINDOW_BYTES
        self._told_of_loss = False
        self._heard_s = 0.0
        self.delivered = 0
        """Records of the topic that were acknowledged, repeats with them."""

    def attach(self, sender: BatchSender, partitions: dict[str, int]) -> None:
        """Go on with another producer.

        Args:
            sender: Of it.
            partitions: How many there are of each topic.
        """
        self._sender, self._told_of_loss = sender, False
        if any(lane.delivery is not None for lane in self._lanes.values()):
            self._window_bytes //= 2  # the line may be slow: too much at once would never arrive in time
        for lane in self._lanes.values():
            lane.delivery = None
        if partitions != self._partitions:
            self._partitions = partitions
            self._begin_anew()

    def step(self, now_s: float) -> bool:
        """Note what was acknowledged, and send what can be sent. Never waits.

        Args:
            now_s: Seconds of a clock that does not go back.

        Returns:
            Whether anything happened.

        Raises:
            KafkaError: A batch has failed: attach another producer.
            SinkError: The spool cannot be read.
        """
        happened = self._note_answers(now_s)
        while self._chunks and not self._chunks[0].left:
            chunk = self._chunks.popleft()
            self._held_bytes -= chunk.size
            self._spool.settle(chunk.end)
        while self._held_bytes < _MOST_HELD_BYTES:
            batch = self._spool.read(self._position, want=_CHUNK_BYTES)
            if batch is None:
                break
            happened = True
            self._position = batch.end
            self._sort(batch)
        return self._send(now_s) or happened

    def silence_s(self, now_s: float) -> float:
        """How long nothing has been acknowledged while something is in flight; 0 when nothing is.

        Args:
            now_s: Seconds of a clock that does not go back.
        """
        sent_s = [lane.sent_at_s for lane in self._lanes.values() if lane.delivery is not None]
        return max(0.0, now_s - max(self._heard_s, min(sent_s))) if sent_s else 0.0

    def _begin_anew(self) -> None:
        """From what is settled on: keys may belong to other partitions now."""
        self._chunks.clear()
        self._lanes.clear()
        self._offsets.clear()
        self._held_bytes = 0
        self._position = self._spool.cursor

    def _sort(self, batch: Batch) -> None:
        """Put each record of a batch into its partition's lane."""
        chunk = _Chunk(batch.end, sum(map(len, batch.payloads)))
        self._chunks.append(chunk)
        self._held_bytes += chunk.size
        events: dict[Place, tuple[list[_Record], list[int]]] = {}
        states: dict[Place, dict[bytes, tuple[bytes, int]]] = {}
        topic, count = self._topic, self._partitions[self._topic]
        states_topic = self._states_topic or ""
        states_count = self._partitions.get(states_topic, 0)
        for payload, time_ms in zip(batch.payloads, batch.times_ms, strict=True):
            try:
                record = split(payload)
            except ValueError as exc:
                log.warning("an event in the spool cannot be read and was skipped", reason=str(exc))
                continue
            records, times_ms = events.setdefault((topic, partition_of(record.key, count)), ([], []))
            records.append((record.key, record.tail))
            times_ms.append(time_ms)
            if record.state_key and states_count:
                place = (states_topic, partition_of(record.state_key, states_count))
                states.setdefault(place, {})[record.state_key] = (record.tail, time_ms)
        for place, (records, times_ms) in events.items():
            self._queue(place, chunk, records, times_ms)
        for place, latest in states.items():  # within a batch, only the latest state of a track is news
            records = [(key, tail) for key, (tail, _) in latest.items()]
            self._queue(place, chunk, records, [time_ms for _, time_ms in latest.values()])

    def _queue(
        self, place: Place, chunk: _Chunk, records: Sequence[_Record], times_ms: Sequence[int]
    ) -> None:
        parcels = self._lanes.setdefault(place, _Lane()).parcels
        size = begin = 0
        for index, (key, tail) in enumerate(records):
            length = len(key) + len(tail)
            if index > begin and size + length > self._batch_bytes:
                parcels.append(_Parcel(chunk, [*records[begin:index]], [*times_ms[begin:index]]))
                chunk.left += 1
                size, begin = 0, index
            size += length
        parcels.append(_Parcel(chunk, [*records[begin:]], [*times_ms[begin:]]))
        chunk.left += 1

    def _send(self, now_s: float) -> bool:
        sent = False
        on_the_way = sum(lane.sent_bytes for lane in self._lanes.values() if lane.delivery is not None)
        for (topic, partition), lane in self._lanes.items():
            if lane.delivery is not None or not lane.parcels or self._sender is None:
                continue
            parcel = lane.parcels[0]
            lane.sent_bytes, lane.sent_at_s = parcel.size, now_s
            if on_the_way and on_the_way + lane.sent_bytes > self._window_bytes:
                continue
            lane.delivery = self._sender.send(topic, partition, parcel.records, parcel.times_ms)
            on_the_way += lane.sent_bytes
            sent = True
        if sent and self._sender is not None:
            self._sender.wake()
        return sent

    def _note_answers(self, now_s: float) -> bool:
        happened = False
        for place, lane in self._lanes.items():
            if lane.delivery is None:
                continue
            if lane.delivery.is_done:
                happened = True
                self._note_answer(place, lane)
                self._heard_s = now_s
            elif now_s - lane.sent_at_s > _NO_ANSWER_S:
                raise KafkaError(f"no answer within {_NO_ANSWER_S:g} s")
        return happened

    def _note_answer(self, place: Place, lane: _Lane) -> None:
        delivery, lane.delivery = lane.delivery, None
        parcel = lane.parcels[0]
        try:
            offset = delivery.first_offset() if delivery is not None else -1
        except KafkaError as exc:
            if getattr(exc, "errno", None) not in _TOO_LARGE:
                raise
            self._make_smaller(lane, place[0])
            return
        lane.parcels.popleft()
        parcel.chunk.left -= 1
        self._window_bytes = min(_WINDOW_BYTES, self._window_bytes + lane.sent_bytes // 8)
        if place[0] == self._topic:
            self.delivered += len(parcel.records)
        if offset >= 0:
            self._look_for_loss(place, offset)
            self._offsets[place] = offset + len(parcel.records)

    def _make_smaller(self, lane: _Lane, topic: str) -> None:
        """Send the first parcel of a lane as two."""
        whole = lane.parcels.popleft()
        half = len(whole.records) // 2
        if not half:
            lane.parcels.appendleft(whole)
            raise SinkError(
                f"the topic {topic} does not take an event of {whole.size} bytes; raise its max.message.bytes"
            )
        self._batch_bytes = max(1, min(self._batch_bytes, whole.size) // 2)
        whole.chunk.left += 1
        for part in (slice(half, None), slice(half)):
            lane.parcels.appendleft(_Parcel(whole.chunk, whole.records[part], whole.times_ms[part]))

    def _look_for_loss(self, place: Place, offset: int) -> None:
        """Say it when a partition has become shorter than what it had acknowledged."""
        before = self._offsets.get(place, 0)
        if offset < before and not self._told_of_loss:
            self._told_of_loss = True
            log.error(
                "kafka has lost events that it had acknowledged, or the topic was recreated; continuing",
                topic=place[0],
                partition=place[1],
                expected_offset=before,
                offset=offset,
            )
