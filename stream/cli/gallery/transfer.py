"""The commands that bring a gallery elsewhere or to another model; ``facestream gallery`` has them, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stream.app import preflight
from stream.cli.errors import Debug, one_line_errors
from stream.cli.gallery.opening import Detector, GalleryPath, open_gallery
from stream.common.printable import counted
from stream.console.progress import Progress


def export_file(
    gallery: GalleryPath,
    file: Annotated[Path, typer.Argument(help="To write; must not be there yet.")],
    plain: Annotated[bool, typer.Option("--plain", help="Not sealed: anybody can read it.")] = False,
    debug: Debug = False,
) -> None:
    """Write everybody into one file, sealed with FACESTREAM_KEY."""
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        preflight.check_output(file, "FILE", is_new=True, makes_folder=False)
        from stream.common.encryption import Sealer
        from stream.gallery.json_export import export_gallery

        with Progress("exporting"):
            count = export_gallery(opened, file, sealer=Sealer.from_environment(os.environ), plain=plain)
        typer.echo(
            f"{file}: {counted(count, 'person', 'people')}" + (", not sealed" if plain else ", sealed")
        )


def import_file(
    gallery: GalleryPath,
    file: Annotated[Path, typer.Argument(help="That `facestream gallery export` wrote.")],
    debug: Debug = False,
) -> None:
    """Take in everybody of an exported file; makes the gallery where there is none."""
    with one_line_errors(debug=debug):
        preflight.check_change(gallery, "the gallery")
        preflight.check_input(file, "FILE")
        from stream.common.encryption import Sealer
        from stream.gallery.json_export import import_gallery, read_model
        from stream.gallery.people import Gallery

        sealer = Sealer.from_environment(os.environ)
        is_new = not gallery.exists()
        opened = (
            Gallery.create(gallery, read_model(file), sealer=sealer, keep_photos=True)
            if is_new
            else Gallery.open(gallery, sealer=sealer)
        )
        try:
            with opened, Progress("importing"):
                people, rows = import_gallery(opened, file, sealer=sealer)
        except BaseException:
            if is_new:
                gallery.unlink()
            raise
        typer.echo(f"{gallery}: new are {counted(people, 'person', 'people')} and {counted(rows, 'face')}")


def upgrade_gallery(
    gallery: GalleryPath,
    to: Annotated[str, typer.Option(metavar="MODEL", help="Of `facestream models list`, or a file.")],
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="As cameras will run.  [default: as before]")
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Map between the two models, for faces without photographs.")
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Take a map that loses much, by its own figures, all the same."),
    ] = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Go on though some people cannot be moved.")
    ] = False,
    delete_old: Annotated[
        bool, typer.Option("--delete-old", help="Keep no backup of the gallery as it was.")
    ] = False,
    detector: Detector = "yunet",
    debug: Debug = False,
) -> None:
    """Move the gallery to another model without enrolling anew."""
    with one_line_errors(debug=debug), open_gallery(gallery, to_change=True) as opened:
        preflight.check_input(map_file, "--map")
        with Progress("loading"):
            from stream.cli.gallery.upgrade import run_upgrade

        run_upgrade(
            opened,
            to=to,
            mirror=mirror,
            map_file=map_file,
            accept_loss=accept_loss,
            leave_out=leave_out,
            delete_old=delete_old,
            detector=detector,
        )


def fit_map(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="To write, .npz; for `gallery upgrade --map`.")],
    folders: Annotated[
        Path, typer.Option(help="A folder with a folder of photographs for each person; hundreds of them.")
    ],
    old: Annotated[str, typer.Option("--from", metavar="MODEL", help="Whose embeddings it takes.")],
    new: Annotated[str, typer.Option("--to", metavar="MODEL", help="Whose embeddings it gives.")],
    mirror: Annotated[bool, typer.Option("--mirror", help="As cameras run.")] = False,
    detector: Detector = "yunet",
    debug: Debug = False,
) -> None:
    """Fit a map between two models on photographs of anybody, for galleries whose own are gone."""
    with one_line_errors(debug=debug):
        preflight.check_output(out, "FILE")
        preflight.check_input_folder(folders, "--folders")
        with Progress("loading"):
            from stream.cli.gallery.upgrade import run_fit_map

        run_fit_map(out, folders, old=old, new=new, mirror=mirror, detector=detector)
