"""The demo: from a clip to everything that facestream makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from engine.errors import FacestreamError, SinkError
from engine.faces import Image
from stream import runner
from stream.config import RunSettings, override_settings
from stream.demo_clip import DURATION_S, make_clip
from stream.events import FaceEvent
from stream.pictures import Shot, contact_sheet, save_png
from stream.pipeline import Batch, CameraReport
from stream.render import VideoRenderer
from stream.wiring import open_pipeline, open_sinks

_NEXT = (
    ("your own video", "make demo SOURCE=path/to/video.mp4"),
    ("a camera to Kafka", ".venv/bin/facestream run rtsp://HOST/PATH --sink kafka://HOST:9092/faces"),
    ("what this machine has", ".venv/bin/facestream doctor"),
)


def run_demo(
    source: str | None, out: Path, *, console: Console, max_s: float | None = None
) -> list[FacestreamError]:
    """Run the main job and lay its results into a folder.

    Args:
        source: File or address; None makes a clip of a public-domain portrait.
        out: Folder; made when it is not there. What an earlier demo left in it is replaced.
        console: For progress and the closing table.
        max_s: Longest run in seconds of the clock.

    Returns:
        What ended a source too early.

    Raises:
        FacestreamError: The demo cannot be run.
    """
    _clear(out)
    duration_s = None
    if source is None:
        source, duration_s = str(out / "clip.mp4"), DURATION_S
        with _progress(console) as progress:
            task = progress.add_task("making a clip of a moving portrait", total=1.0, note="")
            make_clip(Path(source), on_progress=lambda share: progress.update(task, completed=share))
    settings = override_settings(None, sources=[source], sinks=[], environment={})
    shots = _Shots()
    with ExitStack() as stack:
        stopping = stack.enter_context(runner.stop_on_signals())
        renderer = stack.enter_context(VideoRenderer(out / "annotated.mp4", [settings.cameras[0].id]))
        seconds, report = _watch(
            settings,
            out,
            renderer=renderer,
            shots=shots,
            stopping=stopping,
            console=console,
            duration_s=duration_s,
            max_s=max_s,
        )
    sheet = contact_sheet(
        [shot for _, shot in sorted(shots.taken, key=lambda each: each[0])],
        title=f"best shot of each track, {settings.cameras[0].id}",
    )
    save_png(sheet, out / "contact-sheet.png")
    _close(console, out, report, seconds)
    return [report.error] if report.error is not None else []


def _watch(
    settings: RunSettings,
    out: Path,
    *,
    renderer: VideoRenderer,
    shots: _Shots,
    stopping: threading.Event,
    console: Console,
    duration_s: float | None,
    max_s: float | None,
) -> tuple[float, CameraReport]:
    """The run itself with a progress bar; its seconds and the camera's report."""
    sinks = open_sinks([f"jsonl:{out / 'events.jsonl'}", f"sqlite:{out / 'events.db'}"])
    with _progress(console) as progress, open_pipeline(settings, on_left=shots) as pipeline:
        report = pipeline.reports[settings.cameras[0].id]
        task = progress.add_task("watching it", total=duration_s, note="")

        def advance(_batch: Batch) -> None:
            note = f"frames: {report.frames}, tracks: {report.tracks}"
            progress.update(task, completed=report.last_time_s, note=note)

        begun = time.monotonic()
        runner.run(pipeline, sinks, stopping=stopping, watchers=[renderer, advance], max_s=max_s)
        seconds = time.monotonic() - begun
        progress.update(task, total=1.0, completed=1.0)
    return seconds, report


class _Shots:
    """Gathers the best shot of each track that leaves, with the time when it appeared."""

    def __init__(self) -> None:
        self.taken: list[tuple[datetime, Shot]] = []

    def __call__(self, event: FaceEvent, image: Image) -> None:
        number = int(event.track_id.rpartition("-")[2])
        first_s = event.media_time_s - (event.captured_at - event.first_seen).total_seconds()
        last_s = first_s + (event.last_seen - event.first_seen).total_seconds()
        lines = (
            f"#{number}   {_clock(first_s)} to {_clock(last_s)}",
            f"best {_clock(event.media_time_s)}, quality {event.quality:.2f}",
            f"{event.faces_seen} faces, {event.embeddings_made} embedded",
        )
        self.taken.append((event.first_seen, Shot(image, lines, number)))


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(max(time_s, 0.0), 60)
    return f"{minutes:.0f}:{seconds:04.1f}"


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("{task.fields[note]}"), console=console
    ) as progress:
        yield progress


def _clear(out: Path) -> None:
    """Make the folder, for its owner alone; remove what an earlier demo left in it, and nothing else."""
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("events.jsonl", "events.db", "events.db-wal", "events.db-shm", "annotated.mp4"):
            (out / name).unlink(missing_ok=True)
    except OSError as exc:
        raise SinkError(f"{out}: cannot be used ({exc.strerror}); choose another folder with --out") from exc


def _close(console: Console, out: Path, report: CameraReport, seconds: float) -> None:
    table = Table(show_header=False, title="facestream demo", title_justify="left")
    table.add_row("frames", f"{report.source.decoded} decoded, {report.frames} looked at")
    table.add_row(
        "frames/s",
        f"{report.source.decoded / max(seconds, 1e-9):.0f} decoded, with the video drawn and encoded",
    )
    table.add_row("tracks", str(report.tracks))
    table.add_row("events", str(report.events))
    table.add_row("as JSON Lines", str(out / "events.jsonl"))
    table.add_row("in SQLite", str(out / "events.db"))
    if report.frames:
        table.add_row("annotated video", str(out / "annotated.mp4"))
    table.add_row("who was there", str(out / "contact-sheet.png"))
    console.print(table)
    console.print("next:")
    for what, command in _NEXT:
        console.print(f"  {what:<22} {command}", highlight=False, soft_wrap=True)
