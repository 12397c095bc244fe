"""Move a gallery to another model: photographs are embedded again, other embeddings mapped where one can."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import GalleryError
from stream.common.printable import counted
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel, check_embedding
from stream.gallery.tables import one_line

Embed: TypeAlias = Callable[[bytes], tuple[npt.NDArray[np.float32], float] | None]
"""A photograph's file to the new model's embedding and the face's quality; None where it finds no face."""

Mapping: TypeAlias = Callable[[Embeddings], Embeddings]
"""The old model's embeddings (N, D) to the new model's (N, E), unit rows."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many are done, and of how many."""

_PAGES_AT_ONCE: Final = 1000
_MOST_NAMES: Final = 100
_ROWS: Final = """
SELECT templates.number, people.id, embedding, quality, data
FROM templates JOIN people ON person = people.number LEFT JOIN photos ON template = templates.number
WHERE templates.number > ? ORDER BY templates.number LIMIT 1"""


@dataclass(slots=True)
class Upgrade:
    """What became of a gallery.

    Attributes:
        backup: The gallery as it was before; None once it was deleted.
        embedded: Templates embedded again from photographs.
        mapped: Templates that were mapped.
        dropped: Templates that could not be moved.
        negatives_mapped: Faces known not to be somebody's that were mapped.
        negatives_dropped: Those that could not be moved.
        left_out: Names of the people who have no template any more; they have to be enrolled again.
    """

    backup: Path | None = None
    embedded: int = 0
    mapped: int = 0
    dropped: int = 0
    negatives_mapped: int = 0
    negatives_dropped: int = 0
    left_out: list[str] = field(default_factory=list)


def upgrade(
    gallery: Gallery,
    model: GalleryModel,
    *,
    embed: Embed | None,
    mapping: Mapping | None = None,
    leave_out: bool = False,
    on_progress: Progress | None = None,
) -> Upgrade:
    """Move a gallery to another model, all of it or nothing; running pipelines then see the new one.

    The gallery as it was is written beside it first. People keep their ids. Where a photograph was kept it is
    embedded again; else the mapping is used; a template for which there is neither cannot be moved.

    Args:
        gallery: Open.
        model: The new one.
        embed: Embeds a photograph with it; None passes photographs over.
        mapping: Maps embeddings to it; None maps nothing.
        leave_out: Go on when people are left without a template.
        on_progress: Called after each template.

    Returns:
        What was done.

    Raises:
        GalleryError: The gallery is of that model already, people would be left without a template, or a file
            cannot be written. The gallery is as it was, then.
        ModelError: An engine failed; the same.
    """
    if gallery.model == model:
        raise GalleryError(f"{gallery.path}: is of {model} already; nothing to do")
    if embed is None and mapping is None:
        raise ValueError("expected embed or mapping, got neither")
    moved = _Moved(gallery, embed, mapping)
    moved.work(on_progress)
    moved.check(leave_out=leave_out)
    backup = back_up(gallery)
    try:
        with gallery.writing():
            moved.work(None)  # what others enrolled meanwhile
            moved.check(leave_out=leave_out)
            done = moved.write(model)
            gallery.audit.record(
                "upgraded",
                model=model.name,
                embedded=done.embedded,
                mapped=done.mapped,
                dropped=done.dropped,
            )
    except BaseException:
        backup.unlink(missing_ok=True)
        raise
    done.backup = backup
    return done


