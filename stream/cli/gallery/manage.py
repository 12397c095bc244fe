"""The commands about people: ``facestream gallery …``."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.cli.gallery.enrol import enrol, find_track, warn_of_look_alikes
from stream.cli.gallery.opening import GalleryPath, open_gallery
from stream.cli.gallery.transfer import export_file, fit_map, import_file, upgrade_gallery
from stream.common.printable import counted, printable
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from stream.gallery.erasure import Erasure
    from stream.gallery.people import Gallery

gallery_app = typer.Typer(
    help="People: enrol, list, remove, export, import, upgrade.", no_args_is_help=True, rich_markup_mode=None
)

_DIGEST_SHOWN = 12
"""Letters of a photograph's SHA-256 that tell it from others beside its file's name."""

_AUDIT_WORDS: Final = {
    "templates": "faces",
    "negatives": "faces of somebody else",
    "gone": "merged into it",
    "keep_photos": "keeps photographs",
    "pieces": "pieces looked for",
    "found": "pieces found",
    "rows": "faces",
}

Who = Annotated[str, typer.Argument(metavar="PERSON", help="Name or id.")]


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
        from stream.gallery.tables import IF_THERE

        preflight.check_output(gallery, "GALLERY", is_new=True, if_there=IF_THERE, makes_folder=False)
        from engine.models.catalogue import load_model
        from stream.common.encryption import KEY_VARIABLE, Sealer
        from stream.gallery.people import Gallery
        from stream.gallery.records import GalleryModel

        package = load_model(embedder)
        if package.task != "embedder":
            raise ConfigError(f"--embedder: {embedder} is a {package.task}; give sface, dlib or fused")
        sealer = Sealer.from_environment(os.environ)
        model = GalleryModel.of(package, mirror=mirror)
        Gallery.create(gallery, model, sealer=sealer, keep_photos=keep_photos).close()
        typer.echo(f"{gallery}: made, for {model}" + ("" if sealer is None else ", sealed"))
        if sealer is None:
            typer.echo(f"note: it is not sealed; set {KEY_VARIABLE} before, if it should be", err=True)


gallery_app.command("enrol")(enrol)
gallery_app.command("enroll", hidden=True)(enrol)
gallery_app.command("export")(export_file)
gallery_app.command("import")(import_file)
gallery_app.command("upgrade")(upgrade_gallery)
gallery_app.command("fit-map")(fit_map)


@gallery_app.command("list")
def list_people(gallery: GalleryPath, debug: Debug = False) -> None:
    """Say who is enrolled."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        people = opened.people()
        sealed = "sealed" if opened.sealer is not None else "not sealed"
        count = counted(len(people), "person", "people")
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
        forms = Counter(each.name for each in people)
        for name in (name for name, count in forms.items() if count > 1):
            command = shlex.join(["facestream", "gallery", "merge", str(gallery), name])
            typer.echo(
                f"note: {name} is here {forms[name]} times, in several forms; make them one: {command}"
            )


@gallery_app.command("show")
def show(gallery: GalleryPath, person: Who, debug: Debug = False) -> None:
    """Show what is known of a person: each face, where it came from and what it is worth."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        for found in opened.find_all(person):
            title = f"{found.name} ({found.id})" + (f": {printable(found.notes)}" if found.notes else "")
            table = Table("face", title=title, title_justify="left")
            table.add_column("file", overflow="fold")
            table.add_column("from", overflow="fold")
            table.add_column("quality", justify="right")
            table.add_column("added (UTC)", no_wrap=True)
            for each in opened.templates(found.id):
                origin = printable(each.origin[: _DIGEST_SHOWN if each.file else 40])
                table.add_row(
                    each.source, printable(each.file), origin, f"{each.quality:.2f}", _utc(each.added)
                )
            for negative in opened.negatives(found.id):
                table.add_row("not", "", printable(negative.origin[:40]), "", _utc(negative.added))
            open_console().print(table)


@gallery_app.command("rename")
def rename(
    gallery: GalleryPath,
    person: Who,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the person is called from now on.")],
    debug: Debug = False,
) -> None:
    """Call a person otherwise; the id in events stays."""
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        from stream.common.names import look_alike

        before = opened.find(person)
        after = opened.rename(before.id, name)
        typer.echo(f"{before.name} is {after.name} now ({after.id})")
        others = (each.name for each in opened.people() if each.id != after.id)
        alike = next((other for other in others if look_alike(other) == look_alike(after.name)), None)
        warn_of_look_alikes({} if alike is None else {after.name: alike}, gallery)


@gallery_app.command("merge")
def merge(
    gallery: GalleryPath,
    person: Who,
    others: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OTHER]...",
            help="Names or ids that are the same person; without any, the other forms of the person's name.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make several entries one person; what is known of the others becomes the person's."""
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened, opened.exclusive():
        first, *forms = opened.find_all(person)
        gone = others or [each.id for each in forms]
        if not gone:
            raise ConfigError(f"{first.name} is here once; say who else is the same person: OTHER")
        merged = opened.merge(first.id, gone)
        typer.echo(f"{merged.name} ({merged.id}): {counted(merged.templates, 'face')} now")


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
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        from stream.console.progress import Progress
        from stream.gallery.erasure import erase

        found = opened.find(person)
        with Progress("erasing"):
            done = _erase_elsewhere(opened, found.id, (), topics or [], spool, best_shots)
            erasure = erase(opened, found.id)
            if late := set(erasure.tracks) - done:  # enrolled meanwhile
                _erase_elsewhere(opened, None, tuple(late), topics or [], spool, best_shots)
        _show_erasure(found.name, erasure)
    if erasure.found_in:
        raise typer.Exit(EXIT_FAILED)


