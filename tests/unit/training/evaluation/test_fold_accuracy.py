from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DatasetError
from training.evaluation.fold_accuracy import PairScores, best_threshold, k_fold_accuracy, mcnemar


def scores(similarities: object, same: object, folds: object = None) -> PairScores:
    same = np.asarray(same, bool)
    return PairScores(
        np.asarray(similarities, float),
        same,
        np.zeros(len(same), np.intp) if folds is None else np.asarray(folds, np.intp),
    )


def drawn(count: int = 6000, *, folds: int = 10, apart: float = 2.0, seed: int = 0) -> PairScores:
    """Genuine pairs are ``apart`` deviations nearer; half of each fold is genuine."""
    random = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    return scores(random.normal(same * apart, 1.0), same, np.arange(count) * folds // count)


def right_at(pairs: PairScores, threshold: float) -> np.ndarray:
    return np.array([(s >= threshold) == t for s, t in zip(pairs.similarities, pairs.same, strict=True)])


def worth(pairs: PairScores, threshold: float, balanced: bool) -> float:
    right = right_at(pairs, threshold)
    return (right[pairs.same].mean() + right[~pairs.same].mean()) / 2 if balanced else right.mean()


# Few different values, so that many are equal.
some_pairs = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({same for _, same in rows}) == 2
)


@given(some_pairs, st.booleans())
def test_no_threshold_is_better_than_the_best(rows: list[tuple[int, bool]], balanced: bool) -> None:
    pairs = scores(*zip(*rows, strict=True))
    every = [worth(pairs, t, balanced) for t in np.arange(-3.5, 4)]
    assert worth(pairs, best_threshold(pairs, balanced=balanced), balanced) == pytest.approx(max(every))


def test_the_threshold_lies_in_the_middle() -> None:
    assert best_threshold(scores([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])) == pytest.approx(0.5)
    # Equally good are those between 1 and 2, 3 and 4, 5 and 6.
    assert best_threshold(scores([1, 2, 3, 4, 5, 6], [0, 1, 0, 1, 0, 1])) == 3.5


@pytest.mark.parametrize("low", [0.0, 1.0, 1e300, -1.0])
def test_neighbouring_numbers_are_told_apart(low: float) -> None:
    pairs = scores([low, np.nextafter(low, np.inf)], [0, 1])
    assert right_at(pairs, best_threshold(pairs)).all()


def test_everything_can_be_rejected_or_accepted() -> None:
    upside_down = [3, 3, 3, 1]
    assert best_threshold(scores(upside_down, [0, 0, 0, 1])) > 3
    assert best_threshold(scores(upside_down, [1, 1, 1, 0])) <= 3
    assert best_threshold(scores([3, 1, 1, 1], [0, 1, 1, 1])) <= 1


def by_hand(pairs: PairScores, balanced: bool) -> list[float]:
    accuracies = []
    for fold in sorted(set(pairs.folds.tolist())):
        outside, inside = pairs[pairs.folds != fold], pairs[pairs.folds == fold]
        accuracies.append(worth(inside, best_threshold(outside, balanced=balanced), balanced))
    return accuracies


@pytest.mark.parametrize("balanced", [False, True])
def test_folds_of_any_size_and_order_equal_the_loop(balanced: bool) -> None:
    random = np.random.default_rng(1)
    same = random.random(300) < 0.8
    pairs = scores(random.normal(same * 2.0), same, random.choice([3, 7, 12], 300, p=[0.1, 0.3, 0.6]))
    result = k_fold_accuracy(pairs, balanced=balanced)
    assert result.folds.tolist() == [3, 7, 12]
    assert result.accuracies == pytest.approx(by_hand(pairs, balanced))
    assert result.mean == pytest.approx(np.mean(by_hand(pairs, balanced)))
    assert result.standard_error == pytest.approx(np.std(by_hand(pairs, balanced), ddof=1) / 3**0.5)
    for fold, threshold in zip(result.folds, result.thresholds, strict=True):
        inside = pairs.folds == fold
        assert (result.correct[inside] == right_at(pairs[inside], threshold)).all()
    assert result.pooled == pytest.approx(result.correct.mean())
    assert result.sizes.tolist() == [int((pairs.folds == fold).sum()) for fold in (3, 7, 12)]


def test_pooled_figures_are_the_folds_figures_where_folds_have_one_size() -> None:
    result = k_fold_accuracy(drawn(1000))
    assert result.standard_error > 0
    assert result.pooled == pytest.approx(result.mean)
    assert result.pooled_standard_error == pytest.approx(result.standard_error)


def test_the_standard_error_is_that_of_repeated_draws() -> None:
    runs = [k_fold_accuracy(drawn(1000, seed=seed)) for seed in range(100)]
    spread = np.std([run.mean for run in runs], ddof=1)
    assert np.mean([run.standard_error for run in runs]) == pytest.approx(spread, rel=0.2)


