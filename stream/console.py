"""What a person sees while a run goes on: a live table of the cameras."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.events import CameraEvent, Event, IdentityEvent, TrackChange
from stream.frames import CameraState
from stream.pipeline import CameraReport
from stream.printable import local_time, printable

_COLOURS = {
    CameraState.CONNECTING: "yellow",
    CameraState.UP: "green",
    CameraState.DOWN: "red",
    CameraState.ENDED: "dim",
}


class LiveTable:
    """A table on the terminal that is drawn anew four times a second.

    Args:
        console: Where it is drawn.
        reports: The pipeline's reports by camera id.
    """

    def __init__(self, console: Console, reports: Mapping[str, CameraReport]) -> None:
        self._reports = reports
        self._rates = {name: RateMeter() for name in reports}
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._table)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _table(self) -> Table:
        now = time.monotonic()
        rates = {name: meter.rate(self._reports[name].frames, now) for name, meter in self._rates.items()}
        return camera_table(self._reports.values(), rates)


class EventPrinter:
    """A sink that prints a line for people about each event of a track; the log tells of cameras."""

    def emit(self, events: Sequence[Event]) -> None:
        """Print some events."""
        for event in events:
            if not isinstance(event, CameraEvent):
                sys.stdout.write(printable(describe_event(event)) + "\n")
        sys.stdout.flush()

    def close(self, timeout_s: float) -> None:
        """Nothing is kept."""


class RateMeter:
    """Frames a second over the last seconds, from a growing count.

    Args:
        window_s: Length of time that it looks back.
    """

    def __init__(self, *, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._marks: list[tuple[float, int]] = []

    def rate(self, count: int, now_s: float) -> float:
        """Note the count at a time and return the rate since the window began.

        Args:
            count: Never falls.
            now_s: Never goes back.

        Returns:
            Counts a second; 0 at the first call.
        """
        self._marks.append((now_s, count))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > self._window_s:
            self._marks.pop(0)
        then_s, before = self._marks[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0


def camera_table(reports: Iterable[CameraReport], rates: Mapping[str, float]) -> Table:
    """Table of the cameras: state, frames a second, faces, tracks, dropped frames, lag."""
    # Without lines between them, as a terminal of 80 columns has room for the figures then.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("camera", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("frames/s", "frames", "in view", "tracks", "events", "dropped", "lag"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in reports:
        state = Text(report.state.value, _COLOURS[report.state])
        table.add_row(
            report.camera_id,
            state,
            f"{rates.get(report.camera_id, 0.0):.1f}",
            str(report.frames),
            str(report.live_tracks),
            str(report.tracks),
            str(report.events),
            str(report.dropped),
            "" if report.lag_s is None else f"{report.lag_s * 1000:.0f} ms",
        )
    return table


def describe_event(event: Event) -> str:
    """One line about an event for people."""
    clock = local_time(event.at, "%H:%M:%S")
    if isinstance(event, CameraEvent):
        because = f": {event.reason}" if event.reason else ""
        return f"{clock}  {event.camera_id}  camera {event.change.value}{because}"
    if isinstance(event, IdentityEvent):
        who = "unknown" if event.person_name is None else event.person_name
        score = "" if event.similarity is None else f"  similarity {event.similarity:.2f}"
        because = f": {event.reason}" if event.reason else ""
        return (
            f"{clock}  {event.camera_id}  track {event.track_id} {event.change.value} {who}{score}{because}"
        )
    stay_s = (event.last_seen - event.first_seen).total_seconds()
    stay = f", {stay_s:.1f} s in view" if event.change is not TrackChange.APPEARED else ""
    return (
        f"{clock}  {event.camera_id}  track {event.track_id} {event.change.value}"
        f"  quality {event.quality:.2f}, {event.faces_seen} faces{stay}"
    )
