"""Move a gallery to another model, as ``facestream gallery upgrade`` does: models opened, progress shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import Progress

from engine.errors import ConfigError, GalleryError
from engine.zoo import load_model
from stream.gallery import Gallery
from stream.gallery_records import GalleryModel
from stream.gallery_upgrade import Mapping, upgrade
from stream.stills import StillReader, UnfitPhotoError
from stream.wiring import open_stills


def run_upgrade(
    gallery: Gallery,
    *,
    to: str,
    mirror: bool | None,
    map_file: Path | None,
    leave_out: bool,
    delete_old: bool,
    detector: str,
) -> None:
    """Upgrade a gallery and tell what was done.

    Args:
        gallery: Open.
        to: Name or file of the new model.
        mirror: Whether it adds the mirrored face; None for as before.
        map_file: Map from the old model to the new one; None where photographs must do.
        leave_out: Go on when people are left without a template.
        delete_old: Delete the backup once all is done.
        detector: Finds the faces in photographs.

    Raises:
        FacestreamError: Something is wrong; the gallery is as it was.
    """
    package = load_model(to)
    if package.task != "embedder":
        raise ConfigError(f"--to: {to} is a {package.task}; give an embedder of `facestream models list`")
    old = gallery.model
    model = GalleryModel.of(package, mirror=old.mirror if mirror is None else mirror)
    mapping = None if map_file is None else _open_map(map_file, old, model)
    with (
        open_stills(model, detector=detector, embedder=to, force=True) as reader,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task(f"to {model}", total=None)
        done = upgrade(
            gallery,
            model,
            embed=lambda photo: _embed(reader, photo),
            mapping=mapping,
            leave_out=leave_out,
            on_progress=lambda made, total: progress.update(task, completed=made, total=total),
        )
    typer.echo(
        f"{gallery.path}: from {old} to {model}: {done.embedded} faces embedded anew, {done.mapped} mapped, "
        f"{done.dropped} dropped; of faces that are not somebody's {done.negatives_mapped} mapped, "
        f"{done.negatives_dropped} dropped"
    )
    for name in done.left_out:
        typer.echo(f"enrol again: {name}")
    if done.backup is not None and delete_old:
        done.backup.unlink(missing_ok=True)
        gallery.audit.record("backup deleted", path=str(done.backup.resolve()))
    elif done.backup is not None:
        typer.echo(f"as it was: {done.backup}; delete it when you do not need it")


def _embed(reader: StillReader, photo: bytes) -> tuple[npt.NDArray[np.float32], float] | None:
    try:
        still = reader.read(photo)
    except UnfitPhotoError:
        return None
    return still.embedding, still.quality


def _open_map(path: Path, old: GalleryModel, new: GalleryModel) -> Mapping:
    raise GalleryError(f"{path}: maps from {old} to {new} are not read yet; keep photographs, or enrol anew")
