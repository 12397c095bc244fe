"""Erase a person from a gallery so that nothing of them is left in its file, and verify it."""

from __future__ import annotations

import mmap
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import GalleryError
from stream.gallery.people import Gallery

_WINDOW_BYTES: Final = 24
_WINDOWS: Final = 8
_FEWEST_BYTES: Final = 12
_BLOBS_AT_ONCE: Final = 500
_FILE_NAMES: Final = """
SELECT file_names.name FROM file_names JOIN templates ON template = templates.number
WHERE person = (SELECT number FROM people WHERE id = :id)"""
_BLOBS: Final = """
SELECT name FROM people WHERE id = :id UNION ALL SELECT notes FROM people WHERE id = :id
UNION ALL SELECT embedding FROM templates WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT origin FROM templates WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT embedding FROM negatives WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT origin FROM negatives WHERE person = (SELECT number FROM people WHERE id = :id)
UNION ALL SELECT data FROM photos JOIN templates ON template = number
    WHERE person = (SELECT number FROM people WHERE id = :id)"""

_COLUMNS: Final = (
    *(("people", "name"), ("people", "notes"), ("photos", "data")),
    *((table, column) for table in ("templates", "negatives") for column in ("embedding", "origin")),
)
"""Where blobs are stored."""


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
        templates: Number of erased templates.
        photos: Number of erased photographs.
        negatives: Number of erased counterexamples.
        pieces: Pieces of what was stored of the person that were looked for.
        bytes_searched: Of the gallery's files, in which they were looked for.
        found_in: Files in which one was found; none is what is wanted.
        copies: Files that may hold the person, to be deleted by hand.
        tracks: The tracks that the person was enrolled from.
        others: Ids of further entries that were erased, which had another form of the same name.
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
    others: tuple[str, ...] = ()


