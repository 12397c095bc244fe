"""The demo: from a clip to everything that facestream makes of it."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from engine.errors import FacestreamError, SinkError
from engine.faces import Image
from engine.models.catalogue import load_model
from stream.app import main_loop, preflight
from stream.app.settings import CameraSettings, RunSettings, override_settings
from stream.app.wiring import open_identifier, open_pipeline, open_sinks, open_stills
from stream.cli.demo.cast import CutOut, grace_hopper, photograph, sam
from stream.cli.demo.clip import DURATION_S, make_scene
from stream.cli.demo.story import Story, Visit, clock, seen_from_to, tell
from stream.common.encryption import KEY_VARIABLE, Sealer
from stream.common.printable import counted
from stream.common.uris import LocalPath, parse_source
from stream.console.signals import stop_on_signals
from stream.console.terminal import show_commands
from stream.events.event_types import FaceEvent, IdentityEvent
from stream.gallery.enrolment.enroller import Enroller
from stream.gallery.identification.identifier import Identifier, IdentifyingSink
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel
from stream.pipeline.annotated_video import VideoRenderer
from stream.pipeline.pipeline import Batch, CameraReport
from stream.video.drawing import Shot, contact_sheet, plain_letters, save_png
from stream.video.sources import open_source

_ENROLLED: Final[tuple[tuple[str, Callable[[], CutOut]], ...]] = (
    ("Grace Hopper", grace_hopper),
    ("Sam", sam),
)

_RESULTS: Final = ("events.jsonl", "events.db", "events.db-wal", "events.db-shm", "annotated.mp4")

_CAST = (
    "Enrolled, with one still each: Grace Hopper (US Navy, public domain), and Sam, who is a drawing.",
    "The stranger is Eileen Collins (NASA, public domain).",
)

_NEXT = (
    ("your own video", "make demo SOURCE=path/to/video.mp4"),
    ("who people are", ".venv/bin/facestream gallery --help"),
    ("what this machine has", ".venv/bin/facestream doctor"),
)


def run_demo(
    source: str | None, out: Path, *, console: Console, max_s: float | None = None
) -> list[FacestreamError]:
    """Run the main job and lay its results into a folder.

    Args:
        source: File or address; None makes a clip of three people, two of whom are enrolled.
        out: Folder; made when it is not there. The results of an earlier run in it are replaced; a clip and
            stills only by those that are made.
        console: For progress and the closing story.
        max_s: Longest run in seconds of the clock.

    Returns:
        What ended a source too early.

    Raises:
        FacestreamError: The demo cannot be run.
    """
    if source is not None:
        _check(source, out)
    _clear(out, is_own=source is not None)
    with ExitStack() as stack:
        gallery, environment = None, {}
        if source is None:
            source = str(_made_clip(out / "clip.mp4", console))
            gallery = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "people.db"
            environment = {KEY_VARIABLE: base64.b64encode(secrets.token_bytes(32)).decode()}
            _enrol(gallery, out / "enrolled", environment, console)
        settings = override_settings(
            None, sources=[source], sinks=[], environment=os.environ, gallery=gallery
        )
        identifier = stack.enter_context(open_identifier(settings, environment=environment))
        seen = _watch(
            settings,
            out,
            identifier=identifier,
            console=console,
            duration_s=None if gallery is None else DURATION_S,
            max_s=max_s,
        )
    sheet = contact_sheet(
        seen.shots.told(seen.story.visits),
        title=f"best shot of each track, {settings.cameras[0].id}",
    )
    save_png(sheet, out / "contact-sheet.png")
    _close(console, out, seen, is_own=gallery is None)
    return [seen.report.error] if seen.report.error is not None else []


def _check(source: str, out: Path) -> None:
    """See that a source can be played and is none of the files that will be replaced.

    Raises:
        ConfigError: It is one of them.
        SourceError: It cannot be played.
    """
    (camera,) = override_settings(None, sources=[source], sinks=[], environment=os.environ).cameras
    address = parse_source(camera.uri)
    if isinstance(address, LocalPath):
        preflight.check_apart([("--out", out / name) for name in _RESULTS], [("--source", address.path)])
    _see_a_frame(camera)


def _see_a_frame(camera: CameraSettings) -> None:
    """Decode a frame of a source that ends; a camera may come up later.

    Raises:
        SourceError: There is none.
    """
    with closing(open_source(camera_id=camera.id, uri=camera.uri)) as source:
        if not source.is_live:
            next(iter(source.frames()), None)


def _made_clip(path: Path, console: Console) -> Path:
    with _progress(console) as progress:
        task = progress.add_task("making a clip of three people", total=1.0, note="")
        make_scene(path, on_progress=lambda share: progress.update(task, completed=share))
    return path


def _enrol(gallery: Path, stills: Path, environment: dict[str, str], console: Console) -> None:
    """Enrol from stills, as a user would; the key is gone when the demo ends, and so is the gallery."""
    model = GalleryModel.of(load_model("sface"), mirror=False)
    with (
        console.status("enrolling two of them"),
        Gallery.create(gallery, model, sealer=Sealer.from_environment(environment)) as opened,
        open_stills(model, detector="yunet") as reader,
    ):
        enroller = Enroller(opened, reader=reader)
        for name, person in _ENROLLED:
            path = stills / f"{name}.png"
            save_png(photograph(person()), path)
            enroller.enrol_photos(name, [path])


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a run has shown."""

    seconds: float
    report: CameraReport
    story: Story
    shots: Shots


