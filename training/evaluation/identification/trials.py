"""Who is enrolled and who is not: the trials of identification benchmarks.

REP-YTF is Martínez-Díaz and others, "Toward More Realistic Face Recognition Evaluation Protocols for the
YouTube Faces Database", CVPR workshops 2018. What its paper and its toolkit say:

- There are ten random trials; the mean and the standard deviation over them are reported. In each, 1,200
  people (2,576 videos on average) are for tests and 395 for training.
- The gallery holds one video of each person enrolled (video-to-video), or the best frame of that video
  (video-to-image: frontal, evenly lit, neutral, sharp, nothing before the face). The others of their videos
  are the genuine probes; all videos of people who are not enrolled are the impostor probes.
- The openness, 0.2, 0.5 or 0.9, is the ratio of genuine to impostor probes. On average 200, 400 and 533
  people are enrolled, with 370, 728 and 975 genuine and 2,005, 1,448 and 1,068 impostor probes.
- Open set: DIR at rank 1 at false alarm rates of 1% and 10%. Closed set: CMC of the genuine probes, with
  the same galleries.

What is our reading: its lists of trials are not read; people are drawn with a seed instead, so figures
compare in the mean only. As nothing is trained, nobody is held back for training unless so many people are
asked for. People are enrolled in random order until the ratio is nearest to the openness. The best frame is
the one whose face has the highest ``engine.vision.quality.face_quality``; how the paper's was chosen is not
told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.errors import DatasetError
from training.data.person_faces import FaceSet

REP_YTF_OPENNESS: Final = (0.2, 0.5, 0.9)
REP_YTF_FARS: Final = (0.01, 0.1)
REP_YTF_TRIALS: Final = 10
REP_YTF_PEOPLE: Final = 1200


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One experiment.

    Attributes:
        gallery: One set of faces for each person enrolled.
        probes: Videos of people who are enrolled, and in an open set of others.
    """

    gallery: tuple[FaceSet, ...]
    probes: tuple[FaceSet, ...]


def make_trial(
    videos: Mapping[str, Sequence[FaceSet]],
    stills: Mapping[str, FaceSet] | None,
    *,
    openness: float | None,
    seed: Sequence[int],
    people: int | None = None,
) -> Trial:
    """Choose who is enrolled, and with what.

    Args:
        videos: Of each person, at least one.
        stills: Enrolled photographs of each person; None enrols one of a person's videos, chosen at random,
            and probes with the others, so that only people of several videos can be enrolled.
        openness: Genuine by impostor probes, above 0: people are enrolled in random order until the ratio is
            nearest to it. None enrols everybody who can be, without impostors: a closed set.
        seed: Of all choices.
        people: So many are drawn of all people first; None takes all.

    Raises:
        DatasetError: Nobody can be enrolled, or nobody is left to be an impostor.
        ValueError: ``openness`` is not above 0.
    """
    if openness is not None and not openness > 0:
        raise ValueError(f"openness: expected above 0, got {openness}")
    random = np.random.default_rng(list(seed))
    drawn = random.permutation(sorted(videos)).tolist()[:people]
    able = [person for person in drawn if (person in stills if stills else len(videos[person]) > 1)]
    if not able:
        raise DatasetError("nobody can be enrolled: give photographs, or several videos of a person")
    kept = {person: int(random.integers(len(videos[person]))) for person in able}
    enrolled = able if openness is None else able[: _enrolments(videos, drawn, able, openness, bool(stills))]
    spent = {} if stills else {person: kept[person] for person in enrolled}
    probes: list[FaceSet] = []
    for person in enrolled if openness is None else drawn:
        own = spent.get(person)
        probes += [video for number, video in enumerate(videos[person]) if number != own]
    gallery = [stills[person] if stills else videos[person][kept[person]] for person in enrolled]
    return Trial(tuple(gallery), tuple(probes))


def _enrolments(
    videos: Mapping[str, Sequence[FaceSet]],
    drawn: Sequence[str],
    able: Sequence[str],
    openness: float,
    with_stills: bool,
) -> int:
    """How many to enrol for the ratio of genuine to impostor probes that is nearest to the openness."""
    taken = np.cumsum([len(videos[person]) for person in able])
    genuine = taken if with_stills else taken - np.arange(1, len(able) + 1)
    impostors = sum(len(videos[person]) for person in drawn) - taken
    possible = np.flatnonzero(impostors > 0)
    if not len(possible):
        raise DatasetError("nobody is left to be an impostor: give videos of more people")
    ratios = genuine[possible] / impostors[possible]
    return int(possible[np.abs(ratios - openness).argmin()]) + 1
