from __future__ import annotations

import base64
import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_runs import made_run
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, DatasetError
from training.data.results import BenchRun, PairRecord
from training.data.safe_text import clean
from training.evaluation.fold_accuracy import NEVER_ACCEPTED
from training.evaluation.judged_pairs import judge
from training.evaluation.roc import roc
from training.report.html import TimedRun, frontier, write_frontier_report, write_report, write_sweep_report
from training.report.markup import Markup, element, escape, picture, within
from training.report.plots import check_plots, histogram_plot, roc_plot, sweep_plot
from training.report.sections import plain, worded, worst_errors

VOID = {"meta", "img", "wbr"}
ATTACK = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Reads a page and insists that every element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> is no HTML"
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def read(path: Path) -> Page:
    """A page, after what holds of every page has been checked."""
    source = path.read_text("utf-8")
    assert source.startswith("<!DOCTYPE html>\n<html lang=")
    page = Page(source)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for name in ("src", "href", "xlink:href"):
        assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in page.all(name)), name
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", source)
    assert "@import" not in source
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    for target in re.findall(r"url\(#([^)]+)\)", source):
        assert target in ids
    assert page.tags.count("h1") == page.tags.count("title") == page.tags.count("main") == 1
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(alternatives) == page.tags.count("img")
    assert all(alternatives)
    assert all(value in {"col", "row"} for value in page.all("scope"))
    assert len(page.all("scope")) == page.tags.count("th")
    assert page.tags.count("caption") == page.tags.count("table")
    # Matplotlib's markers may be empty of words; a drawing is told in its label.
    assert page.all("role").count("img") <= len(page.all("aria-label"))
    page.text = page.text.replace("\u00a0", " ")
    return page


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("Ann", "Bob"):
        (folder / name).mkdir(parents=True)
    image = np.full((400, 400, 3), (30, 90, 200), np.uint8)
    for row in range(40):
        cv2.imwrite(str(folder / "Ann" / f"Ann_{row:04d}.jpg"), image)
        cv2.imwrite(str(folder / "Bob" / f"{row}.jpg"), image[:, :200])
    return folder


def test_a_report_says_what_was_measured(root: Path, tmp_path: Path) -> None:
    run, path = made_run(), tmp_path / "report.html"
    write_report(run, path, data_root=root)
    page = read(path)
    accuracy, error = run.figures["accuracy"], run.figures["standard_error"]
    for words in (
        "Labeled Faces in the Wild: a subset",
        "40 pairs (20 of one person, 20 of two)",
        "the official list has 6,000",
        "some_pairs.txt",
        "measured 2026-11-28T09:44:00Z",
        f"{100 * accuracy:.2f} % ± {100 * error:.2f}",
        "81.25 % to 93.75 %",
        "needs 1,000 impostor pairs, has 20",
        "Not stated: 0.001",
        "facestream bench lfw --root 'my data'",
        "a" * 64,
        "b" * 64,
        "openvino 2026.4.1",
        "A Processor",
        "a note",
        "embed",
        "10.0 s in all",
        "A face was found on both sides of all 40 pairs.",
    ):
        assert words in page.text, words
    for row in run.folds:
        assert f"{row['threshold']:.4f}" in page.text
    assert page.tags.count("svg") == 2 * 4  # for wide pages and for narrow ones
    assert "var(--genuine)" in path.read_text()
    assert not re.search(r"#0[1-6]0[1-6]0[1-6]", path.read_text()), "a colour was left without a meaning"


def test_whole_lists_are_no_subsets(tmp_path: Path) -> None:
    run = made_run(per_kind=3000, fold_count=10, protocol={"images": "funneled"})
    write_report(run, tmp_path / "report.html", data_root=None)
    page = read(tmp_path / "report.html")
    assert "Labeled Faces in the Wild, funneled" in page.text
    assert "subset" not in page.text
    assert "6,000 pairs" in page.text


