from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.embeddings import unit_rows
from engine.errors import DatasetError
from training.data.ytf_files import YtfPair, choose_frames, locate_ytf, read_labelled_faces, read_ytf_pairs
from training.evaluation.set_scores import score_sets

ROWS = ["1, 1, Ann/0, Ann/3, 1", "1, 2, Ann/0, Bo_B/1, 0", "2, 1, Cy/2, Cy/10, 1", "2, 2, Cy/2, Di/0, 0"]
PAIRS = [
    *(YtfPair(1, "Ann/0", "Ann/3"), YtfPair(1, "Ann/0", "Bo_B/1")),
    *(YtfPair(2, "Cy/2", "Cy/10"), YtfPair(2, "Cy/2", "Di/0")),
]
HEADING = "split number, pair number, first name, second name, is same"


def written(folder: Path, lines: list[str]) -> Path:
    path = folder / "splits.txt"
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize(
    "lines",
    [
        ROWS,
        [HEADING, *ROWS],
        ["\ufeff" + HEADING, "", *(row.replace(", ", ",") + ",\r" for row in ROWS)],
        [row.replace(", ", "\t") for row in ROWS],
        [row.replace(", ", " ; ") for row in ROWS],
        [row.replace("/", "\\") for row in ROWS],
        [row + ", 0" for row in ROWS],
        [row[:-1] + "1, " + row[-1] for row in ROWS],
    ],
    ids=["plain", "heading", "commas", "tabs", "semicolons", "back-slashes", "label fifth", "label sixth"],
)
def test_all_ways_of_writing_a_list_are_one(tmp_path: Path, lines: list[str]) -> None:
    pairs = read_ytf_pairs(written(tmp_path, lines))
    assert pairs == PAIRS
    assert [pair.same for pair in pairs] == [True, False, True, False]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the list of pairs is empty"),
        ([HEADING], "the list of pairs is empty"),
        ([*ROWS, "2, 3, Cy/2, Di/1, 1"], "line 5: the label disagrees with the names, as in 1 of 5 rows"),
        ([row[:-1] + "x" for row in ROWS], "line 1: the label disagrees with the names, as in 4 of 4"),
        ([row + ", 2" if row[0] == "1" else row + ", 0" for row in [*ROWS, "2, 3, A/1, B/1, 1"]], "1 of 5"),
        ([*ROWS, "2, 3, Cy/2, Di/1"], "line 5: has another number of fields"),
        (["1, 1, Ann/0, Ann/3"], "line 1: expected 'split, pair, video1, video2, same', got 4 fields"),
        ([*ROWS, "2, x, Cy/2, Di/1, 0"], "line 5: expected a number, got 'x'"),
        ([*ROWS, "2, 3, Cy, Di/1, 0"], "line 5: expected a video such as 'Some_Name/3', got 'Cy'"),
        ([*ROWS, "2, 3, ../../1, Di/1, 0"], "line 5: expected a video .* got '../../1'"),
        ([*ROWS, "2, 3, Cy/2, Cy/2, 1"], "line 5: compares Cy/2 with itself"),
    ],
)
def test_lists_that_make_no_sense(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_ytf_pairs(written(tmp_path, lines))


def layout(root: Path, *, prefix: str = "", images: str = "frame_images_DB") -> Path:
    """A data set of four people; frames as text would sort 10 before 9."""
    folder = root / images
    for video in ("Ann/0", "Ann/3", "Bo_B/1", "Cy/2", "Cy/10", "Di/0"):
        (folder / video).mkdir(parents=True)
        for frame in (9, 10, 101):
            (folder / video / f"{prefix}{video.split('/')[1]}.{frame}.jpg").touch()
        (folder / video / "Thumbs.db").touch()
    return folder


def test_frames_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = layout(tmp_path)
    (folder / "Ann.labeled_faces.txt").write_text(
        "Ann\\0\\0.9.jpg,0,100,60,40,20,0,1\nAnn\\0\\0.101.jpg,0,50.5,50.5,1,1,0,1\n"
    )
    found = locate_ytf(PAIRS, tmp_path)
    names = [video.name for video in found.videos]
    assert names == sorted({video for pair in PAIRS for video in (pair.video1, pair.video2)})
    ann = found.videos[0]
    assert [frame.name for frame in ann.frames] == ["0.9.jpg", "0.10.jpg", "0.101.jpg"]
    expected = [[80, 50, 120, 70], [np.nan] * 4, [50, 50, 51, 51]]
    np.testing.assert_array_equal(ann.boxes_xyxy, np.array(expected, np.float32))
    assert found.videos[names.index("Di/0")].boxes_xyxy is None
    assert [(names[a], names[b]) for a, b in zip(found.first, found.second, strict=True)] == [
        (pair.video1, pair.video2) for pair in PAIRS
    ]
    assert found.same.tolist() == [True, False, True, False]
    assert found.folds.tolist() == [1, 1, 2, 2]
    assert len(found) == 4


def test_aligned_images_have_another_name(tmp_path: Path) -> None:
    layout(tmp_path, prefix="aligned_detect_", images="aligned_images_DB")
    frames = locate_ytf(PAIRS, tmp_path, images="aligned_images_DB").videos[0].frames
    assert [frame.name for frame in frames] == [f"aligned_detect_0.{n}.jpg" for n in (9, 10, 101)]
    with pytest.raises(DatasetError, match="not YTF's folder: there is no frame_images_DB"):
        locate_ytf(PAIRS, tmp_path)


def test_missing_videos_are_an_error_or_counted(tmp_path: Path) -> None:
    folder = layout(tmp_path)
    for frame in (folder / "Cy" / "2").iterdir():
        frame.unlink()
    with pytest.raises(DatasetError, match="1 of 6 videos have no frames: Cy/2; complete the data set"):
        locate_ytf(PAIRS, tmp_path)
    found = locate_ytf(PAIRS, tmp_path, skip_missing=True)
    assert (found.missing, found.skipped, len(found)) == (("Cy/2",), 2, 2)
    with pytest.raises(DatasetError, match="holds none of the list's 2 videos"):
        locate_ytf([YtfPair(1, "Who/0", "Who/1")], tmp_path, skip_missing=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Ann\\0\\0.9.jpg,0,100,60,40,20,0", "line 1: expected 8 fields, got 7"),
        ("Ann\\0\\0.9.jpg,0,100,60,0,20,0,1", "line 1: no box: 100,60,0,20"),
        ("Ann\\0\\0.9.jpg,0,nan,60,40,20,0,1", "line 1: no box"),
        ("Ann\\0\\0.9.jpg,0,x,60,40,20,0,1", "line 1: could not convert"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "Ann.labeled_faces.txt"
    path.write_text(row)
    with pytest.raises(DatasetError, match=message):
        read_labelled_faces(path)


def test_frames_are_chosen() -> None:
    assert choose_frames(5, most=3).tolist() == [0, 1, 2]
    assert choose_frames(5, most=3, how="spread").tolist() == [0, 2, 4]
    for how in ("first", "spread"):
        assert choose_frames(3, most=3, how=how).tolist() == [0, 1, 2]
        assert choose_frames(3, most=None, how=how).tolist() == [0, 1, 2]
        assert choose_frames(0, most=7, how=how).tolist() == []
    spread = choose_frames(6070, most=100, how="spread")
    assert len(set(spread.tolist())) == 100
    assert (spread[0], spread[-1]) == (0, 6069)
    with pytest.raises(ValueError, match="most >= 1"):
        choose_frames(5, most=0)


sizes = st.lists(st.integers(1, 9), min_size=2, max_size=6)


@given(sizes, st.integers(0, 2**32 - 1))
def test_scores_equal_the_double_loop(counts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    sets = [unit_rows(random.normal(size=(count, 16)) + 0.5) for count in counts]
    qualities = [random.uniform(0.01, 1, count).astype(np.float32) for count in counts]
    first, second = (index.ravel() for index in np.indices((len(sets), len(sets))))
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        cosines = [[float(np.dot(x.astype(float), y)) for y in sets[b]] for x in sets[a]]
        distances = [[float(((x.astype(float) - y) ** 2).sum()) for y in sets[b]] for x in sets[a]]
        all_pairs = score_sets(sets, first, second)[pair]
        assert all_pairs == pytest.approx(np.mean(cosines), abs=1e-6)
        assert 2 - 2 * all_pairs == pytest.approx(np.mean(distances), abs=1e-6)
        nearest = score_sets(sets, first, second, how="nearest")[pair]
        assert nearest == pytest.approx(np.max(cosines), abs=1e-6)
        for how, weights in (("mean", [np.ones(c) for c in counts]), ("weighted", qualities)):
            means = [(weights[k][:, None] * sets[k]).sum(axis=0, dtype=float) for k in (a, b)]
            expected = np.dot(*means) / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
            got = score_sets(sets, first, second, how=how, qualities=qualities)[pair]
            assert got == pytest.approx(expected, abs=1e-6)


def test_the_papers_score_is_not_that_of_means_scaled_to_unit_length() -> None:
    sets = [np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)]
    pair = np.array([0]), np.array([1])
    assert score_sets(sets, *pair) == pytest.approx([0.5])
    assert score_sets(sets, *pair, how="mean") == pytest.approx([1.0])


@pytest.mark.parametrize("how", ["all-pairs", "mean", "weighted", "nearest"])
def test_sets_without_faces_are_never_accepted(how: str) -> None:
    sets = [np.eye(3, dtype=np.float32), np.empty((0, 3), np.float32)]
    qualities = [np.zeros(3, np.float32), np.empty(0, np.float32)]
    scores = score_sets(sets, np.array([0, 0, 1]), np.array([0, 1, 1]), how=how, qualities=qualities)
    assert scores[0] > 0
    assert scores[1:].tolist() == [-1, -1]


def test_arguments_of_scores_are_checked() -> None:
    sets, pair = [np.eye(3, dtype=np.float32)] * 2, (np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="how: expected all-pairs, mean"):
        score_sets(sets, *pair, how="median")
    for qualities in (None, [np.ones(3, np.float32)] * 1, [np.ones(2, np.float32)] * 2):
        with pytest.raises(ValueError, match="one for each embedding of each set"):
            score_sets(sets, *pair, how="weighted", qualities=qualities)


@pytest.mark.faces
def test_real_lists_and_frames(face_data: Path) -> None:
    for name, count, genuine in [("ytf_splits_official_subset", 719, 578), ("ytf_pairs_balanced", 1392, 696)]:
        pairs = read_ytf_pairs(face_data / f"{name}.txt")
        assert (len(pairs), sum(pair.same for pair in pairs)) == (count, genuine)
        found = locate_ytf(pairs, face_data / "ytf_frames")
        assert {len(video.frames) for video in found.videos} == {5}
