"""The commands about single photographs: ``facestream faces …``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.errors import EXIT_FAILED, EXIT_PARTLY, Debug, one_line_errors
from stream.cli.gallery.opening import Detector, open_gallery
from stream.common.printable import counted, printable
from stream.console.terminal import open_console, text_table

if TYPE_CHECKING:
    from engine.faces import Image
    from engine.vision.face_finder import FaceFinder, FoundFaces
    from stream.gallery.identification.face_naming import Namer, Naming

faces_app = typer.Typer(
    help="Single photographs: find and name faces, compare two.", no_args_is_help=True, rich_markup_mode=None
)

_FIND_EXITS = "Exit codes: 0, all photographs were read; 3, some were; 1, none, or worse; 2, wrong usage."
_COMPARE_EXITS = (
    "Exit codes: 0, the faces were compared, whatever came out; 1, a photograph could not be read, or shows "
    "no face or several; 2, wrong usage."
)

_HEADINGS = ("photo", "face", "box", "score", "quality")
_NAME_HEADINGS = ("who", "similarity")
_DEEP = "; take them with --deep"
"""What ``gallery enrol`` advises, which this command does not have."""

Json = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
Embedder = Annotated[
    str | None,
    typer.Option(help="Embeds the faces; of `facestream models list`.  [default: sface, or the gallery's]"),
]


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """What was found in a photograph, or why it could not be read."""

    path: Path
    image: Image | None = None
    found: FoundFaces | None = None
    namings: list[Naming] | None = None
    error: str = ""


@dataclass(slots=True)
class _Told:
    """What was found in all of them."""

    photos: int = 0
    faces: int = 0
    failed: int = 0
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def __str__(self) -> str:
        unread = f"; {self.failed} could not be read" if self.failed else ""
        return f"{counted(self.faces, 'face')} in {counted(self.photos, 'photograph')}{unread}"


@faces_app.command("find", epilog=_FIND_EXITS)
def find(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO", help="Photographs, or folders of them.")],
    gallery: Annotated[
        Path | None, typer.Option(help="Name the people of this gallery; see `facestream gallery`.")
    ] = None,
    false_accepts: Annotated[float, typer.Option(help="Share of strangers who may be named anybody.")] = 0.01,
    as_json: Json = False,
    render: Annotated[
        Path | None,
        typer.Option(
            help="Draw the faces: into this .png or .jpg for one photograph, else into files of this folder."
        ),
    ] = None,
    detector: Detector = "yunet",
    embedder: Embedder = None,
    debug: Debug = False,
) -> None:
    """Find the faces in photographs, say what they are worth, and who they are."""
    with one_line_errors(debug=debug), ExitStack() as stack:
        from rich.console import Console

        from stream.console.progress import Progress

        if not 0 < false_accepts < 1:
            raise ConfigError(f"--false-accepts: expected between 0 and 1, got {false_accepts}")
        paths = _photos_of(photos)
        targets = _targets(render, paths)
        read = [*(("PHOTO", path) for path in paths), ("--gallery", gallery)]
        preflight.check_apart([("--render", path) for path in targets.values()], read)
        # A bar would stand in the lines of JSON on a terminal.
        screen = Console(stderr=True, force_terminal=False) if as_json else None
        with Progress("looking", total=len(paths), console=screen) as progress:
            namer, finder = _open(stack, gallery, false_accepts, detector, embedder)
            told = _Told()
            for look in _look(paths, finder, namer):
                _tell(look, told, targets.get(look.path), as_json=as_json)
                progress.advance()
        if told.rows and not as_json:
            table = text_table(*_HEADINGS, *(() if gallery is None else _NAME_HEADINGS))
            for row in told.rows:
                table.add_row(*row)
            open_console().print(table)
        typer.echo(str(told), err=True)
    if told.failed:
        raise typer.Exit(EXIT_FAILED if told.failed == told.photos else EXIT_PARTLY)


def _photos_of(photos: list[Path]) -> list[Path]:
    from stream.gallery.enrolment.folders import find_photos

    found: list[Path] = []
    for each in photos:
        if not each.is_dir():
            found.append(each)
            continue
        inside, left_out = find_photos(each)
        for other in left_out:
            typer.echo(printable(f"note: {other.path}: {other.reason.removesuffix(_DEEP)}"), err=True)
        if not inside:
            raise ConfigError(f"{each}: holds no picture; give photographs, or a folder of them")
        found += inside
    return found


def _targets(render: Path | None, photos: list[Path]) -> dict[Path, Path]:
    """Where each photograph's drawing goes."""
    if render is None:
        return {}
    if render.suffix.lower() in {".png", ".jpg", ".jpeg"} and not render.is_dir():
        if len(photos) != 1:
            raise ConfigError(f"--render: {len(photos)} photographs do not go into one file; give a folder")
        _check_folder(render.parent)
        return {photos[0]: render}
    if render.exists() and not render.is_dir():
        raise ConfigError(f"--render: {render} is a file; give a name that ends in .png, or a folder")
    _check_folder(render)
    if any(photo.is_file() and render.samefile(photo.parent) for photo in photos):  # a.jpg would become a.png
        raise ConfigError(
            f"--render: {render} holds the photographs; give a folder of its own for the drawings"
        )
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for photo in photos:
        target, number = render / f"{photo.stem}.png", 2
        while target in taken:
            target, number = render / f"{photo.stem}-{number}.png", number + 1
        targets[photo] = target
        taken.add(target)
    return targets


