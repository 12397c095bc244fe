"""The commands about people: ``facestream gallery …``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from engine.errors import ConfigError
from stream.cli_errors import EXIT_FAILED, Debug, one_line_errors
from stream.cli_gallery_file import Detector, GalleryPath, open_gallery
from stream.cli_gallery_moves import export_file, fit_map, import_file, upgrade_gallery
from stream.printable import printable
from stream.terminal import open_console

if TYPE_CHECKING:
    from stream.enrolment import Verdict
    from stream.events import FaceEvent
    from stream.gallery import Gallery
    from stream.gallery_erasure import Erasure

gallery_app = typer.Typer(
    help="People: enrol, list, remove, export, import, upgrade.", no_args_is_help=True, rich_markup_mode=None
)

Who = Annotated[str, typer.Argument(metavar="PERSON", help="Name or id.")]
Track = Annotated[str | None, typer.Option(help="Id of a track, as its events have it.")]
Events = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE", help="Where the track's events are: a JSON Lines file, or kafka://…/TOPIC."
    ),
]
Embedder = Annotated[
    str | None, typer.Option(help="File of the gallery's model, where its name is not enough to find it.")
]


@gallery_app.command("create")
def create(
    gallery: GalleryPath,
    embedder: Annotated[
        str, typer.Option(help="Whose embeddings it holds; the one that cameras run with.")
    ] = "sface",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="As `models.mirror` in the cameras' configuration.")
    ] = False,
    keep_photos: Annotated[
        bool,
        typer.Option("--keep-photos", help="Keep photographs, so that a better model can embed them anew."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Make an empty gallery; sealed when FACESTREAM_KEY is set."""
    with one_line_errors(debug=debug):
        from engine.zoo import load_model
        from stream.gallery import Gallery
        from stream.gallery_records import GalleryModel
        from stream.sealing import KEY_VARIABLE, Sealer

        package = load_model(embedder)
        if package.task != "embedder":
            raise ConfigError(f"--embedder: {embedder} is a {package.task}; give sface, dlib or fused")
        sealer = Sealer.from_environment(os.environ)
        model = GalleryModel.of(package, mirror=mirror)
        Gallery.create(gallery, model, sealer=sealer, keep_photos=keep_photos).close()
        typer.echo(f"{gallery}: made, for {model}" + ("" if sealer is None else ", sealed"))
        if sealer is None:
            typer.echo(f"note: it is not sealed; set {KEY_VARIABLE} before, if it should be", err=True)


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
    """Enrol people from photographs, from folders, or from a track: "that one is Ann"."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        ways = [bool(photos), folders is not None, track is not None]
        if sum(ways) != 1 or (folders is None) != (name is not None) or (track is None) != (events is None):
            raise ConfigError(
                "give PHOTO... and --name, or --folders, or --track, --events and --name; see --help"
            )
        if track is not None:
            verdicts = _enrol_track(opened, str(name), track, str(events), notes=notes, force=force)
        else:
            people = _people_of(photos or [], name, folders)
            verdicts = _enrol_photos(opened, people, detector, embedder, notes=notes, pick=pick, force=force)
        _show_verdicts(verdicts)
    if not any(verdict.is_taken for verdict in verdicts):
        raise typer.Exit(EXIT_FAILED)


gallery_app.command("enrol")(enrol)
gallery_app.command("enroll", hidden=True)(enrol)
gallery_app.command("export")(export_file)
gallery_app.command("import")(import_file)
gallery_app.command("upgrade")(upgrade_gallery)
gallery_app.command("fit-map")(fit_map)


def _people_of(photos: list[Path], name: str | None, folders: Path | None) -> list[tuple[str, list[Path]]]:
    """Whom to enrol, and from which files."""
    from stream.enrolment import find_folders, pictures_of

    if folders is not None:
        people = list(find_folders(folders))
        if not people:
            raise ConfigError(f"{folders}: has no folder of photographs; give one such as people/Ann/1.jpg")
        return people
    files = [path for each in photos for path in (pictures_of(each) if each.is_dir() else [each])]
    return [(str(name), files)]


def _enrol_photos(
    gallery: Gallery,
    people: list[tuple[str, list[Path]]],
    detector: str,
    embedder: str | None,
    *,
    notes: str,
    pick: Literal["largest", "centre"] | None,
    force: bool,
) -> list[Verdict]:
    from rich.progress import Progress

    from stream.enrolment import Enroller
    from stream.wiring import open_stills

    console = open_console(stderr=True)
    verdicts: list[Verdict] = []
    with open_stills(gallery.model, detector=detector, embedder=embedder, pick=pick, force=force) as reader:
        enroller = Enroller(gallery, reader=reader, force=force)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("enrolling", total=sum(len(files) for _, files in people))
            for person, files in people:
                verdicts += enroller.enrol_photos(person, files, notes=notes)
                progress.advance(task, len(files))
    return verdicts


def _enrol_track(
    gallery: Gallery, name: str, track: str, events: str, *, notes: str, force: bool
) -> list[Verdict]:
    from stream.enrolment import Enroller

    return [Enroller(gallery, force=force).enrol_track(name, _find_track(track, events), notes=notes)]


def _find_track(track: str, events: str) -> FaceEvent:
    from stream.seen_tracks import read_tracks

    with open_console(stderr=True).status(f"looking for track {track}"):
        event = next((each for each in read_tracks(events) if each.track_id == track), None)
    if event is None:
        raise ConfigError(f"--track: there is no track {track} in these events; see their track_id")
    return event


def _show_verdicts(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        if not verdict.is_taken:
            typer.echo(f"refused: {verdict.what}: {verdict.refusal}", err=True)
    taken = [verdict for verdict in verdicts if verdict.is_taken]
    people = len({verdict.person for verdict in taken})
    told = f"{_counted(len(taken), 'face', 'faces')} of {_counted(people, 'person', 'people')}"
    typer.echo(f"enrolled: {told}; refused: {len(verdicts) - len(taken)}")


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


@gallery_app.command("list")
def list_people(gallery: GalleryPath, debug: Debug = False) -> None:
    """Say who is enrolled."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        people = opened.people()
        sealed = "sealed" if opened.sealer is not None else "not sealed"
        count = _counted(len(people), "person", "people")
        title = f"{count}, for {opened.model}, {sealed}, version {opened.version}"
        table = Table(title=title, title_justify="left")
        table.add_column("name", overflow="fold")
        table.add_column("id", overflow="fold")
        for heading in ("faces", "photos", "not"):
            table.add_column(heading, justify="right")
        table.add_column("since")
        for each in people:
            counts = (str(each.templates), str(each.photos), str(each.negatives))
            table.add_row(each.name, each.id, *counts, each.created.date().isoformat())
        open_console().print(table)