def _erase_elsewhere(
    gallery: Gallery,
    person: str | None,
    more: tuple[str, ...],
    topics: list[str],
    spool: Path | None,
    best_shots: Path | None,
) -> set[str]:
    """Erase a person's tracks wherever they are named, before the gallery forgets which they were.

    What fails here can be repeated.

    Args:
        gallery: Open.
        person: Id or name, while the gallery knows the person.
        more: Further tracks.
        topics: Addresses.
        spool: Folder of spools.
        best_shots: Folder of pictures.

    Returns:
        The tracks.
    """
    from stream.app.yaml_reader import expand_address
    from stream.common.encryption import Sealer
    from stream.gallery.best_shots import BestShots
    from stream.gallery.erasure import ids_of, tracks_of
    from stream.sinks.track_erasure import erase_tracks, find_tracks
    from stream.spool.administration import erase_from_spools

    ids = () if person is None else ids_of(gallery, person)
    there = [] if person is None else [each.id for each in gallery.find_all(person)]
    tracks = dict.fromkeys([*more, *(track for each in there for track in tracks_of(gallery, each))])
    topics = [expand_address(each, os.environ) for each in topics]
    if not (topics or spool or best_shots):
        return set(tracks)
    sealer = Sealer.from_environment(os.environ)
    for address in topics:
        for person_id in ids:
            tracks |= dict.fromkeys(find_tracks(address, person_id))
    erased: dict[str, int] = {}
    if spool is not None:
        erased["spools"] = sum(
            erase_from_spools(spool, person_id=each, track_ids=tracks, sealer=sealer) for each in ids or ("",)
        )
    for address in topics:
        kind = address.partition(":")[0]
        erased[kind] = erased.get(kind, 0) + erase_tracks(address, tracks)
    if best_shots is not None:
        erased["best shots"] = BestShots(best_shots, sealer=sealer, keep_days=None).erase(tracks)
    gallery.audit.record("erased elsewhere", person=", ".join(ids), tracks=len(tracks), **erased)
    counts = ", ".join(f"{count:,} in {place}" for place, count in erased.items())
    typer.echo(f"erased elsewhere, of {counted(len(tracks), 'track')}: {counts}")
    return set(tracks)


def _show_erasure(name: str, erasure: Erasure) -> None:
    ids = " and ".join((erasure.person_id, *erasure.others))
    kept = [counted(erasure.templates, "face"), counted(erasure.photos, "photograph")]
    if erasure.negatives:
        kept.append(f"{counted(erasure.negatives, 'track')} noted as somebody else's")
    typer.echo(f"erased: {name} ({ids}), with {', '.join(kept)}")
    if erasure.found_in:
        files = ", ".join(map(str, erasure.found_in))
        typer.echo(f"error: something of it is still in {files}; run: facestream gallery clean", err=True)
    else:
        typer.echo(
            f"checked: the {erasure.bytes_searched:,} bytes of the gallery's files were searched for "
            f"{counted(erasure.pieces, 'piece')} of what was stored; none is left"
        )
    for copy in erasure.copies:
        state = "delete it by hand" if copy.is_there else "not there any more"
        typer.echo(f"copy of {copy.made}: {copy.path}: {state}")


@gallery_app.command("clean")
def clean_file(gallery: GalleryPath, debug: Debug = False) -> None:
    """Write the file anew without what was deleted, after a removal that somebody was in the way of."""
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        from stream.console.progress import Progress
        from stream.gallery.erasure import clean

        with Progress("cleaning"):
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
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        from stream.gallery.enrolment.enroller import add_negative

        add_negative(opened, person, find_track(track, events))
        typer.echo(f"remembered: track {track} is not {person}")


@gallery_app.command("audit")
def audit(gallery: GalleryPath, debug: Debug = False) -> None:
    """Say who did what with the gallery, and where copies of it were written."""
    with one_line_errors(debug=debug), open_gallery(gallery) as opened:
        table = Table("at (UTC)", "who", "action", "detail")
        for entry in opened.audit.entries():
            detail = ", ".join(
                f"{_AUDIT_WORDS.get(key, key)}: {_told(value)}" for key, value in entry.detail.items()
            )
            table.add_row(_utc(entry.at), entry.who, entry.action, printable(detail))
        open_console().print(table)


def _told(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