def test_thresholds_never_see_the_fold_that_they_judge() -> None:
    pairs = drawn(600)
    before = k_fold_accuracy(pairs)
    inside = pairs.folds == 4
    turned = scores(
        np.where(inside, -10 * pairs.similarities, pairs.similarities), pairs.same ^ inside, pairs.folds
    )
    after = k_fold_accuracy(turned)
    assert after.thresholds[4] == before.thresholds[4]
    assert (np.delete(after.thresholds, 4) != np.delete(before.thresholds, 4)).any()


def test_what_suits_one_fold_alone_does_not_help_it() -> None:
    # Each fold has a perfect threshold, at which the other is right by half.
    pairs = scores([0, 0, 1, 1, 4, 4, 5, 5], [0, 0, 1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 2, 2, 2, 2])
    assert k_fold_accuracy(pairs).accuracies.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("balanced", [False, True])
def test_shuffled_labels_give_half(balanced: bool) -> None:
    pairs, random = drawn(apart=4.0), np.random.default_rng(2)
    by_fold = pairs.same.reshape(10, -1)
    assert k_fold_accuracy(pairs, balanced=balanced).mean > 0.97
    means = [
        k_fold_accuracy(
            scores(pairs.similarities, random.permuted(by_fold, axis=1).ravel(), pairs.folds),
            balanced=balanced,
        ).mean
        for _ in range(20)
    ]
    # The binomial deviation of 20 times 6,000 pairs is 0.0014.
    assert np.mean(means) == pytest.approx(0.5, abs=0.006)


def test_balanced_accuracy_of_shuffled_labels_is_half_where_most_pairs_are_genuine() -> None:
    random = np.random.default_rng(3)
    same = np.arange(4000) % 5 > 0
    shuffled = scores(random.normal(size=4000), random.permutation(same), np.arange(4000) // 400)
    assert k_fold_accuracy(shuffled, balanced=True).mean == pytest.approx(0.5, abs=0.04)
    assert k_fold_accuracy(shuffled).mean == pytest.approx(0.8, abs=0.02)


def test_lists_that_cannot_be_judged() -> None:
    with pytest.raises(DatasetError, match="at least two folds, got 1"):
        k_fold_accuracy(scores([0, 1], [0, 1]))
    with pytest.raises(DatasetError, match="genuine and impostor pairs, got 2 and 0"):
        k_fold_accuracy(scores([0, 1, 2, 3], [0, 0, 1, 1], [1, 1, 2, 2]))
    with pytest.raises(DatasetError, match="fold 2 has pairs of one kind only"):
        k_fold_accuracy(scores([0, 1, 0, 1, 3, 3], [0, 1, 0, 1, 1, 1], [1, 1, 3, 3, 2, 2]), balanced=True)


@pytest.mark.parametrize(
    ("similarities", "same", "folds", "message"),
    [
        (np.zeros(2), np.ones(3, bool), np.zeros(3, int), "similarities: expected float64 \\(3,\\)"),
        (np.zeros(3, np.float32), np.ones(3, bool), np.zeros(3, int), "got float32"),
        (np.zeros(3), np.ones(3, int), np.zeros(3, int), "same: expected bool"),
        (np.zeros(3), np.ones(3, bool), np.zeros((3, 1), int), "folds: expected"),
        (np.array([0, np.nan, np.inf]), np.ones(3, bool), np.zeros(3, int), "2 are not finite"),
    ],
)
def test_arrays_that_do_not_fit(
    similarities: np.ndarray, same: np.ndarray, folds: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PairScores(similarities, same, folds)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_binomial_test(runs: list[tuple[bool, bool]]) -> None:
    from scipy.stats import binomtest

    first, second = np.array(runs, bool).T
    result = mcnemar(first, second)
    only_first, only_second = sum(a > b for a, b in runs), sum(b > a for a, b in runs)
    assert (result.only_first, result.only_second) == (only_first, only_second)
    if only_first + only_second:
        assert result.p_value == pytest.approx(binomtest(only_first, only_first + only_second).pvalue)
    else:
        assert result.p_value == 1


def test_mcnemar_of_many_pairs() -> None:
    from scipy.stats import binomtest

    first, second = np.arange(5000) < 2300, np.arange(5000) >= 2300
    assert mcnemar(first, second).p_value == pytest.approx(binomtest(2300, 5000).pvalue, rel=1e-9)
    everything = np.ones(4000, bool)
    assert mcnemar(everything, ~everything).p_value == 0.0


def test_mcnemar_wants_the_same_pairs() -> None:
    with pytest.raises(ValueError, match="the same pairs"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
