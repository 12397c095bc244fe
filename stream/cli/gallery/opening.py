"""What the commands about people share: how they name a gallery, and how they open it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stream.gallery.people import Gallery

GalleryPath = Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery's file.")]
Detector = Annotated[str, typer.Option(help="Finds the faces; of `facestream models list`.")]


@contextmanager
def open_gallery(path: Path, *, to_change: bool = False) -> Iterator[Gallery]:
    """A gallery with the key of the environment.

    Args:
        path: Its file.
        to_change: See first that it can be written.
    """
    from stream.app import preflight
    from stream.common.encryption import Sealer
    from stream.gallery.people import Gallery

    if to_change and path.exists():
        preflight.check_change(path, "the gallery")
    with Gallery.open(path, sealer=Sealer.from_environment(os.environ)) as gallery:
        yield gallery
