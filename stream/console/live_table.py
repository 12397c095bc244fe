"""What a person sees while a run goes on: a live table of the cameras."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.common.printable import counted, local_time, printable
from stream.events.event_types import CameraEvent, Event, FaceEvent, IdentityEvent, TrackChange
from stream.pipeline.pipeline import CameraReport
from stream.video.frames import CameraState

_COLOURS = {
    CameraState.CONNECTING: "yellow",
    CameraState.UP: "green",
    CameraState.DOWN: "red",
    CameraState.ENDED: "dim",
}
_FIGURES = ("frames/s", "frames", "in view", "tracks", "events", "dropped", "lag")
_SUMS = ("frames", "events", "dropped")
_ROOM_FOR_ALL = 120
_LEAST_REASON = 24


class LiveTable:
    """A table on the terminal that is drawn anew four times a second; at the end, with the run's mean rates.

    Args:
        console: Where it is drawn.
        reports: The pipeline's reports by camera id.
    """

    def __init__(self, console: Console, reports: Mapping[str, CameraReport]) -> None:
        self._reports = reports
        self._rates = {name: RateMeter() for name in reports}
        self._console = console
        self._begun_s = time.monotonic()
        self._ended_s: float | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._table)

    def __enter__(self) -> LiveTable:
        self._begun_s = time.monotonic()
        self._live.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended_s = self._ended_s or time.monotonic()
        with contextlib.suppress(OSError):  # the terminal was closed
            self._live.stop()

    def _table(self) -> Table:
        return camera_table(self._reports.values(), self.rates(), width=self._console.width)

    def rates(self) -> dict[str, float]:
        """Frames a second of each camera: lately, or once all have ended, in all of the run.

        What comes after the last frame, such as waiting for a broker, does not count.
        """
        if self._ended_s is None and all(each.state is CameraState.ENDED for each in self._reports.values()):
            self._ended_s = time.monotonic()
        if self._ended_s is not None:
            seconds = max(self._ended_s - self._begun_s, 1e-9)
            return {name: report.frames / seconds for name, report in self._reports.items()}
        now_s = time.monotonic()
        return {name: meter.rate(self._reports[name].frames, now_s) for name, meter in self._rates.items()}


class EventPrinter:
    """A sink that prints a line for people about each event of a track; the log tells of cameras.

    Whom a track was taken for is remembered while it is in view, and said with each line about it.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def emit(self, events: Sequence[Event]) -> None:
        """Print some events; on a terminal that was closed, none."""
        lines = list(self._lines(events))
        with contextlib.suppress(OSError):
            sys.stdout.write("".join(printable(line) + "\n" for line in lines))
            sys.stdout.flush()

    def close(self, timeout_s: float) -> None:
        """Nothing waits."""

    def _lines(self, events: Sequence[Event]) -> Iterator[str]:
        for answer in events:  # they come behind the events that they answer
            if isinstance(answer, IdentityEvent) and answer.person_name is not None:
                self._names[answer.track_id] = answer.person_name
            elif isinstance(answer, IdentityEvent):
                self._names.pop(answer.track_id, None)
        for event in events:
            if isinstance(event, FaceEvent):
                yield describe_event(event, name=self._names.get(event.track_id))
                if event.change is TrackChange.LEFT:
                    self._names.pop(event.track_id, None)
            elif isinstance(event, IdentityEvent):
                yield describe_event(event)


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


def camera_table(
    reports: Iterable[CameraReport], rates: Mapping[str, float], *, width: int = _ROOM_FOR_ALL
) -> Table:
    """Table of the cameras: state, figures, and why a camera is down.

    Args:
        reports: Of the cameras.
        rates: Frames a second by camera id.
        width: Columns of the terminal. Where a narrow one has a reason to show, the sums make room for it.
    """
    reports = tuple(reports)
    has_reason = any(report.reason for report in reports)
    left_out = _SUMS if has_reason and width < _ROOM_FOR_ALL else ()
    rows = [_figures(report, rates.get(report.camera_id, 0.0)) for report in reports]
    shown = [heading for heading in _FIGURES if heading not in left_out]
    # Without lines between them, as a terminal of 80 columns has room for the figures then.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("camera", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in shown:
        table.add_column(heading, justify="right", no_wrap=True)
    if has_reason:
        table.add_column("reason", overflow="fold", min_width=_LEAST_REASON)
    for report, figures in zip(reports, rows, strict=True):
        state = Text(report.state.value, _COLOURS[report.state])
        reason = printable(report.reason.removeprefix(f"{report.uri}: "))
        table.add_row(
            report.camera_id,
            state,
            *(figures[heading] for heading in shown),
            *([reason] if has_reason else []),
        )
    return table


def _figures(report: CameraReport, rate: float) -> dict[str, str]:
    """The figures of a camera by their headings."""
    lag = "" if report.lag_s is None else f"{report.lag_s * 1000:.0f} ms"
    counts = (report.frames, report.live_tracks, report.tracks, report.events, report.dropped)
    return dict(zip(_FIGURES, (f"{rate:.1f}", *map(str, counts), lag), strict=True))


def describe_event(event: Event, *, name: str | None = None) -> str:
    """One line about an event for people.

    Args:
        event: Of a track, a camera or an identity.
        name: Whom the track was taken for; None for nobody, or where that is not known.
    """
    clock = local_time(event.at, "%H:%M:%S")
    if isinstance(event, CameraEvent):
        because = f": {event.reason}" if event.reason else ""
        planned = " as planned" if event.planned else ""
        return f"{clock}  {event.camera_id}  camera {event.change.value}{planned}{because}"
    if isinstance(event, IdentityEvent):
        who = "unknown" if event.person_name is None else event.person_name
        score = "" if event.similarity is None else f"  similarity {event.similarity:.2f}"
        because = f": {event.reason}" if event.reason else ""
        return (
            f"{clock}  {event.camera_id}  track {event.track_id} {event.change.value} {who}{score}{because}"
        )
    stay_s = (event.last_seen - event.first_seen).total_seconds()
    stay = f", {stay_s:.1f} s in view" if event.change is not TrackChange.APPEARED else ""
    who = "" if name is None else f" {name}"
    return (
        f"{clock}  {event.camera_id}  track {event.track_id} {event.change.value}{who}"
        f"  quality {event.quality:.2f}, {counted(event.faces_seen, 'face')}{stay}"
    )
