"""What the commands about people share: how they name a gallery, and how they open it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stream.gallery import Gallery

GalleryPath = Annotated[Path, typer.Argument(metavar="GALLERY", help="The gallery's file.")]
Detector = Annotated[str, typer.Option(help="Finds the faces; of `facestream models list`.")]


@contextmanager
def open_gallery(path: Path) -> Iterator[Gallery]:
    """A gallery with the key of the environment."""
    from stream.gallery import Gallery
    from stream.sealing import Sealer

    with Gallery.open(path, sealer=Sealer.from_environment(os.environ)) as gallery:
        yield gallery
