"""Prometheus metrics over HTTP: those of a run, and of other collectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.errors import ConfigError
from stream.pipeline.pipeline import CameraReport
from stream.sinks.event_sink import SpooledSink
from stream.spool.cursor_and_lock import SpoolStats
from stream.video.frames import CameraState

_LONGEST_REASON = 200

_Value = Callable[[CameraReport], float | None]

_GAUGES: Mapping[str, tuple[str, _Value]] = {
    "camera_up": ("1 while the camera delivers frames.", lambda r: float(r.state is CameraState.UP)),
    "live_tracks": ("Tracks in view.", lambda r: r.live_tracks),
    "lag_seconds": ("Age of the newest frame when its events were made.", lambda r: r.lag_s),
}
_COUNTERS: Mapping[str, tuple[str, _Value]] = {
    "camera_reconnects": ("Times that the camera came back.", lambda r: r.source.reconnects),
    "camera_pipelines_abandoned": (
        "Pipelines that did not stop in time and were abandoned.",
        lambda r: r.source.abandoned,
    ),
    "frames_decoded": ("Decoded frames.", lambda r: r.source.decoded),
    "frames_analysed": ("Analysed frames.", lambda r: r.frames),
    "tracks": ("Tracks that appeared.", lambda r: r.tracks),
    "events": ("Events made.", lambda r: r.events),
}

_SPOOL_GAUGES: Mapping[str, tuple[str, Callable[[SpoolStats], float]]] = {
    "events": ("Undelivered events.", lambda s: s.events),
    "bytes": ("Size of the undelivered events on disk.", lambda s: s.bytes),
    "oldest_seconds": ("Age of the oldest undelivered event.", lambda s: s.oldest_s),
}
_SPOOL_COUNTERS: Mapping[str, tuple[str, Callable[[SpoolStats], float]]] = {
    "dropped_events": ("Events dropped because the spool was full.", lambda s: s.dropped_events),
    "damaged_bytes": ("Bytes of the spool that could not be read.", lambda s: s.damaged_bytes),
}


class CameraMetrics(Collector):
    """Reads the pipeline's reports at the moment of each scrape, so that counting costs the frames nothing.

    Args:
        reports: The pipeline's reports by camera id.
    """

    def __init__(self, reports: Mapping[str, CameraReport]) -> None:
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """Metrics of all cameras, each labelled with ``camera``."""
        for name, (text, value_of) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"facestream_{name}", text, labels=["camera"])
            for camera_id, report in self._reports.items():
                if (value := value_of(report)) is not None:
                    gauge.add_metric([camera_id], value)
            yield gauge
        yield _down_gauge(self._reports.values())
        for name, (text, value_of) in _COUNTERS.items():
            counter = CounterMetricFamily(f"facestream_{name}", text, labels=["camera"])
            for camera_id, report in self._reports.items():
                counter.add_metric([camera_id], value_of(report) or 0.0)
            yield counter
        yield _dropped_counter(self._reports)


def _dropped_counter(reports: Mapping[str, CameraReport]) -> Metric:
    counter = CounterMetricFamily(
        "facestream_frames_dropped", "Dropped frames: late or damaged.", labels=["camera", "reason"]
    )
    for camera_id, report in reports.items():
        damaged = report.source.damaged
        counter.add_metric([camera_id, "late"], max(0, report.dropped - damaged))
        counter.add_metric([camera_id, "damaged"], damaged)
    return counter


def _down_gauge(reports: Iterable[CameraReport]) -> Metric:
    """Why cameras are down; one that is not has no series, so that none outlives its reason."""
    gauge = GaugeMetricFamily(
        "facestream_camera_down", "1 while the camera is down, with the reason.", labels=["camera", "reason"]
    )
    for report in reports:
        if report.state is CameraState.DOWN or report.error is not None:
            gauge.add_metric([report.camera_id, report.reason[:_LONGEST_REASON]], 1.0)
    return gauge


class SpoolMetrics(Collector):
    """Reads what waits for Kafka at the moment of each scrape.

    Args:
        sinks: That have a spool.
    """

    def __init__(self, sinks: Sequence[SpooledSink]) -> None:
        self._sinks = sinks

    def collect(self) -> Iterable[Metric]:
        """Metrics of all spools, each labelled with ``sink``, the address without secrets."""
        up = GaugeMetricFamily(
            "facestream_sink_up", "1 while the sink's brokers take events.", labels=["sink"]
        )
        for each in self._sinks:
            up.add_metric([each.name], float(each.is_delivering))
        yield up
        stats = {sink.name: sink.stats() for sink in self._sinks}
        kinds = ((GaugeMetricFamily, _SPOOL_GAUGES), (CounterMetricFamily, _SPOOL_COUNTERS))
        for kind, table in kinds:
            for name, (text, value_of) in table.items():
                family = kind(f"facestream_spool_{name}", text, labels=["sink"])
                for sink, values in stats.items():
                    family.add_metric([sink], value_of(values))
                yield family


@contextmanager
def serve_metrics(
    reports: Mapping[str, CameraReport], *, host: str, port: int, sinks: Sequence[SpooledSink] = ()
) -> Iterator[int]:
    """Serve ``/metrics`` from a thread of its own while the context lasts.

    Args:
        reports: The pipeline's reports by camera id.
        host: Address to listen on; loopback unless others are to read it.
        port: 0 takes a free one.
        sinks: Whose spools are reported as well.

    Yields:
        The port.

    Raises:
        ConfigError: The address cannot be used.
    """
    with serve_collectors((CameraMetrics(reports), SpoolMetrics(sinks)), host=host, port=port) as taken:
        yield taken


@contextmanager
def serve_collectors(collectors: Iterable[Collector], *, host: str, port: int) -> Iterator[int]:
    """Serve what some collectors tell, as ``serve_metrics`` does.

    Args:
        collectors: Asked at each scrape.
        host: Address to listen on.
        port: 0 takes a free one.

    Yields:
        The port.

    Raises:
        ConfigError: The address cannot be used.
    """
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as exc:
        raise ConfigError(f"metrics: cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2.0)
