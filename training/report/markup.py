"""Pieces of an HTML page. Whatever is not ``Markup`` already is taken for text and escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from engine.atomic_files import write_atomically
from engine.errors import DatasetError, ModelError
from engine.faces import Image
from engine.html_pages import MARK
from training.data.face_crops import read_image
from training.data.safe_text import clean

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_JPEG_QUALITY: Final = 80


class Markup(str):
    """HTML that needs no escaping."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Text as HTML; ``Markup`` stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(clean(value)))


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element with its end tag.

    Args:
        tag: Its name.
        children: Text, which is escaped, or ``Markup``.
        attributes: By name, ``class_`` for ``class`` and ``aria_label`` for ``aria-label``; None is left out.
    """
    return Markup(f"<{tag}{_attributes(attributes)}>{''.join(map(escape, children))}</{tag}>")


def _attributes(attributes: Mapping[str, object]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(clean(value))}"'
        for name, value in attributes.items()
        if value is not None
    )


def breakable(value: object) -> Markup:
    """Text that may be broken after slashes and underscores."""
    return Markup(re.sub("([/_])", r"\1<wbr>", html.escape(clean(value))))


def joined(parts: Iterable[object]) -> Markup:
    """Parts one after another."""
    return Markup("\n".join(map(escape, parts)))


def joined_by(separator: str, parts: Iterable[object]) -> Markup:
    """Parts with text between them."""
    return Markup(escape(separator).join(map(escape, parts)))


def table(caption: str, headings: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """A table whose first column heads its rows; it scrolls alone where it is too wide.

    On a telephone each row becomes a list, in which the headings stand before the values.
    """
    head = element("tr", *(element("th", heading, scope="col") for heading in headings))
    corner, *labels = map(_words, headings)
    body = [
        element(
            "tr",
            element("th", first, scope="row", data_label=corner),
            *(element("td", cell, data_label=label) for label, cell in zip(labels, rest, strict=False)),
        )
        for first, *rest in rows
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def _words(value: object) -> str:
    """Text of a value without its elements."""
    return html.unescape(re.sub("<[^>]*>", "", value)) if isinstance(value, Markup) else clean(value)


def listing(values: Mapping[str, object]) -> Markup:
    """Names with their values."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in values.items()),
    )


def section(heading: str, *children: object) -> Markup:
    """A part of a page under its heading."""
    return element("section", element("h2", heading), *children)


def figure(drawing: str, alternative: str, caption: object = None) -> Markup:
    """A drawing.

    Args:
        drawing: An ``<svg>``, as ``training.report.plots`` gives it.
        alternative: What it shows, in words, for those who cannot see it.
        caption: What to read under it.
    """
    shown = element(
        "div", Markup(drawing), role="img", aria_label=alternative, tabindex="0", class_="drawing"
    )
    return element("figure", shown, "" if caption is None else element("figcaption", caption))


def picture(path: Path | None, alternative: str, *, height_px: int = 132) -> Markup:
    """A picture, made smaller and put into the page; a box that says so where there is none to show."""
    try:
        image = None if path is None else read_image(path)
    except DatasetError:
        image = None
    if image is None:
        return element(
            "span", "no picture", class_="none", role="img", aria_label=f"{alternative}: no picture"
        )
    small = _smaller(image, height_px)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    uri = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    attributes = {"src": uri, "alt": alternative, "width": small.shape[1], "height": small.shape[0]}
    return Markup(f"<img{_attributes(attributes)}>")


def _smaller(image: Image, height_px: int) -> Image:
    height, width = image.shape[:2]
    scale = min(1.0, height_px / height, 2 * height_px / width)
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def within(root: Path | None, name: str | None) -> Path | None:
    """Path of a picture that a file names, if it leads nowhere but into the root.

    Args:
        root: The data set's folder.
        name: Path relative to it, which may come from anybody.
    """
    if root is None or name is None or "\0" in name:
        return None
    path = Path(name)
    return None if path.is_absolute() or ".." in path.parts else root / path


def write_page(path: Path, title: str, *parts: object) -> None:
    """Write a page that needs nothing but itself.

    Raises:
        DatasetError: The file cannot be written.
    """
    style = files("training.report").joinpath("page.css").read_text("utf-8")
    head = joined(
        [
            Markup('<meta charset="utf-8">'),
            Markup(MARK),
            Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light dark">'),
            element("title", title),
            element("style", Markup(style)),
        ]
    )
    body = element("body", element("main", joined(parts)))
    page = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n{body}\n</html>\n'
    try:
        write_atomically(path, page.encode(), private=True)  # it may hold faces
    except ModelError as exc:
        raise DatasetError(f"{path}: the report cannot be written; choose another file") from exc
