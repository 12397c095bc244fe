"""The people who are enrolled: a SQLite file of names and templates, sealed where there is a key.

A gallery is of one model: its embeddings compare with that model's only. Everything that identifies a person
(names, notes, embeddings, photographs, where they come from) is sealed with AES-256-GCM when the gallery was
made with a key; what stays readable are counts, times, qualities, people's ids and the model.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import GalleryError
from stream.gallery_file import GalleryFile
from stream.gallery_records import (
    MAX_NOTES,
    GalleryModel,
    GallerySnapshot,
    Negative,
    Person,
    Template,
    check_name,
)
from stream.gallery_schema import SCHEMA, check_file, connect, one_line, right_sealer, timestamp
from stream.sealing import Sealer

_SALT_BYTES: Final = 16
_PEOPLE: Final = """
SELECT id, name, notes, created,
    (SELECT count(*) FROM templates WHERE person = people.number),
    (SELECT count(*) FROM photos JOIN templates ON template = templates.number WHERE person = people.number),
    (SELECT count(*) FROM negatives WHERE person = people.number)
FROM people"""
_TEMPLATES: Final = """
SELECT embedding, quality, source, origin, added, CASE ? WHEN 1 THEN data END
FROM templates LEFT JOIN photos ON template = number
WHERE person = (SELECT number FROM people WHERE id = ?) ORDER BY number"""
_NEGATIVES: Final = """
SELECT embedding, origin, added FROM negatives
WHERE person = (SELECT number FROM people WHERE id = ?) ORDER BY number"""


class Gallery(GalleryFile):
    """A gallery's file. Several processes may use it at once; of a process, one thread.

    ``Gallery.create`` makes one and ``Gallery.open`` opens one.
    """

    _names: tuple[int, dict[str, str]] | None = None

    @classmethod
    def create(
        cls, path: Path, model: GalleryModel, *, sealer: Sealer | None, keep_photos: bool = False
    ) -> Gallery:
        """Make a new gallery; its file is for its owner alone.

        Args:
            path: Of the file, which is not there yet.
            model: Whose embeddings it will hold.
            sealer: Seals what identifies people; None leaves it readable.
            keep_photos: Keep the photographs, so that another model can embed them anew.

        Raises:
            GalleryError: The file is there already, or cannot be made.
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise GalleryError(f"{path}: is there already; choose another name, or delete it first") from None
        except OSError as exc:
            raise GalleryError(
                f"{path}: cannot be made ({exc.strerror}); make its folder, or choose another place"
            ) from exc
        row = (
            secrets.token_hex(8),
            *(1, 0),
            timestamp(None),
            *(
                model.name,
                model.sha256,
                model.mirror,
                model.size,
                model.likeness.factor,
                model.likeness.shift,
            ),
            keep_photos,
            "" if sealer is None else sealer.fingerprint,
            secrets.token_bytes(_SALT_BYTES),
        )
        database = connect(path)
        try:
            database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            database.execute("INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as exc:
            database.close()
            path.unlink(missing_ok=True)
            raise GalleryError(f"{path}: cannot be made ({exc}); choose another place") from exc
        gallery = cls(path, database, sealer)
        gallery.audit.record("created", sealed=sealer is not None, keep_photos=keep_photos)
        return gallery

    @classmethod
    def open(cls, path: Path, *, sealer: Sealer | None) -> Gallery:
        """Open a gallery.

        Args:
            path: Of its file.
            sealer: Of the key that it was made with; one that it does not need is not used.

        Raises:
            GalleryError: The file is not there, is no gallery, is damaged, or wants another key.
        """
        if not path.is_file():
            raise GalleryError(f"{path}: no such gallery; make one: facestream gallery create {path}")
        database = connect(path)
        try:
            key = check_file(path, database)
            return cls(path, database, right_sealer(path, key, sealer))
        except (sqlite3.Error, TypeError, ValueError) as exc:
            database.close()
            raise GalleryError(
                f"{path}: damaged, or no gallery ({one_line(exc)}); restore a copy of it"
            ) from exc
        except BaseException:
            database.close()
            raise

    def check_model(self, model: GalleryModel) -> None:
        """See that a model's embeddings compare with these.

        Raises:
            GalleryError: They do not.
        """
        if (own := self.model) != model:
            raise GalleryError(
                f"{self.path}: is of {own}, and embeddings of {model} do not compare with it; use that model "
                f"and its mirroring, or move it: facestream gallery upgrade {self.path} --to {model.name}"
            )

    def enrol(self, name: str, templates: Sequence[Template], *, notes: str = "") -> Person:
        """Add templates to the person of a name, who is made when there is none.

        Args:
            name: 1 to 200 printable characters.
            templates: One or more. Photographs in them are kept where the gallery keeps photographs.
            notes: Of a new person.

        Raises:
            GalleryError: The file cannot be written.
            ValueError: A name or an embedding does not fit.
        """
        check_name(name)
        if not templates or len(notes) > MAX_NOTES:
            raise ValueError(f"expected a template and notes of at most {MAX_NOTES} characters")
        with self.writing():
            ids = self._ids_by_name()
            if (person_id := ids.get(name)) is None:
                person_id = self.put_person(secrets.token_hex(6), name, notes, None)
            for template in templates:
                self.put_template(person_id, template)
            self.audit.record("enrolled", person=person_id, templates=len(templates))
            enrolled = self.find(person_id)
            version = self.version
        self._names = version + 1, ids | {name: person_id}
        return enrolled

    def add_negative(self, person: str, negative: Negative) -> Person:
        """Remember that a face is not a person's.

        Args:
            person: Id or name.
            negative: The face.

        Raises:
            GalleryError: There is no such person, or the file cannot be written.
            ValueError: The embedding has another length.
        """
        with self.writing():
            found = self.find(person)
            self.put_negative(found.id, negative)
            self.audit.record("negative added", person=found.id)
            return self.find(found.id)

    def people(self) -> list[Person]:
        """Everybody, in the order in which they were enrolled.

        Raises:
            GalleryError: The file cannot be read, or is damaged.
        """
        with self.reading():
            rows = self.database.execute(_PEOPLE + " ORDER BY number").fetchall()
            return [self._person(row) for row in rows]

    def find(self, person: str) -> Person:
        """The person of an id, or of a name.

        Raises:
            GalleryError: There is none.
        """
        with self.reading():
            row = self.database.execute(_PEOPLE + " WHERE id = ?", (person,)).fetchone()
            if row is None and (person_id := self._ids_by_name().get(person)):
                row = self.database.execute(_PEOPLE + " WHERE id = ?", (person_id,)).fetchone()
            if row is not None:
                return self._person(row)
        raise GalleryError(
            f"{self.path}: nobody is called {person!r} here; see facestream gallery list {self.path}"
        )

    def _ids_by_name(self) -> dict[str, str]:
        """Read again when the gallery has changed."""
        version = self.version
        if self._names is None or self._names[0] != version:
            rows = self.database.execute("SELECT id, name FROM people").fetchall()
            self._names = version, {self.unseal("name", each, name).decode(): each for each, name in rows}
        return self._names[1]

    def _person(self, row: tuple[Any, ...]) -> Person:
        person_id, name, notes, created, templates, photos, negatives = row
        return Person(
            id=person_id,
            name=self.unseal("name", person_id, name).decode(),
            notes=self.unseal("notes", person_id, notes).decode(),
            created=datetime.fromisoformat(created),
            templates=templates,
            photos=photos,
            negatives=negatives,
        )

    def templates(self, person_id: str, *, photos: bool = False) -> list[Template]:
        """A person's templates, oldest first.

        Args:
            person_id: Of somebody who is enrolled; otherwise there are none.
            photos: Read the photographs, too.
        """
        with self.reading():
            rows = self.database.execute(_TEMPLATES, (photos, person_id)).fetchall()
            size = self.model.size
            return [
                Template(
                    self.vector(person_id, row[0], size),
                    row[1],
                    row[2],
                    self.unseal("origin", person_id, row[3]).decode(),
                    datetime.fromisoformat(row[4]),
                    None if row[5] is None else self.unseal("photo", person_id, row[5]),
                )
                for row in rows
            ]

    def negatives(self, person_id: str) -> list[Negative]:
        """Faces that are not a person's, oldest first."""
        with self.reading():
            rows = self.database.execute(_NEGATIVES, (person_id,)).fetchall()
            size = self.model.size
            return [
                Negative(
                    self.vector(person_id, row[0], size),
                    self.unseal("origin", person_id, row[1]).decode(),
                    datetime.fromisoformat(row[2]),
                )
                for row in rows
            ]

    def snapshot(self, previous: GallerySnapshot | None = None) -> GallerySnapshot:
        """All that is needed to identify, at one moment.

        Args:
            previous: Of this gallery; what it holds already is not read again.

        Raises:
            GalleryError: The file cannot be read, or is damaged.
        """
        with self.reading():
            model = self.model
            version, removals = self.database.execute("SELECT version, removals FROM gallery").fetchone()
            old = GallerySnapshot.empty(self.id, model)
            if previous is not None and (previous.gallery_id, previous.model) == (self.id, model):
                old = previous if previous.removals == removals else self._still_there(previous)
            last = int(old.people_keys[-1]) if len(old.people_keys) else 0
            people = self.database.execute(
                "SELECT number, id, name FROM people WHERE number > ? ORDER BY number", (last,)
            ).fetchall()
            people_keys = np.append(old.people_keys, np.array([row[0] for row in people], np.int64))
            ids = (*old.ids, *(row[1] for row in people))
            names = (*old.names, *(self.unseal("name", row[1], row[2]).decode() for row in people))
            last = int(old.keys[-1]) if len(old.keys) else 0
            keys, owners, templates = self._vectors("templates", last, people_keys, ids, model.size)
            _, negative_owners, negatives = self._vectors("negatives", 0, people_keys, ids, model.size)
        return GallerySnapshot(
            gallery_id=self.id,
            version=version,
            removals=removals,
            model=model,
            people_keys=people_keys,
            ids=ids,
            names=names,
            keys=np.append(old.keys, keys),
            templates=np.concatenate([old.templates, templates]) if len(keys) else old.templates,
            owners=np.append(old.owners, owners),
            negatives=negatives,
            negative_owners=negative_owners,
        )

    def _still_there(self, previous: GallerySnapshot) -> GallerySnapshot:
        """What is left of an earlier snapshot."""
        people, keys = (
            np.array([row[0] for row in self.database.execute(query)], np.int64)
            for query in ("SELECT number FROM people", "SELECT number FROM templates")
        )
        return previous.kept(people, keys)

    def _vectors(
        self, table: str, last: int, people_keys: npt.NDArray[np.int64], ids: Sequence[str], size: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
        """Numbers, owners and embeddings of a table after a number, in the order of the numbers."""
        query = f"SELECT number, person, embedding FROM {table} WHERE number > ? ORDER BY number"  # noqa: S608 - one of two names
        rows = self.database.execute(query, (last,)).fetchall()
        keys = np.array([row[0] for row in rows], np.int64)
        owners = np.searchsorted(people_keys, np.array([row[1] for row in rows], np.int64))
        vectors = np.empty((len(rows), size), np.float32)
        for place, (owner, row) in enumerate(zip(owners.tolist(), rows, strict=True)):
            vectors[place] = self.vector(ids[owner], row[2], size)
        return keys, owners, vectors
