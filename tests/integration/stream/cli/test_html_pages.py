"""The pages in a real browser: nothing else shows what people will see."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_runs import made_run
from browser import Browser, find_firefox
from people import MODEL
from seen import four_tracks_of_two, track, write_lines
from typer.testing import CliRunner

from stream.cli.root import app
from stream.gallery.best_shots import BestShots
from stream.gallery.people import Gallery
from training.data.results import PairRecord
from training.evaluation.mislabelled import Mismatch
from training.report.contact_sheet import write_contact_sheet
from training.report.html import TimedRun, write_frontier_report, write_report, write_sweep_report

pytestmark = pytest.mark.browser

LONG = "x" * 200
EVIL = [
    "<script>hacked = 1</script>",
    "\"'><img src=x onerror='hacked = 1'>",
    "</style></script><svg onload=hacked=1>",
    "שלום_שם",
    LONG,
]

FAULTS = """
const faults = [];
const whole = document.documentElement;
if (whole.scrollWidth > whole.clientWidth) faults.push('scrolls sideways');
for (const each of document.images)
  if (!each.complete || !each.naturalWidth || !each.alt) faults.push(`picture ${each.alt}`);
for (const name of ['src', 'href'])
  for (const each of document.querySelectorAll(`[${name}]`))
    if (!/^(data:|#)/.test(each.getAttribute(name))) faults.push(`loads ${each.getAttribute(name)}`);
if (performance.getEntriesByType('resource').some(each => !/^data:/.test(each.name))) faults.push('loads');
if (innerWidth <= 400)
  for (const each of document.querySelectorAll('.wide, .drawing'))
    if (each.scrollWidth > each.clientWidth) faults.push(`cut on a telephone: ${each.ariaLabel}`);
if (document.title !== document.querySelector('h1').innerText) faults.push(`title ${document.title}`);
if (typeof hacked !== 'undefined') faults.push('runs what is no script of ours');
const brightness = colour => {
  const [red, green, blue] = colour.match(/[0-9.]+/g).map(each => each / 255)
    .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = each => {
  for (; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (!/^rgba.*, 0\\)$|^transparent$/.test(colour)) return brightness(colour);
  }
  return brightness('rgb(255, 255, 255)');
};
for (const each of document.querySelectorAll('body *:not(svg *):not(script)')) {
  if (![...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
  const [low, high] = [brightness(getComputedStyle(each).color), ground(each)].sort((a, b) => a - b);
  if ((high + 0.05) / (low + 0.05) < 4.5) faults.push(`pale: ${each.innerText.slice(0, 40)}`);
  const box = each.getBoundingClientRect();
  if (!each.closest('.wide, .drawing, details') && box.right > innerWidth + 1)
    faults.push(`cut off: ${each.innerText.slice(0, 40)}`);
}
return faults;
"""
"""What no page may do, found in the page as it is shown: the list of its faults."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_firefox()
    if program is None:
        pytest.skip("no Firefox; apt-get install firefox-esr")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def check(browser: Browser, page: Path, *words: str) -> None:
    """Look at a page, wide and narrow, light and dark."""
    for width_px, scheme in ((1200, "light"), (1200, "dark"), (390, "light")):
        browser.open(page, width_px=width_px, scheme=scheme)
        assert browser.run(FAULTS) == [], (width_px, scheme)
        assert browser.complaints() == []
        dark = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, dark[4:-1].split(", "))) < 300) == (scheme == "dark")
    shown = browser.run("return document.body.innerText").replace("\xa0", " ")
    for each in words:
        assert each in shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for name, grey in (("ann", 90), ("bob", 180)):
        cv2.imwrite(str(tmp_path / "data" / f"{name}.jpg"), np.full((300, 200, 3), grey, np.uint8))
    return tmp_path / "data"


def labelled(count: int) -> tuple[PairRecord, ...]:
    """Pairs, all judged wrongly, under names that want to be more than text."""
    return tuple(
        PairRecord(
            EVIL[row % 5], EVIL[(row + 1) % 5], row % 2 == 0, row % 4 + 1, row % 2, "ann.jpg", "bob.jpg"
        )
        for row in range(count)
    )


def report(root: Path, page: Path) -> None:
    write_report(made_run(pairs=labelled(40), notes=(LONG, EVIL[0])), page, data_root=root)


def identification(root: Path, page: Path) -> None:
    figures = {f"rank-{rank}{more}": 0.9 for more in ("", " openness=0.5") for rank in (1, 2, 5)}
    folds = tuple({"trial": row, "enrolled": 20.0, **figures} for row in (0.0, 1.0))
    run = made_run(benchmark="ident", pairs=labelled(12), figures=figures, folds=folds)
    write_report(run, page, data_root=root)


def sweep(_root: Path, page: Path) -> None:
    runs = [(name, made_run(seed=row)) for row, name in enumerate(EVIL)]
    write_sweep_report(runs, page, setting="name")


def limits(_root: Path, page: Path) -> None:
    write_frontier_report([TimedRun(name, 20.0 + row, made_run()) for row, name in enumerate(EVIL)], page)


def sheet(root: Path, page: Path) -> None:
    proposed = [Mismatch(name, 0.1, 0.3, 4, 3) for name in EVIL]
    shown = dict.fromkeys(EVIL, [root / "ann.jpg", root / "bob.jpg"] * 6)
    write_contact_sheet(proposed, shown, shown, page)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (report, ["Labeled Faces in the Wild: a subset", EVIL[0], "Worst errors", "To repeat it"]),
        (identification, ["Identification", EVIL[2], "Trials"]),
        (sweep, ["by name", EVIL[1]]),
        (limits, ["Accuracy within a time limit", EVIL[0]]),
        (sheet, ["Do both sides show one person?", EVIL[0], "12, 8 shown"]),
    ],
)
def test_the_reports_of_benchmarks_can_be_read(
    browser: Browser, root: Path, tmp_path: Path, write: Callable[[Path, Path], None], words: list[str]
) -> None:
    write(root, tmp_path / "page.html")
    check(browser, tmp_path / "page.html", *words)


