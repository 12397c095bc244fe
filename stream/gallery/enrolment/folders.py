"""People in folders of photographs: who is there, from which files, and what is skipped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.errors import GalleryError, PictureError, TextError
from engine.vision.file_signatures import PICTURE_SUFFIXES, picture_kind
from stream.common.names import canonical, clean_name
from stream.common.printable import counted

_HEAD_BYTES: Final = 512
_DEEPEST: Final = 20
"""Levels of folders that are looked through for photographs below a person's folder."""
_TAKEN_DEEP: Final = "in it skipped; include them with --deep"
_UNSEEN: Final = "was not searched"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in a folder that nobody is enrolled from.

    Attributes:
        path: Of the folder or file.
        reason: Why, and what to do about it.
        is_person: Whether somebody may be missing because of it.
    """

    path: Path
    reason: str
    is_person: bool = True


@dataclass(slots=True)
class Photographs:
    """What was found.

    Attributes:
        people: Files of each person by name, in the order of the folders' names.
        left_out: What was skipped.
    """

    people: dict[str, list[Path]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Photographs of everybody."""
        return sum(map(len, self.people.values()))


def find_people(
    root: Path, *, known: Collection[str] = (), keep_underscores: bool = False, deep: bool = False
) -> Photographs:
    """People of a folder that has a folder of photographs for each, as LFW has.

    Args:
        root: The folder.
        known: Names that are in use already: a folder that is called so is that person.
        keep_underscores: Take folders' names as they are; otherwise ``Bill_Gates`` is "Bill Gates".
        deep: Photographs in folders inside a person's folder are the person's, too.

    Raises:
        GalleryError: There is no such folder.
    """
    found = Photographs()
    others: list[Path] = []
    for path in _entries(root):
        if path.name.startswith("."):
            others.append(path)
        elif path.is_dir():
            _add_folder(found, path, known, keep_underscores=keep_underscores, deep=deep)
        elif is_picture(path):
            reason = "is in no person's folder; enrol it with --name"
            found.left_out.append(LeftOut(path, reason))
        elif path.exists():
            others.append(path)
        else:
            found.left_out.append(LeftOut(path, "is a dangling link"))
    if others:
        found.left_out.append(LeftOut(root, f"skipped in it: {_kinds(others)}", is_person=False))
    return found


def find_photos(folder: Path, *, deep: bool = False) -> tuple[list[Path], list[LeftOut]]:
    """The photographs of a folder, by name, and what else is in it.

    Args:
        folder: Of one person.
        deep: Look into folders inside it as well.

    Raises:
        GalleryError: It cannot be read.
    """
    return _photos_in(folder, deep=deep, depth=0)


def _photos_in(folder: Path, *, deep: bool, depth: int) -> tuple[list[Path], list[LeftOut]]:
    photos: list[Path] = []
    others: list[Path] = []
    left_out: list[LeftOut] = []
    for path in _entries(folder):
        if path.name.startswith("."):
            others.append(path)
        elif path.is_dir():
            inner, passed_over = _photos_inside(path, depth + 1)
            if deep:
                photos += inner
                left_out += passed_over
            elif inner:
                left_out.append(
                    LeftOut(path, f"{counted(len(inner), 'photograph')} {_TAKEN_DEEP}", is_person=False)
                )
            else:
                left_out += [each for each in passed_over if each.reason.startswith(_UNSEEN)]
        elif is_picture(path):
            photos.append(path)
        else:
            others.append(path)
    if others:
        left_out.append(LeftOut(folder, f"skipped in it: {_kinds(others)}", is_person=False))
    return photos, left_out


def _photos_inside(folder: Path, depth: int) -> tuple[list[Path], list[LeftOut]]:
    """Photographs of a folder inside a person's; why it is not looked into, where it is not."""
    if depth > _DEEPEST:
        trouble = f"lies more than {_DEEPEST} folders deep"
    elif folder.is_symlink() and depth > 1:
        trouble = "is a link to a folder, in a folder inside"
    elif folder.resolve() in folder.parent.resolve().parents or folder.resolve() == folder.parent.resolve():
        trouble = "is a link to a folder that it is in"
    else:
        try:
            return _photos_in(folder, deep=True, depth=depth)
        except GalleryError as exc:
            trouble = str(exc).removeprefix(f"{folder}: ").partition(";")[0]
    return [], [LeftOut(folder, f"{_UNSEEN} ({trouble})", is_person=False)]


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, by its name's ending or else by how it begins."""
    if not path.is_file():  # reading from a pipe or device may wait forever
        return False
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            picture_kind(file.read(_HEAD_BYTES))
    except (OSError, PictureError):
        return False
    return True


def _add_folder(
    found: Photographs, folder: Path, known: Collection[str], *, keep_underscores: bool, deep: bool
) -> None:
    """Add a person's folder, or say why it is left out."""
    try:
        name = _name_of(folder, known, keep_underscores=keep_underscores)
        photos, passed_over = find_photos(folder, deep=deep)
    except (GalleryError, TextError) as exc:
        found.left_out.append(LeftOut(folder, str(exc).removeprefix(f"{folder}: ")))
        return
    if photos:
        found.people.setdefault(name, []).extend(photos)
        found.left_out += passed_over
        return
    deeper = [each.path for each in passed_over if each.reason.endswith(_TAKEN_DEEP)]
    if deeper:
        reason = (
            f"has photographs in folders inside it only, such as {deeper[0].name}: where they are this "
            "person's, add --deep; where each folder is a person, give this one as --folders"
        )
    else:
        seen = [f"{_inside(each.path, folder)}{each.reason}" for each in passed_over]
        reason = "has no photograph" + (f" ({'; '.join(seen)})" if seen else "")
    found.left_out.append(LeftOut(folder, reason))


def _inside(path: Path, folder: Path) -> str:
    return "" if path == folder else f"{path.relative_to(folder)} "


def _name_of(folder: Path, known: Collection[str], *, keep_underscores: bool) -> str:
    """What the person of a folder is called.

    Raises:
        TextError: The folder's name does not fit.
    """
    name = clean_name(folder.name, what="its name")
    spaced = " ".join(name.replace("_", " ").split())
    if keep_underscores or (name in known and spaced not in known):
        return name
    return clean_name(spaced, what="its name")


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda path: (canonical(path.name), path.name))
        for path in entries[:1]:
            path.lstat()  # names may be readable where nothing else is
    except OSError as exc:
        raise GalleryError(
            f"{folder}: cannot be read ({exc.strerror}); give a folder of photographs"
        ) from exc
    return entries


def _kinds(paths: Sequence[Path]) -> str:
    """What files are, counted by the endings of their names."""
    counts = Counter(_kind(path) for path in paths)
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    return f"{path.suffix.lower()}" if path.suffix else "without an extension"


def one_name_each(people: Iterable[tuple[str, Sequence[Path]]]) -> list[str]:
    """A line for each person of several folders, whose photographs are taken for one person's."""
    folders = {name: dict.fromkeys(path.parent for path in photos) for name, photos in people}
    return [
        f"{name}: is in {len(several)} folders: {', '.join(str(each) for each in several)}"
        for name, several in folders.items()
        if len(several) > 1
    ]
