from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import GalleryError
from stream.common.names import clean_name
from stream.gallery.enrolment.folders import Photographs, find_people, find_photos, one_name_each

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def made(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if path.suffix in {".png", ".JPG", ".jpeg", ".odd"} else b"text")
    return root


def reasons(found: Photographs) -> dict[str, str]:
    return {each.path.name: each.reason for each in found.left_out if each.is_person}


def test_folders_are_people(tmp_path: Path) -> None:
    made(tmp_path, "Bob/1.jpeg", "Ann/2.JPG", "Ann/1.png", "Bill_Gates/1.png")
    found = find_people(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.people.items()} == {
        "Ann": ["1.png", "2.JPG"],
        "Bill Gates": ["1.png"],
        "Bob": ["1.jpeg"],
    }
    assert found.left_out == []
    assert found.count == 4
    with pytest.raises(GalleryError, match="folder of photographs"):
        find_people(tmp_path / "nowhere")


def test_whoever_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    made(tmp_path, "Ann/1.png", "Bob/2019/1.png", "Bob/2020/1.png", "Cid/a.txt", "Cid/b.txt", "stray.png")
    (tmp_path / "Dan").mkdir()
    (tmp_path / "Eve").symlink_to(tmp_path / "gone")
    made(tmp_path, " x /1.png", "a\nb/1.png", "y" * 201 + "/1.png", "___/1.png", ".git/x", "Thumbs.db")
    found = find_people(tmp_path)
    assert list(found.people) == ["Ann"]
    told = reasons(found)
    assert len(told) == 9
    assert "--deep" in told["Bob"]
    assert "2019" in told["Bob"]
    assert told["Cid"] == "has no photograph (skipped in it: 2 .txt)"
    assert told["Dan"] == "has no photograph"
    assert told["Eve"] == "is a dangling link"
    assert "--name" in told["stray.png"]
    assert "spaces at its ends" in told[" x "]
    assert "U+000A" in told["a\nb"]
    assert "201 characters" in told["y" * 201]
    assert "is empty" in told["___"]
    (note,) = (each for each in found.left_out if not each.is_person)
    assert note.reason == "skipped in it: 1 .db, 1 hidden"


def test_a_folder_whose_name_is_not_utf8_is_left_out_and_the_others_are_not(tmp_path: Path) -> None:
    made(tmp_path, "Zoe/1.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/Ren\xe9e")).mkdir()
    found = find_people(tmp_path)
    assert list(found.people) == ["Zoe"]
    (reason,) = reasons(found).values()
    assert "not valid UTF-8" in reason


def test_photographs_deeper_down_are_taken_on_demand(tmp_path: Path) -> None:
    made(tmp_path, "Ann/1.png", "Ann/old/2.png", "Ann/old/older/3.png", "Bob/2019/1.png", "Ann/.thumbs/1.png")
    (tmp_path / "Ann" / "loop").symlink_to(tmp_path)
    shallow, deep = find_people(tmp_path), find_people(tmp_path, deep=True)
    assert shallow.count == 1
    assert {each.reason for each in shallow.left_out if each.path.name == "old"} == {
        "2 photographs in it skipped; include them with --deep"
    }
    assert {name: len(photos) for name, photos in deep.people.items()}["Bob"] == 1
    assert {"1.png", "2.png", "3.png"} <= {path.name for path in deep.people["Ann"]}


def test_a_folder_inside_that_is_not_looked_into_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(
        tmp_path,
        f"Ann/{'x/' * 8}1.png",
        f"Bob/{'x/' * 30}1.png",
        "Cid/shut/1.png",
        "Dan/1.png",
        "Dan/shut/1.png",
    )
    (tmp_path / "Eve" / "old").mkdir(parents=True)
    (tmp_path / "Eve" / "old" / "up").symlink_to(tmp_path)
    (tmp_path / "Fay").mkdir()
    (tmp_path / "Fay" / "up").symlink_to(tmp_path)
    found_in = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "shut":  # root may read whatever its mode says
            raise PermissionError(errno.EACCES, "Permission denied")
        return found_in(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for deep in (False, True):
        found = find_people(tmp_path, deep=deep)
        told = reasons(found)
        assert list(found.people) == (["Ann", "Dan"] if deep else ["Dan"])
        assert deep or "add --deep" in told["Ann"]
        assert "20 folders deep" in told["Bob"]
        assert told["Cid"] == "has no photograph (shut was not searched (cannot be read (Permission denied)))"
        assert "not searched" in told["Eve"]
        assert "a link to a folder that it is in" in told["Fay"]
        assert [each.path.parent.name for each in found.left_out if not each.is_person] == ["Dan"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_passed_over_and_not_waited_for(tmp_path: Path) -> None:
    made(tmp_path, "Ann/1.png")
    for name in ("Ann/pipe", "Ann/pipe.jpg", "pipe"):
        os.mkfifo(tmp_path / name)
    found = find_people(tmp_path)  # waits for ever where it opens one
    assert found.count == 1
    assert {each.reason for each in found.left_out} == {
        "skipped in it: 1 .jpg, 1 without an extension",
        "skipped in it: 1 without an extension",
    }


def test_both_forms_of_a_name_are_one_person(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        made(tmp_path, unicodedata.normalize(form, "Ren\u00e9e") + "/1.png")
    found = find_people(tmp_path)
    assert {name: len(photos) for name, photos in found.people.items()} == {"Ren\u00e9e": 2}
    (line,) = one_name_each(found.people.items())
    assert "is in 2 folders" in line


def test_underscores_stay_where_they_are_wanted_or_known(tmp_path: Path) -> None:
    made(tmp_path, "Bill_Gates/1.png")
    assert list(find_people(tmp_path, keep_underscores=True).people) == ["Bill_Gates"]
    assert list(find_people(tmp_path, known={"Bill_Gates"}).people) == ["Bill_Gates"]
    assert list(find_people(tmp_path, known={"Bill_Gates", "Bill Gates"}).people) == ["Bill Gates"]


def test_a_picture_is_known_by_its_beginning_too(tmp_path: Path) -> None:
    made(tmp_path, "Ann/one.odd", "Ann/two.txt")
    photos, left_out = find_photos(tmp_path / "Ann")
    assert [path.name for path in photos] == ["one.odd"]
    assert [each.reason for each in left_out] == ["skipped in it: 1 .txt"]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=50).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 250
)


@given(st.lists(NAMES, max_size=4, unique=True))
def test_folders_of_any_names_are_people_or_named_as_left_out(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("any")
    for name in names:
        made(root, f"{name}/1.png")
    found = find_people(root)
    hidden = sum(name.startswith(".") for name in names)
    assert found.count + len(reasons(found)) + hidden == len(names)
    assert all(clean_name(name) == name for name in found.people)