def test_the_worst_errors_are_shown_with_both_pictures(root: Path, tmp_path: Path) -> None:
    run = made_run(apart=0.2)
    judged = judge(run)
    rows = worst_errors(judged)
    wrong = np.flatnonzero(~judged.correct)
    assert 0 < len(wrong) <= 20
    by_margin = sorted(wrong, key=lambda row: judged.margins[row])
    assert rows == by_margin
    write_report(run, tmp_path / "report.html", data_root=root)
    page = read(tmp_path / "report.html")
    assert page.tags.count("img") == 2 * len(rows)
    first = run.pairs[rows[0]]
    assert first.first in page.text
    assert f"similarity {first.similarity:.3f}" in page.text
    data = base64.b64decode(page.all("src")[0].partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (180, 180, 3)
    assert np.abs(shown[90, 90].astype(int) - (30, 90, 200)).max() < 8


def test_one_error_is_spoken_of_as_one(tmp_path: Path) -> None:
    similarities = np.repeat([0.8, 0.1], 20)
    similarities[0] = 0.0
    write_report(made_run(similarities), tmp_path / "report.html", data_root=None)
    assert "One pair with two faces was judged wrongly." in read(tmp_path / "report.html").text


def test_of_many_errors_the_worst_are_shown(tmp_path: Path) -> None:
    run = made_run(per_kind=100, apart=0.05)
    judged = judge(run)
    rows = worst_errors(judged)
    assert len(rows) == 20
    assert set(judged.margins[rows]) == set(np.sort(judged.margins[~judged.correct])[:20])
    write_report(run, tmp_path / "report.html", data_root=None)
    page = read(tmp_path / "report.html")
    assert "these are the 20 worst" in page.text
    assert "no folder was given" in page.text
    assert "img" not in page.tags


def test_pairs_without_a_face_are_failures_and_no_worst_errors(tmp_path: Path) -> None:
    run = made_run()
    pairs = tuple(
        dataclasses.replace(pair, similarity=NEVER_ACCEPTED) if row in {2, 30} else pair
        for row, pair in enumerate(run.pairs)
    )
    run = dataclasses.replace(run, pairs=pairs)
    assert not {2, 30} & set(worst_errors(judge(run)))
    write_report(run, tmp_path / "report.html", data_root=None)
    page = read(tmp_path / "report.html")
    assert "2 of 40 pairs lack a face and count as never accepted; 1 of them are of one person" in page.text
    assert "2 pairs without a face are left out here" in page.text
    assert page.text.count(pairs[30].first) == 1


def evil(run: BenchRun) -> BenchRun:
    """The run with an attack wherever a text can stand."""
    return BenchRun(
        benchmark=run.benchmark,
        protocol={ATTACK: ATTACK, "\x00\x1b[2J\ud800\u202e": "x" * 300},
        models=tuple(
            dataclasses.replace(
                model, **dict.fromkeys(("name", "sha256", "engine", "precision", "task"), ATTACK)
            )
            for model in run.models
        ),
        data=run.data | {"list": ATTACK, "list_sha256": ATTACK, f"face {ATTACK}": ATTACK},
        command=(ATTACK, '" onload="x', "--x=$\\frac{$"),
        machine={ATTACK: ATTACK},
        seconds={ATTACK: 1.0, "$\\frac{$": 2.0, "顔": 1.0, "\x00": 1.0},
        figures=run.figures | {ATTACK: ATTACK, "tar@far=..": 1.0, "tar@far=0.01": ATTACK},
        folds=run.folds,
        pairs=tuple(
            dataclasses.replace(
                pair,
                first=ATTACK,
                second='"><img src=x onerror=alert(1)>',
                first_image="../../etc/passwd",
                second_image="/etc/passwd",
            )
            for pair in run.pairs
        ),
        notes=(ATTACK, "</style></section>", "&lt;"),
    )


def test_texts_from_anywhere_stay_texts(root: Path, tmp_path: Path) -> None:
    run = evil(made_run(apart=0.2))
    write_report(run, tmp_path / "report.html", data_root=root, title=f"</title>{ATTACK}")
    page = read(tmp_path / "report.html")
    assert ATTACK in page.text
    assert "</style></section>" in page.text
    assert page.text.count("&lt;") == 1
    assert "img" not in page.tags, "nothing outside of the folder is shown"
    assert page.text.count("no picture") == 2 * len(worst_errors(judge(run)))
    source = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", source)
    write_sweep_report([(ATTACK, run), ("$\\frac{$", run)], tmp_path / "s.html", setting=ATTACK, title=ATTACK)
    assert ATTACK in read(tmp_path / "s.html").text
    write_frontier_report([TimedRun(ATTACK, 3.0, run), TimedRun("a $ b $", 4.0, run)], tmp_path / "f.html")
    assert ATTACK in read(tmp_path / "f.html").text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rank-1 openness=0.5", "rank 1, openness 0.5"),
        ("dir@far=0.1 openness=0.5", "DIR at FAR 0.1, openness 0.5"),
        ("wrong name@promise=0.01", "wrong name where 0.01 is promised"),
        ("threshold@far=0.1", "threshold at FAR 0.1"),
        ("accuracy_pooled", "accuracy pooled"),
    ],
)
def test_names_of_figures_are_told_in_words(name: str, told: str) -> None:
    assert worded(name) == told


