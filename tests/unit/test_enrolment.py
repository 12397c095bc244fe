from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from event_checks import face_event
from people import MODEL, gallery_of, template, vector

from engine.alignment import ARCFACE_TEMPLATE_XY
from engine.embeddings import unit_rows
from engine.errors import GalleryError
from engine.faces import Faces
from stream.enrolment import Enroller, add_negative, find_folders
from stream.gallery import Gallery
from stream.stills import Pick, StillReader, UnfitPhotoError, read_file

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
    assert "too near to Ann" in verdict.refusal
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
        GalleryError, match=r"is of sface-2021dec \(aaaaaaaa\), and embeddings of sface-2021dec, "
    ):
        Enroller(gallery).enrol_track("Ann", mirrored)
    with pytest.raises(GalleryError, match="facestream gallery upgrade"):
        add_negative(gallery, "Ann", face_event(embedding_model="dlib-resnet-v1"))


def test_folders_are_people(tmp_path: Path) -> None:
    for name in ("Bob", "Ann", "empty"):
        (tmp_path / name).mkdir()
    for name in ("Ann/2.JPG", "Ann/1.png", "Ann/notes.txt", "Bob/1.jpeg", "stray.jpg"):
        (tmp_path / name).touch()
    found = {name: [path.name for path in paths] for name, paths in find_folders(tmp_path)}
    assert found == {"Ann": ["1.png", "2.JPG"], "Bob": ["1.jpeg"]}
    with pytest.raises(GalleryError, match="folder of photographs"):
        list(find_folders(tmp_path / "nowhere"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.stills.MAX_PHOTO_BYTES", 10)
    (tmp_path / "large.jpg").write_bytes(bytes(11))
    with pytest.raises(UnfitPhotoError, match="more than 10 bytes"):
        read_file(tmp_path / "large.jpg")


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    class Broken(Embedder):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return np.full((len(crops), 128), np.nan, np.float32)

    with pytest.raises(UnfitPhotoError, match="not finite"):
        StillReader(Detector(), Broken()).read(photo_of(1))


def test_the_people_of_an_earlier_run_are_known(gallery: Gallery, tmp_path: Path) -> None:
    gallery.enrol("Old", [template(unit_rows(embedding_of(1)), origin="x")])
    (verdict,) = Enroller(gallery, reader=reader()).enrol_photos("New", files(tmp_path, 1))
    assert "too near to Old" in verdict.refusal
