"""Export and import a gallery as one JSON Lines file.

The first line tells the gallery and the number of people; then comes a line for each person. Where there is a
key each person's line is sealed, bound to its place and to the number of lines, so that none can be read,
changed, left out or moved. Readers trust nothing: sizes are limited and everything is checked before the
gallery is touched.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import GalleryError
from engine.models.package import Likeness
from stream.common.encryption import KEY_VARIABLE, Sealer
from stream.common.names import MAX_NAME, clean_name
from stream.common.printable import printable
from stream.events.parsing import load_object
from stream.gallery.people import Gallery
from stream.gallery.records import (
    MAX_FILE,
    MAX_NOTES,
    MAX_PHOTO_BYTES,
    GalleryModel,
    Negative,
    Template,
)
from stream.gallery.tables import right_sealer

FORMAT: Final = "facestream-gallery/1"
MAX_PEOPLE: Final = 10_000_000
MAX_TEMPLATES: Final = 1000
"""Of one person."""
MAX_LINE_BYTES: Final = 256_000_000

_MAX_HEADER_BYTES: Final = 10_000


def export_gallery(gallery: Gallery, path: Path, *, sealer: Sealer | None, plain: bool = False) -> int:
    """Write everybody into a file that is for its owner alone.

    Args:
        gallery: Open.
        path: Of the file; one that is there is not overwritten.
        sealer: Seals the file.
        plain: Write a file that anybody can read.

    Returns:
        How many people.

    Raises:
        GalleryError: There is neither a key nor ``plain``, or the file cannot be written.
    """
    if sealer is None and not plain:
        raise GalleryError(
            f"{path}: without a key anybody could read it; set {KEY_VARIABLE}, or give --plain"
        )
    sealer = None if plain else sealer
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists():
            raise GalleryError(f"{path}: exists already; choose another name, or delete it first")
        file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as out, gallery.reading():  # noqa: PTH123 - an open descriptor has no path
            count = _write(gallery, out, sealer)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(path)
    except OSError as exc:
        raise GalleryError(f"{path}: cannot be written ({exc.strerror}); choose another place") from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    gallery.audit.record("exported", path=str(path.resolve()), people=count, sealed=sealer is not None)
    return count


def _write(gallery: Gallery, out: IO[bytes], sealer: Sealer | None) -> int:
    people, model = gallery.people(), gallery.model
    salt = secrets.token_bytes(16)
    header = {
        "format": FORMAT,
        "gallery": gallery.id,
        "people": len(people),
        "model": asdict(model),
        "key": "" if sealer is None else sealer.fingerprint,
        "salt": base64.b64encode(salt).decode(),
    }
    out.write(_line(header))
    own = None if sealer is None else sealer.for_file(salt)
    for number, person in enumerate(people):
        tree = {
            "id": person.id,
            "name": person.name,
            "notes": person.notes,
            "created": person.created.isoformat(),
            "templates": [_template(each) for each in gallery.templates(person.id, photos=True)],
            "negatives": [_negative(each) for each in gallery.negatives(person.id)],
        }
        line = _line(tree)
        if own is not None:
            sealed = own.seal(line, context=_place(number, len(people)))
            line = base64.b64encode(sealed) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise GalleryError(
                f"{person.id}: has more than {MAX_LINE_BYTES} bytes of photographs, "
                "which no export can hold; remove some"
            )
        out.write(line)
    return len(people)


def _line(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _place(number: int, people: int) -> bytes:
    return f"export {number} of {people}".encode()


def _template(template: Template) -> dict[str, Any]:
    file = {"file": template.file} if template.file else {}
    return {
        "embedding": base64.b64encode(template.embedding.astype("<f4").tobytes()).decode(),
        "quality": template.quality,
        "source": template.source,
        "origin": template.origin,
        "added": None if template.added is None else template.added.isoformat(),
        "photo": None if template.photo is None else base64.b64encode(template.photo).decode(),
        **file,
    }


def _negative(negative: Negative) -> dict[str, Any]:
    return {
        "embedding": base64.b64encode(negative.embedding.astype("<f4").tobytes()).decode(),
        "origin": negative.origin,
        "added": None if negative.added is None else negative.added.isoformat(),
    }


# Reading.


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Likeness(_Strict):
    factor: Annotated[float, Field(gt=0)]
    shift: float


class _Model(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    mirror: bool
    size: Annotated[int, Field(ge=1, le=8192)]
    likeness: _Likeness

    def record(self) -> GalleryModel:
        likeness = Likeness(self.likeness.factor, self.likeness.shift)
        return GalleryModel(self.name, self.sha256, self.mirror, self.size, likeness)


class _Header(_Strict):
    format: Literal["facestream-gallery/1"]
    gallery: Annotated[str, Field(min_length=1, max_length=64)]
    people: Annotated[int, Field(ge=0, le=MAX_PEOPLE)]
    model: _Model
    key: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")]
    salt: Annotated[str, Field(max_length=100)]


class _Negative(_Strict):
    embedding: Annotated[str, Field(max_length=50_000)]
    origin: Annotated[str, Field(min_length=1, max_length=1000)]
    added: Annotated[str, Field(max_length=40)] | None

    def record(self) -> Negative:
        return Negative(_vector(self.embedding), self.origin, _time(self.added))


class _Template(_Negative):
    quality: Annotated[float, Field(ge=0, le=1)]
    source: Literal["photo", "track"]
    photo: Annotated[str, Field(max_length=2 * MAX_PHOTO_BYTES)] | None
    file: Annotated[str, Field(max_length=MAX_FILE)] = ""

    def template(self) -> Template:
        photo = None if self.photo is None else base64.b64decode(self.photo, validate=True)
        vector = _vector(self.embedding)
        return Template(vector, self.quality, self.source, self.origin, _time(self.added), photo, self.file)


class _Person(_Strict):
    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,64}$")]
    name: Annotated[str, Field(max_length=4 * MAX_NAME)]
    notes: Annotated[str, Field(max_length=MAX_NOTES)]
    created: Annotated[str, Field(max_length=40)]
    templates: Annotated[list[_Template], Field(max_length=MAX_TEMPLATES)]
    negatives: Annotated[list[_Negative], Field(max_length=MAX_TEMPLATES)]


def read_model(path: Path) -> GalleryModel:
    """The model of an exported gallery.

    Raises:
        GalleryError: The file cannot be read, or is no export.
    """
    with _reading(path) as file:
        return _header(path, file).model.record()


def import_gallery(gallery: Gallery, path: Path, *, sealer: Sealer | None) -> tuple[int, int]:
    """Take in everybody of an exported file, or nobody when something is wrong with it.

    People are known by their ids. Of those who are here already, what is missing is added.

    Args:
        gallery: Of the same model.
        path: Of the file.
        sealer: Of the key that it was encrypted with.

    Returns:
        People who are new, and templates and negatives that are new.

    Raises:
        GalleryError: The file cannot be read, is damaged, is of another model or wants another key, or
            somebody in it has the name of somebody else here. Two forms of one name in it, as older versions
            took for two people, become one person.
    """
    with _reading(path) as file, gallery.writing():
        header = _header(path, file)
        gallery.check_model(header.model.record())
        right = right_sealer(path, header.key, sealer)
        names = {each.name for each in gallery.people()}
        forms: dict[str, tuple[str, str]] = {}
        people = rows = 0
        for number, person in enumerate(_people(path, file, header, right)):
            try:
                is_new, added = _merge(gallery, person, names, forms)
            except (ValueError, binascii.Error) as exc:
                raise _refusal(path, f"line {number + 2}: {exc}") from exc
            people, rows = people + is_new, rows + added
        gallery.audit.record("imported", path=str(path.resolve()), people=people, rows=rows)
    return people, rows


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as exc:
        raise GalleryError(f"{path}: cannot be read ({exc.strerror}); check the path") from exc


def _refusal(path: Path, reason: str) -> GalleryError:
    one_line = " ".join(reason.split())
    shown = printable(one_line)[:300]
    return GalleryError(f"{path}: not imported, nothing was changed: {shown}; export the gallery again")


def _header(path: Path, file: IO[bytes]) -> _Header:
    raw = file.readline(_MAX_HEADER_BYTES)
    try:
        return _Header.model_validate(load_object(raw))
    except ValidationError as exc:
        raise _refusal(path, f"line 1: {_complaint(exc)}") from exc
    except ValueError as exc:
        raise _refusal(path, "line 1: not an export of a gallery") from exc


def _people(path: Path, file: IO[bytes], header: _Header, sealer: Sealer | None) -> Iterator[_Person]:
    own = None
    try:
        if sealer is not None:
            own = sealer.for_file(base64.b64decode(header.salt, validate=True))
        for number in range(header.people):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line.endswith(b"\n") or len(line) > MAX_LINE_BYTES:
                raise _refusal(path, f"line {number + 2} is cut off or too long")
            if own is not None:
                sealed = base64.b64decode(line.strip(), validate=True)
                line = own.open(sealed, context=_place(number, header.people))
            yield _Person.model_validate_json(line)
    except ValidationError as exc:
        raise _refusal(path, f"line {number + 2}: {_complaint(exc)}") from exc
    except (ValueError, RecursionError) as exc:
        raise _refusal(path, f"a line of it: {exc}") from exc
    if file.read(1):
        raise _refusal(path, f"it continues after its {header.people} people")


def _complaint(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in item["loc"]) or "the whole line"
    return f"{place}: {item['msg']}"


def _merge(
    gallery: Gallery, person: _Person, names: set[str], forms: dict[str, tuple[str, str]]
) -> tuple[bool, int]:
    """Add a person, or what is missing of one, within a transaction.

    Args:
        gallery: To add to.
        person: As the file has it.
        names: Of everybody in the gallery, kept up to date.
        forms: By name, id and spelling of the first whom the file calls so, kept up to date.
    """
    name, person_id = clean_name(person.name), person.id
    is_new = gallery.database.execute("SELECT 1 FROM people WHERE id = ?", (person_id,)).fetchone() is None
    if is_new and forms.get(name, ("", person.name))[1] != person.name:
        is_new, person_id = False, forms[name][0]
    elif is_new and name in names:
        raise ValueError(f"another person here is called {name!r}; rename one: facestream gallery rename")
    if is_new:
        gallery.put_person(person_id, name, person.notes, _time(person.created))
    names.add(name)
    forms.setdefault(name, (person_id, person.name))
    here_already = {each.embedding.tobytes() for each in gallery.templates(person_id)}
    not_here = {each.embedding.tobytes() for each in gallery.negatives(person_id)}
    added = 0
    for template in (each.template() for each in person.templates):
        if template.embedding.tobytes() not in here_already:
            gallery.put_template(person_id, template)
            added += 1
    for negative in (each.record() for each in person.negatives):
        if negative.embedding.tobytes() not in not_here:
            gallery.put_negative(person_id, negative)
            added += 1
    return is_new, added


def _vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    raw = base64.b64decode(text, validate=True)
    if len(raw) % 4:
        raise ValueError(f"embedding: expected float32 values, got {len(raw)} bytes")
    return np.frombuffer(raw, "<f4").astype(np.float32)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"time: expected one with a time zone, got {text}")
    return at
