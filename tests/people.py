"""People for tests, who are random directions, and galleries of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.embeddings import unit_rows
from stream.common.encryption import Sealer
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel, Template

SIZE = 128
MODEL = GalleryModel("sface-2021dec", "a" * 64, mirror=False, size=SIZE)
SEALER = Sealer(bytes(range(32)))


def vector(seed: int, *, near: np.ndarray | None = None, cosine: float = 0.8, size: int = SIZE) -> np.ndarray:
    """A random direction; or one that has a cosine with another."""
    random = unit_rows(np.random.default_rng(seed).standard_normal(size))
    if near is None:
        return random
    across = unit_rows(random - np.dot(random, near) * near)
    return unit_rows(cosine * near + np.sqrt(1 - cosine**2) * across)


def template(embedding: np.ndarray, **changes: Any) -> Template:
    values: dict[str, Any] = {
        "quality": 0.9,
        "source": "photo",
        "origin": "ab" * 32,
    }
    return Template(embedding, **values | changes)


def gallery_of(
    path: Path,
    *names: str,
    sealer: Sealer | None = None,
    model: GalleryModel = MODEL,
    keep_photos: bool = False,
) -> Gallery:
    """An open gallery in which each person has one template: ``vector(0)`` is the first's."""
    gallery = Gallery.create(path, model, sealer=sealer, keep_photos=keep_photos)
    for seed, name in enumerate(names):
        gallery.enrol(name, [template(vector(seed, size=model.size), photo=f"photo of {name}".encode() * 40)])
    return gallery
