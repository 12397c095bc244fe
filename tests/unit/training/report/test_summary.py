from __future__ import annotations

import dataclasses

from bench_runs import made_run
from rich.console import Console

from training.report.summary import show_run, show_sweep


def said(show, *arguments: object) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        show(*arguments, console)
    return captured.get()


def test_a_run_is_shown_with_models_figures_and_notes() -> None:
    run = made_run()
    text = said(show_run, run)
    for model in run.models:
        assert model.name in text
    for note in run.notes:
        assert note in text
    assert "accuracy, mean of the folds" in text


def test_a_run_says_which_figures_the_cache_and_which_too_few_pairs_leave_open() -> None:
    run = made_run()
    rates = ("images per second", "share in engines and decoding", "hours for 3425 videos")
    open_figures = dict.fromkeys((*rates, "tar@far=0.001"))
    lines = said(show_run, dataclasses.replace(run, figures=open_figures)).splitlines()
    for name in rates:
        assert any(name in line and "embeddings came from the cache" in line for line in lines), name
    assert any("tar@far=0.001" in line and "not supported by so few pairs" in line for line in lines)


def test_a_sweep_says_what_was_kept_and_what_was_left_out() -> None:
    run = made_run()
    timed = dataclasses.replace(run, figures=run.figures | {"images per second": 64.0})
    kept = dataclasses.replace(
        run, figures={k: v for k, v in run.figures.items() if k != "images per second"}
    )
    text = said(show_sweep, "flip", [("plain", timed), ("mirrored", kept)], ["else: no GPU"])
    (plain,) = (line for line in text.splitlines() if "plain" in line)
    (mirrored,) = (line for line in text.splitlines() if "mirrored" in line)
    assert "64" in plain
    assert "kept" in mirrored
    assert "left out: else: no GPU" in text
