from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.compilation import sample_faces
from engine.compilation.sample_faces import PORTRAIT_VIEWS, faces_sha256, portrait_views, sample_images
from engine.errors import ModelError


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 6, 3), value, np.uint8))


def test_views_are_the_same_at_each_call_and_differ_from_each_other() -> None:
    portrait = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    views = portrait_views(portrait)
    assert len(views) == PORTRAIT_VIEWS
    assert {view.shape for view in views} == {(384, 384, 3)}
    assert {view.dtype for view in views} == {np.dtype(np.uint8)}
    assert all((one == other).all() for one, other in zip(views, portrait_views(portrait), strict=True))
    assert len({view.tobytes() for view in views}) == PORTRAIT_VIEWS


def test_without_a_folder_it_is_the_portrait() -> None:
    assert len(sample_images(most=3)) == 3


def test_images_of_a_folder_and_its_sub_folders(tmp_path: Path) -> None:
    write(tmp_path / "b.png", 20)
    write(tmp_path / "a" / "x.PNG", 10)
    write(tmp_path / "c.jpg", 30)
    (tmp_path / "notes.txt").write_text("no image")
    images = sample_images(tmp_path)
    assert [int(np.median(image)) for image in images] == [10, 20, 30]
    assert images[0].shape == (8, 6, 3)


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "good.png", 7)
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:30])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing")
    (image,) = sample_images(tmp_path)
    assert (image == 7).all()
    assert capfd.readouterr().err == "", "no library says anything of it"


def test_grey_and_transparent_images_have_three_channels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((4, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "transparent.png"), np.full((4, 4, 4), 90, np.uint8))
    assert [image.shape for image in sample_images(tmp_path)] == [(4, 4, 3), (4, 4, 3)]


def test_many_are_picked_evenly(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.png", number)
    assert [int(image[0, 0, 0]) for image in sample_images(tmp_path, most=4)] == [0, 3, 6, 9]


def test_folders_are_told_apart_by_the_pictures_that_are_taken(tmp_path: Path) -> None:
    for folder, values in {"one": (1, 2, 3, 4), "same": (1, 2, 3, 4), "other": (1, 2, 3, 5)}.items():
        for number, value in enumerate(values):
            write(tmp_path / folder / f"{number}.png", value)
    (tmp_path / "same" / "0.png").rename(tmp_path / "same" / "00.png")
    (tmp_path / "same" / "lost.png").symlink_to(tmp_path / "nothing")
    assert faces_sha256(tmp_path / "one") == faces_sha256(tmp_path / "same")
    assert faces_sha256(tmp_path / "one") != faces_sha256(tmp_path / "other")
    assert faces_sha256(tmp_path / "one", most=1) == faces_sha256(tmp_path / "other", most=1)


@pytest.mark.parametrize("files", [None, {}, {"a.png": b""}, {"a.txt": b"words"}])
def test_a_folder_without_images(tmp_path: Path, files: dict[str, bytes] | None) -> None:
    folder = tmp_path / "faces"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"faces: expected a folder of face images .*found none"):
        sample_images(folder)


def test_no_portrait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_faces, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="run: pip install scikit-image"):
        sample_images()
