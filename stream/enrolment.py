"""Take people into a gallery from photographs, from folders of them, or from tracks, and say why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.errors import GalleryError
from engine.index import TemplateIndex
from engine.open_set import accept_threshold, impostor_tail, person_scores
from engine.picture_kinds import PICTURE_SUFFIXES
from stream.events import FaceEvent
from stream.gallery import Gallery
from stream.gallery_records import Negative, Template, check_event
from stream.stills import StillReader, UnfitPhotoError, read_file

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
    """

    person: str
    what: str
    refusal: str = ""

    @property
    def is_taken(self) -> bool:
        """Whether it was taken."""
        return not self.refusal


class Enroller:
    """Takes people into a gallery, one after the other.

    A face is refused that somebody else in the gallery is so near to that a camera would take one for the
    other, that does not look like the person's other faces, or that is enrolled already.

    Args:
        gallery: Open, of the reader's model.
        reader: Of photographs; None where only tracks are enrolled.
        force: Refuse only what is enrolled already.
    """

    def __init__(
        self,
        gallery: Gallery,
        *,
        reader: StillReader | None = None,
        force: bool = False,
    ) -> None:
        self._gallery = gallery
        model = gallery.model
        self._likeness, self._tail = model.likeness, impostor_tail(model.name, model.likeness)
        self._reader = reader
        self._force = force
        self._enrolled = _Enrolled(gallery)

    def enrol_photos(self, name: str, photos: Sequence[Path], *, notes: str = "") -> list[Verdict]:
        """Enrol a person from photographs; the best ones come first.

        Args:
            name: Of the person, who is made when there is none of that name.
            photos: Picture files.
            notes: Of a new person.

        Returns:
            What became of each, in the order of ``photos``.

        Raises:
            GalleryError: The gallery cannot be written.
            ModelError: An engine failed.
            ValueError: The name does not fit, or there is no reader.
        """
        if self._reader is None:
            raise ValueError("reader: photographs need one")
        refusals: dict[Path, str] = {}
        faces: list[tuple[Path, Template]] = []
        for path in dict.fromkeys(photos):
            try:
                still = self._reader.read(read_file(path))
            except UnfitPhotoError as exc:
                refusals[path] = str(exc)
                continue
            photo = still.photo if self._gallery.keeps_photos else None
            faces.append((path, Template(still.embedding, still.quality, "photo", still.digest, photo=photo)))
        faces.sort(key=lambda face: -face[1].quality)
        taken: list[Template] = []
        for path, template in faces:
            if reason := self._refusal(name, template, taken):
                refusals[path] = reason
            else:
                taken.append(template)
        if taken:
            self._put(name, taken, notes)
        return [Verdict(name, str(path), refusals.get(path, "")) for path in photos]

    def enrol_track(self, name: str, event: FaceEvent, *, notes: str = "") -> Verdict:
        """Enrol a person from a track that was seen on camera.

        Args:
            name: Of the person, who is made when there is none of that name.
            event: The track's newest.
            notes: Of a new person.

        Raises:
            GalleryError: The gallery is of another model, or cannot be written.
            ValueError: The name does not fit.
        """
        check_event(self._gallery.path, self._gallery.model, event)
        template = Template(event.embedding, event.quality, "track", event.track_id)
        reason = self._refusal(name, template, [])
        if not reason and not self._force and event.quality < _LEAST_TRACK_QUALITY:
            reason = f"its best face is poor (worth {event.quality:.2f}, expected {_LEAST_TRACK_QUALITY})"
        if not reason:
            self._put(name, [template], notes)
        return Verdict(name, event.track_id, reason)

    def _put(self, name: str, templates: Sequence[Template], notes: str) -> None:
        self._gallery.enrol(name, templates, notes=notes)
        self._enrolled.add(name, templates)

    def _refusal(self, name: str, template: Template, taken: Sequence[Template]) -> str:
        """Why a face is not to be taken; empty where it is."""
        owner = self._enrolled.owner_of(template.origin)
        if owner is not None:
            return "it is enrolled already" + ("" if owner == name else f", as {owner}")
        if template.origin in {each.origin for each in taken}:
            return "it is the same file as another one"
        if self._force:
            return ""
        near, cosine = self._enrolled.nearest_other(template.embedding, name)
        limit = accept_threshold(
            self._tail, false_accept_rate=_FALSE_ACCEPT_RATE, people=self._enrolled.people
        )
        if near and cosine >= limit:
            return f"it is too near to {near} (similarity {cosine:.2f}, expected below {limit:.2f})"
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
    """Who is enrolled, kept up to date with what this process adds."""

    def __init__(self, gallery: Gallery) -> None:
        snapshot = gallery.snapshot()
        self._index = TemplateIndex(snapshot.model.size)
        self._index.add(np.arange(len(snapshot.owners), dtype=np.int64), snapshot.templates)
        self._names = [snapshot.names[owner] for owner in snapshot.owners.tolist()]
        self._faces: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in snapshot.names}
        for name, face in zip(self._names, snapshot.templates, strict=True):
            self._faces[name].append(face)
        self._origins = {
            template.origin: name
            for person_id, name in zip(snapshot.ids, snapshot.names, strict=True)
            for template in gallery.templates(person_id)
        }

    @property
    def people(self) -> int:
        return len(self._faces)

    def owner_of(self, origin: str) -> str | None:
        return self._origins.get(origin)

    def faces_of(self, name: str) -> list[npt.NDArray[np.float32]]:
        return self._faces.get(name, [])

    def nearest_other(self, face: npt.NDArray[np.float32], name: str) -> tuple[str, float]:
        """Who of the others is nearest, and the cosine; nobody is the empty name."""
        keys, cosines = self._index.search(face[None], 1 + len(self.faces_of(name)))
        for key, cosine in zip(keys[0].tolist(), cosines[0].tolist(), strict=True):
            if key >= 0 and self._names[key] != name:
                return self._names[key], cosine
        return "", -1.0

    def add(self, name: str, templates: Sequence[Template]) -> None:
        keys = np.arange(len(self._names), len(self._names) + len(templates), dtype=np.int64)
        self._index.add(keys, np.stack([each.embedding for each in templates]))
        self._names += [name] * len(templates)
        self._faces.setdefault(name, []).extend(each.embedding for each in templates)
        self._origins |= {each.origin: name for each in templates}


def add_negative(gallery: Gallery, person: str, event: FaceEvent) -> None:
    """Remember that a track is not a person.

    Args:
        gallery: Of the model that made the track's embedding.
        person: Id or name.
        event: The track's newest.

    Raises:
        GalleryError: There is no such person, or the gallery is of another model.
    """
    check_event(gallery.path, gallery.model, event)
    gallery.add_negative(person, Negative(event.embedding, event.track_id))


def find_folders(root: Path) -> Iterator[tuple[str, list[Path]]]:
    """People of a folder that has a folder of photographs for each, as LFW has, by name.

    Args:
        root: The folder.

    Yields:
        Name of each folder that holds picture files, and these.

    Raises:
        GalleryError: There is no such folder.
    """
    try:
        folders = sorted(each for each in root.iterdir() if each.is_dir())
    except OSError as exc:
        raise GalleryError(
            f"{root}: cannot be read ({exc.strerror}); give a folder with a folder of photographs a person"
        ) from exc
    for folder in folders:
        if pictures := pictures_of(folder):
            yield folder.name, pictures


def pictures_of(folder: Path) -> list[Path]:
    """The picture files of a folder, by name."""
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in PICTURE_SUFFIXES)
