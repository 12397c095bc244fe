"""Read events from Kafka with asyncio; see ``stream.consumer``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

from stream.events.event_types import Event
from stream.kafka.consuming.event_consumer import POLL_S, ConsumerStats, EventConsumer


class AsyncEventConsumer:
    """An ``EventConsumer`` for asyncio: ``async with`` and ``async for``.

        async with AsyncEventConsumer(EventConsumer("kafka://localhost:9092/faces", group="log")) as events:
            async for event in events:
                await store(event)

    The Kafka client runs in a thread of its own, so the event loop never waits for it. The guarantees are
    those of ``EventConsumer``; cancelling an ``async for`` loses nothing.

    Args:
        consumer: Not opened yet; owned by this one from now on. Its callbacks run on the event loop, except
            for ``on_assigned``, which runs on the thread.
    """

    def __init__(self, consumer: EventConsumer) -> None:
        self._consumer = consumer
        self._thread = ThreadPoolExecutor(1, "kafka-events")
        self._fetching: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            SinkError: No broker answers or accepts the login, or there is no such topic.
        """
        await self._on_thread(self._consumer.__enter__)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            await self._on_thread(partial(self._consumer.__exit__, exc_type, exc, traceback))
        finally:
            self._thread.shutdown(wait=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        since_s = time.monotonic()
        while not self._consumer.is_stopping:
            event = self._consumer.ready() if self._fetching is None else None
            if event is not None:
                return event
            if self._consumer.idles_since(since_s):
                break
            await self._fetch()
        raise StopAsyncIteration

    @property
    def stats(self) -> ConsumerStats:
        """Counts of what was read so far."""
        return self._consumer.stats

    def stop(self) -> None:
        """End the iteration soon."""
        self._consumer.stop()

    async def commit(self) -> None:
        """Commit all events returned so far at once; see ``EventConsumer.commit``."""
        await self._on_thread(self._consumer.commit)

    async def _fetch(self) -> None:
        """Fetch on the thread; a fetch whose wait was cancelled continues, and is awaited the next time."""
        if self._fetching is None:
            loop = asyncio.get_running_loop()
            self._fetching = loop.run_in_executor(self._thread, self._consumer.fetch, POLL_S)
        fetching = self._fetching
        try:
            await asyncio.shield(fetching)
        finally:
            if fetching.done():
                self._fetching = None

    async def _on_thread(self, call: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, call)
