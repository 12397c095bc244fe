"""Whether two runs over the same pairs differ by more than chance, and in what else they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.errors import DatasetError
from training.data.results import BenchRun, PairRecord
from training.data.safe_text import clean
from training.evaluation.fold_accuracy import mcnemar
from training.evaluation.judged_pairs import judge

LEVEL: Final = 0.05
"""A difference is called larger than the noise where chance makes one like it less often than so."""

_ON_ONE_SCREEN: Final = 14

_Key = tuple[int, str, str, bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which two runs are unlike.

    Attributes:
        what: For example ``protocol: mirror``.
        first: Of the first run.
        second: Of the second.
    """

    what: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs over the same pairs.

    Attributes:
        pairs: Number of pairs.
        first_right: Pairs that the first run judged rightly, each by the threshold of its fold.
        second_right: Pairs that the second run judged rightly, each by the threshold of its fold.
        only_first: Pairs that the first run alone judged rightly.
        only_second: Pairs that the second run alone judged rightly.
        p_value: McNemar's, 0..1.
        differences: In protocol, models, data and machine.
    """

    pairs: int
    first_right: int
    second_right: int
    only_first: int
    only_second: int
    p_value: float
    differences: tuple[Difference, ...]

    @property
    def difference_points(self) -> float:
        """Share of the pairs judged rightly, the second's less the first's, in percentage points."""
        return 100 * (self.second_right - self.first_right) / self.pairs

    @property
    def standard_error_points(self) -> float:
        """Of ``difference_points``, from the pairs that only one of both judged rightly."""
        unlike = self.only_first + self.only_second
        balance = self.only_second - self.only_first
        return 100 * math.sqrt(unlike - balance**2 / self.pairs) / self.pairs

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is larger than chance explains, at ``LEVEL``."""
        return self.p_value < LEVEL


def compare(first: BenchRun, second: BenchRun) -> Comparison:
    """Hold two runs against each other, pair by pair; the order of the pairs does not matter.

    Raises:
        DatasetError: The runs are not over the same pairs, or one has none; the message says what differs.
    """
    rows = np.array(_same_pairs(first, second), np.intp)
    one, other = judge(first).correct, judge(second).correct[rows]
    test = mcnemar(one, other)
    return Comparison(
        pairs=len(one),
        first_right=int(one.sum()),
        second_right=int(other.sum()),
        only_first=test.only_first,
        only_second=test.only_second,
        p_value=test.p_value,
        differences=tuple(_differences(first, second)),
    )


def _key(pair: PairRecord) -> _Key:
    return pair.fold, pair.first, pair.second, pair.same


def _same_pairs(first: BenchRun, second: BenchRun) -> list[int]:
    """For each pair of the first run, where it is in the second."""
    if first.benchmark != second.benchmark:
        raise DatasetError(
            f"the first run is of {clean(first.benchmark)}, the second of {clean(second.benchmark)}; "
            "compare runs of one benchmark over the same pairs"
        )
    places: dict[_Key, list[int]] = {}
    for row in reversed(range(len(second.pairs))):
        places.setdefault(_key(second.pairs[row]), []).append(row)
    found, missing = [], []
    for pair in first.pairs:
        if rows := places.get(_key(pair)):
            found.append(rows.pop())
        else:
            missing.append(pair)
    more = [second.pairs[row] for rows in places.values() for row in rows]
    if missing or more:
        raise DatasetError(_unlike(first, second, missing, more))
    return found


def _unlike(first: BenchRun, second: BenchRun, missing: list[PairRecord], more: list[PairRecord]) -> str:
    told = []
    for pairs, which in ((missing, "first"), (more, "second")):
        if pairs:
            pair = pairs[0]
            named = clean(f"{pair.first} and {pair.second} in fold {pair.fold}")
            told.append(f"{len(pairs):,} are only in the {which} run, such as {named}")
    lists = [clean(run.data.get("list", "no list named")) for run in (first, second)]
    return (
        f"the runs are not over the same pairs ({len(first.pairs):,} by {lists[0]}, "
        f"{len(second.pairs):,} by {lists[1]}): {'; '.join(told)}; measure both with one list"
    )


def _differences(first: BenchRun, second: BenchRun) -> Iterator[Difference]:
    groups: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("models", _models(first), _models(second)),
        ("protocol", first.protocol, second.protocol),
        ("data", first.data, second.data),
        ("machine", first.machine, second.machine),
    )
    for group, one, other in groups:
        for name in dict.fromkeys([*one, *other]):
            values = [clean(each.get(name, "not there")) for each in (one, other)]
            if values[0] != values[1]:
                yield Difference(f"{group}: {clean(name)}", *values)


def _models(run: BenchRun) -> dict[str, str]:
    """What there is to say of each model; those of one task are numbered."""
    told: dict[str, str] = {}
    counts: dict[str, int] = {}
    for model in run.models:
        counts[model.task] = counts.get(model.task, 0) + 1
        task = model.task if counts[model.task] == 1 else f"{model.task} {counts[model.task]}"
        told |= {
            task: model.name,
            f"{task}'s SHA-256": model.sha256[:16],
            f"{task}'s engine": model.engine,
            f"{task}'s precision": model.precision,
        }
    return told


def comparison_text(
    found: Comparison, *, first: str = "A", second: str = "B", most: int | None = _ON_ONE_SCREEN
) -> str:
    """A comparison for people, on one screen.

    Args:
        found: What ``compare`` found.
        first: Name of the first run.
        second: Name of the second.
        most: So many differences in protocol and the like are named; None names all.
    """
    first, second = clean(first), clean(second)
    width = max(len(first), len(second))
    lines = [
        f"{name:<{width}}  {right:,} of {found.pairs:,} pairs right, {100 * right / found.pairs:.2f} %"
        for name, right in ((first, found.first_right), (second, found.second_right))
    ]
    lines += [
        "",
        f"Difference  {found.difference_points:+.2f} points, "
        f"standard error {found.standard_error_points:.2f}",
        f"McNemar     only {first} right: {found.only_first:,}, only {second}: {found.only_second:,}, "
        f"p = {found.p_value:.3g}",
        f"Verdict     {_verdict(found, first, second)}",
        "",
    ]
    if not found.differences:
        lines.append("Nothing else differs in protocol, models, data or machine.")
    else:
        lines.append("What differs:")
        lines += [f"  {each.what}: {each.first} -> {each.second}" for each in found.differences[:most]]
        if most is not None and len(found.differences) > most:
            lines.append(f"  and {len(found.differences) - most:,} more")
    return "\n".join(lines)


def _verdict(found: Comparison, first: str, second: str) -> str:
    if found.beyond_noise:
        better, worse = (second, first) if found.difference_points > 0 else (first, second)
        return f"{better} is better than {worse} by more than the noise"
    if not found.only_first + found.only_second:
        return "both judge every pair alike"
    return f"within the noise: equally good runs differ so or more in {100 * found.p_value:.0f} of 100 cases"
