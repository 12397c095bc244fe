"""Names that may be mislabelled, with pictures of both sides, as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from training.evaluation.mislabelled import RULE, Mismatch
from training.report.markup import Markup, element, picture, write_page

SHOWN: Final = 8
"""So many pictures of each side stand on a contact sheet."""

NEXT: Final = (
    "Write the names whose two sides show different people into a file, one a line, and give it to "
    "bench ident as --leave-out. The faces are the data sets', whose terms hold for this page too."
)


def write_contact_sheet(
    proposed: Sequence[Mismatch],
    stills: Mapping[str, Sequence[Path]],
    frames: Mapping[str, Sequence[Path]],
    path: Path,
    *,
    title: str = "Do both sides show one person?",
) -> None:
    """Write a page to decide by eye: of each name the stills on the left, the videos' frames on the right.

    Args:
        proposed: Names, in the order in which they are shown.
        stills: Pictures by name.
        frames: Pictures by name; of many, some that are spread evenly are shown.
        path: HTML file, which holds the pictures.
        title: Of the page.

    Raises:
        DatasetError: The file cannot be written.
    """
    items = [_item(each, stills.get(each.name, ()), frames.get(each.name, ())) for each in proposed]
    count = f"{len(proposed):,} proposed. " if proposed else "No name is proposed. "
    write_page(
        path,
        title,
        element(
            "header", element("h1", title), element("p", count + RULE, class_="measured"), element("p", NEXT)
        ),
        element("ol", *items, class_="sheet") if items else Markup(""),
    )


def _item(proposed: Mismatch, stills: Sequence[Path], frames: Sequence[Path]) -> Markup:
    told = (
        f"median similarity {proposed.median:.3f}, threshold {proposed.threshold:.3f}; "
        f"{proposed.below:,} of {proposed.pairs:,} pairs below it"
    )
    sides = [
        _side(proposed.name, heading, paths)
        for heading, paths in (("stills", stills), ("frames of videos", frames))
    ]
    return element(
        "li",
        element("h2", proposed.name.replace("_", " ")),
        element("p", told, class_="aside"),
        element("div", *sides, class_="sides"),
    )


def _side(name: str, heading: str, paths: Sequence[Path]) -> Markup:
    chosen = np.unique(np.rint(np.linspace(0, len(paths) - 1, min(SHOWN, len(paths)))).astype(np.intp))
    pictures = [picture(paths[row], f"{name}, {heading}, {paths[row].name}") for row in chosen]
    told = f"{heading}: {len(paths):,}" + (f", {len(chosen)} shown" if len(chosen) < len(paths) else "")
    return element("div", element("p", told), element("div", *pictures, class_="row"))
