"""The commands about single photographs, on a portrait that everybody has."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from people import gallery_of
from picture_files import encoded, picture_of
from typer.testing import CliRunner

from engine.compilation.sample_faces import load_portrait
from engine.errors import PictureError
from engine.models.catalogue import load_model
from engine.vision.face_finder import FaceFinder
from engine.vision.image_decoding import decode_picture, read_picture
from stream.app.wiring import open_finder
from stream.cli.root import app
from stream.gallery.identification.face_naming import Namer, draw_faces
from stream.gallery.records import GalleryModel, Template


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("FACESTREAM_KEY", raising=False)
    return lambda *args: CliRunner().invoke(app, ["faces", *map(str, args)])


@pytest.fixture(scope="module")
def finder():
    with open_finder() as finder:
        yield finder


@pytest.fixture(scope="module")
def photos(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eileen Collins as WebP, small as TIFF, and twice in one; nobody; and two files that are no picture."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a.webp").write_bytes(encoded(picture_of(portrait), "WebP"))
    (folder / "b.tif").write_bytes(encoded(picture_of(cv2.resize(portrait, (300, 300))), "TIFF"))
    (folder / "two.png").write_bytes(encoded(picture_of(np.hstack([portrait, portrait])), "PNG"))
    (folder / "wall.bmp").write_bytes(encoded(picture_of(np.full_like(portrait, 90)), "BMP"))
    (folder / "empty.jpg").touch()
    (folder / "film.jpg").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")
    return folder


def test_photographs_are_looked_at_one_by_one(faces, photos: Path, tmp_path: Path) -> None:
    model = GalleryModel.of(load_model("sface"), mirror=False)
    gallery_of(tmp_path / "g.db", "Stranger 1", "Stranger 2", model=model).close()
    result = faces("find", photos, "--gallery", tmp_path / "g.db", "--render", tmp_path / "drawn")
    assert result.exit_code == 3, "two could not be read"
    heading, *rows = (re.split(r" {2,}", line) for line in result.stdout.splitlines())
    assert heading == ["photo", "face", "box", "score", "quality", "who", "similarity"]
    assert [(Path(row[0]).name, row[1]) for row in rows] == [
        ("a.webp", "1"),
        ("b.tif", "1"),
        ("two.png", "1"),
        ("two.png", "2"),
        ("wall.bmp", "none"),
    ]
    assert {row[5] for row in rows[:4]} == {"unknown"}
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert errors[0].endswith("empty.jpg: it is empty (0 bytes)")
    assert "film.jpg: it is an MP4 or QuickTime video" in errors[1]
    assert "4 faces in 6 photographs; 2 could not be read" in result.stderr
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["a.png", "b.png", "two.png", "wall.png"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in drawn} == {0o600}


def test_drawings_do_not_go_among_the_photographs(faces, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    before = sorted(photos.iterdir())
    for folder in (photos, tmp_path / "link"):
        result = faces("find", photos / "a.webp", "--render", folder)
        assert result.exit_code == 2
        assert "holds the photographs" in result.stderr
    assert sorted(photos.iterdir()) == before


def test_programs_get_json(faces, photos: Path, tmp_path: Path) -> None:
    result = faces("find", photos / "a.webp", photos / "empty.jpg", "--json", "--render", tmp_path / "a.png")
    assert result.exit_code == 2, "two photographs do not go into one file"
    result = faces("find", photos / "a.webp", photos / "empty.jpg", "--json")
    good, bad = map(json.loads, result.stdout.splitlines())
    assert bad == {"photo": str(photos / "empty.jpg"), "error": "it is empty (0 bytes)"}
    assert good["size_wh"] == [512, 512]
    (face,) = good["faces"]
    assert set(face) == {"box_xyxy", "landmarks_xy", "score", "quality"}
    assert face["box_xyxy"] == pytest.approx([178, 65, 268, 176], abs=12)
    assert face["quality"] > 0.8


def test_two_photographs_are_compared(faces, photos: Path) -> None:
    result = faces("compare", photos / "a.webp", photos / "b.tif")
    assert result.exit_code == 0, result.stderr
    assert "very likely the same person (1 in 10,000 pairs of different people is as alike)" in result.stdout
    result = faces("compare", photos / "two.png", photos / "wall.bmp")
    assert result.exit_code == 1
    assert "two.png: it shows 2 faces; crop it to the right one, or choose with --pick" in result.stderr
    assert "wall.bmp: no face was found in it" in result.stderr


def test_faces_are_named_from_a_gallery(finder, portrait: np.ndarray, tmp_path: Path) -> None:
    found = finder.find(portrait)
    model = GalleryModel.of(load_model("sface"), mirror=False)
    with gallery_of(tmp_path / "g.db", "Stranger", model=model) as gallery:
        gallery.enrol("Eileen", [Template(found.embeddings[0], 0.9, "photo", "cd" * 32)])
        (naming,) = Namer(gallery.snapshot()).name(found)
        (poor,) = Namer(gallery.snapshot(), min_quality=0.99).name(found)
    assert naming.name == "Eileen"
    assert naming.similarity == pytest.approx(1, abs=1e-3)
    assert naming.margin > 0.3
    assert (poor.name, poor.is_poor) == (None, True)
    drawn = draw_faces(portrait, found, [naming])
    assert drawn.shape == portrait.shape
    assert (drawn != portrait).any()


def test_a_face_of_100_pixels_in_24_megapixels_is_found(finder, portrait: np.ndarray) -> None:
    photo = np.full((4000, 6000, 3), 120, np.uint8)
    photo[2500:3012, 4000:4512] = portrait  # the face has about 100 pixels
    found = finder.find(photo)
    assert len(found) == 1
    np.testing.assert_allclose(found.faces.boxes_xyxy[0], [4178, 2565, 4268, 2676], atol=12)
    (alone,) = finder.find(portrait).embeddings
    assert float(found.embeddings[0] @ alone) > 0.9


@pytest.mark.parametrize("kind", ["JPEG", "WebP", "AVIF", "GIF", "TIFF of LZW"])
def test_every_kind_of_picture_shows_the_same_person(finder, kind: str) -> None:
    portrait = load_portrait()
    result = finder.compare(portrait, decode_picture(encoded(picture_of(portrait), kind, orientation=1)))
    assert result.similarity > 0.9


def embeddings_of(finder: FaceFinder, folder: Path, *, most: int) -> np.ndarray:
    """The faces in the middle of a person's photographs."""
    photos = [read_picture(path) for path in sorted(folder.glob("*.jpg"))[:most]]
    return np.concatenate([finder.find_subject(photo, pick="centre").embeddings for photo in photos])