def cluster(*args: object) -> str:
    done = CliRunner().invoke(app, ["cluster", *(str(arg) for arg in args)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_page_of_clusters_can_be_read_whatever_the_cameras_are_called(
    browser: Browser, tmp_path: Path
) -> None:
    tracks = [
        track(number, number // 3, camera_id=EVIL[number % 5], track_id=f"{EVIL[number % 5]}{number}")
        for number in range(40)
    ]
    events, page = write_lines(tmp_path / "events.jsonl", *tracks), tmp_path / "page.html"
    cluster(events, "--report", page)
    check(browser, page, "14 people in 40 tracks", "Person 14", "Times are UTC", *EVIL)


def test_a_name_that_is_typed_becomes_the_command_that_enrols(browser: Browser, tmp_path: Path) -> None:
    events = write_lines(tmp_path / "events.jsonl", *four_tracks_of_two())
    page, people = tmp_path / "page.html", tmp_path / "people.db"
    Gallery.create(people, MODEL, sealer=None).close()
    cluster(events, "--report", page)
    command = "return document.querySelector('aside:not([hidden]) code').textContent"
    browser.open(page, width_px=390)
    browser.type("#c2 input[type=text]", "Tony O'Neill")
    assert "gallery create people.db" in browser.run("return document.querySelector('aside').innerText")
    assert "--gallery people.db" in browser.run(command)
    share = browser.run("return document.querySelector('aside').getBoundingClientRect().height / innerHeight")
    assert share < 0.15
    assert browser.run(FAULTS) == []
    cluster(events, "--gallery", people, "--report", page)
    browser.open(page)
    browser.type("#c2 input[type=text]", "Tony O'Neill")
    browser.click("aside button")
    words = shlex.split(browser.run(command))
    assert "--gallery people.db" not in shlex.join(words)
    cluster(*words[2:])
    check(browser, page, "Tony O'Neill", "Person 1")
    assert "Person 2" not in browser.run("return document.body.innerText")


def test_what_is_ticked_and_typed_becomes_the_command_that_does_it(browser: Browser, tmp_path: Path) -> None:
    name = "it's <b>"
    tracks = [*four_tracks_of_two(), track(4, 2), track(5, 2, track_id=name)]
    events, page = write_lines(tmp_path / "my events.jsonl", *tracks), tmp_path / "page.html"
    shots = BestShots(tmp_path / "shots")
    shots(tracks[0], np.full((160, 120, 3), 90, np.uint8))
    cluster(events, "--report", page, "--shots", tmp_path / "shots", "--cut", 0.5)
    check(browser, page, "3 people in 6 tracks", "This page holds 1 picture of faces, not encrypted.")
    foot = "return document.querySelector('aside:not([hidden])')?.innerText"
    assert browser.run(foot) is None
    browser.type("#c2 input[type=number]", "1")
    browser.type("#c1 input[type=number]", "9")  # there is none
    browser.click("#c3 li:last-child input")
    assert browser.run(FAULTS) == []
    told, _, command = browser.run(foot).partition("\n")
    assert told == "Run this, then load the page again: copy"
    words = shlex.split(command)
    assert words[:3] == ["facestream", "cluster", str(events)]
    write_lines(events, track(9, 9, first_seen=tracks[0].first_seen.replace(year=2020)), *tracks)
    assert "4 people in 7 tracks" in cluster(*words[2:])
    check(browser, page, "4 people in 7 tracks")
    seen = browser.run(
        "return [...document.querySelectorAll('section')].map(each => each.querySelectorAll('li').length)"
    )
    assert seen == [1, 4, 1, 1]
    browser.set("javascript.enabled", value=False)
    try:
        browser.open(page)
        assert "same as" not in browser.run("return document.body.innerText")
    finally:
        browser.set("javascript.enabled", value=True)
