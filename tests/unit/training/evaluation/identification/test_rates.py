from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.embeddings import unit_rows
from engine.errors import DatasetError
from training.data.names import read_names
from training.evaluation.identification.rates import (
    Outcomes,
    alarm_threshold,
    at_threshold,
    dir_at_far,
    identification_rate,
    interval_over_people,
    outcomes,
    rank_rate,
    search,
    template,
)

FARS = st.integers(1, 100).map(lambda percent: percent / 100)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities of few different values, so that many are equal; people 0..G-1 are enrolled."""
    enrolled = draw(st.integers(1, 5))
    people = draw(st.lists(st.integers(0, 7), min_size=1, max_size=25))
    values = draw(
        st.lists(st.integers(-4, 4), min_size=enrolled * len(people), max_size=enrolled * len(people))
    )
    similarities = np.array(values, float).reshape(len(people), enrolled) / 4
    return similarities, np.array(people), np.random.default_rng(enrolled).permutation(enrolled)


def slow_rank(row: np.ndarray, enrolled: np.ndarray, person: int) -> int:
    own = row[list(enrolled).index(person)]
    if own == -1:
        return len(row) + 1
    return 1 + sum(1 for other, value in zip(enrolled, row, strict=True) if other != person and value >= own)


@given(searches())
def test_ranks_and_their_rates_are_those_of_the_double_loop(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    similarities, people, enrolled = case
    got = outcomes(similarities, people, enrolled)
    ranks = [
        slow_rank(row, enrolled, person) if person in enrolled else 0
        for row, person in zip(similarities, people, strict=True)
    ]
    assert got.ranks.tolist() == ranks
    assert got.mated.tolist() == [rank > 0 for rank in ranks]
    for probe, (row, person) in enumerate(zip(similarities, people, strict=True)):
        others = {column: row[column] for column in range(len(row)) if enrolled[column] != person}
        assert got.best[probe] == row.max()
        if others:
            assert got.winners[probe] in others
            assert row[got.winners[probe]] == max(others.values())
        else:
            assert got.winners[probe] == -1
    mated = [rank for rank in ranks if rank]
    if not mated:
        assert math.isnan(rank_rate(got, 1))
        return
    for rank in range(1, 7):
        assert rank_rate(got, rank) == pytest.approx(sum(r <= rank for r in mated) / len(mated))


@given(searches(), FARS, st.integers(1, 3))
def test_dir_is_the_best_that_keeps_the_bound(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], far: float, rank: int
) -> None:
    similarities, people, enrolled = case
    got = outcomes(similarities, people, enrolled)
    impostors = [row.max() for row, p in zip(similarities, people, strict=True) if p not in enrolled]
    genuine = [
        (row[list(enrolled).index(p)], slow_rank(row, enrolled, p))
        for row, p in zip(similarities, people, strict=True)
        if p in enrolled
    ]
    if not genuine or round(far * 100) * len(impostors) < 100:
        with pytest.raises(DatasetError):
            dir_at_far(got, far, rank=rank)
        return
    reached = 0.0
    for threshold in np.arange(-3, 6) / 4:  # -1 is never accepted
        if sum(best >= threshold for best in impostors) * 100 <= round(far * 100) * len(impostors):
            hits = sum(own >= threshold and place <= rank for own, place in genuine)
            reached = max(reached, hits / len(genuine))
    result = dir_at_far(got, far, rank=rank)
    assert result.rate == pytest.approx(reached)
    assert result.false_alarms == sum(best >= result.threshold for best in impostors)
    assert result.false_alarms <= far * len(impostors) + 1e-9
    assert result.rate == identification_rate(got, result.threshold, rank=rank)
    assert result.impostors == got.impostors == len(impostors)


def planted(genuine: np.ndarray, impostors: np.ndarray) -> Outcomes:
    """One person is enrolled; every other probe shows a person of their own."""
    scores = np.concatenate([genuine, impostors])
    people = np.where(np.arange(len(scores)) < len(genuine), 0, np.arange(len(scores)) + 1)
    return outcomes(scores[:, None], people, np.array([0]))


def test_rates_that_the_impostors_cannot_support_are_refused() -> None:
    results = planted(np.linspace(0, 1, 11), np.linspace(0, 0.5, 200))
    assert dir_at_far(results, 0.005).false_alarms == 1
    message = r"0\.001 needs at least 1,000 impostor probes, got 200; state 1/200 or more"
    with pytest.raises(DatasetError, match=message):
        dir_at_far(results, 0.001)
    assert alarm_threshold(results, 0.001) > 0.5, "none may be answered"
    with pytest.raises(DatasetError, match="no probe shows anybody"):
        dir_at_far(results[~results.mated], 0.1)
    with pytest.raises(DatasetError, match="got 0"):
        dir_at_far(results[results.mated], 0.1)


def test_rates_that_are_no_binary_fractions_are_counted_rightly() -> None:
    results = planted(np.array([0.9]), np.linspace(0, 0.5, 100))
    alarms = [dir_at_far(results, percent / 100).false_alarms for percent in range(1, 101)]
    assert alarms == [*range(1, 101)]


def test_a_tie_is_lost_and_a_probe_without_a_face_is_never_found() -> None:
    tied = outcomes(np.array([[0.5, 0.5], [0.6, 0.5]]), np.array([0, 0]), np.array([0, 1]))
    assert tied.ranks.tolist() == [2, 1]
    alone = outcomes(np.array([[-1.0], [0.2], [-1.0]]), np.array([0, 0, 5]), np.array([0]))
    assert alone.ranks.tolist() == [2, 1, 0]
    assert rank_rate(alone, 1) == 0.5
    assert dir_at_far(alone, 1.0).rate == 0.5
    assert dir_at_far(alone, 1.0).false_alarms == 0


def test_impostors_as_near_as_the_genuine_leave_nothing() -> None:
    results = planted(np.full(5, 0.5), np.full(20, 0.5))
    assert dir_at_far(results, 0.5).rate == 0
    assert dir_at_far(results, 1.0).rate == 1


def test_templates_are_the_means_of_the_faces() -> None:
    random = np.random.default_rng(0)
    faces = unit_rows(random.normal(size=(4, 8)))
    qualities = np.array([0.9, 0.1, 0.0, 0.5], np.float32)
    slow = sum(max(q, 1e-3) * face.astype(float) for q, face in zip(qualities, faces, strict=True))
    np.testing.assert_allclose(template(faces, qualities), slow / np.linalg.norm(slow), atol=1e-7)
    plain = faces.astype(float).mean(axis=0)
    np.testing.assert_allclose(template(faces), plain / np.linalg.norm(plain), atol=1e-7)
    nobody = template(faces[:0], qualities[:0])
    assert nobody.tolist() == [0] * 8
    found = search(np.stack([template(faces), nobody]), np.stack([nobody, template(faces[:1])]))
    assert found[0, 1] == pytest.approx(float(template(faces) @ faces[0]))
    assert found[[0, 1, 1], [0, 0, 1]].tolist() == [-1, -1, -1]
    with pytest.raises(ValueError, match=r"qualities: expected \(4,\)"):
        template(faces, qualities[:3])


def test_arguments_are_checked() -> None:
    one = np.array([0])
    for similarities, people, enrolled, message in [
        (np.zeros((2, 1)), one, one, r"expected \(1, 1\)"),
        (np.zeros((1, 0)), one, one[:0], "somebody enrolled"),
        (np.zeros((1, 2)), one, np.array([3, 3]), "duplicate person"),
        (np.full((1, 1), np.nan), one, one, "1 are not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            outcomes(similarities, people, enrolled)
    results = planted(np.array([0.9]), np.array([0.1]))
    for far, rank in ((0, 1), (1.1, 1), (0.5, 0)):
        with pytest.raises(ValueError, match="expected far above 0"):
            dir_at_far(results, far, rank=rank)
    with pytest.raises(ValueError, match="rank: expected at least 1"):
        rank_rate(results, 0)
    with pytest.raises(ValueError, match="mated: expected bool "):
        Outcomes(results.people, results.own, results.own, results.ranks, results.best, results.winners)
    for wrong in ({"rounds": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="rounds >= 1"):
            interval_over_people([results], len, **wrong)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Each person has six probes that mostly succeed or fail together, at 0.7 on average.
    held = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        luck = np.repeat(random.beta(0.7, 0.3, 40), 6)
        ranks = np.where(random.uniform(size=240) < luck, 1, 2)
        people, zeros = np.repeat(np.arange(40), 6), np.zeros(240)
        run = Outcomes(people, np.ones(240, bool), zeros, ranks, zeros, ranks)
        low, high = interval_over_people([run], lambda r: rank_rate(r, 1), rounds=200, level=0.9)
        held += low <= 0.7 <= high
    assert 45 <= held <= 60, "probes drawn one by one give 0.5 of them"


def test_people_are_drawn_with_all_their_probes_and_alike_in_every_run() -> None:
    run = outcomes(np.full((6, 1), 0.5), np.array([0, 0, 0, 7, 7, 9]), np.array([0]))
    seen = []

    def count(drawn: Outcomes) -> float:
        seen.append(tuple(np.bincount(drawn.people, minlength=10)[[0, 7, 9]]))
        return float(len(drawn))

    low, high = interval_over_people([run, run[::-1]], count, rounds=40)
    assert low < high
    assert seen[::2] == seen[1::2]
    for first, second, third in seen:
        assert first % 3 == second % 2 == 0
        assert first / 3 + second / 2 + third == 3
    assert interval_over_people([run, run[::-1]], lambda r: float(len(r)), rounds=40) == (low, high)
    with pytest.raises(DatasetError, match="too few people for an interval"):
        interval_over_people([run], lambda _: math.nan, rounds=3)


def test_a_threshold_set_beforehand_names_strangers_and_misnames_the_mated() -> None:
    # Of the enrolled 0 and 1: a stranger at 0.6, one at 0.4, a right one at 0.7 and 0.45, a wrong one at 0.8.
    similarities = np.array([[0.6, 0.1], [0.4, 0.2], [0.7, 0.1], [0.1, 0.45], [0.8, 0.3]])
    results = outcomes(similarities, np.array([7, 8, 0, 1, 1], np.intp), np.array([0, 1], np.intp))
    assert at_threshold(results, 0.5) == {"strangers named": 0.5, "right": 1 / 3, "wrong name": 1 / 3}
    assert at_threshold(results, 0.4) == {"strangers named": 1.0, "right": 2 / 3, "wrong name": 1 / 3}


def test_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("# whom\n\nAnn_Lee\n  Bo_B  # films show another\r\nAnn_Lee\nÉmile_Zola-1\nAnn_Lee/3\n")
    assert read_names(path) == {"Ann_Lee", "Bo_B", "Émile_Zola-1", "Ann_Lee/3"}
    path.write_text("# nobody\n")
    assert read_names(path) == frozenset()
    for line, shown in [("Ann Lee", "'Ann Lee'"), ("../x", "'../x'"), ("Ann/three", "'Ann/three'")]:
        path.write_text(f"Bo_B\n{line}\n")
        with pytest.raises(DatasetError, match=f"line 2: .* as Some_Name or Some_Name/3, got {shown}"):
            read_names(path)
    with pytest.raises(DatasetError, match="cannot read the list"):
        read_names(tmp_path / "none.txt")
