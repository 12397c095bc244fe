from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from event_checks import face_event
from people import MODEL, gallery_of, template, vector
from typer.testing import CliRunner

from engine.embeddings import unit_rows
from engine.errors import GalleryError, TextError
from engine.faces import Faces
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.vision.face_finder import Pick
from engine.vision.image_decoding import MAX_PIXELS
from stream.cli.root import app
from stream.gallery.enrolment.enroller import Enroller, Verdict, add_negative
from stream.gallery.enrolment.photos import MAX_FILE_BYTES, Still, StillReader, UnfitPhotoError, read_file
from stream.gallery.erasure import erase
from stream.gallery.model_migration import upgrade
from stream.gallery.people import Gallery

SIDE = 200


def photo_of(number: int, *, faces: Sequence[float] = (1.0,), blur: bool = False) -> bytes:
    """A picture that the stand-ins below take for a face of somebody: its number is in its first pixel."""
    image = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    if blur:
        image[:] = np.linspace(0, 255, SIDE).astype(np.uint8)[:, None, None]
    image[0, 0] = (number // 256, number % 256, len(faces))
    for place, size in enumerate(faces, 1):
        image[0, place] = round(100 * size)
    return cv2.imencode(".png", image)[1].tobytes()


def embedding_of(number: int) -> np.ndarray:
    """Numbers of one hundred are faces of one person."""
    return vector(1000 + number, near=vector(number // 100), cosine=0.8)


class Detector:
    """Finds as many faces as the picture's first pixel says, side by side, of the sizes in the next ones."""

    def detect(self, images: Sequence[np.ndarray]) -> list[Faces]:
        (image,) = images
        sizes = [float(image[0, place, 0]) / 100 for place in range(1, 1 + int(image[0, 0, 2]))]
        if not sizes:
            return [Faces.none()]
        self.image = image
        landmarks = np.stack([np.array(ARCFACE_TEMPLATE_XY) * size for size in sizes]).astype(np.float32)
        lefts = np.arange(len(sizes)) * 60.0
        boxes = np.array(
            [[x, 0, x + 100 * s, 100 * s] for x, s in zip(lefts, sizes, strict=True)], np.float32
        )
        return [Faces(boxes, np.full(len(sizes), 0.9, np.float32), landmarks)]


class Embedder:
    """Embeds a picture as its number says."""

    def align(self, image: np.ndarray, landmarks_xy: np.ndarray) -> np.ndarray:
        self.number = int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])
        return np.repeat(image[None, :112, :112], len(landmarks_xy), axis=0)

    def portraits(self, crops: np.ndarray) -> np.ndarray:
        return crops

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.repeat(embedding_of(self.number)[None], len(crops), axis=0)


def reader(*, pick: Pick | None = None, force: bool = False) -> StillReader:
    return StillReader(Detector(), Embedder(), pick=pick, force=force)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    with gallery_of(tmp_path / "g.db", keep_photos=True) as opened:
        yield opened


def files(folder: Path, *numbers: int, **changes: object) -> list[Path]:
    paths = []
    for number in numbers:
        path = folder / f"{number}.png"
        path.write_bytes(photo_of(number, **changes))  # type: ignore[arg-type]
        paths.append(path)
    return paths


def test_photographs_are_enrolled_and_kept_with_what_they_are_worth(gallery: Gallery, tmp_path: Path) -> None:
    paths = files(tmp_path, 1, 2, 3)
    verdicts = Enroller(gallery, reader=reader()).enrol_photos("Ann", paths, notes="from the door")
    assert [(verdict.what, verdict.is_taken) for verdict in verdicts] == [(str(path), True) for path in paths]
    ann = gallery.find("Ann")
    assert (ann.templates, ann.photos, ann.notes) == (3, 3, "from the door")
    first = gallery.templates(ann.id, photos=True)[0]
    assert 0.5 < first.quality <= 1
    assert first.photo in {path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"faces": ()}, "no face"),
        ({"faces": (1.0, 0.7, 0.2)}, "shows 2 faces"),
        ({"faces": (0.15,)}, "too small"),
        ({"blur": True}, "blurred"),
    ],
)
def test_a_photograph_that_will_not_do_is_refused_with_the_reason(
    gallery: Gallery, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    paths = files(tmp_path, 1, **changes)
    (verdict,) = Enroller(gallery, reader=reader()).enrol_photos("Ann", paths)
    assert reason in verdict.refusal
    assert gallery.people() == []
    forced = Enroller(gallery, reader=reader(force=True), force=True).enrol_photos("Ann", paths)
    assert forced[0].is_taken == (reason != "no face")


def test_of_several_faces_one_can_be_picked() -> None:
    photo = photo_of(1, faces=(0.9, 1.0))
    for pick in ("largest", "centre"):
        assert reader(pick=pick).read(photo).quality > 0
    with pytest.raises(UnfitPhotoError, match="--pick"):
        reader().read(photo)


def test_a_face_too_near_to_somebody_else_is_refused_by_name(gallery: Gallery, tmp_path: Path) -> None:
    enroller = Enroller(gallery, reader=reader())
    enroller.enrol_photos("Ann", files(tmp_path, 1, 2))
    (verdict,) = enroller.enrol_photos("Bob", files(tmp_path, 3))
    assert "too similar to Ann" in verdict.refusal
    assert [each.name for each in gallery.people()] == ["Ann"]
    again = Enroller(gallery, reader=reader(), force=True).enrol_photos("Bob", files(tmp_path, 3))
    assert again[0].is_taken


def test_a_face_unlike_the_persons_others_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    enroller = Enroller(gallery, reader=reader())
    verdicts = enroller.enrol_photos("Ann", files(tmp_path, 1, 2, 3))
    (verdict,) = enroller.enrol_photos("Ann", files(tmp_path, 201))
    assert all(each.is_taken for each in verdicts)
    assert "does not look like the other faces of Ann" in verdict.refusal


def test_a_photograph_is_enrolled_once_whatever_its_name(gallery: Gallery, tmp_path: Path) -> None:
    enroller = Enroller(gallery, reader=reader())
    (path,) = files(tmp_path, 1)
    copy = tmp_path / "copy.png"
    copy.write_bytes(path.read_bytes())
    assert [v.refusal for v in enroller.enrol_photos("Ann", [path, copy])] == [
        "",
        "it is the same file as another one",
    ]
    assert enroller.enrol_photos("Ann", [copy])[0].refusal == "it is enrolled already"
    fresh = Enroller(gallery, reader=reader(force=True), force=True)
    assert fresh.enrol_photos("Bob", [path])[0].refusal == "it is enrolled already, as Ann"


def test_a_damaged_or_missing_file_does_not_stop_the_others(gallery: Gallery, tmp_path: Path) -> None:
    (good,) = files(tmp_path, 1)
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    paths = [tmp_path / "bad.png", good, tmp_path / "text.jpg", tmp_path / "none.jpg"]
    verdicts = Enroller(gallery, reader=reader()).enrol_photos("Ann", paths)
    assert [bool(verdict.refusal) for verdict in verdicts] == [True, False, True, True]
    assert "cut off" in verdicts[0].refusal
    assert verdicts[2].refusal.startswith("it is text, expected a picture")
    assert "cannot be read" in verdicts[3].refusal


def test_a_track_can_be_enrolled_and_known_not_to_be_somebody(gallery: Gallery) -> None:
    event = face_event(embedding=vector(6), embedding_model=MODEL.name, track_id="t1")
    assert Enroller(gallery).enrol_track("Ann", event).is_taken
    (enrolled,) = gallery.templates(gallery.find("Ann").id)
    assert (enrolled.source, enrolled.origin) == ("track", "t1")
    np.testing.assert_array_equal(enrolled.embedding, vector(6))
    assert Enroller(gallery).enrol_track("Bob", event).refusal == "it is enrolled already, as Ann"
    other = face_event(embedding=vector(7), embedding_model=MODEL.name, track_id="t2")
    add_negative(gallery, "Ann", other)
    assert gallery.find("Ann").negatives == 1


def test_a_poor_track_or_one_of_another_model_is_refused(gallery: Gallery) -> None:
    poor = face_event(embedding_model=MODEL.name, quality=0.1)
    assert "its best face is poor" in Enroller(gallery).enrol_track("Ann", poor).refusal
    assert Enroller(gallery, force=True).enrol_track("Ann", poor).is_taken
    with pytest.raises(GalleryError, match="facestream gallery upgrade"):
        Enroller(gallery).enrol_track("Ann", face_event(embedding_model="dlib-resnet-v1"))
    mirrored = face_event(embedding_model=MODEL.name, embedding_model_id="a" * 16, embedding_mirrored=True)
    with pytest.raises(
        GalleryError,
        match=r"holds embeddings of sface-2021dec \(aaaaaaaa\), not compatible with those of sface-2021dec, ",
    ):
        Enroller(gallery).enrol_track("Ann", mirrored)
    with pytest.raises(GalleryError, match="facestream gallery upgrade"):
        add_negative(gallery, "Ann", face_event(embedding_model="dlib-resnet-v1"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.gallery.enrolment.photos.MAX_FILE_BYTES", 1_000)
    (tmp_path / "large.jpg").write_bytes(bytes(1_001))
    with pytest.raises(UnfitPhotoError, match=r"more than 1,000 bytes; save it as JPEG"):
        read_file(tmp_path / "large.jpg")
    assert MAX_FILE_BYTES > 3 * MAX_PIXELS, "what is not too large is not refused for its file"


def test_only_a_gallery_that_keeps_photographs_minds_how_large_they_are(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.gallery.enrolment.enroller.MAX_PHOTO_BYTES", 10)
    paths = files(tmp_path, 1)
    (verdict,) = Enroller(gallery, reader=reader()).enrol_photos("Ann", paths)
    assert re.search(r"it has [\d,]+ bytes, and the gallery keeps .* at most 10; save", verdict.refusal)
    with gallery_of(tmp_path / "h.db") as other:
        assert Enroller(other, reader=reader()).enrol_photos("Ann", paths)[0].is_taken


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    class Broken(Embedder):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return np.full((len(crops), 128), np.nan, np.float32)

    with pytest.raises(UnfitPhotoError, match="not finite"):
        StillReader(Detector(), Broken()).read(photo_of(1))


def test_the_people_of_an_earlier_run_are_known(gallery: Gallery, tmp_path: Path) -> None:
    gallery.enrol("Old", [template(unit_rows(embedding_of(1)), origin="x")])
    (verdict,) = Enroller(gallery, reader=reader()).enrol_photos("New", files(tmp_path, 1))
    assert "too similar to Old" in verdict.refusal


def test_what_another_process_enrolled_meanwhile_is_known(gallery: Gallery, tmp_path: Path) -> None:
    one, two = files(tmp_path, 1), files(tmp_path, 2)
    with Gallery.open(gallery.path, sealer=None) as other:
        here, there = Enroller(gallery, reader=reader()), Enroller(other, reader=reader())
        assert here.enrol_photos("Ann", one)[0].is_taken
        assert "too similar to Ann" in there.enrol_photos("Bob", two)[0].refusal
        assert there.enrol_photos("Bob", one)[0].refusal == "it is enrolled already, as Ann"
        gallery.rename("Ann", "Anna")
        assert "too similar to Anna" in there.enrol_photos("Bob", two)[0].refusal
        erase(gallery, "Anna")
        assert there.enrol_photos("Bob", two)[0].is_taken
        event = face_event(embedding=embedding_of(3), embedding_model=MODEL.name, track_id="t")
        assert "too similar to Bob" in here.enrol_track("Ann", event).refusal
    assert [each.name for each in gallery.people()] == ["Bob"]


def test_of_several_who_enrol_one_person_at_once_one_is_taken(gallery: Gallery, tmp_path: Path) -> None:
    people = range(4)
    meeting = threading.Barrier(3)

    class Meeting(StillReader):
        def read(self, photo: bytes) -> Still:
            still = super().read(photo)
            meeting.wait(60)  # everybody has read, and nobody has decided
            return still

    def enrol(number: int) -> list[Verdict]:
        with Gallery.open(gallery.path, sealer=None) as own:
            enroller = Enroller(own, reader=Meeting(Detector(), Embedder()))
            return [
                verdict
                for person in people
                for verdict in enroller.enrol_photos(
                    f"{person} of {number}", files(tmp_path / str(number), 100 * person + number)
                )
            ]

    for number in range(3):
        (tmp_path / str(number)).mkdir()
    with ThreadPoolExecutor(3) as pool:
        verdicts = [verdict for each in pool.map(enrol, range(3)) for verdict in each]
    assert sorted(each.person.partition(" ")[0] for each in verdicts if each.is_taken) == list("0123")
    assert all("too similar to" in each.refusal for each in verdicts if not each.is_taken)
    assert len(gallery.people()) == len(people)


def test_a_gallery_that_is_moved_to_another_model_meanwhile_takes_nothing(
    gallery: Gallery, tmp_path: Path
) -> None:
    enroller = Enroller(gallery, reader=reader())
    upgrade(gallery, dataclasses.replace(MODEL, name="other", sha256="c" * 64), embed=lambda _: None)
    with pytest.raises(GalleryError, match="was moved to other"):
        enroller.enrol_photos("Ann", files(tmp_path, 1))
    assert gallery.people() == []


def test_names_come_in_one_form_and_files_keep_theirs(gallery: Gallery, tmp_path: Path) -> None:
    enroller = Enroller(gallery, reader=reader())
    (path,) = files(tmp_path, 1)
    strange = path.rename(tmp_path / os.fsdecode(b"Ren\xe9e\n1.png"))
    (verdict,) = enroller.enrol_photos("Rene\u0301e", [strange])
    assert (verdict.person, verdict.is_taken) == ("Ren\u00e9e", True)
    assert [each.file for each in gallery.templates(gallery.find("Ren\u00e9e").id)] == ["Ren?e?1.png"]
    assert enroller.look_alikes == {}
    enroller.enrol_photos("REN\u00c9E", files(tmp_path, 201))
    assert enroller.look_alikes == {"REN\u00c9E": "Ren\u00e9e"}
    with pytest.raises(TextError, match="cannot be seen"):
        enroller.enrol_photos("A\u200bnn", files(tmp_path, 301))


@pytest.mark.parametrize("end", [KeyboardInterrupt(), GalleryError("g.db: no room")], ids=["Ctrl-C", "error"])
def test_what_was_enrolled_before_an_end_stays_and_is_told(
    end: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending(StillReader):
        def read(self, photo: bytes) -> Still:
            if photo == b"end":
                raise end
            return super().read(photo)

    gallery_of(tmp_path / "g.db").close()
    people = tmp_path / "people"
    for number, name in enumerate(("Ann", "Bob", "Cid", "Dan"), 1):
        (people / name).mkdir(parents=True)
        (people / name / "1.png").write_bytes(
            {"Bob": b"no photograph", "Cid": b"end"}.get(name, photo_of(number))
        )
    monkeypatch.delenv("FACESTREAM_KEY", raising=False)
    monkeypatch.setattr(
        "stream.app.wiring.open_stills", lambda *_, **__: nullcontext(Ending(Detector(), Embedder()))
    )
    done = CliRunner().invoke(app, ["gallery", "enrol", str(tmp_path / "g.db"), "--folders", str(people)])
    assert done.exit_code == (130 if isinstance(end, KeyboardInterrupt) else 1)
    assert "stopped after 2 of 4 people; what is enrolled stays" in done.stderr
    assert "refused: " + str(people / "Bob" / "1.png") in done.stderr
    assert "enrolled: 1 face of 1 person; refused: 1; left out: 1 (Bob)" in done.stdout
    with Gallery.open(tmp_path / "g.db", sealer=None) as opened:
        assert [each.name for each in opened.people()] == ["Ann"]
