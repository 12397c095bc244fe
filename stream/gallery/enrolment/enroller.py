"""Enrol people in a gallery from photographs, folders or tracks, and give reasons for refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import GalleryError
from engine.search.index import TemplateIndex
from engine.search.open_set_threshold import accept_threshold, impostor_tail, person_scores
from stream.common.names import clean_name, fitting_name, look_alike
from stream.events.event_types import FaceEvent
from stream.gallery.enrolment.photos import StillReader, UnfitPhotoError, read_file
from stream.gallery.people import Gallery
from stream.gallery.records import MAX_FILE, MAX_PHOTO_BYTES, Negative, Template, check_event

_SAME_PERSON: Final = 0.3
"""Score on SFace's scale below which a face is hardly that person's. Of LFW's photographs 0.3 to 1.3 per cent
score less with the others of their person, and 0.3 to 0.8 per cent of other people's score more."""
_LEAST_TRACK_QUALITY: Final = 0.3
_FALSE_ACCEPT_RATE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a photograph or a track.

    Attributes:
        person: Name of the person that it was meant for.
        what: Path of the photograph, or the track's id.
        refusal: Why it was not taken; empty where it was.
        is_known: Whether it was not taken because it is enrolled already, as this person.
    """

    person: str
    what: str
    refusal: str = ""
    is_known: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether it was taken."""
        return not self.refusal


class Enroller:
    """Takes people into a gallery, one after the other.

    A face is refused that somebody else in the gallery is so near to that a camera would take one for the
    other, that does not look like the person's other faces, or that is enrolled already. Several processes
    may enrol at once: each decides and writes while no other writes, on all that the others have written.

    Args:
        gallery: Open, of the reader's model.
        reader: Of photographs; None where only tracks are enrolled.
        force: Refuse only what is enrolled already.

    Attributes:
        look_alikes: For each new person's name that a reader would take for another one here, that name.
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        reader: StillReader | None = None,
        force: bool = False,
    ) -> None:
        self._gallery = gallery
        self._model = model = gallery.model
        self._likeness, self._tail = model.likeness, impostor_tail(model.name, model.likeness)
        self._reader = reader
        self._force = force
        self._enrolled = _Enrolled(gallery)
        self.look_alikes: dict[str, str] = {}

    def enrol_photos(
        self,
        name: str,
        photos: Sequence[Path],
        *,
        notes: str = "",
        on_photo: Callable[[], None] = lambda: None,
    ) -> list[Verdict]:
        """Enrol a person from photographs; the best ones come first.

        Args:
            name: Of the person, who is made when there is none of that name.
            photos: Picture files.
            notes: Of a new person.
            on_photo: Called after each photograph that was read.

        Returns:
            What became of each, in the order of ``photos``.

        Raises:
            GalleryError: The gallery cannot be written, or is of another model now.
            ModelError: An engine failed.
            TextError: The name does not fit.
            ValueError: There is no reader.
        """
        if self._reader is None:
            raise ValueError("reader: photographs need one")
        name = clean_name(name)
        refusals: dict[Path, Verdict] = {}
        faces: list[tuple[Path, Template]] = []
        for path in dict.fromkeys(photos):
            try:
                faces.append((path, self._read(self._reader, path)))
            except UnfitPhotoError as exc:
                refusals[path] = Verdict(name, str(path), str(exc))
            on_photo()
        faces.sort(key=lambda face: -face[1].quality)
        with self._deciding():
            taken: list[Template] = []
            for path, template in faces:
                if (verdict := self._verdict(name, str(path), template, taken)).is_taken:
                    taken.append(template)
                else:
                    refusals[path] = verdict
            if taken:
                self._put(name, taken, notes)
        return [refusals.get(path, Verdict(name, str(path))) for path in photos]

    def _read(self, reader: StillReader, path: Path) -> Template:
        photo = read_file(path)
        if self._gallery.keeps_photos and len(photo) > MAX_PHOTO_BYTES:
            raise UnfitPhotoError(
                f"it has {len(photo):,} bytes, and the gallery keeps photographs of at most "
                f"{MAX_PHOTO_BYTES:,}; save it as JPEG"
            )
        still = reader.read(photo)
        return Template(
            still.embedding,
            still.quality,
            "photo",
            still.digest,
            photo=still.photo if self._gallery.keeps_photos else None,
            file=fitting_name(path.name, longest=MAX_FILE),
        )

    def enrol_track(self, name: str, event: FaceEvent, *, notes: str = "") -> Verdict:
        """Enrol a person from a track that was seen on camera.

        Args:
            name: Of the person, who is made when there is none of that name.
            event: The track's newest.
            notes: Of a new person.

        Raises:
            GalleryError: The gallery is of another model, or cannot be written.
            TextError: The name does not fit.
        """
        name = clean_name(name)
        check_event(self._gallery.path, self._model, event)
        template = Template(event.embedding, event.quality, "track", event.track_id)
        with self._deciding():
            verdict = self._verdict(name, event.track_id, template, [])
            if verdict.is_taken and not self._force and event.quality < _LEAST_TRACK_QUALITY:
                poor = (
                    f"its best face is poor (quality {event.quality:.2f}, minimum {_LEAST_TRACK_QUALITY:.2f})"
                )
                return Verdict(name, event.track_id, poor)
            if verdict.is_taken:
                self._put(name, [template], notes)
        return verdict

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Nobody else writes meanwhile, and what they wrote before is known.

        Raises:
            GalleryError: The gallery has been moved to another model.
        """
        self._enrolled.update()  # most of it before others have to wait
        with self._gallery.exclusive():
            if (model := self._gallery.model) != self._model:
                raise GalleryError(
                    f"{self._gallery.path}: was moved to {model} meanwhile; run this again with that model"
                )
            self._enrolled.update()
            yield

    def _put(self, name: str, templates: Sequence[Template], notes: str) -> None:
        if (other := self._enrolled.looks_like(name)) is not None:
            self.look_alikes[name] = other
        self._gallery.enrol(name, templates, notes=notes)

    def _verdict(self, name: str, what: str, template: Template, taken: Sequence[Template]) -> Verdict:
        """Whether a face is to be taken."""
        owner = self._enrolled.owner_of(template.origin)
        if owner is not None:
            reason = "it is enrolled already" + ("" if owner == name else f", as {owner}")
            return Verdict(name, what, reason, is_known=owner == name)
        if template.origin in {each.origin for each in taken}:
            return Verdict(name, what, "it is the same file as another one")
        return Verdict(name, what, "" if self._force else self._unlikeness(name, template, taken))

    def _unlikeness(self, name: str, template: Template, taken: Sequence[Template]) -> str:
        """Why a face is hardly a person's; empty where it may well be."""
        near, cosine = self._enrolled.nearest_other(template.embedding, name)
        limit = accept_threshold(
            self._tail, false_accept_rate=_FALSE_ACCEPT_RATE, people=self._enrolled.people
        )
        if near and cosine >= limit:
            return f"it is too similar to {near} (similarity {cosine:.2f}, expected below {limit:.2f})"
        own = [*self._enrolled.faces_of(name), *(each.embedding for each in taken)]
        if own:
            cosines = (np.stack(own) @ template.embedding)[None]
            score = person_scores(cosines, np.zeros(len(own), np.intp), 1)[0, 0]
            likeness = self._likeness(float(score))
            if likeness < _SAME_PERSON:
                return (
                    f"it does not look like the other faces of {name} "
                    f"(similarity {likeness:.2f}, expected {_SAME_PERSON} or more)"
                )
        return ""


