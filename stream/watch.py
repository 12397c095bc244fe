"""facestream from Python: identity events of any source, one after another."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing

from stream.app.settings import RunSettings, override_settings
from stream.app.wiring import open_pipeline
from stream.events.event_types import Event


def watch(*sources: str, settings: RunSettings | None = None) -> Generator[Event, None, None]:
    """Iterate over the events of some sources, all watched at once.

    Leave the loop, or close the iterator, to stop.

    Args:
        sources: Files, folders or addresses, as ``facestream run`` takes them; ``${NAME}`` is taken from the
            environment.
        settings: Further settings and cameras; None takes the defaults.

    Yields:
        Events as they happen; those of one camera in order.

    Raises:
        SourceError: A finite source could not be read to its end; the events of the others came before.
        ModelError: A model is damaged or no engine can run it.
        ValueError: No source is given.
    """
    merged = override_settings(settings, sources=sources, sinks=[], environment=os.environ)
    with open_pipeline(merged) as pipeline, closing(pipeline.batches()) as batches:
        for batch in batches:
            yield from batch.events
        for report in pipeline.reports.values():
            if report.error is not None:
                raise report.error