def _check_folder(folder: Path) -> None:
    """Make it, and see that it can be written to, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"--render: {folder}: cannot be made ({exc.strerror}); choose another") from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"--render: {folder}: may not be written to; choose another")
    preflight.check_output_folder(folder, "--render", room_mib=10.0)


def _open(
    stack: ExitStack, gallery: Path | None, false_accepts: float, detector: str, embedder: str | None
) -> tuple[Namer | None, FaceFinder]:
    from stream.app.wiring import open_finder
    from stream.gallery.identification.face_naming import Namer

    if gallery is None:
        return None, stack.enter_context(open_finder(detector=detector, embedder=embedder))
    opened = stack.enter_context(open_gallery(gallery))
    namer = Namer(opened.snapshot(), false_accept_rate=false_accepts)
    return namer, stack.enter_context(open_finder(opened.model, detector=detector, embedder=embedder))


def _look(photos: list[Path], finder: FaceFinder, namer: Namer | None) -> Iterator[_Looked]:
    from stream.gallery.enrolment.photos import UnfitPhotoError, decode_photo, read_file

    for path in photos:
        try:
            image = decode_photo(read_file(path))
        except UnfitPhotoError as exc:
            yield _Looked(path, error=str(exc))
            continue
        found = finder.find(image)
        yield _Looked(path, image, found, None if namer is None else namer.name(found))


def _tell(look: _Looked, told: _Told, target: Path | None, *, as_json: bool) -> None:
    """Print what programs read and what is wrong, draw, and keep the lines of the table."""
    from stream.gallery.identification.face_naming import draw_faces, save_private

    told.photos += 1
    if look.error:
        told.failed += 1
        typer.echo(printable(f"error: {look.path}: {look.error}"), err=True)
    if look.image is not None and look.found is not None:
        told.faces += len(look.found)
        if target is not None:
            save_private(draw_faces(look.image, look.found, look.namings), target)
    if as_json:
        typer.echo(json.dumps(_described(look)))
    told.rows += _rows(look)


def _rows(look: _Looked) -> Iterator[tuple[str, ...]]:
    path, found = printable(str(look.path)), look.found
    if found is None:
        return
    if not len(found):
        yield path, "none", *[""] * (3 if look.namings is None else 5)
    for row in range(len(found)):
        left, top, right, bottom = (round(value) for value in found.faces.boxes_xyxy[row].tolist())
        cells = (
            *(path, str(row + 1), f"{right - left}x{bottom - top}+{left}+{top}"),
            *(f"{found.faces.scores[row]:.2f}", f"{found.qualities[row]:.2f}"),
        )
        yield cells if look.namings is None else (*cells, *_who(look.namings[row]))


def _who(naming: Naming) -> tuple[str, str]:
    who = "too poor to tell" if naming.is_poor else printable(naming.name or "unknown")
    if naming.similarity is None:
        return who, ""
    return who, f"{naming.similarity:.2f} (needs {naming.threshold:.2f})"


def _described(look: _Looked) -> dict[str, Any]:
    from stream.gallery.identification.face_naming import describe_faces

    told: dict[str, Any] = {"photo": str(look.path)}
    if look.image is None or look.found is None:
        return told | {"error": look.error}
    size_wh = [look.image.shape[1], look.image.shape[0]]
    return told | {"size_wh": size_wh, "faces": describe_faces(look.found, look.namings)}


@faces_app.command("compare", epilog=_COMPARE_EXITS)
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A photograph.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    as_json: Json = False,
    pick: Annotated[
        Literal["largest", "centre"] | None,
        typer.Option(help="Which of several faces is meant, where none is clearly the subject."),
    ] = None,
    detector: Detector = "yunet",
    embedder: Embedder = None,
    debug: Debug = False,
) -> None:
    """Say how alike the faces of two photographs are, and what that means."""
    with one_line_errors(debug=debug):
        from stream.console.progress import Progress

        with Progress("loading"):
            from engine.errors import PictureError
            from stream.app.wiring import open_finder
            from stream.gallery.enrolment.photos import UnfitPhotoError, decode_photo, read_file
            from stream.gallery.identification.face_naming import describe_faces

        found: list[FoundFaces] = []
        failed = False
        with (
            Progress("comparing"),
            open_finder(detector=detector, embedder=embedder) as finder,
        ):
            for path in (first, second):
                try:
                    found.append(finder.find_subject(decode_photo(read_file(path)), pick=pick))
                except (UnfitPhotoError, PictureError) as exc:
                    failed = True
                    typer.echo(printable(f"error: {path}: {exc}"), err=True)
            if failed:
                raise typer.Exit(EXIT_FAILED)
            result = finder.compared(*found)
        if as_json:
            told = {
                "similarity": round(result.similarity, 4),
                "false_accept_rate": result.false_accept_rate,
                "meaning": result.meaning,
                "photos": [
                    {"photo": str(path), "face": describe_faces(face, None)[0]}
                    for path, face in zip((first, second), found, strict=True)
                ],
            }
            typer.echo(json.dumps(told))
            return
        typer.echo(f"similarity {result.similarity:.2f}: {result.meaning}")
        for path, quality in zip((first, second), result.qualities, strict=True):
            poor = ", too poor to rely on" if quality < _LEAST_QUALITY else ""
            typer.echo(f"{printable(str(path))}: face of quality {quality:.2f}{poor}")


_LEAST_QUALITY = 0.2
