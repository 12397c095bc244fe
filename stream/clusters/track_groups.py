"""Tracks grouped by person: by their embeddings, then by the corrections of a user."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.atomic_files import write_atomically
from engine.errors import ConfigError, ModelError
from engine.search.clustering import cluster
from stream.common.names import clean_name
from stream.common.printable import counted
from stream.events.event_types import FaceEvent

_FORMAT: Final = "facestream-clusters/1"
_MOST_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Tracks that are taken for one person.

    Attributes:
        number: From 1, in the order in which the people were first seen.
        tracks: The newest event of each, in the order in which they were first seen; at least one.
    """

    number: int
    tracks: tuple[FaceEvent, ...]

    @property
    def best(self) -> FaceEvent:
        """The track of the best face."""
        return max(self.tracks, key=lambda track: track.quality)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Where the person was seen, in order."""
        return tuple(dict.fromkeys(track.camera_id for track in self.tracks))

    @property
    def first_seen(self) -> datetime:
        """When the first track began."""
        return self.tracks[0].first_seen

    @property
    def last_seen(self) -> datetime:
        """When the last track ended."""
        return max(track.last_seen for track in self.tracks)

    @property
    def seen_s(self) -> float:
        """Seconds of all tracks together; those at the same time count twice."""
        return sum((track.last_seen - track.first_seen).total_seconds() for track in self.tracks)


@dataclass(frozen=True, slots=True)
class Merge:
    """Two tracks show one person: their clusters become one."""

    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Split:
    """A track does not show the person of its cluster: it becomes one of its own."""

    track: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where pictures and names of the tracks come from, so that they are named once.

    Attributes:
        gallery: File of the people; empty for none.
        shots: Folder of best shots that cameras kept; empty for none.
        video: ``CAMERA=PATH`` of each camera's video.
    """

    gallery: str = ""
    shots: str = ""
    video: tuple[str, ...] = ()


Edit = Merge | Split
"""What somebody said of the clusters, by tracks, since numbers change when more is seen."""


def _check_models(tracks: Sequence[FaceEvent]) -> None:
    model = tracks[0].embedder
    for track in tracks:
        if not model.agrees(track.embedder) or len(track.embedding) != len(tracks[0].embedding):
            models = sorted({f"{each.embedder}" for each in tracks})
            raise ConfigError(
                f"the tracks are of several models, which are not comparable: {'; '.join(models)}; choose "
                "one with --model, as it is written here"
            )
        model = model.joined(track.embedder)


def group_tracks(tracks: Sequence[FaceEvent], cut: float, edits: Iterable[Edit] = ()) -> list[Cluster]:
    """Group tracks by person.

    Args:
        tracks: The newest event of each, all of one model.
        cut: Tracks are joined from this similarity on.
        edits: Applied in order; those of tracks that are not here are skipped.

    Raises:
        ConfigError: The tracks are of several models.
    """
    if not tracks:
        return []
    _check_models(tracks)
    labels = cluster(np.stack([track.embedding for track in tracks]), cut)
    rows = {track.track_id: row for row, track in enumerate(tracks)}
    for edit in edits:
        match edit:
            case Merge(first, second) if first in rows and second in rows:
                labels[labels == labels[rows[second]]] = labels[rows[first]]
            case Split(alone) if alone in rows:
                labels[rows[alone]] = labels.max() + 1
    groups: dict[int, list[FaceEvent]] = {}
    for label, track in zip(labels.tolist(), tracks, strict=True):
        groups.setdefault(label, []).append(track)
    ordered = sorted(
        (sorted(each, key=lambda track: (track.first_seen, track.track_id)) for each in groups.values()),
        key=lambda each: (each[0].first_seen, each[0].track_id),
    )
    return [Cluster(number, tuple(each)) for number, each in enumerate(ordered, 1)]


def merge_clusters(clusters: Sequence[Cluster], names: Sequence[str]) -> list[Edit]:
    """The edits that make one cluster of several.

    Args:
        clusters: As they are now.
        names: Of two or more of them: the number, or the id of a track, which stays when more is seen.

    Raises:
        ConfigError: There is no such cluster, or fewer than two are named.
    """
    chosen = dict.fromkeys(_named(clusters, name) for name in names)
    if len(chosen) < 2:
        raise ConfigError(f"--merge: expected two clusters or more such as 3,7, got {','.join(names)!r}")
    first, *others = (each.tracks[0].track_id for each in chosen)
    return [Merge(first, other) for other in others]


def _named(clusters: Sequence[Cluster], name: str) -> Cluster:
    if name.isdecimal():
        return find_cluster(clusters, int(name))
    for each in clusters:
        if any(track.track_id == name for track in each.tracks):
            return each
    raise ConfigError(
        f"--merge: expected numbers or tracks such as 3,7, got {name!r}, which is no track here"
    )


