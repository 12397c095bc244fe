from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from people import MODEL, SEALER, gallery_of, template, vector

from engine.errors import GalleryError
from engine.models.package import Likeness
from stream.gallery.identification.matcher import Matcher
from stream.gallery.model_migration import back_up, upgrade
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel, Negative

NEW = GalleryModel("dlib-resnet-v1", "b" * 64, mirror=True, size=64, likeness=Likeness(2.0, -0.5))


def embedded(photo: bytes) -> tuple[np.ndarray, float]:
    return vector(len(photo), size=64), 0.5


def mapped(embeddings: np.ndarray) -> np.ndarray:
    halves = embeddings[:, :64]
    return halves / np.linalg.norm(halves, axis=1, keepdims=True)


def folder_of(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("sealer", [None, SEALER], ids=["plain", "sealed"])
def test_photographs_are_embedded_anew_and_the_rest_is_mapped(tmp_path: Path, sealer: object) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob", sealer=sealer, keep_photos=True) as gallery:  # type: ignore[arg-type]
        gallery.enrol("Bob", [template(vector(5), source="track", origin="t1")])
        gallery.add_negative("Ann", Negative(vector(6), "t2"))
        before, people = gallery.snapshot(), gallery.people()
        seen: list[tuple[int, int]] = []
        done = upgrade(gallery, NEW, embed=embedded, mapping=mapped, on_progress=lambda *at: seen.append(at))
        assert (done.embedded, done.mapped, done.dropped, done.negatives_mapped) == (2, 1, 0, 1)
        assert seen == [(1, 3), (2, 3), (3, 3)]
        assert gallery.model == NEW
        assert gallery.model.likeness == NEW.likeness
        assert gallery.people() == people
        after = gallery.snapshot(before)
        assert after.version > before.version
        photo = b"photo of Ann" * 40
        np.testing.assert_allclose(after.templates[0], vector(len(photo), size=64), atol=1e-6)
        np.testing.assert_allclose(after.templates[2], mapped(vector(5)[None])[0], atol=1e-6)
        np.testing.assert_allclose(after.negatives[0], mapped(vector(6)[None])[0], atol=1e-6)
        assert gallery.templates(people[0].id)[0].quality == 0.5
    assert done.backup is not None
    assert done.backup.stat().st_mode & 0o777 == 0o600
    with Gallery.open(done.backup, sealer=sealer) as old:  # type: ignore[arg-type]
        assert old.model == MODEL
        np.testing.assert_array_equal(old.snapshot().templates, before.templates)


def test_all_of_a_dozen_who_cannot_be_moved_are_named(tmp_path: Path) -> None:
    names = [f"Person {row}" for row in range(12)]
    with gallery_of(tmp_path / "g.db") as gallery:
        for row, name in enumerate(names):
            gallery.enrol(name, [template(vector(row + 1), source="track", origin=f"t{row}")])
        with pytest.raises(GalleryError, match="12 people cannot be moved") as refused:
            upgrade(gallery, NEW, embed=embedded)
    assert all(f"'{name}'" in str(refused.value) for name in names)


def test_those_who_cannot_be_moved_are_named_and_nothing_is_done(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", keep_photos=True) as gallery:
        gallery.enrol("Bob", [template(vector(5), source="track", origin="t1")])
        version = gallery.version
        with pytest.raises(GalleryError, match=r"1 person cannot be moved.*'Bob'.*--leave-out"):
            upgrade(gallery, NEW, embed=embedded)
        assert (gallery.version, gallery.model) == (version, MODEL)
        assert not [name for name in folder_of(tmp_path) if "backup" in name]
        done = upgrade(gallery, NEW, embed=embedded, leave_out=True)
        assert done.left_out == ["Bob"]
        assert [(each.name, each.templates) for each in gallery.people()] == [("Ann", 1), ("Bob", 0)]
        bob = gallery.find("Bob").id
        gallery.enrol("Bob", [template(vector(5, size=64))])
        assert gallery.find("Bob").id == bob


def test_a_photograph_without_a_face_for_the_new_detector_is_mapped(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", keep_photos=True) as gallery:
        done = upgrade(gallery, NEW, embed=lambda _: None, mapping=mapped)
        assert (done.embedded, done.mapped) == (0, 1)


@pytest.mark.parametrize("photo", [b"Bob", None], ids=["with a photograph", "without"])
def test_what_others_enrol_meanwhile_is_moved_too_or_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: bytes | None
) -> None:
    path = tmp_path / "g.db"
    with gallery_of(path, "Ann", keep_photos=True) as gallery, Gallery.open(path, sealer=None) as other:

        def back_up_slowly(each: Gallery) -> Path:
            other.enrol("Bob", [template(vector(3), photo=photo, origin="x")])
            return back_up(each)

        monkeypatch.setattr("stream.gallery.model_migration.back_up", back_up_slowly)
        if photo is None:
            with pytest.raises(GalleryError, match="'Bob'"):
                upgrade(gallery, NEW, embed=embedded)
            assert gallery.model == MODEL
        else:
            assert upgrade(gallery, NEW, embed=embedded).embedded == 2
        assert [each.templates for each in gallery.people()] == [1, 1]


def test_the_same_model_is_nothing_to_do_and_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        with pytest.raises(GalleryError, match="nothing to do"):
            upgrade(gallery, MODEL, embed=embedded)
        with pytest.raises(GalleryError, match="the map makes 128"):
            upgrade(gallery, NEW, embed=None, mapping=lambda each: each)
        assert gallery.model == MODEL
        assert not [name for name in folder_of(tmp_path) if "backup" in name]


def die_in_the_middle(path: Path, moment: str) -> None:
    with Gallery.open(path, sealer=None) as gallery:
        calls = 0

        def mapping(embeddings: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            if moment == "working" and calls == 2:
                os._exit(9)
            if moment == "writing" and gallery.database.in_transaction and calls > 3:
                gallery.database.execute("DELETE FROM templates")
                os._exit(9)
            return mapped(embeddings)

        upgrade(gallery, NEW, embed=None, mapping=mapping)


@pytest.mark.parametrize("moment", ["working", "writing"])
def test_killed_in_the_middle_it_is_as_it_was_and_can_be_upgraded_again(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "g.db"
    with gallery_of(path, "Ann", "Bob", "Cid") as gallery:
        gallery.add_negative("Ann", Negative(vector(9), "t"))
        before = gallery.snapshot()
    process = multiprocessing.get_context("spawn").Process(target=die_in_the_middle, args=(path, moment))
    process.start()
    process.join(300)
    assert process.exitcode == 9
    with Gallery.open(path, sealer=None) as gallery:
        assert (gallery.version, gallery.model) == (before.version, MODEL)
        np.testing.assert_array_equal(gallery.snapshot().templates, before.templates)
        assert upgrade(gallery, NEW, embed=None, mapping=mapped).mapped == 3


def test_a_running_matcher_is_made_anew_after_an_upgrade(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        before = gallery.snapshot()
        old = Matcher(before, false_accept_rate=0.01)
        upgrade(gallery, NEW, embed=None, mapping=mapped)
        new = Matcher(gallery.snapshot(before), false_accept_rate=0.01, previous=old)
        assert new.match(mapped(vector(0)[None])).person.tolist() == [0]


def test_a_backup_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        gallery.path = tmp_path / "nowhere" / "g.db"
        with pytest.raises(GalleryError, match="the backup cannot be written"):
            back_up(gallery)