class _Moved:
    """Templates of the new model, by number, made from those of the old."""

    def __init__(self, gallery: Gallery, embed: Embed | None, mapping: Mapping | None) -> None:
        self._gallery = gallery
        self._embed, self._mapping = embed, mapping
        self._old = gallery.model
        self._made: dict[int, tuple[npt.NDArray[np.float32], float] | None] = {}
        self._embedded = self._mapped = 0
        self._last = -1

    @property
    def left_out(self) -> list[str]:
        """Names of those who have a template now and would have none."""
        alive = {number for number, made in self._made.items() if made is not None}
        with self._gallery.reading():
            pairs = self._gallery.database.execute(
                "SELECT templates.number, id FROM templates JOIN people ON person = people.number"
            ).fetchall()
        before = dict.fromkeys(person for _, person in pairs)
        after = {person for number, person in pairs if number in alive}
        return [self._gallery.find(person).name for person in before if person not in after]

    def check(self, *, leave_out: bool) -> None:
        """Check that everybody who has a template keeps one, or may do without.

        Raises:
            GalleryError: Somebody would not.
        """
        if not leave_out and (names := self.left_out):
            raise GalleryError(
                f"{self._gallery.path}: {counted(len(names), 'person', 'people')} cannot be moved, having "
                f"neither photographs nor a map that fits: {_some(names)}; give --map, or --leave-out and "
                "enrol them again"
            )

    def work(self, on_progress: Progress | None) -> None:
        """Make what is not made yet.

        Raises:
            GalleryError: The gallery is of another model now.
        """
        total = int(self._gallery.database.execute("SELECT count(*) FROM templates").fetchone()[0])
        while True:
            with self._gallery.reading():
                if (model := self._gallery.model) != self._old:
                    raise GalleryError(
                        f"{self._gallery.path}: another process has moved it to {model} meanwhile; "
                        "see facestream gallery audit"
                    )
                row = self._gallery.database.execute(_ROWS, (self._last,)).fetchone()
                if row is None:
                    return
                number, person_id, sealed, quality, photo = row
                old = self._gallery.vector(person_id, sealed, self._old.size)
                opened = None if photo is None else self._gallery.unseal("photo", person_id, photo)
            self._made[number] = self._move(old, quality, opened)
            self._last = number
            if on_progress is not None:
                on_progress(len(self._made), max(total, len(self._made)))

    def _move(
        self, old: npt.NDArray[np.float32], quality: float, photo: bytes | None
    ) -> tuple[npt.NDArray[np.float32], float] | None:
        if photo is not None and self._embed is not None and (found := self._embed(photo)) is not None:
            self._embedded += 1
            return found
        if self._mapping is None:
            return None
        self._mapped += 1
        return self._mapping(old[None])[0], quality

    def write(self, model: GalleryModel) -> Upgrade:
        """Put all that was made into the file, within a transaction."""
        gallery, left_out = self._gallery, self.left_out
        people = dict(
            gallery.database.execute(
                "SELECT templates.number, id FROM templates JOIN people ON person = people.number"
            ).fetchall()
        )
        negatives = self._negatives()
        likeness = model.likeness
        gallery.database.execute(
            "UPDATE gallery SET model = ?, model_sha256 = ?, mirror = ?, size = ?, "
            "likeness_factor = ?, likeness_shift = ?",
            (model.name, model.sha256, model.mirror, model.size, likeness.factor, likeness.shift),
        )
        gallery.count_removal()
        dropped = 0
        for number, person_id in people.items():
            made = self._made.get(number)
            if made is None:
                gallery.database.execute("DELETE FROM templates WHERE number = ?", (number,))
                dropped += 1
                continue
            row = (_sealed(gallery, model, person_id, made[0]), made[1], number)
            gallery.database.execute("UPDATE templates SET embedding = ?, quality = ? WHERE number = ?", row)
        for number, person_id, vector in negatives:
            row_of = (_sealed(gallery, model, person_id, vector), number)
            gallery.database.execute("UPDATE negatives SET embedding = ? WHERE number = ?", row_of)
        lost = 0
        if self._mapping is None:
            lost = gallery.database.execute("DELETE FROM negatives").rowcount
        return Upgrade(
            embedded=self._embedded,
            mapped=self._mapped,
            dropped=dropped,
            negatives_mapped=len(negatives),
            negatives_dropped=lost,
            left_out=left_out,
        )

    def _negatives(self) -> list[tuple[int, str, npt.NDArray[np.float32]]]:
        """Negatives of the new model, where there is a mapping."""
        if self._mapping is None:
            return []
        rows = self._gallery.database.execute(
            "SELECT negatives.number, id, embedding FROM negatives JOIN people ON person = people.number"
        ).fetchall()
        return [
            (number, each, self._mapping(self._gallery.vector(each, sealed, self._old.size)[None])[0])
            for number, each, sealed in rows
        ]


def _sealed(gallery: Gallery, model: GalleryModel, person_id: str, vector: npt.NDArray[np.float32]) -> bytes:
    check_embedding(vector)
    if len(vector) != model.size:
        raise GalleryError(
            f"{gallery.path}: {model.name} has embeddings of {model.size} numbers, the map makes "
            f"{len(vector)}; give the map of these two models"
        )
    return gallery.seal("embedding", person_id, vector.astype("<f4").tobytes())


def back_up(gallery: Gallery) -> Path:
    """Write the gallery as it is into a file beside it, for its owner alone and sealed as it is.

    Returns:
        Where.

    Raises:
        GalleryError: It cannot be written.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    path = gallery.path.with_name(f"{gallery.path.name}.backup-{gallery.model.name}-{moment}")
    temporary = path.with_name(f".{path.name}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(temporary)) as copy:
            gallery.database.backup(copy, pages=_PAGES_AT_ONCE)
            copy.execute("PRAGMA journal_mode = DELETE")
        temporary.rename(path)
    except (OSError, sqlite3.Error) as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise GalleryError(f"{path}: the backup cannot be written ({one_line(exc)}); make room") from exc
    gallery.audit.record("backed up", path=str(path.resolve()))
    return path


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else "")
