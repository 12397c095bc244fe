from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DatasetError
from training.data.lfw_files import LfwPair, locate_lfw, read_lfw_pairs
from training.data.pairs import ImagePairs

ROWS = [
    *("Ann_Lee\t1\t2", "Bo\t3\t11", "Ann_Lee\t1\tBo\t3", "Bo\t2\tCy\t1"),
    *("Cy\t1\t2", "Di\t1\t2", "Cy\t1\tDi\t2", "Di\t1\tEl_O'Neil\t1"),
]
PAIRS = [
    *(LfwPair(1, "Ann_Lee", 1, "Ann_Lee", 2), LfwPair(1, "Bo", 3, "Bo", 11)),
    *(LfwPair(1, "Ann_Lee", 1, "Bo", 3), LfwPair(1, "Bo", 2, "Cy", 1)),
    *(LfwPair(2, "Cy", 1, "Cy", 2), LfwPair(2, "Di", 1, "Di", 2)),
    *(LfwPair(2, "Cy", 1, "Di", 2), LfwPair(2, "Di", 1, "El_O'Neil", 1)),
]
TABLE = ["fold,name1,n1,name2,n2,same"] + [
    f"{p.fold},{p.name1},{p.number1},{p.name2},{p.number2},{int(p.same)}" for p in PAIRS
]


