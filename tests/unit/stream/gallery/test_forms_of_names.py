"""One person, one name: forms of a name, renaming, merging, and what photographs were called."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from people import SEALER, gallery_of, template, vector

from engine.errors import GalleryError, TextError
from stream.common.encryption import Sealer
from stream.gallery.erasure import erase, ids_of
from stream.gallery.json_export import export_gallery, import_gallery
from stream.gallery.people import Gallery
from stream.gallery.records import Negative

NFC, NFD = "Ren\u00e9e Zellw\u00e9ger", "Rene\u0301e Zellwe\u0301ger"

sealed_or_not = pytest.mark.parametrize("sealer", [None, SEALER], ids=["plain", "sealed"])


def older_gallery(path: Path, sealer: Sealer | None = None) -> Gallery:
    """As release 0.2.0 and earlier made them: two forms of a name are two people, and no file names."""
    gallery = gallery_of(path, "Ann", sealer=sealer, keep_photos=True)
    with gallery.writing():
        gallery.database.execute("DROP TABLE file_names")
        for number, name in enumerate((NFC, NFD), 1):
            gallery.put_person(f"p-{number}", name, f"note {number}", None)
            gallery.put_template(
                f"p-{number}", template(vector(number), origin=f"{number:064x}", photo=b"x" * 99)
            )
            gallery.put_negative(f"p-{number}", Negative(vector(50 + number), f"door-{number}"))
    return gallery


def test_notes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        with pytest.raises(TextError, match="notes: is not valid UTF-8"):
            gallery.enrol("Ann", [template(vector(1))], notes="\udcff")
        assert gallery.count() == 0


def test_both_forms_of_a_name_are_one_person(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        ann = gallery.enrol(NFD, [template(vector(1))])
        assert gallery.enrol(NFC, [template(vector(2))]).id == ann.id
        assert [each.name for each in gallery.people()] == [NFC]
        assert gallery.find(NFD).id == gallery.find(NFC).id == ann.id
        assert gallery.snapshot().names == (NFC,)


@sealed_or_not
def test_erasing_one_form_erases_both_without_a_trace(tmp_path: Path, sealer: Sealer | None) -> None:
    for wanted in (NFC, NFD, "p-1", "p-2"):
        path = tmp_path / f"{wanted.encode().hex()}.db"
        with older_gallery(path, sealer) as gallery:
            erasure = erase(gallery, wanted)
            assert {erasure.person_id, *erasure.others} == {"p-1", "p-2"}
            assert (erasure.templates, erasure.photos, erasure.negatives) == (2, 2, 2)
            assert erasure.found_in == ()
            assert [each.name for each in gallery.people()] == ["Ann"]
        assert NFC.encode() not in path.read_bytes()
        assert NFD.encode() not in path.read_bytes()


def test_enrolling_makes_one_person_of_both_forms(tmp_path: Path) -> None:
    with older_gallery(tmp_path / "g.db") as gallery:
        before = gallery.snapshot()
        person = gallery.enrol(NFD, [template(vector(9))])
        assert (person.id, person.name, person.templates, person.negatives) == ("p-1", NFC, 3, 2)
        assert person.notes == "note 1\nnote 2"
        assert len(gallery.find_all(NFC)) == 1
        assert ids_of(gallery, NFC) == ("p-1", "p-2")
        after = gallery.snapshot(before)
        assert sorted(after.ids[owner] for owner in after.owners) == sorted(
            [gallery.find("Ann").id, *["p-1"] * 3]
        )


def test_an_export_with_both_forms_becomes_one_person_however_often_it_is_imported(tmp_path: Path) -> None:
    with older_gallery(tmp_path / "old.db") as gallery, gallery_of(tmp_path / "new.db") as other:
        # Exports have names as they are found, so that the older version's file is written by hand.
        export_gallery(gallery, tmp_path / "out", sealer=None, plain=True)
        text = (tmp_path / "out").read_text()
        (tmp_path / "out").write_text(text.replace(f'"p-2","name":"{NFC}"', f'"p-2","name":"{NFD}"'))
        assert import_gallery(other, tmp_path / "out", sealer=None) == (2, 5)
        assert [(each.id, each.templates) for each in other.find_all(NFC)] == [("p-1", 2)]
        assert import_gallery(other, tmp_path / "out", sealer=None) == (0, 0)


@sealed_or_not
def test_a_person_is_renamed_and_running_ones_see_it(tmp_path: Path, sealer: Sealer | None) -> None:
    with gallery_of(tmp_path / "g.db", "Bill_Gates", "Bob", sealer=sealer, keep_photos=True) as gallery:
        gallery.add_negative("Bill_Gates", Negative(vector(8), "door-1"))
        before, snapshot = gallery.find("Bill_Gates"), gallery.snapshot()
        after = gallery.rename("Bill_Gates", "Bill Gates")
        assert (after.id, after.created, after.photos, after.negatives) == (before.id, before.created, 1, 1)
        assert [each.name for each in gallery.people()] == ["Bill Gates", "Bob"]
        seen = gallery.snapshot(snapshot)
        np.testing.assert_array_equal(
            seen.templates[seen.owners == seen.names.index("Bill Gates")], [vector(0)]
        )
        with pytest.raises(GalleryError, match=r"somebody else here .*gallery merge"):
            gallery.rename("Bob", "Bill Gates")
        with pytest.raises(TextError, match="spaces"):
            gallery.rename("Bob", " Bob ")


def test_merged_people_are_one_and_what_was_not_theirs_stays_so(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Anne", "Bob") as gallery:
        gallery.enrol("Anne", [template(vector(7), source="track", origin="door-7")])
        gallery.add_negative("Ann", Negative(vector(7), "door-7"))  # contradicts what is enrolled as Anne
        gallery.add_negative("Anne", Negative(vector(8), "door-8"))
        gone = gallery.find("Anne").id
        ann = gallery.merge("Ann", ["Anne"])
        assert (ann.name, ann.templates, ann.negatives) == ("Ann", 3, 1)
        assert [each.name for each in gallery.people()] == ["Ann", "Bob"]
        assert ids_of(gallery, "Ann") == ids_of(gallery, gone) == (ann.id, gone)
        assert gallery.find(gone) == ann
        for others in (["Ann"], [], ["Bob", "Bob"]):
            with pytest.raises(GalleryError, match="two or more different people"):
                gallery.merge("Ann", others)


@sealed_or_not
def test_file_names_are_kept_sealed_and_erased(tmp_path: Path, sealer: Sealer | None) -> None:
    path, file = tmp_path / "g.db", "Ann_in_Paris_0001.jpg"
    with older_gallery(path, sealer) as gallery:
        assert [each.file for each in gallery.templates(gallery.find("Ann").id)] == [""]
        gallery.enrol("Ann", [template(vector(5), file=file)])
        gallery.enrol(NFC, [template(vector(6), file="Ann_in_Paris_0002.jpg")])
        assert [each.file for each in gallery.templates(gallery.find("Ann").id)] == ["", file]
        gallery.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert (file.encode() in path.read_bytes()) is (sealer is None)
        assert erase(gallery, "Ann").found_in == ()
    assert file.encode() not in path.read_bytes()


def test_file_names_travel_with_an_export(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery, gallery_of(tmp_path / "h.db") as other:
        gallery.enrol("Ann", [template(vector(5), file="ann.jpg")])
        export_gallery(gallery, tmp_path / "out", sealer=None, plain=True)
        import_gallery(other, tmp_path / "out", sealer=None)
        assert [each.file for each in other.templates(other.find("Ann").id)] == ["", "ann.jpg"]


def test_of_several_who_make_a_gallery_at_once_one_does_and_nobody_sees_half_of_it(tmp_path: Path) -> None:
    path, start = tmp_path / "g.db", threading.Barrier(4)

    def make(number: int) -> str:
        start.wait(60)
        try:
            with gallery_of(path, f"Maker {number}"):
                return ""
        except GalleryError as exc:
            with Gallery.open(path, sealer=None) as gallery:
                assert gallery.count() <= 1
            return str(exc)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(make, range(4)))
    assert told.count("") == 1
    assert all("exists already" in each for each in told if each)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["g.db"]


def test_a_disk_without_hard_links_holds_galleries_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    gallery_of(tmp_path / "g.db", "Ann").close()
    with pytest.raises(GalleryError, match="exists already"):
        gallery_of(tmp_path / "g.db")
    with (
        pytest.raises(TextError, match="notes: is not valid UTF-8"),
        gallery_of(tmp_path / "h.db") as gallery,
    ):
        gallery.enrol("Ann", [template(vector(1))], notes="\udcff")


def test_waiting_for_another_writer_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.gallery.tables.BUSY_TIMEOUT_S", 0.05)
    gallery_of(tmp_path / "g.db", "Ann").close()
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Gallery.open(tmp_path / "g.db", sealer=None) as other, other.writing():
            holding.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    with Gallery.open(tmp_path / "g.db", sealer=None) as gallery:
        thread.start()
        assert holding.wait(60)
        with pytest.raises(GalleryError, match="another process is writing"):
            gallery.rename("Ann", "Anna")
        done.set()
        thread.join()
        assert gallery.rename("Ann", "Anna").name == "Anna"


def test_nobody_is_called_by_the_id_of_somebody_else(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob") as gallery:
        ann, bob = gallery.people()
        for name in (ann.id, bob.id):
            with pytest.raises(TextError, match="is the id of somebody"):
                gallery.enrol(name, [template(vector(9))])
            with pytest.raises(TextError, match="is the id of somebody"):
                gallery.rename("Bob", name)
        assert [each.name for each in gallery.people()] == ["Ann", "Bob"]
