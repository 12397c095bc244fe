"""The commands that measure accuracy, on photographs and videos that are made of one portrait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.compilation.sample_faces import load_portrait, portrait_views
from training.data.results import load

PEOPLE = ("Ann_Lee", "Bob_Ray", "Cem_Oz", "Dia_Fox")
VIEWS = 3
TIMEOUT_S = 500


def facestream(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=os.environ | {"COLUMNS": "160"},
    )


def views_of(person: int) -> list[np.ndarray]:
    """One portrait, as wide and as red as only this person is."""
    portrait = load_portrait()
    tinted = portrait * np.array([1.0, 1.0 - 0.1 * person, 1.0 - 0.2 * person])
    wider = cv2.resize(tinted.astype(np.uint8), None, fx=1 + 0.2 * person, fy=1.0)
    return portrait_views(np.asarray(wider, np.uint8))[person :: len(PEOPLE)][: VIEWS + 1]


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lfw")
    for number, name in enumerate(PEOPLE):
        (root / name).mkdir()
        for shot, image in enumerate(views_of(number)[:VIEWS], start=1):
            cv2.imwrite(str(root / name / f"{name}_{shot:04d}.jpg"), image)
    genuine = [f"{name}\t1\t{shot}" for name in PEOPLE for shot in (2, 3)]
    impostors = [
        f"{a}\t{shot}\t{b}\t{shot}"
        for a, b in zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True)
        for shot in (1, 2)
    ]
    half = len(genuine) // 2
    rows = ["2\t4", *genuine[:half], *impostors[:half], *genuine[half:], *impostors[half:]]
    (root / "pairs.txt").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def ytf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ytf")
    for number, name in enumerate(PEOPLE):
        for video in (0, 1):
            folder = root / "frame_images_DB" / name / str(video)
            folder.mkdir(parents=True)
            for frame, image in enumerate(views_of(number)[video * 2 : video * 2 + 2], start=1):
                cv2.imwrite(str(folder / f"{video}.{frame}.jpg"), image)
    pairs = [(name, 0, name, 1, 1) for name in PEOPLE]
    pairs += [(a, 0, b, 1, 0) for a, b in zip(PEOPLE, PEOPLE[1:] + PEOPLE[:1], strict=True)]
    rows = [
        f"{1 + number % 2}, {number}, {a}/{i}, {b}/{j}, {same}"
        for number, (a, i, b, j, same) in enumerate(pairs, start=1)
    ]
    (root / "splits.txt").write_text("\n".join(rows) + "\n")
    return root


def bench_lfw(lfw: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    common = ("--pairs", lfw / "pairs.txt", "--engine", "openvino", "--precision", "fp32")
    return facestream("bench", "lfw", "--root", lfw, *common, *options)


@pytest.fixture(scope="module")
def measured(lfw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lfw-run")
    done = bench_lfw(
        lfw,
        "--no-cache",
        "--json",
        folder / "plain.json",
        "--report",
        folder / "plain.html",
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy, all pairs" in done.stdout
    return folder


def test_lfw_says_what_was_measured(measured: Path, lfw: Path) -> None:
    run = load(measured / "plain.json")
    assert run.benchmark == "lfw"
    assert len(run.pairs) == 16
    assert {model.task for model in run.models} == {"detector", "embedder"}
    assert run.command[:3] == ("facestream", "bench", "lfw")
    page = (measured / "plain.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert str(lfw) not in page or "--root" in page


def test_two_runs_are_compared(measured: Path, lfw: Path) -> None:
    flipped = measured / "flipped.json"
    done = bench_lfw(
        lfw,
        "--flip",
        "--no-cache",
        "--json",
        flipped,
    )
    assert done.returncode == 0, done.stderr
    told = facestream("bench", "compare", measured / "plain.json", flipped)
    assert told.returncode == 0, told.stderr
    assert "Verdict" in told.stdout
    assert "flip: False -> True" in told.stdout


def test_a_sweep_keeps_a_run_for_each_setting(lfw: Path, tmp_path: Path) -> None:
    done = facestream(
        "bench",
        "lfw",
        "--root",
        lfw,
        "--pairs",
        lfw / "pairs.txt",
        "--sweep",
        "quantisation",
        "--engine",
        "openvino",
        "--no-cache",
        "--json",
        tmp_path,
        "--report",
        tmp_path / "sweep.html",
    )
    assert done.returncode == 0, done.stderr
    kept = sorted(path.name for path in tmp_path.glob("*.json"))
    assert kept == ["lfw-quantisation-float32.json", "lfw-quantisation-int8.json"]
    assert "int8" in (tmp_path / "sweep.html").read_text("utf-8")


@pytest.mark.parametrize("score", ["all-pairs", "weighted"])
def test_ytf(ytf: Path, tmp_path: Path, score: str) -> None:
    done = facestream(
        "bench",
        "ytf",
        "--root",
        ytf,
        "--pairs",
        ytf / "splits.txt",
        "--score",
        score,
        "--engine",
        "openvino",
        "--no-cache",
        "--json",
        tmp_path / "run.json",
    )
    assert done.returncode == 0, done.stderr
    run = load(tmp_path / "run.json")
    assert len(run.pairs) == 8
    assert run.protocol["score"] == score


def test_ident(ytf: Path, tmp_path: Path) -> None:
    done = facestream(
        "bench",
        "ident",
        "--videos",
        ytf,
        "--scenario",
        "video-to-video",
        "--engine",
        "openvino",
        "--repetitions",
        2,
        "--json",
        tmp_path / "run.json",
        "--report",
        tmp_path / "run.html",
    )
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "run.json").benchmark == "ident"
    assert (tmp_path / "run.html").stat().st_size > 10_000


def test_audit(ytf: Path, lfw: Path, tmp_path: Path) -> None:
    done = facestream("bench", "audit", "--videos", ytf, "--stills", lfw, "--sheet", tmp_path / "sheet.html")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("lfw", "--root", "nowhere", "--pairs", "{lfw}/pairs.txt"), "nowhere"),
        (("lfw", "--root", "{lfw}", "--pairs", "{lfw}/none.txt"), "none.txt"),
        (("ytf", "--root", "{lfw}", "--pairs", "{ytf}/splits.txt"), "frame_images_DB"),
        (("ytf", "--root", "{ytf}", "--pairs", "{lfw}/pairs.txt"), "pairs.txt"),
        (("lfw", "--root", "{lfw}", "--pairs", "{lfw}/pairs.txt", "--embedder", "nobody"), "no such model"),
        (("compare", "{lfw}/pairs.txt", "{lfw}/pairs.txt"), "pairs.txt"),
    ],
)
def test_bad_data_is_one_line(words: tuple[str, ...], said: str, lfw: Path, ytf: Path) -> None:
    done = facestream("bench", *(word.format(lfw=lfw, ytf=ytf) for word in words))
    assert done.returncode in {1, 2}
    assert "[info" not in done.stderr, "no model is converted for it"
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_missing_photograph_is_an_error_or_a_counted_line(lfw: Path, tmp_path: Path) -> None:
    rows = (lfw / "pairs.txt").read_text().splitlines()
    (tmp_path / "pairs.txt").write_text("\n".join([*rows[:-1], "Nobody_Here\t1\tAnn_Lee\t1"]) + "\n")
    words = (
        "bench",
        "lfw",
        "--root",
        lfw,
        "--pairs",
        tmp_path / "pairs.txt",
        "--engine",
        "openvino",
        "--no-cache",
    )
    refused = facestream(*words)
    assert refused.returncode == 1
    assert "Nobody_Here" in refused.stderr
    told = facestream(*words, "--skip-missing")
    assert told.returncode == 0, told.stderr
    assert "Nobody_Here" in told.stdout


def test_cluster(ytf: Path, tmp_path: Path) -> None:
    done = facestream(
        *("bench", "cluster", "--videos", ytf, "--no-rivals", "--cut", "0.9", "--json", tmp_path / "run.json")
    )
    assert done.returncode == 0, done.stderr
    assert "b-cubed f stream" in done.stdout
    run = load(tmp_path / "run.json")
    assert (run.benchmark, run.protocol["cut"], run.data["people"]) == ("cluster", 0.9, len(PEOPLE))
