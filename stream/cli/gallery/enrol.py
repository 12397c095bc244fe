"""The command that enrols people; ``facestream gallery`` has it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from engine.errors import ConfigError, FacestreamError, TextError
from stream.cli.errors import EXIT_FAILED, EXIT_PARTLY, Debug, one_line_errors
from stream.cli.gallery.opening import Detector, GalleryPath, open_gallery
from stream.common.printable import counted, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream.events.event_types import FaceEvent
    from stream.gallery.enrolment.enroller import Verdict
    from stream.gallery.enrolment.folders import LeftOut, Photographs
    from stream.gallery.people import Gallery

Track = Annotated[str | None, typer.Option(help="Id of a track, as its events have it.")]
Events = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Where the track's events are: a JSON Lines or SQLite file, or kafka://…/TOPIC.",
    ),
]
Embedder = Annotated[
    str | None, typer.Option(help="File of the gallery's model, where its name is not enough to find it.")
]

_MOST_LINES: Final = 50
"""So many things that are left out are named, and the others counted."""


def enrol(
    gallery: GalleryPath,
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PHOTO]...", help="Photographs, or folders of them, of one person."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the person; a new one, or one to add to.")] = None,
    folders: Annotated[
        Path | None, typer.Option(help="Many people: a folder with a folder of photographs for each.")
    ] = None,
    keep_underscores: Annotated[
        bool,
        typer.Option(
            "--keep-underscores", help="With --folders: Bill_Gates is called so, and not Bill Gates."
        ),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Photographs in folders inside a person's folder are theirs, too.")
    ] = False,
    track: Track = None,
    events: Events = None,
    notes: Annotated[str, typer.Option(help="Of a new person.")] = "",
    pick: Annotated[
        Literal["largest", "centre"] | None,
        typer.Option(help="Which of several faces is meant; without it, such photographs are refused."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Refuse nothing but what is enrolled already.")
    ] = False,
    detector: Detector = "yunet",
    embedder: Embedder = None,
    debug: Debug = False,
) -> None:
    """Enrol people from photographs, from folders, or from a track: "that one is Ann".

    Exit code 0: everybody has a face in the gallery; 3: somebody was left out; 1: nothing was enrolled.
    """
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        from stream.gallery.enrolment.enroller import Enroller

        ways = [bool(photos), folders is not None, track is not None]
        if sum(ways) != 1 or (folders is None) != (name is not None) or (track is None) != (events is None):
            raise ConfigError(
                "give PHOTO... and --name, or --folders, or --track, --events and --name; see --help"
            )
        left_out: list[LeftOut] = []
        if track is not None:
            enroller = Enroller(opened, force=force)
            verdicts = [enroller.enrol_track(str(name), find_track(track, str(events)), notes=notes)]
            warn_of_look_alikes(enroller.look_alikes, gallery)
        else:
            found = _find(opened, photos or [], name, folders, keep_underscores=keep_underscores, deep=deep)
            left_out = found.left_out
            verdicts = []
            with _told_when_stopped(verdicts, found):
                _enrol_photos(
                    opened, found, verdicts, detector, embedder, notes=notes, pick=pick, force=force
                )
        _show_verdicts(verdicts)
        show_left_out(left_out)
        missing = _without_a_face(verdicts) + [str(each.path) for each in left_out if each.is_person]
        _show_summary(verdicts, missing)
    if not any(verdict.is_taken for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)
    if missing:
        raise typer.Exit(EXIT_PARTLY)


def _find(
    gallery: Gallery,
    photos: list[Path],
    name: str | None,
    folders: Path | None,
    *,
    keep_underscores: bool,
    deep: bool,
) -> Photographs:
    """Whom to enrol, and from which files."""
    from stream.common.names import clean_name
    from stream.gallery.enrolment.folders import LeftOut, Photographs, find_people, find_photos, one_name_each

    if folders is not None:
        known = frozenset(each.name for each in gallery.people())
        found = find_people(folders, known=known, keep_underscores=keep_underscores, deep=deep)
        if not found.people:
            show_left_out(found.left_out)
            raise ConfigError(f"{folders}: has no folder of photographs; give one such as people/Ann/1.jpg")
        for line in one_name_each(found.people.items()):
            typer.echo(printable(f"note: {line}"), err=True)
        return found
    found = Photographs()
    files = found.people.setdefault(clean_name(str(name), what="--name"), [])
    for each in photos:
        if not each.is_dir():
            files.append(each)
            continue
        inner, left_out = find_photos(each, deep=deep)
        files += inner
        found.left_out += left_out or ([] if inner else [LeftOut(each, "has no photograph", is_person=False)])
    return found


def _enrol_photos(
    gallery: Gallery,
    found: Photographs,
    verdicts: list[Verdict],
    detector: str,
    embedder: str | None,
    *,
    notes: str,
    pick: Literal["largest", "centre"] | None,
    force: bool,
) -> None:
    """Enrol one after the other; what becomes of each photograph is added to ``verdicts``."""
    from stream.console.progress import Progress

    with Progress("loading"):
        from stream.app.wiring import open_stills
        from stream.gallery.enrolment.enroller import Enroller, Verdict

    with (
        Progress("enrolling", total=found.count) as progress,
        open_stills(gallery.model, detector=detector, embedder=embedder, pick=pick, force=force) as reader,
    ):
        enroller = Enroller(gallery, reader=reader, force=force)
        for person, files in found.people.items():
            try:
                verdicts += enroller.enrol_photos(person, files, notes=notes, on_photo=progress.advance)
            except TextError as exc:
                verdicts += [Verdict(person, str(path), str(exc)) for path in files]
    warn_of_look_alikes(enroller.look_alikes, gallery.path)


@contextmanager
def _told_when_stopped(verdicts: list[Verdict], found: Photographs) -> Iterator[None]:
    """Say what was done before Ctrl-C or an error ended it: that is in the gallery, and stays there."""
    try:
        yield
    except (KeyboardInterrupt, FacestreamError):
        if verdicts:
            _show_verdicts(verdicts)
            done = len({verdict.person for verdict in verdicts})
            told = f"stopped after {done:,} of {counted(len(found.people), 'person', 'people')}"
            typer.echo(f"{told}; what is enrolled stays, run this again for the others", err=True)
            _show_summary(verdicts, _without_a_face(verdicts))
        raise


def find_track(track: str, events: str) -> FaceEvent:
    """A track's newest event.

    Raises:
        ConfigError: There is no such track.
        SourceError: The events cannot be read.
    """
    from stream.app.yaml_reader import expand_address
    from stream.console.progress import Progress
    from stream.sinks.track_history import read_tracks

    with Progress(f"looking for track {track}"):
        event = next(
            (each for each in read_tracks(expand_address(events, os.environ)) if each.track_id == track), None
        )
    if event is None:
        raise ConfigError(f"--track: there is no track {track} in these events; see their track_id")
    return event


def warn_of_look_alikes(look_alikes: Mapping[str, str], gallery: Path) -> None:
    """Say which names were new, and look like another one that was there."""
    for new, old in look_alikes.items():
        command = shlex.join(["facestream", "gallery", "merge", str(gallery), old, new])
        told = f"warning: {new} looks like {old}, who is here, too; if they are one person: {command}"
        typer.echo(printable(told), err=True)


def _show_verdicts(verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        if not verdict.is_taken:
            typer.echo(printable(f"refused: {verdict.what}: {verdict.refusal}"), err=True)


def show_left_out(left_out: Sequence[LeftOut]) -> None:
    """Name what nobody was enrolled from, on standard error; those first who may be missing."""
    ordered = sorted(left_out, key=lambda each: not each.is_person)
    for each in ordered[:_MOST_LINES]:
        typer.echo(
            printable(f"{'left out' if each.is_person else 'note'}: {each.path}: {each.reason}"), err=True
        )
    if len(ordered) > _MOST_LINES:
        typer.echo(f"and {len(ordered) - _MOST_LINES:,} more", err=True)


def _without_a_face(verdicts: Sequence[Verdict]) -> list[str]:
    """Names of those of whom nothing was taken, now or before."""
    there = {verdict.person for verdict in verdicts if verdict.is_taken or verdict.is_known}
    return list(dict.fromkeys(each.person for each in verdicts if each.person not in there))


def _show_summary(verdicts: Sequence[Verdict], missing: Sequence[str]) -> None:
    taken = [verdict for verdict in verdicts if verdict.is_taken]
    people = len({verdict.person for verdict in taken})
    told = f"{counted(len(taken), 'face')} of {counted(people, 'person', 'people')}"
    names = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
    without = f"; left out: {len(missing):,} ({names})" if missing else ""
    typer.echo(printable(f"enrolled: {told}; refused: {len(verdicts) - len(taken)}{without}"))
