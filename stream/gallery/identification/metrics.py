"""Prometheus metrics of ``facestream identify``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.gallery.identification.worker import IdentifyService, IdentifyStats

_COUNTERS: Final[Mapping[str, tuple[str, Callable[[IdentifyStats], int]]]] = {
    "events": ("Track events that were read.", lambda s: s.events),
    "tracks": ("Tracks that appeared.", lambda s: s.tracks),
    "corrected": ("Corrections.", lambda s: s.corrected),
    "passed_over": (
        "Events whose embedding is from another model than the gallery's.",
        lambda s: s.passed_over,
    ),
    "restored": ("Answers of earlier processes that were restored.", lambda s: s.restored),
}
_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class IdentifyMetrics(Collector):
    """Reads what a service has done at the moment of each scrape.

    Args:
        service: Whose.
        clock: Of that service.
    """

    def __init__(self, service: IdentifyService, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._service, self._clock = service, clock

    def collect(self) -> Iterable[Metric]:
        """What was done and what waits; ``partition`` is a number of the topic of tracks."""
        stats = self._service.stats
        for name, (text, value_of) in _COUNTERS.items():
            yield CounterMetricFamily(f"facestream_identify_{name}", text, value=value_of(stats))
        decided = CounterMetricFamily("facestream_identify_decided", "First answers.", labels=["answer"])
        decided.add_metric(["known"], stats.known)
        decided.add_metric(["unknown"], stats.unknown)
        yield decided
        errors = CounterMetricFamily(
            "facestream_identify_errors", "Failures that are retried.", labels=["at"]
        )
        for at, count in stats.errors.items():
            errors.add_metric([at], count)
        yield errors
        lag = GaugeMetricFamily("facestream_identify_lag_records", "Unread records.", labels=["partition"])
        for partition, count in sorted(stats.lag.items()):
            lag.add_metric([str(partition)], count)
        yield lag
        yield GaugeMetricFamily(
            "facestream_identify_idle_seconds",
            "Time since the last record.",
            value=max(0.0, self._clock() - stats.heard_s),
        )
        if stats.gallery is not None:
            version, people = stats.gallery
            yield GaugeMetricFamily(
                "facestream_identify_gallery_version", "Version of the gallery.", value=version
            )
            yield GaugeMetricFamily(
                "facestream_identify_gallery_people", "People in the gallery.", value=people
            )


def search_histogram() -> Histogram:
    """What a service tells how long its searches took; of no registry yet."""
    return Histogram(
        "facestream_identify_search_seconds",
        "Time to identify the tracks of one batch.",
        buckets=_BUCKETS_S,
        registry=None,
    )
