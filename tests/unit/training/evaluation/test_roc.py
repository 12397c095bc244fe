from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from engine.errors import DatasetError
from training.evaluation.fold_accuracy import PairScores, k_fold_accuracy
from training.evaluation.roc import area_under, bootstrap_intervals, equal_error_rate, roc, tar_at_far


def scores(similarities: object, same: object) -> PairScores:
    same = np.asarray(same, bool)
    return PairScores(np.asarray(similarities, float), same, np.zeros(len(same), np.intp))


def drawn(genuine: int, impostors: int, *, apart: float = 2.0, seed: int = 0) -> PairScores:
    random = np.random.default_rng(seed)
    return scores(
        np.append(random.normal(apart, 1, genuine), random.normal(0, 1, impostors)),
        np.arange(genuine + impostors) < genuine,
    )


# Few different values, so that many are equal.
some_pairs = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({same for _, same in rows}) == 2
)


@given(some_pairs)
def test_the_curve_and_its_area_are_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    pairs = scores(*zip(*rows, strict=True))
    far, tar, thresholds = metrics.roc_curve(pairs.same, pairs.similarities, drop_intermediate=False)
    curve = roc(pairs)
    assert curve.far == pytest.approx(far)
    assert curve.tar == pytest.approx(tar)
    assert curve.thresholds == pytest.approx(thresholds)
    assert area_under(curve) == pytest.approx(metrics.roc_auc_score(pairs.same, pairs.similarities))


@given(some_pairs)
def test_the_equal_error_rate_is_where_the_lines_cross(rows: list[tuple[int, bool]]) -> None:
    from scipy.optimize import brentq

    pairs = scores(*zip(*rows, strict=True))
    curve = roc(pairs)
    along = np.arange(len(curve.far))
    gap = brentq(lambda t: np.interp(t, along, curve.far) - 1 + np.interp(t, along, curve.tar), 0, along[-1])
    assert equal_error_rate(curve) == pytest.approx(np.interp(gap, along, curve.far), abs=1e-9)


def test_the_equal_error_rate_of_two_bells() -> None:
    # Half of a deviation's worth on each side: Phi(-1).
    assert equal_error_rate(roc(drawn(20_000, 20_000))) == pytest.approx(0.1587, abs=0.005)
    assert equal_error_rate(roc(scores([0, 1, 2, 3], [0, 0, 1, 1]))) == 0
    assert equal_error_rate(roc(scores([0, 1, 2, 3], [1, 1, 0, 0]))) == 1


@given(some_pairs, st.integers(1, 100).map(lambda percent: percent / 100))
def test_tar_at_far_is_the_best_that_keeps_the_bound(rows: list[tuple[int, bool]], far: float) -> None:
    pairs = scores(*zip(*rows, strict=True))
    impostors = int((~pairs.same).sum())
    if round(far * 100) * impostors < 100:
        with pytest.raises(DatasetError, match="impostor pairs"):
            tar_at_far(roc(pairs), far)
        return
    reached = 0.0
    for threshold in np.arange(-4, 6):
        accepted = pairs.similarities >= threshold
        if int((accepted & ~pairs.same).sum()) * 100 <= round(far * 100) * impostors:
            reached = max(reached, accepted[pairs.same].mean())
    got = tar_at_far(roc(pairs), far)
    assert got.tar == pytest.approx(reached)
    accepted = pairs.similarities >= got.threshold
    assert accepted[pairs.same].mean() == pytest.approx(got.tar)
    assert (accepted & ~pairs.same).sum() == got.false_accepts <= far * impostors + 1e-9
    assert got.impostors == impostors


@given(some_pairs, st.integers(1, 100).map(lambda percent: percent / 100))
def test_the_linear_one_is_an_interpolation_of_the_curve(rows: list[tuple[int, bool]], far: float) -> None:
    pairs = scores(*zip(*rows, strict=True))
    curve = roc(pairs)
    if far * curve.impostors < 1:
        return
    step, linear = (tar_at_far(curve, far, interpolation=kind).tar for kind in ("step", "linear"))
    on_a_point = np.isclose(curve.far, far)
    expected = curve.tar[on_a_point].max() if on_a_point.any() else np.interp(far, curve.far, curve.tar)
    assert linear == pytest.approx(expected)
    assert linear >= step


def test_rates_that_the_impostor_pairs_cannot_support_are_refused() -> None:
    curve = roc(drawn(3000, 3000))
    assert tar_at_far(curve, 1e-3).false_accepts == 3
    message = r"0\.0001 needs at least 10,000 impostor pairs, got 3,000; state 1/3,000 or more"
    with pytest.raises(DatasetError, match=message):
        tar_at_far(curve, 1e-4)
    assert tar_at_far(roc(drawn(10, 1000)), 1e-3).false_accepts == 1
    with pytest.raises(DatasetError, match="needs at least 1,000"):
        tar_at_far(roc(drawn(10, 999)), 1e-3)


def test_rates_that_are_no_binary_fractions_are_counted_rightly() -> None:
    curve = roc(scores(np.arange(200), np.arange(200) % 2))
    assert [tar_at_far(curve, percent / 100).false_accepts for percent in range(1, 101)] == [*range(1, 101)]


def test_nobody_is_accepted_where_the_nearest_pairs_are_impostors() -> None:
    got = tar_at_far(roc(scores([5, 5, 1, 1], [0, 0, 1, 0])), 0.4)
    assert (got.tar, got.false_accepts, got.threshold) == (0, 0, np.inf)


def test_arguments_are_checked() -> None:
    curve = roc(drawn(10, 10))
    for far in (0, -1, 1.1):
        with pytest.raises(ValueError, match="far: expected"):
            tar_at_far(curve, far)
    with pytest.raises(ValueError, match="expected step or linear"):
        tar_at_far(curve, 0.5, interpolation="cubic")
    with pytest.raises(DatasetError, match="genuine and impostor"):
        roc(scores([1, 2], [1, 1]))
    for wrong in ({"rounds": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="rounds of at least 1"):
            bootstrap_intervals(drawn(3, 3), lambda p: {"pairs": len(p)}, **wrong)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Phi(2 / sqrt 2): the chance that one bell's draw is above the other's.
    truth, held = 0.9214, 0
    for seed in range(60):
        found = bootstrap_intervals(
            drawn(150, 150, seed=seed), lambda p: {"auc": area_under(roc(p))}, rounds=200, level=0.9
        )
        low, high = found["auc"]
        held += low <= truth <= high
    assert 47 <= held <= 60


def test_draws_keep_the_numbers_of_each_fold_and_kind() -> None:
    same, folds = np.arange(90) % 3 > 0, np.arange(90) // 30
    pairs = PairScores(np.random.default_rng(0).normal(same * 1.0), same, folds)
    seen = []

    def statistics(drawn: PairScores) -> dict[str, float]:
        seen.append([int(drawn.same[drawn.folds == fold].sum()) for fold in range(3)])
        return {"accuracy": k_fold_accuracy(drawn).mean}

    found = bootstrap_intervals(pairs, statistics, rounds=50)
    assert seen == [[20, 20, 20]] * 50
    low, high = found["accuracy"]
    assert low < high
    assert bootstrap_intervals(pairs, statistics, rounds=50) == found
