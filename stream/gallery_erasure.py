"""Take a person out of a gallery so that nothing of them is left in its file, and prove it."""

from __future__ import annotations

import mmap
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import GalleryError
from stream.gallery import Gallery

_WINDOW_BYTES: Final = 24
_WINDOWS: Final = 8
_FEWEST_BYTES: Final = 12
_BLOBS_AT_ONCE: Final = 500
_BLOBS: Final = """
SELECT name FROM people WHERE id = :id UNION ALL SELECT notes FROM people WHERE id = :id
UNION ALL SELECT embedding FROM templates WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT origin FROM templates WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT embedding FROM negatives WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT origin FROM negatives WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT data FROM photos JOIN templates ON template = number
    WHERE person = (SELECT number FROM people WHERE id = :id)"""


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that was made of a gallery: an export, or the gallery before an upgrade.

    Attributes:
        path: Where it was written.
        made: When, as the audit has it.
        is_there: Whether a file is there now.
    """

    path: Path
    made: str
    is_there: bool


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased, and what was looked for afterwards.

    Attributes:
        person_id: Who.
        templates: How many were erased.
        photos: The same.
        negatives: The same.
        pieces: Pieces of what was stored of the person that were looked for.
        bytes_searched: Of the gallery's files, in which they were looked for.
        found_in: Files in which one was found; none is what is wanted.
        copies: Files that may hold the person, to be deleted by hand.
        tracks: The tracks that the person was enrolled from.
    """

    person_id: str
    templates: int
    photos: int
    negatives: int
    pieces: int
    bytes_searched: int
    found_in: tuple[Path, ...]
    copies: tuple[Copy, ...]
    tracks: tuple[str, ...]


def erase(gallery: Gallery, person: str) -> Erasure:
    """Delete a person's rows, overwrite where they stood, and look through the file for what is left.

    Deleted rows are overwritten with zeros, the write-ahead log is emptied, and the file is written anew
    without gaps. Then the gallery's files are searched for pieces of every blob that was stored of the
    person, as it was stored and, where it was sealed, as it was before. What a disk keeps of blocks that are
    no longer of the file is beyond this.

    Args:
        gallery: Open.
        person: Id or name.

    Returns:
        What was done. ``found_in`` is empty, or the erasure is not complete.

    Raises:
        GalleryError: There is no such person, or others hold the file so that it cannot be cleaned: the rows
            are gone then, and the same command cleans when it is run again.
    """
    found = gallery.find(person)
    blobs = _stored(gallery, found.id)
    tracks = tracks_of(gallery, found.id)
    with gallery.writing():
        gallery.database.execute("DELETE FROM people WHERE id = ?", (found.id,))
        gallery.count_removal()
        gallery.audit.record(
            "removed",
            person=found.id,
            templates=found.templates,
            photos=found.photos,
            negatives=found.negatives,
        )
    clean(gallery)
    shared = _still_stored(gallery, blobs)
    pieces = [piece for blob in blobs if blob not in shared for piece in _pieces(blob)]
    searched, left = _search(gallery.path, pieces)
    gallery.audit.record("erasure checked", person=found.id, pieces=len(pieces), found=len(left))
    return Erasure(
        person_id=found.id,
        templates=found.templates,
        photos=found.photos,
        negatives=found.negatives,
        pieces=len(pieces),
        bytes_searched=searched,
        found_in=left,
        copies=copies_since(gallery, found.created.isoformat()),
        tracks=tracks,
    )


def tracks_of(gallery: Gallery, person_id: str) -> tuple[str, ...]:
    """Ids of the tracks that a person was enrolled from."""
    own = gallery.templates(person_id)
    return tuple(dict.fromkeys(each.origin for each in own if each.source == "track"))


def clean(gallery: Gallery) -> None:
    """Empty the write-ahead log and write the file anew without gaps.

    Raises:
        GalleryError: Others hold the file, or there is no room.
    """
    try:
        for command in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            row = gallery.database.execute(command).fetchone()
            if row is not None and row[0]:
                raise GalleryError(
                    f"{gallery.path}: the rows are deleted, but somebody else holds the file, so that old "
                    f"pages stay in {gallery.path}-wal; run: facestream gallery clean {gallery.path}"
                )
    except sqlite3.Error as exc:
        raise GalleryError(
            f"{gallery.path}: the rows are deleted, but the file cannot be cleaned ({exc}); make room, "
            f"then run: facestream gallery clean {gallery.path}"
        ) from exc


def copies_since(gallery: Gallery, created: str) -> tuple[Copy, ...]:
    """Exports and backups that were written after a moment, RFC 3339."""
    made = {}
    for entry in gallery.audit.entries():
        if entry.action in {"exported", "backed up"} and entry.at.isoformat() >= created:
            path = Path(str(entry.detail["path"]))
            made[path] = Copy(path, entry.at.isoformat(timespec="seconds"), path.exists())
    return tuple(made.values())


def _stored(gallery: Gallery, person_id: str) -> list[bytes]:
    """Every blob that is stored of a person, and what was sealed in it."""
    with gallery.reading():
        blobs = [bytes(row[0]) for row in gallery.database.execute(_BLOBS, {"id": person_id})]
    if gallery.sealer is not None:
        own = gallery.templates(person_id)
        blobs += [each.embedding.astype("<f4").tobytes() for each in own]
        blobs += [each.embedding.astype("<f4").tobytes() for each in gallery.negatives(person_id)]
        blobs += [each.origin.encode() for each in own]
        blobs.append(gallery.find(person_id).name.encode())
    return blobs


def _still_stored(gallery: Gallery, blobs: Sequence[bytes]) -> set[bytes]:
    """Those blobs that others have, too: one track may be Ann's and known not to be Bob's."""
    shared: set[bytes] = set()
    for start in range(0, len(blobs), _BLOBS_AT_ONCE):
        some = blobs[start : start + _BLOBS_AT_ONCE]
        marks = ",".join("?" * len(some))
        for table in ("templates", "negatives"):
            for column in ("embedding", "origin"):
                query = f"SELECT {column} FROM {table} WHERE {column} IN ({marks})"  # noqa: S608 - constants
                shared.update(bytes(row[0]) for row in gallery.database.execute(query, some))
    return shared


def _pieces(blob: bytes) -> Iterator[bytes]:
    """Windows of a blob, which may lie on several pages. Very short ones would be found by chance."""
    if len(blob) < _FEWEST_BYTES:
        return
    last = max(0, len(blob) - _WINDOW_BYTES)
    for start in sorted({last * step // (_WINDOWS - 1) for step in range(_WINDOWS)}):
        yield blob[start : start + _WINDOW_BYTES]


def _search(path: Path, pieces: Sequence[bytes]) -> tuple[int, tuple[Path, ...]]:
    """Look through a database's files; bytes searched, and files in which a piece was found."""
    searched, found = 0, []
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        try:
            size = each.stat().st_size
            if not size:
                continue
            with each.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                searched += size
                if any(content.find(piece) >= 0 for piece in pieces):
                    found.append(each)
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise GalleryError(f"{each}: cannot be searched ({exc.strerror}); check its permissions") from exc
    return searched, tuple(found)