@gallery_app.command("show")
def show(gallery: GalleryPath, person: Who, debug: Debug = False) -> None:
    """Show what is known of a person: each face, where it came from and what it is worth."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        found = opened.find(person)
        title = f"{found.name} ({found.id})" + (f": {printable(found.notes)}" if found.notes else "")
        table = Table("face", title=title, title_justify="left")
        table.add_column("from", overflow="fold")
        table.add_column("quality", justify="right")
        table.add_column("added (UTC)", no_wrap=True)
        for each in opened.templates(found.id):
            origin = printable(each.origin[:40])
            table.add_row(each.source, origin, f"{each.quality:.2f}", _utc(each.added))
        for negative in opened.negatives(found.id):
            table.add_row("not", printable(negative.origin[:40]), "", _utc(negative.added))
        open_console().print(table)


def _utc(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@gallery_app.command("remove")
def remove(
    gallery: GalleryPath,
    person: Who,
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="ADDRESS",
            help="Erase the person's tracks there, too: kafka://…/TOPIC or sqlite:PATH; may be repeated.",
        ),
    ] = None,
    spool: Annotated[
        Path | None, typer.Option(help="Also from the spools in this folder: spool.dir of the configuration.")
    ] = None,
    best_shots: Annotated[
        Path | None, typer.Option(help="Also the pictures in this folder: best_shots.dir.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Erase a person: from the gallery's file with proof, and from wherever else you name."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        from stream.gallery_erasure import erase

        found = opened.find(person)
        with open_console(stderr=True).status("erasing"):
            if topics or spool or best_shots:
                _erase_elsewhere(opened, found.id, topics or [], spool, best_shots)
            erasure = erase(opened, found.id)
        _show_erasure(erasure)
    if erasure.found_in:
        raise typer.Exit(EXIT_FAILED)


def _erase_elsewhere(
    gallery: Gallery, person_id: str, topics: list[str], spool: Path | None, best_shots: Path | None
) -> None:
    """Before the gallery forgets which tracks were the person's: what fails here can be repeated."""
    from stream.best_shots import BestShots
    from stream.gallery_erasure import tracks_of
    from stream.sealing import Sealer
    from stream.spool_keeping import erase_from_spools
    from stream.track_erasure import erase_tracks, find_tracks

    sealer = Sealer.from_environment(os.environ)
    tracks = dict.fromkeys(tracks_of(gallery, person_id))
    for address in topics:
        tracks |= dict.fromkeys(find_tracks(address, person_id))
    erased: dict[str, int] = {}
    if spool is not None:
        erased["spools"] = erase_from_spools(spool, person_id=person_id, track_ids=tracks, sealer=sealer)
    for address in topics:
        kind = address.partition(":")[0]
        erased[kind] = erased.get(kind, 0) + erase_tracks(address, tracks)
    if best_shots is not None:
        erased["best shots"] = BestShots(best_shots, sealer=sealer, keep_days=None).erase(tracks)
    gallery.audit.record("erased elsewhere", person=person_id, tracks=len(tracks), **erased)
    counts = ", ".join(f"{count} in {place}" for place, count in erased.items())
    typer.echo(f"erased elsewhere: of {len(tracks)} tracks {counts}")


