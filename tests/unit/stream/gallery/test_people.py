from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_checks import face_event
from hypothesis import given, settings
from hypothesis import strategies as st
from people import MODEL, SEALER, gallery_of, template, vector

from engine.errors import FacestreamError, GalleryError
from stream.common.encryption import Sealer
from stream.gallery.erasure import clean, erase
from stream.gallery.json_export import export_gallery, import_gallery, read_model
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel, Negative, Template, check_event
from stream.gallery.tables import not_opened

sealed_or_not = pytest.mark.parametrize("sealer", [None, SEALER], ids=["plain", "sealed"])


@sealed_or_not
def test_what_was_enrolled_is_there_after_opening_again(tmp_path: Path, sealer: Sealer | None) -> None:
    path = tmp_path / "g.db"
    with gallery_of(path, "Ann", "Bob", sealer=sealer, keep_photos=True) as gallery:
        gallery.enrol("Ann", [template(vector(7), quality=0.5, source="track", origin="door-1-4")])
        gallery.add_negative("Bob", Negative(vector(8), "door-1-5"))
    with Gallery.open(path, sealer=sealer) as gallery:
        ann, bob = gallery.people()
        assert (ann.name, ann.templates, ann.photos, ann.negatives) == ("Ann", 2, 1, 0)
        assert (bob.name, bob.templates, bob.photos, bob.negatives) == ("Bob", 1, 1, 1)
        assert gallery.find("Ann") == gallery.find(ann.id) == ann
        first, second = gallery.templates(ann.id, photos=True)
        np.testing.assert_array_equal(first.embedding, vector(0))
        assert first.photo == b"photo of Ann" * 40
        assert (second.quality, second.source, second.origin, second.photo) == (
            0.5,
            "track",
            "door-1-4",
            None,
        )
        assert gallery.negatives(bob.id)[0].origin == "door-1-5"
        assert gallery.model == MODEL
    assert path.stat().st_mode & 0o777 == 0o600


