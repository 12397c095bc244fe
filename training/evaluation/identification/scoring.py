"""From trials of identification to figures, and the worst mistakes with their pictures."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from engine.errors import DatasetError
from engine.search.open_set_threshold import ImpostorTail, accept_threshold, person_scores
from training.data.array_types import Scores
from training.data.person_faces import FaceSet
from training.data.results import PairRecord
from training.evaluation.fold_accuracy import NEVER_ACCEPTED
from training.evaluation.identification.rates import (
    DirAtFar,
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
from training.evaluation.identification.trials import Trial, make_trial

Scenario: TypeAlias = Literal["still-to-video", "video-to-video", "frame-to-video"]
"""What is enrolled: photographs, a video, or the best frame of a video (REP-YTF's video-to-image)."""

TemplateScore: TypeAlias = Literal["templates", "weighted", "mean"]
"""How two sets of faces are compared, see ``SCORES``."""

SCORES: Final[Mapping[TemplateScore, str]] = {
    "templates": "each photograph enrolled is a template, of a video the mean weighted with quality; "
    "engine.search.open_set_threshold.person_scores of the cosines",
    "weighted": "cosine of the means of both sets, weighted with quality",
    "mean": "cosine of the means of both sets",
}

_LISTED: Final = 10
"""So many names are written out in a note."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A trial and what came of it.

    Attributes:
        trial: Its gallery's sets are those of the outcomes' columns.
        results: One for each probe, in their order.
    """

    trial: Trial
    results: Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class SetUp:
    """The people of a benchmark, and how they are compared.

    Attributes:
        videos: By person.
        stills: By person, of those who have videos; None where a video is enrolled.
        distractors: Photographs of other people, enrolled in every trial.
        scenario: What is enrolled.
        score: How sets of faces are compared.
        left_out: Names of people, and of single videos, who were left out.
    """

    videos: Mapping[str, Sequence[FaceSet]]
    stills: Mapping[str, FaceSet] | None
    distractors: tuple[FaceSet, ...]
    scenario: Scenario
    score: TemplateScore
    left_out: tuple[str, ...]

    @classmethod
    def of(
        cls,
        videos: Sequence[FaceSet],
        stills: Sequence[FaceSet],
        scenario: Scenario,
        score: TemplateScore,
        leave_out: frozenset[str],
    ) -> SetUp:
        """Sort sets by person.

        Raises:
            DatasetError: Photographs are to be enrolled, and there are none of anybody with a video.
        """
        by_person: defaultdict[str, list[FaceSet]] = defaultdict(list)
        for video in videos:
            if not leave_out & {video.person, video.name}:
                by_person[video.person].append(video)
        kept = {each.person: each for each in stills if each.person not in leave_out}
        own = {person: each for person, each in kept.items() if person in by_person}
        if scenario == "still-to-video" and not own:
            raise DatasetError(
                "no name is both among the photographs and among the videos; give the folders of LFW and YTF"
            )
        with_stills = scenario == "still-to-video"
        return cls(
            dict(by_person),
            own if with_stills else None,
            tuple(each for person, each in kept.items() if person not in by_person) if with_stills else (),
            scenario,
            score,
            tuple(
                sorted(leave_out & {name for each in (*videos, *stills) for name in (each.person, each.name)})
            ),
        )

    def trial(self, openness: float | None, seed: Sequence[int], people: int | None) -> Judged:
        """Choose who is enrolled, search, and judge.

        Raises:
            DatasetError: Nobody can be enrolled, or nobody is left to be an impostor.
        """
        chosen = make_trial(self.videos, self.stills, openness=openness, seed=seed, people=people)
        gallery = (*chosen.gallery, *self.distractors)
        if self.scenario == "frame-to-video":
            gallery = tuple(each.best_only() for each in gallery)
        trial = Trial(gallery, chosen.probes)
        number = {person: row for row, person in enumerate(sorted(self.videos))}
        number |= {each.person: len(number) + row for row, each in enumerate(self.distractors)}
        results = outcomes(
            self._similarities(trial),
            np.array([number[each.person] for each in trial.probes], np.intp),
            np.array([number[each.person] for each in gallery], np.intp),
        )
        return Judged(trial, results)

    def _similarities(self, trial: Trial) -> Scores:
        """Of each probe with each person enrolled."""
        probes = self._means(trial.probes)
        if self.score != "templates" or self.scenario != "still-to-video":
            return search(probes, self._means(trial.gallery))
        owners = np.repeat(np.arange(len(trial.gallery)), [len(each.qualities) for each in trial.gallery])
        templates = np.concatenate([each.embeddings for each in trial.gallery])
        scores = person_scores((probes @ templates.T).astype(np.float32), owners, len(trial.gallery))
        scores[~probes.any(axis=1)] = NEVER_ACCEPTED
        return np.maximum(scores, NEVER_ACCEPTED).astype(np.float64)

    def _means(self, sets: Sequence[FaceSet]) -> Scores:
        weighted = self.score != "mean"
        return np.stack([template(each.embeddings, each.qualities if weighted else None) for each in sets])

    def counts(self) -> dict[str, str | int]:
        """How many people, videos and failures there are."""
        videos = [video for each in self.videos.values() for video in each]
        found: dict[str, str | int] = {
            "people": len(self.videos),
            "videos": len(videos),
            "videos without a face": sum(not len(video.qualities) for video in videos),
            "people left out": sum("/" not in name for name in self.left_out),
            "videos left out by themselves": sum("/" in name for name in self.left_out),
        }
        if self.stills is not None:
            enrolled = (*self.stills.values(), *self.distractors)
            found |= {
                "people without stills": len(self.videos.keys() - self.stills.keys()),
                "distractors enrolled": len(self.distractors),
                "people whose stills show no face": sum(not len(each.qualities) for each in enrolled),
            }
        return found

    def notes(self) -> Iterator[str]:
        """By name what was left out or failed."""
        videos = [video for each in self.videos.values() for video in each]
        sets = (*(self.stills or {}).values(), *self.distractors, *videos)
        named = {
            "left out by the list of names": list(self.left_out),
            "no face found, never identified": [each.name for each in sets if not len(each.qualities)],
            "unreadable, skipped": [path.name for each in sets for path in each.unreadable],
        }
        for what, names in named.items():
            if names:
                more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
                yield f"{what}: {len(names):,}: {', '.join(names[:_LISTED])}{more}"


@dataclass(slots=True)
class Report:
    """Gathers the figures of trials.

    Attributes:
        rounds: Draws of people that the intervals rest on.
        tail: Of the scores of different people, for the promised thresholds.
        figures: By name.
        folds: One a trial.
        notes: What was refused, and why.
    """

    rounds: int
    tail: ImpostorTail | None = None
    figures: dict[str, float | str | None] = field(default_factory=dict)
    folds: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, suffix: str, trials: Sequence[Judged], ranks: Sequence[int], fars: Sequence[float]) -> None:
        """Take in the repetitions of one kind of trial.

        Args:
            suffix: Of the figures' names.
            trials: The repetitions.
            ranks: Of which the rate is stated.
            fars: At which DIR is stated, at rank 1.
        """
        runs = [each.results for each in trials]
        folds = [_sizes(number, each) for number, each in enumerate(trials)]
        for rank in ranks:
            self._state(f"rank-{rank}{suffix}", runs, partial(rank_rate, rank=rank))
            for fold, run in zip(folds, runs, strict=True):
                fold[f"rank-{rank}"] = rank_rate(run, rank)
        for far in fars:
            self._keep_promise(suffix, trials, folds, far)
            name = f"dir@far={far:g}{suffix}"
            fewest = min(runs, key=lambda run: run.impostors)
            try:
                dir_at_far(fewest, far)
            except DatasetError as exc:
                self.figures[name] = f"refused: {fewest.impostors:,} impostor probes"
                self.notes.append(f"{name}: {exc}")
                continue
            self._state(name, runs, partial(_dir, far=far))
            for fold, run in zip(folds, runs, strict=True):
                fold.update(_at(dir_at_far(run, far)))
        self.folds += folds

    def _keep_promise(
        self, suffix: str, trials: Sequence[Judged], folds: Sequence[dict[str, float]], far: float
    ) -> None:
        """What is found at the threshold that promises a false accept rate, which nothing judged here set."""
        if self.tail is None:
            return
        at = f"@promise={far:g}"
        found = []
        for each, fold in zip(trials, folds, strict=True):
            threshold = accept_threshold(self.tail, false_accept_rate=far, people=len(each.trial.gallery))
            rates = at_threshold(each.results, threshold)
            fold.update({f"{name}{at}": value for name, value in {"threshold": threshold, **rates}.items()})
            found.append(rates)
        for name in found[0]:
            self.figures[f"{name}{at}{suffix}"] = statistics.fmean(each[name] for each in found)

    def _state(self, name: str, runs: Sequence[Outcomes], statistic: Callable[[Outcomes], float]) -> None:
        values = [statistic(run) for run in runs]
        self.figures[name] = statistics.fmean(values)
        if len(values) > 1:
            self.figures[f"{name} sd"] = statistics.stdev(values)
        low, high = interval_over_people(runs, statistic, rounds=self.rounds)
        self.figures |= {f"{name} low": low, f"{name} high": high}