@given(st.text() | st.text("\ud800\udfff\x00\x85<>&\"'\u202e\ufffe"))
def test_any_text_can_be_written_and_is_read_back(text: str) -> None:
    page = Page(element("p", text, title=text))
    shown = clean(text)
    shown.encode()
    assert page.text.replace("\r", "") == shown
    assert page.all("title") == [shown]


def test_markup_is_not_escaped_twice() -> None:
    assert escape(Markup("<b>")) == "<b>"
    assert element("p", "<", Markup("<wbr>"), class_="a") == '<p class="a">&lt;<wbr></p>'


def test_pictures_come_from_the_folder_alone(root: Path) -> None:
    assert within(root, "Ann/1.jpg") == root / "Ann/1.jpg"
    for name in (None, "../x.jpg", "Ann/../../x.jpg", "/etc/passwd", "a\0b"):
        assert within(root, name) is None
    assert within(None, "Ann/1.jpg") is None
    for path in (None, root / "none.jpg", root):
        assert "no picture" in picture(path, "Ann")
    (root / "text.jpg").write_text("no image")
    assert "<img" not in picture(root / "text.jpg", "Ann")
    assert 'alt="Ann &quot;"' in picture(root / "Ann" / "Ann_0001.jpg", 'Ann "')


def test_a_sweep_is_a_table_and_a_drawing(tmp_path: Path) -> None:
    good = made_run(per_kind=200, apart=0.6)
    runs = [(quality, made_run(per_kind=200, apart=apart)) for quality, apart in ((90, 0.6), (10, 0.1))]
    write_sweep_report(runs, tmp_path / "sweep.html", setting="JPEG quality")
    page = read(tmp_path / "sweep.html")
    assert "a subset, by JPEG quality" in page.text
    assert page.tags.count("svg") == 2
    for _, run in runs:
        assert f"{100 * run.figures['accuracy']:.2f} %" in page.text
    assert re.search(r"-\d+\.\d\d, p [\d.e-]+ \*", page.text), "beyond the noise"
    other = made_run(per_kind=30)
    mixed = [("whole", good), ("part", other)]
    write_sweep_report(mixed, tmp_path / "sweep.html", setting="list", figure_name="auc")
    assert "other pairs" in read(tmp_path / "sweep.html").text
    with pytest.raises(DatasetError, match=r"run 1, of lfw: has no figure 'tar@far=0\.001'"):
        write_sweep_report(mixed, tmp_path / "x.html", setting="list", figure_name="tar@far=0.001")
    with pytest.raises(DatasetError, match="at least one"):
        write_sweep_report([], tmp_path / "x.html", setting="list")


def test_what_differs_between_runs_stands_beside_each_other(tmp_path: Path) -> None:
    other = made_run(
        protocol={"mirror": True, "score": "cosine", "frames": 100}, command=("facestream", "again")
    )
    write_sweep_report([("no", made_run()), ("yes", other)], tmp_path / "sweep.html", setting="mirrored")
    page = read(tmp_path / "sweep.html")
    assert "mirrorno | yes" in page.text
    assert "scorecosine" in page.text
    assert "facestream again" in page.text


points = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10)), min_size=1, max_size=15)


@given(points)
def test_the_frontier_is_what_none_beats(rows: list[tuple[int, int]]) -> None:
    times, accuracies = np.array(rows, float).T
    kept = frontier(times, accuracies)
    places = [(times[row], accuracies[row]) for row in kept]
    assert places == sorted(set(places))
    unbeaten = {
        (t, a)
        for t, a in zip(times, accuracies, strict=True)
        if not ((times <= t) & (accuracies >= a) & ((times < t) | (accuracies > a))).any()
    }
    assert set(places) == unbeaten