def erase(gallery: Gallery, person: str) -> Erasure:
    """Delete a person's rows, overwrite where they stood, and look through the file for what is left.

    Where an older version took two forms of the person's name for two people, both go.

    Deleted rows are overwritten with zeros, the write-ahead log is emptied, and the file is rewritten
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
    with gallery.writing():
        found = gallery.find_all(person)
        blobs = [blob for each in found for blob in _stored(gallery, each.id)]
        tracks = tuple(dict.fromkeys(track for each in found for track in tracks_of(gallery, each.id)))
        for each in found:
            gallery.database.execute("DELETE FROM people WHERE id = ?", (each.id,))
            gallery.audit.record(
                "removed",
                person=each.id,
                templates=each.templates,
                photos=each.photos,
                negatives=each.negatives,
            )
        gallery.count_removal()
    clean(gallery)
    shared = _still_stored(gallery, [blob for blob, _ in blobs])
    pieces = [piece for blob, whole in blobs if blob not in shared for piece in _pieces(blob, whole=whole)]
    searched, found_in = _search(gallery.path, list(dict.fromkeys(pieces)))
    left = tuple(path for path, some in found_in if not all(_is_of_others(gallery, each) for each in some))
    gallery.audit.record("erasure checked", person=found[0].id, pieces=len(pieces), found=len(left))
    return Erasure(
        person_id=found[0].id,
        templates=sum(each.templates for each in found),
        photos=sum(each.photos for each in found),
        negatives=sum(each.negatives for each in found),
        pieces=len(pieces),
        bytes_searched=searched,
        found_in=left,
        copies=copies_since(gallery, min(each.created for each in found).isoformat()),
        tracks=tracks,
        others=tuple(each.id for each in found[1:]),
    )


def ids_of(gallery: Gallery, person: str) -> tuple[str, ...]:
    """Every id under which events may name a person: of all forms of the name, and of entries merged into it.

    Args:
        gallery: Open.
        person: Id or name.

    Raises:
        GalleryError: There is no such person.
    """
    ids = [each.id for each in gallery.find_all(person)]
    merged = [entry.detail for entry in gallery.audit.entries() if entry.action == "merged"]
    for person_id in ids:  # grows while it is walked
        ids += [str(each["gone"]) for each in merged if each.get("person") == person_id]
    return tuple(dict.fromkeys(ids))


def tracks_of(gallery: Gallery, person_id: str) -> tuple[str, ...]:
    """Ids of the tracks that a person was enrolled from."""
    own = gallery.templates(person_id)
    return tuple(dict.fromkeys(each.origin for each in own if each.source == "track"))


def clean(gallery: Gallery) -> None:
    """Empty the write-ahead log and rewrite the file without gaps.

    Raises:
        GalleryError: Others hold the file, or there is no room.
    """
    try:
        for command in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            row = gallery.database.execute(command).fetchone()
            if row is not None and row[0]:
                raise GalleryError(
                    f"{gallery.path}: the rows are deleted, but another program has the file open, so old "
                    f"pages remain in {gallery.path}-wal; run: facestream gallery clean {gallery.path}"
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


def _stored(gallery: Gallery, person_id: str) -> list[tuple[bytes, bool]]:
    """Every blob that is stored of a person, and what was sealed in it.

    Each with whether it is to be looked for as a whole only: the names of two photographs are much alike.
    """
    database, place = gallery.database, {"id": person_id}
    with gallery.reading():
        blobs = [bytes(row[0]) for row in database.execute(_BLOBS, place)]
        rows = database.execute(_FILE_NAMES, place) if gallery.has_file_names else ()
        names = [bytes(row[0]) for row in rows]
        raw_name = bytes(database.execute("SELECT name FROM people WHERE id = :id", place).fetchone()[0])
    if gallery.sealer is not None:
        own = gallery.templates(person_id)
        blobs += [each.embedding.astype("<f4").tobytes() for each in own]
        blobs += [each.embedding.astype("<f4").tobytes() for each in gallery.negatives(person_id)]
        blobs += [each.origin.encode() for each in own]
        blobs.append(gallery.unseal("name", person_id, raw_name))
        names += [each.file.encode() for each in own]
    return [*((blob, False) for blob in blobs), *((name, True) for name in names)]


def _still_stored(gallery: Gallery, blobs: Sequence[bytes]) -> set[bytes]:
    """Those blobs that others have, too: one track may be Ann's and known not to be Bob's."""
    columns = [(table, column) for table in ("templates", "negatives") for column in ("embedding", "origin")]
    columns += [("file_names", "name")] if gallery.has_file_names else []
    shared: set[bytes] = set()
    for start in range(0, len(blobs), _BLOBS_AT_ONCE):
        some = blobs[start : start + _BLOBS_AT_ONCE]
        marks = ",".join("?" * len(some))
        for table, column in columns:
            query = f"SELECT {column} FROM {table} WHERE {column} IN ({marks})"  # noqa: S608 - constants
            shared.update(bytes(row[0]) for row in gallery.database.execute(query, some))
    return shared


def _pieces(blob: bytes, *, whole: bool) -> Iterator[bytes]:
    """Windows of a blob, which may lie on several pages. Very short ones would be found by chance."""
    if len(blob) < _FEWEST_BYTES:
        return
    if whole:
        yield blob
        return
    last = max(0, len(blob) - _WINDOW_BYTES)
    for start in sorted({last * step // (_WINDOWS - 1) for step in range(_WINDOWS)}):
        yield blob[start : start + _WINDOW_BYTES]


def _is_of_others(gallery: Gallery, piece: bytes) -> bool:
    """Whether a piece stands in what is stored of others: photographs of one camera begin alike."""
    columns = [*_COLUMNS, *([("file_names", "name")] if gallery.has_file_names else [])]
    with gallery.reading():
        return any(
            gallery.database.execute(
                f"SELECT 1 FROM {table} WHERE instr({column}, ?) LIMIT 1",  # noqa: S608 - constants
                (piece,),
            ).fetchone()
            for table, column in columns
        )


def _search(path: Path, pieces: Sequence[bytes]) -> tuple[int, list[tuple[Path, list[bytes]]]]:
    """Look through a database's files; bytes searched, and files with the pieces that were found in them."""
    searched, found = 0, []
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        try:
            size = each.stat().st_size
            if not size:
                continue
            with each.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                searched += size
                if some := [piece for piece in pieces if content.find(piece) >= 0]:
                    found.append((each, some))
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise GalleryError(f"{each}: cannot be searched ({exc.strerror}); check its permissions") from exc
    return searched, found