def split_track(clusters: Sequence[Cluster], track_id: str) -> Edit:
    """The edit that takes a track out of its cluster.

    Raises:
        ConfigError: There is no such track.
    """
    if all(track.track_id != track_id for each in clusters for track in each.tracks):
        raise ConfigError(f"--split: there is no track {track_id!r} here; the report shows their ids")
    return Split(track_id)


def parse_naming(clusters: Sequence[Cluster], text: str) -> tuple[str, Cluster]:
    """A cluster and what it is to be called.

    Args:
        clusters: As they are now.
        text: ``3=Ann``, or a track of it, which stays when more is seen: ``door-7f3a-12=Ann``.

    Raises:
        ConfigError: It means nothing, or there is no such cluster.
        TextError: The name does not fit.
    """
    number, equals, name = text.partition("=")
    if equals and number.strip().isdecimal():
        return clean_name(name.strip(), what="--enrol"), find_cluster(clusters, int(number))
    for each in clusters:
        for track in each.tracks:
            if text.startswith(f"{track.track_id}="):
                rest = text[len(track.track_id) + 1 :]
                return clean_name(rest.strip(), what="--enrol"), each
    raise ConfigError(f"--enrol: expected a person or a track here and a name such as 3=Ann, got {text!r}")


def find_cluster(clusters: Sequence[Cluster], number: int) -> Cluster:
    """The cluster of a number.

    Raises:
        ConfigError: There is none.
    """
    for each in clusters:
        if each.number == number:
            return each
    raise ConfigError(f"there is no cluster {number}; there are 1 to {len(clusters)}")


def load_edits(path: Path) -> list[Edit]:
    """Read what ``save_edits`` wrote; a file that is not there holds none. Trusts nothing.

    Raises:
        ConfigError: The file cannot be read, or is no list of edits.
    """
    return _load(path)[0]


def load_places(path: Path) -> Places:
    """The places that ``save_edits`` wrote; a file that is not there names none. Trusts nothing.

    Raises:
        ConfigError: The file cannot be read, or is no list of edits.
    """
    return _load(path)[1]


def _load(path: Path) -> tuple[list[Edit], Places]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return [], Places()
    except OSError as exc:
        raise ConfigError(f"{path}: edits cannot be read ({exc.strerror}); check the path") from exc
    try:
        return _parsed(raw)
    except (ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path}: not a list of edits ({reason}); fix it, or remove it") from exc


def _parsed(raw: bytes) -> tuple[list[Edit], Places]:
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"longer than {_MOST_BYTES:,} bytes")
    document = json.loads(raw)
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError(f"expected an object of the format {_FORMAT}")
    match document.get("edits"):
        case list() as listed:
            return [_edit(number, each) for number, each in enumerate(listed, 1)], _places(document)
    raise ValueError("expected a list of edits")


def _places(document: dict[str, Any]) -> Places:
    video = document.get("video", [])
    texts = [
        document.get("gallery", ""),
        document.get("shots", ""),
        *(video if isinstance(video, list) else [0]),
    ]
    if not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise ValueError("expected paths as gallery, shots and video")
    return Places(gallery=texts[0], shots=texts[1], video=tuple(texts[2:]))


def _edit(number: int, entry: Any) -> Edit:
    match entry:
        case {"merge": [str(first), str(second)], **rest} if not rest:
            return Merge(first, second)
        case {"split": str(track), **rest} if not rest:
            return Split(track)
    raise ValueError(f"edit {number}: expected a merge of two tracks or a split of one")


def save_edits(edits: Iterable[Edit], path: Path, places: Places | None = None) -> None:
    """Write edits; readers see the old file or the whole new one.

    Args:
        edits: All of them.
        path: Of the file.
        places: What is remembered beside them; by default those that are there already.

    Raises:
        ConfigError: The file cannot be written.
    """
    listed: list[dict[str, object]] = [
        {"merge": [edit.first, edit.second]} if isinstance(edit, Merge) else {"split": edit.track}
        for edit in edits
    ]
    kept = load_places(path) if places is None else places
    named = {"gallery": kept.gallery, "shots": kept.shots, "video": list(kept.video)}
    tree = {"format": _FORMAT, "edits": listed, **{key: value for key, value in named.items() if value}}
    text = json.dumps(tree, indent=1) + "\n"
    try:
        write_atomically(path, text.encode(), private=True)
    except ModelError as exc:
        raise ConfigError(f"{path}: edits cannot be written; choose another file with --edits") from exc


def span(first: datetime, last: datetime) -> str:
    """Two times in one line, in UTC; the date of the second is left out where it is that of the first."""
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    ends = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M:%S}"
    return f"{first:%Y-%m-%d %H:%M:%S} to {ends}"


def told(clusters: Sequence[Cluster]) -> str:
    """How many people and tracks there are, in words."""
    tracks = sum(len(each.tracks) for each in clusters)
    return f"{counted(len(clusters), 'person', 'people')} in {counted(tracks, 'track')}"
