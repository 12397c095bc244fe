"""The people who are enrolled: a SQLite file of names and templates, sealed where there is a key.

A gallery is of one model: its embeddings compare with that model's only. Everything that identifies a person
(names, notes, embeddings, photographs, where they come from) is sealed with AES-256-GCM when the gallery was
made with a key; what stays readable are counts, times, qualities, people's ids and the model.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import GalleryError, TextError
from stream.common.encryption import Sealer
from stream.common.names import canonical, check_text, clean_name, quoted
from stream.gallery.database import GalleryFile
from stream.gallery.records import (
    MAX_NOTES,
    EnrolledFace,
    GalleryModel,
    GallerySnapshot,
    Negative,
    Person,
    Template,
)
from stream.gallery.tables import check_file, connect, new_file, not_opened, right_sealer, timestamp

_SALT_BYTES: Final = 16
_PEOPLE: Final = """
SELECT id, name, notes, created,
    (SELECT count(*) FROM templates WHERE person = people.number),
    (SELECT count(*) FROM photos JOIN templates ON template = templates.number WHERE person = people.number),
    (SELECT count(*) FROM negatives WHERE person = people.number)
FROM people"""
_FILE: Final = "(SELECT name FROM file_names WHERE template = number)"
_TEMPLATES: Final = """
SELECT embedding, quality, source, origin, added, CASE ? WHEN 1 THEN data END, {file}
FROM templates LEFT JOIN photos ON template = number
WHERE person = (SELECT number FROM people WHERE id = ?) ORDER BY number"""
_FACES: Final = """
SELECT templates.number, people.id, people.name, embedding, origin
FROM templates JOIN people ON person = people.number
WHERE templates.number > ? ORDER BY templates.number"""
_NEGATIVES: Final = """
SELECT embedding, origin, added FROM negatives
WHERE person = (SELECT number FROM people WHERE id = ?) ORDER BY number"""


class Gallery(GalleryFile):
    """A gallery's file. Several processes may use it at once; of a process, one thread.

    ``Gallery.create`` makes one and ``Gallery.open`` opens one.
    """

    _names: tuple[int, dict[str, tuple[str, ...]]] | None = None

    @classmethod
    def create(
        cls, path: Path, model: GalleryModel, *, sealer: Sealer | None, keep_photos: bool = False
    ) -> Gallery:
        """Create a gallery; its file is readable by its owner only.

        Args:
            path: Of the file, which must not exist. It appears when it is complete.
            model: Of the embeddings that it will hold.
            sealer: Encrypts what identifies people; None stores it in the clear.
            keep_photos: Keep the photographs, so that another model can embed them again.

        Raises:
            GalleryError: The file exists already, or cannot be created.
        """
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
        new_file(path, row)
        gallery = cls(path, connect(path), sealer)
        gallery.audit.record("created", sealed=sealer is not None, keep_photos=keep_photos)
        return gallery

    @classmethod
    def open(cls, path: Path, *, sealer: Sealer | None) -> Gallery:
        """Open a gallery.

        Args:
            path: Of its file.
            sealer: With the key that it was created with; not used if the gallery is not encrypted.

        Raises:
            GalleryError: The file is missing, not a gallery, damaged, or encrypted with another key.
        """
        if not path.is_file():
            raise GalleryError(f"{path}: no such gallery; create one: facestream gallery create {path}")
        database = connect(path)
        try:
            key = check_file(path, database)
            return cls(path, database, right_sealer(path, key, sealer))
        except (sqlite3.Error, TypeError, ValueError) as exc:
            database.close()
            raise not_opened(path, exc) from exc
        except BaseException:
            database.close()
            raise

    def forget(self) -> None:
        """Called when changes were not kept: names are read again."""
        self._names = None

    def check_model(self, model: GalleryModel) -> None:
        """Check that a model's embeddings compare with these.

        Raises:
            GalleryError: They do not.
        """
        if (own := self.model) != model:
            raise GalleryError(
                f"{self.path}: holds embeddings of {own}, not compatible with those of {model}; use that "
                "model and its mirroring, or move it: "
                f"facestream gallery upgrade {self.path} --to {model.name}"
            )

    def enrol(self, name: str, templates: Sequence[Template], *, notes: str = "") -> Person:
        """Add templates to the person of a name, who is created if there is none.

        Args:
            name: As ``stream.common.names.clean_name`` takes it. Where an older version took two forms of
                this name for two people, they become one.
            templates: One or more. Photographs in them are kept where the gallery keeps photographs.
            notes: Of a new person.

        Raises:
            GalleryError: The file cannot be written.
            TextError: The name does not fit.
            ValueError: There is no template, or an embedding does not fit.
        """
        name = clean_name(name)
        check_text(notes, what="notes")
        if not templates or len(notes) > MAX_NOTES:
            raise ValueError(f"expected a template and notes of at most {MAX_NOTES} characters")
        with self.writing():
            ids = self._ids_by_name()
            same = ids.get(name, ())
            if not same:
                self._check_is_no_id(name)
            if len(same) > 1:
                self.merge(same[0], same[1:])
            person_id = same[0] if same else self.put_person(secrets.token_hex(6), name, notes, None)
            for template in templates:
                self.put_template(person_id, template)
            self.audit.record("enrolled", person=person_id, templates=len(templates))
            enrolled = self.find(person_id)
            version = self.version
        self._names = version + 1, ids | {name: (person_id,)}
        return enrolled

    def merge(self, person: str, others: Sequence[str]) -> Person:
        """Merge entries: what is known of the others becomes the person's, and their ids end.

        Args:
            person: Id or name of the one that stays.
            others: Ids or names.

        Raises:
            GalleryError: One of them is not here, or is the person; or the file cannot be written.
        """
        with self.writing():
            kept, gone = self.find(person), [self.find(other) for other in others]
            if len({kept.id, *(each.id for each in gone)}) <= len(gone) or not gone:
                raise GalleryError(f"{self.path}: expected two or more different people to merge")
            notes = "\n".join(each.notes for each in (kept, *gone) if each.notes)[:MAX_NOTES]
            self._write_anew(kept, gone, name=kept.name, notes=notes)
            for each in gone:
                self.audit.record("merged", person=kept.id, gone=each.id, templates=each.templates)
            return self.find(kept.id)

    def rename(self, person: str, name: str) -> Person:
        """Rename a person; the id stays.

        Args:
            person: Id or name.
            name: As ``stream.common.names.clean_name`` takes it.

        Raises:
            GalleryError: There is no such person, the name is taken, or the file cannot be written.
            TextError: The name does not fit.
        """
        name = clean_name(name)
        with self.writing():
            found = self.find(person)
            if others := [each for each in self._ids_by_name().get(name, ()) if each != found.id]:
                raise GalleryError(
                    f"{self.path}: {name} is somebody else here ({others[0]}); if they are one person: "
                    f"facestream gallery merge {self.path} {others[0]} {found.id}"
                )
            self._check_is_no_id(name)
            self._write_anew(found, [], name=name, notes=found.notes)
            self.audit.record("renamed", person=found.id)
            return self.find(found.id)

    def _check_is_no_id(self, name: str) -> None:
        """Check that a new name means nobody yet: commands take names and ids, and one of them erases."""
        if self.database.execute("SELECT 1 FROM people WHERE id = ?", (name,)).fetchone():
            raise TextError(f"name: is the id of somebody in {self.path}; got {quoted(name)}")

    def _write_anew(self, person: Person, gone: Sequence[Person], *, name: str, notes: str) -> None:
        """Write a person with what is known of others, who go; as new rows, so that snapshots see it."""
        everybody = [person.id, *(each.id for each in gone)]
        templates = {
            each.embedding.tobytes(): each
            for person_id in everybody
            for each in self.templates(person_id, photos=True)
        }
        origins = {each.origin for each in templates.values()}
        negatives = {
            each.embedding.tobytes(): each
            for person_id in everybody
            for each in self.negatives(person_id)
            if each.origin not in origins
        }
        marks = ",".join("?" * len(everybody))
        self.database.execute(f"DELETE FROM people WHERE id IN ({marks})", everybody)  # noqa: S608 - marks
        self.put_person(person.id, name, notes, person.created)
        for template in templates.values():
            self.put_template(person.id, template)
        for negative in negatives.values():
            self.put_negative(person.id, negative)
        self.count_removal()
        self._names = None

    def add_negative(self, person: str, negative: Negative) -> Person:
        """Store a counterexample: a face that is not a person's.

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
            rows = self.database.execute(_PEOPLE + " ORDER BY created, number").fetchall()
            return [self._person(row) for row in rows]

    def find(self, person: str) -> Person:
        """The person of an id, or of a name; the first of ``find_all``.

        Raises:
            GalleryError: There is none.
        """
        return self.find_all(person)[0]

    def find_all(self, person: str) -> list[Person]:
        """The entries of an id's or a name's person.

        There are several where an older version took two forms of one name, ``Renée`` in NFC and in NFD, for
        two people; that of the id comes first. The id of an entry that was merged stands for what it became.

        Raises:
            GalleryError: There is none.
        """
        person = canonical(person).encode(errors="replace").decode()  # surrogates are in no name
        with self.reading():
            row = self.database.execute(_PEOPLE + " WHERE id = ?", (person,)).fetchone()
            first = None if row is None else self._person(row)
            same = self._ids_by_name().get(person if first is None else first.name, ())
            others = [each for each in same if first is None or each != first.id]
            rows = [self.database.execute(_PEOPLE + " WHERE id = ?", (each,)).fetchone() for each in others]
            found = [*([] if first is None else [first]), *map(self._person, rows)]
        if not found and (into := self._merged_into(person)) != person:
            return self.find_all(into)
        if not found:
            raise GalleryError(
                f"{self.path}: nobody is called {quoted(person)} here; "
                f"see facestream gallery list {self.path}"
            )
        return found

    def _merged_into(self, person_id: str) -> str:
        """Id of the person that an entry has become, whose id older events name; else the id itself."""
        details = [entry.detail for entry in self.audit.entries() if entry.action == "merged"]
        into = {str(each.get("gone")): str(each.get("person")) for each in details}
        for _ in into:  # no longer than that, whatever a damaged file says
            person_id = into.get(person_id, person_id)
        return person_id if person_id not in into else ""

    def _ids_by_name(self) -> dict[str, tuple[str, ...]]:
        """Ids by name in NFC; read again when the gallery has changed."""
        version = self.version
        if self._names is None or self._names[0] != version:
            rows = self.database.execute("SELECT id, name FROM people ORDER BY created, number").fetchall()
            ids: dict[str, tuple[str, ...]] = {}
            for person_id, sealed in rows:
                name = self._name(person_id, sealed)
                ids[name] = (*ids.get(name, ()), person_id)
            self._names = version, ids
        return self._names[1]

    def _name(self, person_id: str, sealed: bytes) -> str:
        return canonical(self.unseal("name", person_id, sealed).decode())

    def _person(self, row: tuple[Any, ...]) -> Person:
        person_id, name, notes, created, templates, photos, negatives = row
        return Person(
            id=person_id,
            name=self._name(person_id, name),
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
            rows = self.database.execute(
                _TEMPLATES.format(file=_FILE if self.has_file_names else "NULL"), (photos, person_id)
            ).fetchall()
            size = self.model.size
            return [
                Template(
                    self.vector(person_id, row[0], size),
                    row[1],
                    row[2],
                    self.unseal("origin", person_id, row[3]).decode(),
                    datetime.fromisoformat(row[4]),
                    None if row[5] is None else self.unseal("photo", person_id, row[5]),
                    "" if row[6] is None else self.unseal("file", person_id, row[6]).decode(),
                )
                for row in rows
            ]

    def count(self) -> int:
        """How many people there are."""
        with self.reading():
            return int(self.database.execute("SELECT count(*) FROM people").fetchone()[0])

    def faces_after(self, number: int) -> list[EnrolledFace]:
        """Everybody's faces that were added after one, oldest first.

        Args:
            number: Of that one; 0 for all.
        """
        with self.reading():
            size = self.model.size
            return [
                EnrolledFace(
                    row[0],
                    self._name(row[1], row[2]),
                    self.vector(row[1], row[3], size),
                    self.unseal("origin", row[1], row[4]).decode(),
                )
                for row in self.database.execute(_FACES, (number,))
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
        """Everything needed to identify, at one moment.

        Args:
            previous: An earlier snapshot of this gallery; only changes since then are read.

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
            names = (*old.names, *(self._name(row[1], row[2]) for row in people))
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