def _watch(
    settings: RunSettings,
    out: Path,
    *,
    identifier: Identifier | None,
    console: Console,
    duration_s: float | None,
    max_s: float | None,
) -> _Seen:
    """The run itself with a progress bar."""
    camera_id, shots = settings.cameras[0].id, Shots()
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_on_signals())
        renderer = stack.enter_context(
            VideoRenderer(out / "annotated.mp4", [camera_id], identifier=identifier)
        )
        story = Story(open_sinks([f"jsonl:{out / 'events.jsonl'}", f"sqlite:{out / 'events.db'}"]))
        progress = stack.enter_context(_progress(console))
        with stopping.getting_ready():
            pipeline = stack.enter_context(open_pipeline(settings, on_left=shots))
        report = pipeline.reports[camera_id]
        task = progress.add_task("watching it", total=duration_s, note="")

        def advance(_batch: Batch) -> None:
            note = f"frames: {report.frames}, tracks: {report.tracks}"
            progress.update(task, completed=report.last_time_s, note=note)

        begun = time.monotonic()
        main_loop.run(
            pipeline,
            story if identifier is None else IdentifyingSink(story, identifier),
            stopping=stopping,
            watchers=[renderer, story.watch, advance],
            max_s=max_s,
        )
        seconds = time.monotonic() - begun
        progress.update(task, total=1.0, completed=1.0)
    return _Seen(seconds, report, story, shots)


class Shots:
    """Gathers the best shot of each track that leaves."""

    def __init__(self) -> None:
        self._taken: list[tuple[FaceEvent, Image]] = []

    def __call__(self, event: FaceEvent, image: Image) -> None:
        """Keep the best shot of a track, which has just left."""
        self._taken.append((event, image))

    def told(self, visits: Sequence[Visit]) -> list[Shot]:
        """The shots in the order of their tracks' first sight, with what the story says of who it is."""
        answers = {visit.number: visit.answer for visit in visits}
        return [
            _shot(event, image, answers)
            for event, image in sorted(self._taken, key=lambda e: e[0].first_seen)
        ]


def _shot(event: FaceEvent, image: Image, answers: Mapping[int, IdentityEvent | None]) -> Shot:
    number = int(event.track_id.rpartition("-")[2])
    from_s, until_s = seen_from_to(event)
    lines = (
        f"#{number}  {_who(answers.get(number))}",
        f"{clock(from_s)} to {clock(until_s)}",
        f"{counted(event.faces_seen, 'face')}, {event.embeddings_made} embedded",
    )
    return Shot(image, lines, number)


def _who(answer: IdentityEvent | None) -> str:
    if answer is None or answer.similarity is None:
        return ""
    return f"{plain_letters(answer.person_name or 'not enrolled')}, {answer.similarity:.2f}"


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("{task.fields[note]}"), console=console
    ) as progress:
        yield progress


def _clear(out: Path, *, is_own: bool) -> None:
    """Make the folder, for its owner alone; remove the results of an earlier run, and nothing else."""
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in _RESULTS if is_own else ("clip.mp4", *_RESULTS):
            (out / name).unlink(missing_ok=True)
        if not is_own:
            shutil.rmtree(out / "enrolled", ignore_errors=True)
    except OSError as exc:
        raise SinkError(f"{out}: cannot be used ({exc.strerror}); choose another folder with --out") from exc


def _close(console: Console, out: Path, seen: _Seen, *, is_own: bool) -> None:
    """The story, what was made, and where to go on: lines that a terminal of any width leaves whole."""
    report = seen.report
    lines = ["", "What happened", *(f"  {line}" for line in tell(seen.story.visits))]
    if not is_own:
        lines += [f"  {line}" for line in _CAST]
    rate = report.source.decoded / max(seen.seconds, 1e-9)
    lines += [
        "",
        "What was made of it",
        f"  {report.source.decoded} frames decoded ({rate:.0f} a second, with the video drawn and encoded), "
        f"{report.frames} looked at, {counted(report.tracks, 'track')}",
        f"  {seen.story.counts()}",
    ]
    made = [("what came and went, to watch", "annotated.mp4")] if report.frames else []
    made += [("who was there", "contact-sheet.png"), ("events as JSON Lines", "events.jsonl")]
    made += [("the same in SQLite", "events.db")]
    if not is_own:
        made += [("the stills of those enrolled", "enrolled")]
    lines += [f"  {what:<28} {out / name}" for what, name in made]
    for line in [*lines, "", "Next"]:
        console.print(line, highlight=False, soft_wrap=True)
    show_commands(console, _NEXT)
