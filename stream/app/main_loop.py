"""One run: the pipeline's batches to the sink and to listeners, until it ends or is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeAlias

from stream.pipeline.pipeline import Batch, Pipeline
from stream.sinks.event_sink import EventSink

Watcher: TypeAlias = Callable[[Batch], None]

_FLUSH_S = 10.0
_FLUSH_WHEN_STOPPED_S = 2.0


def run(
    pipeline: Pipeline,
    sink: EventSink,
    *,
    stopping: threading.Event,
    watchers: Sequence[Watcher] = (),
    max_s: float | None = None,
) -> None:
    """Run until all sources have ended, or ``stopping`` is set, or the time is over; then flush the sink.

    Args:
        pipeline: Not started yet.
        sink: Gets every event, closed at the end.
        stopping: Set by another thread or a signal handler to end the run in order.
        watchers: Called with each batch, after the sink.
        max_s: Longest run in seconds of the clock; None for no limit.

    Raises:
        SinkError: Events could not be delivered.
        ModelError: An engine failed.
    """
    deadline = None if max_s is None else time.monotonic() + max_s
    try:
        with closing(pipeline.batches()) as batches:
            for batch in batches:
                if batch.events:
                    sink.emit(batch.events)
                for watch in watchers:
                    watch(batch)
                if stopping.is_set() or (deadline is not None and time.monotonic() >= deadline):
                    pipeline.stop()
    finally:
        sink.close(_FLUSH_WHEN_STOPPED_S if stopping.is_set() else _FLUSH_S)