def test_photographs_are_not_kept_unless_asked_for(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        assert gallery.find("Ann").photos == 0


def test_the_write_ahead_log_is_for_the_owner_alone_too(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann"):
        assert (tmp_path / "g.db-wal").stat().st_mode & 0o077 == 0


def test_a_sealed_gallery_tells_nothing_of_whom_it_holds(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann Long-Name", sealer=SEALER, keep_photos=True) as gallery:
        gallery.enrol(
            "Ann Long-Name", [template(vector(3), source="track", origin="door-7f3a-12")], notes="x"
        )
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    for secret in (b"Ann Long-Name", vector(0).tobytes(), b"photo of Ann", b"door-7f3a-12", b"ab" * 32):
        assert secret not in stored


def test_a_sealed_gallery_wants_its_own_key(tmp_path: Path) -> None:
    gallery_of(tmp_path / "g.db", "Ann", sealer=SEALER).close()
    with pytest.raises(GalleryError, match="is encrypted; set the key"):
        Gallery.open(tmp_path / "g.db", sealer=None)
    with pytest.raises(GalleryError, match="another key than FACESTREAM_KEY"):
        Gallery.open(tmp_path / "g.db", sealer=Sealer(bytes(32)))


def test_another_model_is_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        gallery.check_model(MODEL)
        for other in ({"name": "dlib"}, {"sha256": "b" * 64}, {"mirror": True}):
            with pytest.raises(GalleryError, match="facestream gallery upgrade"):
                gallery.check_model(dataclasses.replace(MODEL, **other))


def test_a_command_that_is_advised_runs_nothing_of_an_events(tmp_path: Path) -> None:
    """It is there to be copied, and the model's name comes from whoever wrote the event."""
    strange = face_event(embedding_model="sface; touch sprung")
    with pytest.raises(GalleryError, match="--to 'sface; touch sprung'"):
        check_event(tmp_path / "g.db", MODEL, strange)


def test_every_change_raises_the_version_and_is_written_down(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        versions = [gallery.version]
        gallery.enrol("Ann", [template(vector(5))])
        versions.append(gallery.version)
        gallery.add_negative("Ann", Negative(vector(6), "t"))
        versions.append(gallery.version)
        erase(gallery, "Ann")
        versions.append(gallery.version)
        assert versions == sorted(set(versions))
        actions = [entry.action for entry in gallery.audit.entries()]
        assert actions == [
            *("created", "enrolled", "enrolled", "negative added", "removed", "erasure checked"),
        ]
        assert all(entry.who for entry in gallery.audit.entries())
        assert "Ann" not in str([entry.detail for entry in gallery.audit.entries()])


@sealed_or_not
def test_a_snapshot_has_everything_and_the_next_one_only_reads_what_is_new(
    tmp_path: Path, sealer: Sealer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob", "Cid", sealer=sealer) as gallery:
        gallery.add_negative("Cid", Negative(vector(9), "t"))
        first = gallery.snapshot()
        assert first.names == ("Ann", "Bob", "Cid")
        assert first.owners.tolist() == [0, 1, 2]
        assert first.negative_owners.tolist() == [2]
        erase(gallery, "Ann")
        gallery.enrol("Bob", [template(vector(4))])
        opened = []
        unseal = gallery.unseal
        monkeypatch.setattr(
            gallery, "unseal", lambda kind, *rest: (opened.append(kind), unseal(kind, *rest))[1]
        )
        second = gallery.snapshot(first)
        assert opened.count("embedding") == 2
        assert (second.names, second.owners.tolist()) == (("Bob", "Cid"), [0, 1, 0])
        np.testing.assert_array_equal(second.templates, [vector(1), vector(2), vector(4)])
        assert second.negative_owners.tolist() == [1]
        assert not set(first.keys[:1].tolist()) & set(second.keys.tolist())


def test_others_see_that_something_has_changed(tmp_path: Path) -> None:
    with (
        gallery_of(tmp_path / "g.db", "Ann") as writer,
        Gallery.open(tmp_path / "g.db", sealer=None) as reader,
    ):
        mark = reader.change_mark
        assert reader.change_mark == mark
        writer.enrol("Bob", [template(vector(3))])
        assert reader.change_mark != mark
        assert len(reader.people()) == 2


def test_several_enrol_at_the_same_time_while_others_read(tmp_path: Path) -> None:
    gallery_of(tmp_path / "g.db", "Everybody").close()
    failures: list[BaseException] = []

    def enrol(number: int) -> None:
        try:
            with Gallery.open(tmp_path / "g.db", sealer=None) as gallery:
                for each in range(8):
                    gallery.enrol(f"{number} {each}", [template(vector(100 * number + each))])
                    gallery.enrol("Everybody", [template(vector(100 * number + each))])
        except BaseException as exc:  # noqa: BLE001 - raised below
            failures.append(exc)

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    snapshot = None
    with Gallery.open(tmp_path / "g.db", sealer=None) as reader:
        while any(thread.is_alive() for thread in threads):
            snapshot = reader.snapshot(snapshot)
            assert len(snapshot.keys) == len(snapshot.owners) == len(snapshot.templates)
            assert len(snapshot.owners) == 0 or snapshot.owners.max() < len(snapshot.ids)
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(reader.people()) == 1 + 3 * 8
        assert reader.find("Everybody").templates == 1 + 3 * 8


@sealed_or_not
def test_what_is_erased_is_in_no_byte_of_the_files(tmp_path: Path, sealer: Sealer | None) -> None:
    path = tmp_path / "g.db"
    with gallery_of(path, "Ann Long-Name", "Bob", sealer=sealer, keep_photos=True) as gallery:
        for seed in range(10, 40):
            photo = np.random.default_rng(seed).bytes(20_000)
            gallery.enrol("Ann Long-Name", [template(vector(seed), photo=photo, origin=f"{seed:064x}")])
        gallery.enrol("Bob", [template(vector(3))])
        export_gallery(gallery, tmp_path / "export", sealer=sealer, plain=sealer is None)
        clean(gallery)
        before = path.stat().st_size
        erasure = erase(gallery, "Ann Long-Name")
        assert (erasure.templates, erasure.photos) == (31, 31)
        assert erasure.found_in == ()
        assert erasure.pieces > 300
        assert erasure.bytes_searched >= path.stat().st_size > 0
        assert path.stat().st_size < before / 4
        assert [(copy.path.name, copy.is_there) for copy in erasure.copies] == [("export", True)]
        assert [each.name for each in gallery.people()] == ["Bob"]
        assert gallery.templates(gallery.find("Bob").id)
    if sealer is None:
        assert vector(20).tobytes() not in path.read_bytes()


def test_what_others_have_as_well_is_not_taken_for_left_over(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob") as gallery:
        gallery.enrol("Ann", [template(vector(5), source="track", origin="door-7f3a-12")])
        gallery.add_negative("Bob", Negative(vector(5), "door-7f3a-12"))
        erasure = erase(gallery, "Ann")
        assert erasure.found_in == ()
        assert erasure.tracks == ("door-7f3a-12",)


def test_what_photographs_notes_and_names_of_others_begin_with_is_not_left_over(tmp_path: Path) -> None:
    header = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + bytes(range(64, 128))  # of one camera
    with gallery_of(tmp_path / "g.db", keep_photos=True) as gallery:
        for seed, name in enumerate(("Anna Maria Lopez", "Anna Maria Lopez Ortega")):
            photo = header + np.random.default_rng(seed).bytes(9_000)
            face = template(
                vector(seed), photo=photo, origin=f"{seed:064x}", file=f"{'x' * seed}IMG_20260101.jpg"
            )
            gallery.enrol(name, [face], notes="of the staff at the front door")
        erasure = erase(gallery, "Anna Maria Lopez")
        assert erasure.found_in == ()
        assert erasure.pieces > 8


def test_an_erasure_tells_what_it_still_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        clean(gallery)
        monkeypatch.setattr("stream.gallery.erasure.clean", lambda _: None)
        gallery.database.execute("PRAGMA secure_delete = OFF")
        assert erase(gallery, "Ann").found_in != ()


def test_a_reader_in_the_way_is_named_and_cleaning_can_be_done_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.gallery.tables.BUSY_TIMEOUT_S", 0.05)
    with gallery_of(tmp_path / "g.db", "Ann", "Bob") as gallery:
        reader = sqlite3.connect(tmp_path / "g.db")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM people").fetchone()
        with pytest.raises(GalleryError, match="facestream gallery clean"):
            erase(gallery, "Ann")
        assert [each.name for each in gallery.people()] == ["Bob"]
        reader.rollback()
        reader.close()
        clean(gallery)
        assert not (tmp_path / "g.db-wal").stat().st_size


def test_files_that_are_no_galleries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="facestream gallery create"):
        Gallery.open(tmp_path / "none.db", sealer=None)
    (tmp_path / "text").write_bytes(b"not a database at all" * 100)
    sqlite3.connect(tmp_path / "other.db").executescript("CREATE TABLE t (x);").close()
    (tmp_path / "empty").touch()
    for name in ("text", "other.db", "empty"):
        with pytest.raises(GalleryError, match=r"not a (facestream )?gallery"):
            Gallery.open(tmp_path / name, sealer=None)
    gallery_of(tmp_path / "g.db").close()
    with pytest.raises(GalleryError, match="exists already; if it is a gallery, use it as it is"):
        Gallery.create(tmp_path / "g.db", MODEL, sealer=None)
    with pytest.raises(GalleryError, match="create its folder"):
        Gallery.create(tmp_path / "nowhere" / "g.db", MODEL, sealer=None)


@pytest.fixture(scope="module")
def sealed_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "g.db"
    with gallery_of(path, "Ann", "Bob", sealer=SEALER) as gallery:
        clean(gallery)
    return path.read_bytes()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=30))
def test_a_damaged_gallery_gives_one_line_and_nothing_else(
    sealed_file: bytes, tmp_path_factory: pytest.TempPathFactory, damages: list[tuple[float, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "g.db"
    content = bytearray(sealed_file)
    for where, value in damages:
        content[int(where * len(content))] = value
    path.write_bytes(content)
    complaint = ""
    try:
        with Gallery.open(path, sealer=SEALER) as gallery:
            gallery.snapshot()
            gallery.people()
            gallery.audit.entries()
    except FacestreamError as exc:
        complaint = str(exc)
    assert len(complaint.splitlines()) <= 1


def read_all(path: Path, sealer: Sealer | None) -> None:
    with Gallery.open(path, sealer=sealer) as gallery:
        gallery.snapshot()
        for person in gallery.people():
            gallery.templates(person.id)


@sealed_or_not
@pytest.mark.parametrize("value", [None, 7, 1e300, "text", 10**18])
@pytest.mark.parametrize(
    "column", ["people.name", "people.notes", "templates.origin", "templates.person", "templates.embedding"]
)
def test_values_of_another_kind_are_damage(
    tmp_path: Path, sealer: Sealer | None, column: str, value: object
) -> None:
    """What SQLite promises of a column holds for what it writes, and not for what it finds."""
    gallery_of(tmp_path / "g.db", "Ann", sealer=sealer).close()
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(tmp_path / "g.db", isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = replace(replace(sql, 'STRICT', ''), 'NOT NULL', '')")
    with closing(sqlite3.connect(tmp_path / "g.db", isolation_level=None)) as database:
        database.execute(f"UPDATE {table} SET {name} = ?", (value,))
    with pytest.raises(GalleryError, match="restore a copy"):
        read_all(tmp_path / "g.db", sealer)


@sealed_or_not
def test_an_export_comes_back_whole_in_another_gallery(tmp_path: Path, sealer: Sealer | None) -> None:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob", sealer=sealer, keep_photos=True) as gallery:
        gallery.add_negative("Ann", Negative(vector(9), "door-1-2"))
        assert export_gallery(gallery, tmp_path / "out", sealer=sealer, plain=sealer is None) == 2
        before = gallery.snapshot()
        ann = gallery.find("Ann")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600
    assert read_model(tmp_path / "out") == MODEL
    with Gallery.create(tmp_path / "h.db", MODEL, sealer=sealer, keep_photos=True) as other:
        assert import_gallery(other, tmp_path / "out", sealer=sealer) == (2, 3)
        after = other.snapshot()
        assert (after.ids, after.names) == (before.ids, before.names)
        np.testing.assert_array_equal(after.templates, before.templates)
        np.testing.assert_array_equal(after.negatives, before.negatives)
        assert other.find("Ann") == ann
        assert other.templates(ann.id, photos=True)[0].photo == b"photo of Ann" * 40
        assert import_gallery(other, tmp_path / "out", sealer=sealer) == (0, 0)


def test_an_export_without_a_key_must_be_asked_for(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db", "Ann") as gallery:
        with pytest.raises(GalleryError, match="--plain"):
            export_gallery(gallery, tmp_path / "out", sealer=None)
        (tmp_path / "out").touch()
        with pytest.raises(GalleryError, match="exists already"):
            export_gallery(gallery, tmp_path / "out", sealer=SEALER)


def test_a_sealed_export_cannot_be_read_changed_cut_or_shuffled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with gallery_of(tmp_path / "g.db", "Ann Long-Name", "Bob", "Cid") as gallery:
        export_gallery(gallery, out, sealer=SEALER)
        gallery_lines = out.read_bytes().splitlines(keepends=True)
        assert b"Ann Long-Name" not in out.read_bytes()
        with pytest.raises(GalleryError, match="is encrypted"):
            import_gallery(gallery, out, sealer=None)
        header, ann, bob, cid = gallery_lines
        fewer = header.replace(b'"people":3', b'"people":2')
        for lines in (
            [header, bob, ann, cid],
            [header, ann, bob],
            [fewer, ann, bob],
            [header, ann, ann, cid],
        ):
            (tmp_path / "bad").write_bytes(b"".join(lines))
            version = gallery.version
            with pytest.raises(GalleryError, match="nothing was changed"):
                import_gallery(gallery, tmp_path / "bad", sealer=SEALER)
            assert gallery.version == version


def test_a_namesake_is_not_taken_for_the_same_person(tmp_path: Path) -> None:
    with (
        gallery_of(tmp_path / "g.db", "Ann") as gallery,
        gallery_of(tmp_path / "h.db", "Bob", "Ann") as other,
    ):
        export_gallery(gallery, tmp_path / "out", sealer=None, plain=True)
        with pytest.raises(GalleryError, match="another person here is called 'Ann'"):
            import_gallery(other, tmp_path / "out", sealer=None)
        assert len(other.people()) == 2


def test_an_export_of_another_model_is_refused(tmp_path: Path) -> None:
    other = GalleryModel("dlib", "b" * 64, mirror=False, size=128)
    with (
        gallery_of(tmp_path / "g.db", "Ann") as gallery,
        gallery_of(tmp_path / "h.db", model=other) as second,
    ):
        export_gallery(gallery, tmp_path / "out", sealer=None, plain=True)
        with pytest.raises(GalleryError, match="not compatible"):
            import_gallery(second, tmp_path / "out", sealer=None)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, bytes]]:
    folder = tmp_path_factory.mktemp("import")
    with gallery_of(folder / "g.db", "Ann", "Bob") as gallery:
        export_gallery(gallery, folder / "good", sealer=None, plain=True)
        yield gallery, (folder / "good").read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_any_file_is_imported_or_refused_in_one_line(
    target: tuple[Gallery, bytes], data: st.DataObject
) -> None:
    gallery, good = target
    content = bytearray(good)
    if data.draw(st.booleans()):
        content = bytearray(data.draw(st.binary(max_size=200)))
    else:
        for _ in range(data.draw(st.integers(1, 5))):
            start = data.draw(st.integers(0, len(content)))
            content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    bad = gallery.path.with_name("bad")
    bad.write_bytes(content)
    version, complaint = gallery.version, ""
    try:
        import_gallery(gallery, bad, sealer=None)
    except GalleryError as exc:
        complaint = str(exc)
    assert len(complaint.splitlines()) <= 1
    assert not complaint or gallery.version == version


@pytest.mark.parametrize(
    "changes",
    [
        *({"quality": 1.5}, {"quality": float("nan")}, {"source": "dream"}, {"origin": ""}),
        *({"embedding": np.ones(4, np.float32)}, {"embedding": np.full(4, np.nan, np.float32)}),
    ],
)
def test_a_template_that_does_not_fit_cannot_be_built(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Template(**{"embedding": vector(1), "quality": 1.0, "source": "photo", "origin": "x"} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", " Ann", "A\nB", "x" * 201, "\x1b[2J"])
def test_names_that_cannot_be_shown_are_refused(tmp_path: Path, name: str) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        with pytest.raises(ValueError, match="name"):
            gallery.enrol(name, [template(vector(0))])
        assert gallery.people() == []


def test_an_embedding_of_another_length_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        with pytest.raises(ValueError, match="128 numbers"):
            gallery.enrol("Ann", [template(vector(0, size=4))])
        assert gallery.people() == []


def test_what_is_around_a_gallery_is_not_taken_for_damage(tmp_path: Path) -> None:
    gallery_of(tmp_path / "g.db", "Ann").close()
    (tmp_path / "g.db-wal").mkdir()  # where SQLite cannot write, root or not
    with pytest.raises(
        GalleryError, match=r"cannot be opened .*two files beside an open gallery.*; make .* writable"
    ):
        Gallery.open(tmp_path / "g.db", sealer=None)
    (tmp_path / "g.db-wal").rmdir()
    full = sqlite3.OperationalError("disk I/O error")
    full.sqlite_errorcode = sqlite3.SQLITE_IOERR | (18 << 8)  # as SQLite raises it on a full disk
    assert re.search(
        r"cannot be opened \(disk I/O error; [\d.]+ MiB are free\); make room",
        str(not_opened(tmp_path / "g.db", full)),
    )
    damaged = not_opened(tmp_path / "g.db", ValueError("no number"))
    assert str(damaged).endswith("damaged, or not a gallery (no number); restore a copy of it")


_AS_A_STRANGER = """
import os, sys
from pathlib import Path
from engine.errors import GalleryError
from stream.gallery.people import Gallery

with Gallery.open(Path(sys.argv[1]), sealer=None) as gallery:
    for _ in sys.stdin:
        print(gallery.change_mark, *(person.name for person in gallery.people()), flush=True)
    try:
        gallery.rename("Ann", "Eve")
    except GalleryError as exc:
        print(exc)
"""


@pytest.mark.parametrize("folder_mode", [0o755, 0o777])
def test_a_gallery_that_may_not_be_written_is_read_and_followed(folder_mode: int) -> None:
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
    if os.geteuid():
        pytest.skip("needs root, to be somebody else")
    with tempfile.TemporaryDirectory() as name:  # where others may go, as they may not to tmp_path
        folder, path = Path(name), Path(name) / "g.db"
        folder.chmod(folder_mode)
        gallery_of(path, "Ann").close()
        path.chmod(0o644)
        command = [sys.executable, "-c", _AS_A_STRANGER, str(path)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", **other
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None

            def seen() -> list[str]:
                reader.stdin.write("\n")
                reader.stdin.flush()
                return reader.stdout.readline().split()

            first, again = seen(), seen()
            assert first[1:] == ["Ann"]
            assert again == first
            with Gallery.open(path, sealer=None) as gallery:
                gallery.enrol("Bob", [template(vector(1))])
            changed = seen()
            assert changed[1:] == ["Ann", "Bob"]
            assert changed[0] != first[0]
            told, _ = reader.communicate()
            assert "readonly database" in told
        assert [each.name for each in folder.iterdir()] == ["g.db"], "it leaves nothing beside it"