def test_the_best_within_each_limit(tmp_path: Path) -> None:
    def timed(name: str, milliseconds: float, accuracy: float) -> TimedRun:
        run = made_run()
        return TimedRun(
            name, milliseconds, dataclasses.replace(run, figures=run.figures | {"accuracy": accuracy})
        )

    runs = [timed("quick", 60, 0.91), timed("slow", 400, 0.95), timed("useless", 90, 0.90)]
    write_frontier_report(runs, tmp_path / "fruits.html", limits_ms=(50, 100, 500))
    page = read(tmp_path / "fruits.html")
    assert re.search(r"50 ms\s*none keeps it", page.text)
    assert re.search(r"100 ms\s*quick\s*91\.00 %\s*60\.0 ms", page.text)
    assert re.search(r"500 ms\s*slow\s*95\.00 %", page.text)
    assert page.text.count("yes") == 2
    with pytest.raises(ValueError, match="milliseconds: expected more than 0, got 0"):
        timed("impossible", 0, 1.0)


def test_identification_has_trials_and_mistakes(root: Path, tmp_path: Path) -> None:
    pairs = (
        PairRecord("Ann/0", "Bob", same=False, fold=0, similarity=0.6, first_image="Ann/Ann_0001.jpg"),
        PairRecord("Ann/0", "Ann", same=True, fold=0, similarity=0.4),
    )
    run = made_run(
        benchmark="ident",
        pairs=pairs,
        folds=({"trial": 0.0, "enrolled": 20.0, "rank-1": 0.9}, {"trial": 1.0, "enrolled": 20.0}),
        figures={
            "rank-1": 0.9375,
            "rank-1 low": 0.9,
            "rank-1 high": 0.95,
            "rank-5": 0.9688,
            "dir@far=0.01": "refused: 20 impostor probes",
        },
    )
    write_report(run, tmp_path / "report.html", data_root=root)
    page = read(tmp_path / "report.html")
    assert "93.75 %" in page.text
    assert "90.00 % to 95.00 %" in page.text
    assert "refused: 20 impostor probes" in page.text
    assert "Somebody else · similarity 0.600" in page.text
    assert page.tags.count("img") == 1
    assert any("rank 5 96.88\u00a0%" in label for label in page.all("aria-label"))


@pytest.mark.parametrize(
    ("value", "name", "shown"),
    [
        (0.93756, "rank-1 openness=0.2", "93.76\u00a0%"),
        (56.10248, "wall seconds", "56.1"),
        (0.199125, "openness", "0.1991"),
        (12345.6, "frames", "12,346"),
        (19.0, "errors", "19"),
        ("refused: <few>", "dir@far=0.1", "refused: <few>"),
        (None, "errors", "\u2013"),
    ],
)
def test_figures_are_told_by_their_names(value: float | str | None, name: str, shown: str) -> None:
    assert plain(value, name) == shown


def test_a_run_without_pairs_is_reported(tmp_path: Path) -> None:
    run = made_run(pairs=(), folds=(), figures={}, notes=(), seconds={}, models=())
    write_report(run, tmp_path / "report.html", data_root=None)
    assert "facestream bench lfw" in read(tmp_path / "report.html").text


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="the report cannot be written"):
        write_report(made_run(), tmp_path / "file" / "report.html", data_root=None)


def test_drawings_are_the_same_each_time() -> None:
    scores = judge(made_run()).scores
    assert roc_plot(roc(scores), [(0.1, 0.9)]) == roc_plot(roc(scores), [(0.1, 0.9)])


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], []])
def test_few_scores_can_be_drawn(values: list[float]) -> None:
    drawn = histogram_plot(np.array(values), np.array([0.1]), (0.3, 0.3))
    assert drawn.startswith('<svg class="roomy" aria-hidden')
    assert "<style" not in drawn
    sweep_plot([1, 1000], np.array([1.0, 2.0]), np.array([np.nan, 0.1]), setting="frames", figure="x")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r'pip install "facestream\[bench\]"'):
        check_plots()
    with pytest.raises(ConfigError, match="matplotlib"):
        write_report(made_run(), tmp_path / "report.html", data_root=None)
    assert not (tmp_path / "report.html").exists()
