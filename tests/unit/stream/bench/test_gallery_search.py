from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from engine.backends.machine import one_core
from engine.errors import SinkError
from stream.bench.gallery_search import Population, bench_gallery


@pytest.mark.parametrize(
    "made", [Population.like_faces(64), Population.uniform(64)], ids=lambda each: each.name
)
def test_people_are_nearer_to_themselves_than_to_each_other(made: Population) -> None:
    people = made.people(300)
    cosines = made.faces(people) @ made.faces(people).T
    assert 0.5 < np.diag(cosines).mean() < 0.8
    assert cosines[~np.eye(300, dtype=bool)].mean() < 0.2


def test_faces_are_drawn_as_the_given_ones_are_spread() -> None:
    source = Population.like_faces(32)
    means = source.people(2000)
    faces = np.concatenate([source.faces(means) for _ in range(3)])
    made = Population.measured(faces, np.tile(np.arange(2000), 3))
    again = made.people(4000)
    drawn = made.faces(again)
    np.testing.assert_allclose(drawn.mean(axis=0), faces.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T).diagonal(), np.cov(faces.T).diagonal(), atol=0.005)
    same = (drawn * made.faces(again)).sum(axis=1).mean()
    assert same == pytest.approx((faces[:2000] * faces[2000:4000]).sum(axis=1).mean(), abs=0.03)
    with pytest.raises(ValueError, match="several faces"):
        Population.measured(faces[:5], np.arange(5))


def test_the_figures_are_shown_and_written(tmp_path: Path) -> None:
    out = io.StringIO()
    figures = bench_gallery(
        500,
        searches=20,
        adds=30,
        console=Console(file=out, width=120),
        size=16,
        store="int8",
        json_out=tmp_path / "f.json",
    )
    assert [each.population for each in figures] == ["like faces", "uniform directions"]
    assert all(each.is_exact and each.recall_1 >= 0.9 and each.adds == 30 for each in figures)
    assert json.loads((tmp_path / "f.json").read_text())[0]["people"] == 500
    assert "searched exactly on one" in out.getvalue()
    with pytest.raises(SinkError, match="another place"):
        bench_gallery(
            5, searches=1, adds=0, console=Console(file=out), size=4, json_out=tmp_path / "no" / "f"
        )


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux lets a thread choose its cores")
def test_one_core_is_used_and_then_all_again() -> None:
    before = os.sched_getaffinity(0)
    with one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