def _show_erasure(erasure: Erasure) -> None:
    typer.echo(
        f"erased: {erasure.person_id} with {erasure.templates} faces, {erasure.photos} photographs and "
        f"{erasure.negatives} faces that were not theirs"
    )
    if erasure.found_in:
        files = ", ".join(map(str, erasure.found_in))
        typer.echo(f"error: something of it is still in {files}; run: facestream gallery clean", err=True)
    else:
        typer.echo(
            f"proof: {erasure.pieces} pieces of what was stored were looked for in "
            f"{erasure.bytes_searched:,} bytes of the gallery's files; none is left"
        )
    for copy in erasure.copies:
        state = "delete it by hand" if copy.is_there else "not there any more"
        typer.echo(f"copy of {copy.made}: {copy.path}: {state}")


@gallery_app.command("clean")
def clean_file(gallery: GalleryPath, debug: Debug = False) -> None:
    """Write the file anew without what was deleted, after a removal that somebody was in the way of."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        from stream.gallery_erasure import clean

        clean(opened)
        typer.echo(f"{gallery}: clean")


@gallery_app.command("not")
def not_person(
    gallery: GalleryPath,
    person: Who,
    track: Annotated[str, typer.Option(help="Id of a track that is somebody else.")],
    events: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="Where its events are: a JSON Lines file, or kafka://…/TOPIC."),
    ],
    debug: Debug = False,
) -> None:
    """Remember that a track is not this person."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        from stream.enrolment import add_negative

        add_negative(opened, person, _find_track(track, events))
        typer.echo(f"remembered: track {track} is not {person}")


@gallery_app.command("audit")
def audit(gallery: GalleryPath, debug: Debug = False) -> None:
    """Say who did what with the gallery, and where copies of it were written."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        table = Table("at (UTC)", "who", "action", "detail")
        for entry in opened.audit.entries():
            detail = ", ".join(f"{key} {value}" for key, value in entry.detail.items())
            table.add_row(_utc(entry.at), entry.who, entry.action, printable(detail))
        open_console().print(table)
