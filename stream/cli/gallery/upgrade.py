"""Move a gallery to another model, as ``facestream gallery upgrade`` does: models opened, progress shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer

from engine.errors import ConfigError
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from engine.search.model_mapping import EmbeddingMap, MapLoss, fit_map
from stream.app.wiring import open_stills
from stream.common.printable import counted
from stream.console.progress import Progress
from stream.gallery.enrolment.folders import find_people
from stream.gallery.enrolment.photos import StillReader, UnfitPhotoError, read_file
from stream.gallery.model_migration import Mapping, upgrade
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel


def run_upgrade(
    gallery: Gallery,
    *,
    to: str,
    mirror: bool | None,
    map_file: Path | None,
    accept_loss: bool,
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
        accept_loss: Use a map even if it loses much.
        leave_out: Go on when people are left without a template.
        delete_old: Delete the backup once all is done.
        detector: Finds the faces in photographs.

    Raises:
        FacestreamError: Something is wrong; the gallery is as it was.
    """
    package = _load_embedder(to)
    old = gallery.model
    model = GalleryModel.of(package, mirror=old.mirror if mirror is None else mirror)
    mapping = (
        _harmonic(package, old, model)
        if map_file is None
        else _open_map(map_file, old, model, accept_loss=accept_loss)
    )
    with (
        Progress(f"moving to {model}") as progress,
        open_stills(model, detector=detector, embedder=to, force=True) as reader,
    ):
        done = upgrade(
            gallery,
            model,
            embed=lambda photo: _embed(reader, photo),
            mapping=mapping,
            leave_out=leave_out,
            on_progress=lambda made, total: progress.update(done=made, total=total),
        )
    typer.echo(
        f"{gallery.path}: from {old} to {model}: {counted(done.embedded, 'face')} embedded again, "
        f"{done.mapped} mapped, "
        f"{done.dropped} dropped; of the faces noted as somebody else's {done.negatives_mapped} mapped, "
        f"{done.negatives_dropped} dropped"
    )
    for name in done.left_out:
        typer.echo(f"enrol again: {name}")
    if done.backup is not None and delete_old:
        done.backup.unlink(missing_ok=True)
        gallery.audit.record("backup deleted", path=str(done.backup.resolve()))
    elif done.backup is not None:
        typer.echo(f"as it was: {done.backup}; delete it when you do not need it")


def _load_embedder(name: str) -> ModelPackage:
    package = load_model(name)
    if package.task != "embedder":
        raise ConfigError(f"{name}: is a {package.task}; give an embedder of `facestream models list`")
    return package


def _embed(reader: StillReader, photo: bytes) -> tuple[npt.NDArray[np.float32], float] | None:
    try:
        still = reader.read(photo)
    except UnfitPhotoError:
        return None
    return still.embedding, still.quality


def _harmonic(package: ModelPackage, old: GalleryModel, new: GalleryModel) -> Mapping | None:
    """Embeddings as they are, where the new model was trained to be compatible with them; else None.

    Raises:
        ConfigError: The new model's package says so and cannot be right.
    """
    if old.sha256 not in package.harmonic_with:
        return None
    if old.size != new.size or old.mirror != new.mirror:
        raise ConfigError(
            f"{new.name}: is declared compatible with {old.name}, which needs embeddings of one size and "
            f"both mirrored or neither; got {old} of {old.size} numbers and {new} of {new.size}"
        )
    typer.echo(
        f"{new.name} was trained to be compatible with {old.name}: faces without photographs are kept "
        "as they are"
    )
    return lambda embeddings: embeddings


def _open_map(path: Path, old: GalleryModel, new: GalleryModel, *, accept_loss: bool) -> Mapping:
    """A map between two models, after telling what it costs.

    Raises:
        ConfigError: It loses more than is accepted.
        ModelError: It is damaged, or of other models.
    """
    found = EmbeddingMap.load(path)
    found.check(old=(old.name, old.sha256), new=(new.name, new.sha256))
    if found.loss.is_poor and not accept_loss:
        raise ConfigError(
            f"{path}: {_shortfall(found.loss)}; leave out --map, so that kept photographs are embedded "
            "again, and enrol from photographs whom --leave-out names, or accept the loss with --accept-loss"
        )
    typer.echo(f"{path}: fitted on {found.pairs} faces; {found.loss}")
    if found.loss.is_poor:
        typer.echo(f"warning: {_shortfall(found.loss)}", err=True)
    return found


def _shortfall(loss: MapLoss) -> str:
    """What is wrong with a poor map, with its figures."""
    return (
        f"this map loses too much: of one person's pairs {loss.accepted_mapped:.1%} are accepted, where the "
        f"new model accepts {loss.accepted_new:.1%} of photographs embedded again (expected at least "
        f"{loss.least_accepted:.1%}); strangers are accepted at {loss.false_accepts_mapped:.2g} (expected "
        f"at most {loss.most_false_accepts:.2g})"
    )


def run_fit_map(path: Path, folders: Path, *, old: str, new: str, mirror: bool, detector: str) -> None:
    """Fit a map between two models and write it, after telling what it costs.

    Args:
        path: Of the file.
        folders: A folder with a folder of photographs for each person.
        old: Name or file of the model whose embeddings it takes.
        new: Of the one whose embeddings it gives.
        mirror: Whether both add the mirrored face.
        detector: Finds the faces in photographs.

    Raises:
        FacestreamError: Something is wrong, or there are too few photographs.
    """
    found = find_people(folders)
    first, second = (GalleryModel.of(_load_embedder(name), mirror=mirror) for name in (old, new))
    pairs: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]] = []
    with (
        Progress("embedding", total=found.count) as progress,
        open_stills(first, detector=detector, embedder=old, force=True) as old_reader,
        open_stills(second, detector=detector, embedder=new, force=True) as new_reader,
    ):
        for number, photos in enumerate(found.people.values()):
            for photo in photos:
                progress.advance()
                try:
                    file = read_file(photo)
                    pairs.append((old_reader.read(file).embedding, new_reader.read(file).embedding, number))
                except UnfitPhotoError:
                    continue
    if not pairs:
        raise ConfigError(f"{folders}: no face in any photograph; give a folder such as people/Ann/1.jpg")
    try:
        fitted = fit_map(
            np.stack([pair[0] for pair in pairs]),
            np.stack([pair[1] for pair in pairs]),
            np.array([pair[2] for pair in pairs], np.intp),
            old_model=(first.name, first.sha256),
            new_model=(second.name, second.sha256),
        )
    except ValueError as exc:
        raise ConfigError(f"{folders}: no map can be fitted: {exc}") from exc
    fitted.save(path)
    typer.echo(f"{path}: fitted on {fitted.pairs} faces; {fitted.loss}")
    if fitted.loss.is_poor:
        typer.echo(f"warning: {_shortfall(fitted.loss)}; gallery upgrade refuses it", err=True)