@pytest.mark.faces
def test_real_people_are_told_apart(finder, face_data: Path) -> None:
    folders = sorted(each for each in (face_data / "lfw").iterdir() if len(list(each.glob("*.jpg"))) > 1)[:8]
    faces = np.stack([embeddings_of(finder, folder, most=2) for folder in folders])
    alike = faces[:, 0] @ faces[:, 1].T
    assert (np.diag(alike) > 0.36).mean() > 0.8
    assert (alike[~np.eye(len(faces), dtype=bool)] < 0.36).all()


@pytest.mark.faces
def test_the_clear_subject_is_the_one_who_is_meant(finder, face_data: Path) -> None:
    """Of photographs that show several faces, by the person's other photographs."""
    told = 0
    folders = sorted((face_data / "lfw").iterdir(), key=lambda each: -len(list(each.glob("*.jpg"))))
    for folder in folders[:3]:
        mean = embeddings_of(finder, folder, most=6).mean(axis=0)
        for path in sorted(folder.glob("*.jpg"))[6:16]:
            photo = read_picture(path)
            found = finder.find(photo)
            with suppress(PictureError):
                subject = finder.find_subject(photo)
                if len(found) > 1:
                    told += 1
                    assert (found.embeddings @ mean).max() == pytest.approx(subject.embeddings[0] @ mean)
    assert told >= 2


def test_somebody_who_is_not_shown_is_not_found(finder, portrait: np.ndarray) -> None:
    alpha = np.full(portrait.shape[:2], 255, np.uint8)
    alpha[:, 130:300] = 0  # she is there, and no viewer shows her
    picture = picture_of(portrait)
    picture.putalpha(picture_of(np.dstack([alpha] * 3)).getchannel(0))
    assert not len(finder.find(decode_picture(encoded(picture, "PNG"))))