class _Enrolled:
    """Who is enrolled, as of the last ``update``."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._seen = (-1, -1)
        self._forget()

    def _forget(self) -> None:
        self._index = TemplateIndex(self._gallery.model.size)
        self._last = 0
        self._names: list[str] = []
        self._faces: dict[str, list[npt.NDArray[np.float32]]] = {}
        self._origins: dict[str, str] = {}
        self._alike: dict[str, str] = {}

    def update(self) -> None:
        """Read what this process or another one has written since."""
        changes = self._gallery.changes
        if changes == self._seen:
            return
        if changes[1] != self._seen[1]:  # something was removed
            self._forget()
        new = self._gallery.faces_after(self._last)
        if new:
            keys = np.arange(len(self._names), len(self._names) + len(new), dtype=np.int64)
            self._index.add(keys, np.stack([face.embedding for face in new]))
            self._last = new[-1].number
        for face in new:
            self._names.append(face.name)
            self._faces.setdefault(face.name, []).append(face.embedding)
            self._origins[face.origin] = face.name
            self._alike.setdefault(look_alike(face.name), face.name)
        self.people = self._gallery.count()
        self._seen = changes

    def owner_of(self, origin: str) -> str | None:
        return self._origins.get(origin)

    def looks_like(self, name: str) -> str | None:
        """Somebody else's name that looks the same as a new one."""
        return None if name in self._faces else self._alike.get(look_alike(name))

    def faces_of(self, name: str) -> list[npt.NDArray[np.float32]]:
        return self._faces.get(name, [])

    def nearest_other(self, face: npt.NDArray[np.float32], name: str) -> tuple[str, float]:
        """Who of the others is nearest, and the cosine; nobody is the empty name."""
        keys, cosines = self._index.search(face[None], 1 + len(self.faces_of(name)))
        for key, cosine in zip(keys[0].tolist(), cosines[0].tolist(), strict=True):
            if key >= 0 and self._names[key] != name:
                return self._names[key], cosine
        return "", -1.0


def add_negative(gallery: Gallery, person: str, event: FaceEvent) -> None:
    """Remember that a track is not a person.

    Args:
        gallery: Of the model that made the track's embedding.
        person: Id or name.
        event: The track's newest.

    Raises:
        GalleryError: There is no such person, or the gallery is of another model.
    """
    with gallery.exclusive():
        check_event(gallery.path, gallery.model, event)
        gallery.add_negative(person, Negative(event.embedding, event.track_id))