def written(folder: Path, lines: list[str], end: str = "\n") -> Path:
    path = folder / "pairs.txt"
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ["2\t2", *ROWS],
        ROWS,
        ["2 2", *(row.replace("\t", "  ") for row in ROWS)],
        ["\ufeff2\t2", "", *ROWS, "", ""],
        [
            "name,imagenum1,imagenum2,",
            *(row.replace("\t", ",") + "," * (row.count("\t") < 3) for row in ROWS),
        ],
        TABLE,
    ],
    ids=["as published", "no first line", "blanks", "byte order mark and empty lines", "commas", "table"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_all_ways_of_writing_a_list_are_one(tmp_path: Path, lines: list[str], end: str) -> None:
    assert read_lfw_pairs(written(tmp_path, lines, end)) == PAIRS


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the list of pairs is empty"),
        (["2\t2", *ROWS[:-1]], "announces 8 rows, got 7"),
        (["2\t2", *ROWS, "Cy\t3\t4"], "announces 8 rows, got 9"),
        (["4", *ROWS], "expected a first line such as '10 300', .* got '4'"),
        (["0\t2", *ROWS], "got '0 2'"),
        (["2\t2", *ROWS[2:4], *ROWS[:2], *ROWS[4:]], "line 2: expected 3 fields, since line 1 announces"),
        (["2\t2", *ROWS[:7], "Di"], "line 9: expected 'name i j' or .*, got 1 fields"),
        ([*ROWS[:3], "Bo\ttwo\tCy\t1"], "line 4: expected a number, got 'two'"),
        ([*ROWS[:3], "Bo\t-2\tCy\t1"], "line 4: expected a number, got '-2'"),
        ([*ROWS[:3], "Bo\t0\tCy\t1"], "line 4: images are numbered from 1"),
        ([*ROWS[:3], "Bo\t2\tBo\t1"], "line 4: an impostor row names Bo twice"),
        (["Bo\t2\t2", *ROWS[:3]], "line 1: compares Bo 2 with itself"),
        (["../Bo\t1\t2", *ROWS[:3]], "line 1: '../Bo' is no person's name"),
        ([*TABLE, "2,Cy,1,Di,1,1"], "line 10: same: expected 0 for Cy and Di, got '1'"),
        ([*TABLE, "2,Cy,1,Cy,2,0"], "line 10: same: expected 1 for Cy and Cy, got '0'"),
        ([*TABLE, "2,Cy,1,Di,1"], "line 10: expected fold,name1,.* got 5 fields"),
        ([*TABLE, "x,Cy,1,Di,1,0"], "line 10: expected a number, got 'x'"),
    ],
)
def test_lists_that_make_no_sense(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read_lfw_pairs(written(tmp_path, lines))
    assert "\n" not in str(caught.value)


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot read the list: No such file"):
        read_lfw_pairs(tmp_path / "pairs.txt")
    with pytest.raises(DatasetError, match="cannot read the list: Is a directory"):
        read_lfw_pairs(tmp_path)
    (tmp_path / "face.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DatasetError, match="not a list in UTF-8"):
        read_lfw_pairs(tmp_path / "face.jpg")


@given(st.text(max_size=60) | st.lists(st.sampled_from([*ROWS, *TABLE, "2\t2", "2\t1", "9"])).map("\n".join))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode("utf-8", "replace"))
    try:
        pairs = read_lfw_pairs(path)
    except DatasetError:
        return
    for pair in pairs:
        assert all(image.parts[0] in {pair.name1, pair.name2} for image in pair.images)


def layout(root: Path, pairs: list[LfwPair]) -> list[Path]:
    """Empty files where the images should be."""
    images = sorted({root / image for pair in pairs for image in pair.images})
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    return images


def test_images_are_found_once_each(tmp_path: Path) -> None:
    images = layout(tmp_path, PAIRS)
    found = locate_lfw(PAIRS, tmp_path)
    assert found.paths == tuple(images)
    assert found.paths[0].relative_to(tmp_path) == Path("Ann_Lee/Ann_Lee_0001.jpg")
    assert found.missing == ()
    assert found.skipped == 0
    for pair, first, second, same, fold in zip(
        PAIRS, found.first, found.second, found.same, found.folds, strict=True
    ):
        assert (found.paths[first], found.paths[second]) == tuple(tmp_path / image for image in pair.images)
        assert (same, fold) == (pair.same, pair.fold)


def test_missing_images_are_an_error_or_counted(tmp_path: Path) -> None:
    images = layout(tmp_path, PAIRS)
    images[3].unlink()  # Bo 3, in two pairs
    with pytest.raises(DatasetError, match=r"1 of 10 images are missing: .*Bo_0003\.jpg; complete"):
        locate_lfw(PAIRS, tmp_path)
    found = locate_lfw(PAIRS, tmp_path, skip_missing=True)
    assert found.missing == (images[3],)
    assert found.skipped == 2
    assert len(found) == 6
    assert images[3] not in found.paths
    for image in images[4:8]:
        image.unlink()
    with pytest.raises(DatasetError, match=r"5 of 10 images are missing: .* and 2 more"):
        locate_lfw(PAIRS, tmp_path)


def test_a_wrong_folder_is_said_and_the_right_one_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder; give LFW's, which holds Ann_Lee/Ann_Lee_0001"):
        locate_lfw(PAIRS, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"not LFW's folder: there is no Ann_Lee/Ann_Lee_0001\.jpg"):
        locate_lfw(PAIRS, tmp_path, skip_missing=True)
    layout(tmp_path / "lfw-deepfunneled", PAIRS)
    with pytest.raises(DatasetError, match=r"not LFW's folder; \S*lfw-deepfunneled is"):
        locate_lfw(PAIRS, tmp_path)
    with pytest.raises(DatasetError, match="the list of pairs is empty"):
        locate_lfw([], tmp_path)


def test_pairs_that_do_not_fit() -> None:
    two, same = np.array([0, 1]), np.ones(2, bool)
    with pytest.raises(ValueError, match="four arrays of one length"):
        ImagePairs((Path("a"), Path("b")), two, two[:1], same, two)
    for wrong in (two + 1, two - 1):
        with pytest.raises(ValueError, match="second: expected indices below 2"):
            ImagePairs((Path("a"), Path("b")), two, wrong, same, two)


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_images_are_found_in_whichever_form_the_disk_has_their_names(
    tmp_path: Path, listed: str, on_disk: str
) -> None:
    name, other = (unicodedata.normalize(form, "Ren\u00e9e_Zellweger") for form in (listed, on_disk))
    pair = LfwPair(1, name, 1, name, 2)
    paths = layout(tmp_path, [LfwPair(1, other, 1, other, 2)])
    assert sorted(locate_lfw([pair], tmp_path).paths) == sorted(paths)