def _dir(results: Outcomes, far: float) -> float:
    return identification_rate(results, alarm_threshold(results, far))


def _sizes(number: int, judged: Judged) -> dict[str, float]:
    impostors = judged.results.impostors
    genuine = len(judged.results) - impostors
    sizes = {
        "trial": number,
        "enrolled": len(judged.trial.gallery),
        "genuine": genuine,
        "impostors": impostors,
    }
    return {name: float(size) for name, size in sizes.items()} | {
        "openness": genuine / impostors if impostors else 0.0
    }


def _at(reached: DirAtFar) -> dict[str, float]:
    at = f"@far={reached.far:g}"
    return {
        f"dir{at}": reached.rate,
        f"threshold{at}": reached.threshold,
        f"false alarms{at}": float(reached.false_alarms),
    }


def confusions(judged: Judged, root: Path, most: int) -> list[PairRecord]:
    """The probes that were most clearly taken for somebody else: for each who won, then who lost.

    Args:
        judged: A trial.
        root: Pictures are named relative to it.
        most: So many probes at most.
    """
    results = judged.results
    column = {each.person: row for row, each in enumerate(judged.trial.gallery)}
    wrong = np.flatnonzero(results.mated & (results.ranks > 1) & (results.best > NEVER_ACCEPTED))
    clearest = wrong[np.argsort(results.own[wrong] - results.best[wrong], kind="stable")][:most]
    pairs = []
    for row in clearest.tolist():
        probe = judged.trial.probes[row]
        winner = judged.trial.gallery[int(results.winners[row])]
        loser = judged.trial.gallery[column[probe.person]]
        pairs.append(_pair(probe, winner, root, same=False, fold=0, similarity=results.best[row]))
        pairs.append(_pair(probe, loser, root, same=True, fold=0, similarity=results.own[row]))
    return pairs


def alarms(judged: Judged, root: Path, most: int) -> list[PairRecord]:
    """The impostors that were nearest to somebody enrolled.

    Args:
        judged: A trial with impostors.
        root: Pictures are named relative to it.
        most: So many at most.
    """
    results = judged.results
    impostors = np.flatnonzero(~results.mated & (results.best > NEVER_ACCEPTED))
    nearest = impostors[np.argsort(-results.best[impostors], kind="stable")][:most]
    return [
        _pair(
            judged.trial.probes[row],
            judged.trial.gallery[int(results.winners[row])],
            root,
            same=False,
            fold=1,
            similarity=results.best[row],
        )
        for row in nearest.tolist()
    ]


def _pair(
    probe: FaceSet, enrolled: FaceSet, root: Path, *, same: bool, fold: int, similarity: float
) -> PairRecord:
    pictures = [
        None if each.best is None else Path(os.path.relpath(each.paths[each.best], root)).as_posix()
        for each in (probe, enrolled)
    ]
    return PairRecord(
        probe.name,
        enrolled.name,
        same,
        fold,
        float(similarity),
        first_image=pictures[0],
        second_image=pictures[1],
    )
