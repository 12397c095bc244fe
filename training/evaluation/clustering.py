"""Clustering of videos by person as a benchmark: preset cut, without labels, beside DBSCAN and HDBSCAN."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from engine.embeddings import Embeddings
from engine.errors import ConfigError, DatasetError, ModelError
from engine.optional_libraries import trouble_with, why_unusable
from engine.search.clustering import StreamClusterer, cluster
from training.data.cache import VectorCache
from training.data.face_crops import Progress
from training.data.model_setup import FaceModels, machine_facts
from training.data.names import read_names
from training.data.pairs import Indices
from training.data.person_faces import FaceSet, Frames, Stopwatch, WhichFace, embed_sets, find_videos
from training.data.results import BenchRun, now_utc
from training.data.ytf_files import YtfImages
from training.evaluation.cluster_agreement import b_cubed, pairwise
from training.evaluation.identification.rates import template

_BATCH: Final = 16
_EPS_STEPS: Final = 101

Figures = dict[str, float | str | None]


def run_cluster(
    videos: Path,
    models: FaceModels,
    *,
    cut: float,
    caution: float = 0.0,
    leave_out: Path | None = None,
    images: YtfImages = "frame_images_DB",
    frames_per_video: int | None = 100,
    frames: Frames = "first",
    face: WhichFace = "centre",
    rivals: bool = True,
    orders: int = 10,
    seed: int = 0,
    cache: VectorCache | None = None,
    workers: int = 1,
    skip_unreadable: bool = False,
    command: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> BenchRun:
    """Group videos without labels, then hold the groups against the names.

    Args:
        videos: Folder of videos in YTF's layout.
        models: Detector and embedder.
        cut: Similarity from which on groups are one person, chosen on other data.
        caution: How much more alike young groups of a stream must be; see ``StreamClusterer``.
        leave_out: List of names to leave out, one a line, see ``training.data.names``.
        images: Which of YTF's folders.
        frames_per_video: At most; None for all.
        frames: Which frames.
        face: Which of several faces in a frame.
        rivals: Also group with scikit-learn's DBSCAN and HDBSCAN.
        orders: Random orders in which the videos come as a stream.
        seed: Of these.
        cache: Where embeddings are kept.
        workers: Videos that are looked at at the same time.
        skip_unreadable: Leave damaged images out, counted; otherwise they are an error.
        command: What was typed, for the record.
        on_progress: Called after each video.

    Returns:
        Figures ``b-cubed f``, ``precision`` and ``recall``, ``pairwise f``, ``groups``, ``people``; with
        `` stream`` the means over the orders; with `` dbscan`` and `` hdbscan`` the rivals'; with
        `` best cut`` what the best cut would have given, which nobody knows beforehand.

    Raises:
        DatasetError: Data is missing, damaged or not of that layout.
        ModelError: An engine failed, or scikit-learn is not there for the rivals.
        ValueError: A number is out of range.
    """
    watch = Stopwatch()
    names = read_names(leave_out) if leave_out is not None else frozenset()
    clips = [each for each in find_videos(videos, images=images) if not names & {each.name, each.person}]
    sets = embed_sets(
        [clip for clip in clips if clip.paths],
        models,
        most=frames_per_video,
        frames=frames,
        face=face,
        cache=cache,
        workers=workers,
        skip_unreadable=skip_unreadable,
        watch=watch,
        on_progress=on_progress,
    )
    seen = [each for each in sets if len(each.qualities)]
    if not seen:
        raise DatasetError(f"{videos}: no face was found in any video; check that they are YTF's")
    with watch.time("score"):
        figures = judge_clusters(seen, cut=cut, caution=caution, rivals=rivals, orders=orders, seed=seed)
    listed: dict[str, str | int] = {}
    if leave_out is not None:
        digest = hashlib.sha256(leave_out.read_bytes()).hexdigest()
        listed = {"names left out list": leave_out.name, "names left out SHA-256": digest}
    return BenchRun(
        benchmark="cluster",
        protocol={
            "images": images,
            "frames": frames,
            "frames per video": frames_per_video,
            "face": f"of several in a frame the one nearest to the {face}",
            "template": "of a video the mean of its embeddings, weighted with quality, at unit length",
            "linkage": "average, on cosines",
            "cut": cut,
            "caution": caution,
            "stream": f"{orders} random orders, in batches of {_BATCH}, seed {seed}",
            "dbscan": f"min_samples 2, the best of {_EPS_STEPS} eps on these very labels",
            "hdbscan": "min_cluster_size 2, min_samples 1",
            "noise": "what a rival calls noise is a group of its own",
            **models.choices,
        },
        models=models.records,
        data={
            "root": videos.name,
            "videos": len(seen),
            "videos without a face": len(sets) - len(seen),
            "videos without frames": sum(not clip.paths for clip in clips),
            "frames looked at": sum(each.looked_at for each in sets),
            "people": len({each.person for each in seen}),
            **listed,
        },
        command=tuple(command),
        machine=machine_facts(),
        seconds=dict(watch.seconds),
        figures=figures,
        folds=(),
        pairs=(),
        notes=(),
        measured_at=now_utc(),
    )


def judge_clusters(
    sets: Sequence[FaceSet],
    *,
    cut: float,
    caution: float = 0.0,
    rivals: bool = True,
    orders: int = 10,
    seed: int = 0,
) -> Figures:
    """The figures of ``run_cluster``.

    Args:
        sets: Videos, each with a face at least.
        cut: As there.
        caution: As there.
        rivals: As there.
        orders: As there; 0 tries no stream.
        seed: As there.

    Raises:
        ModelError: scikit-learn is not there for the rivals.
    """
    vectors = np.stack([template(each.embeddings, each.qualities) for each in sets]).astype(np.float32)
    people = np.unique([each.person for each in sets], return_inverse=True)[1].astype(np.intp)
    figures = _figures(cluster(vectors, cut), people, "") | {"people": float(people.max() + 1)}
    random = np.random.default_rng(seed)
    told = [
        _figures(stream_groups(vectors[order], cut, caution), people[order], " stream")
        for order in (random.permutation(len(sets)) for _ in range(orders))
    ]
    if told:
        figures |= {name: float(np.mean([each[name] for each in told])) for name in told[0]}
    best = max((b_cubed(cluster(vectors, c), people).f, c) for c in _cuts(vectors))
    figures |= {"b-cubed f best cut": best[0], "best cut": best[1]}
    if rivals:
        for name, groups in _rivals(vectors, people):
            figures |= _figures(groups, people, f" {name}")
    return dict(figures)


def stream_groups(vectors: Embeddings, cut: float, caution: float) -> Indices:
    """Groups when a stream of embeddings has come in batches and settled, merges having been followed."""
    clusterer = StreamClusterer(cut, caution=caution, most_groups=max(len(vectors), 1))
    groups = np.empty(0, np.intp)
    for start in range(0, len(vectors), _BATCH):
        found = clusterer.add(vectors[start : start + _BATCH])
        for gone, kept in found.merged:
            groups[groups == gone] = kept
        groups = np.concatenate([groups, found.groups])
    for gone, kept in clusterer.settle():
        groups[groups == gone] = kept
    return groups


def _figures(groups: Indices, people: Indices, suffix: str) -> dict[str, float]:
    item, pair = b_cubed(groups, people), pairwise(groups, people)
    return {
        f"b-cubed f{suffix}": item.f,
        f"b-cubed precision{suffix}": item.precision,
        f"b-cubed recall{suffix}": item.recall,
        f"pairwise f{suffix}": pair.f,
        f"groups{suffix}": float(len(np.unique(groups))),
    }


def _cuts(vectors: Embeddings) -> list[float]:
    """Similarities that are worth trying: between those of strangers and of the same."""
    between = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    if not len(between):
        return [0.0]
    low, high = float(np.quantile(between, 0.9)), float(between.max())
    return [float(each) for each in np.linspace(low, high, _EPS_STEPS)]


def check_rivals() -> None:
    """Check whether there are rivals, before anything is measured.

    Raises:
        ConfigError: scikit-learn is missing or does not load.
    """
    trouble = trouble_with(
        "sklearn",
        title="scikit-learn",
        install="pip install 'facestream[bench]'",
        load=lambda name: importlib.import_module(f"{name}.cluster"),
    )
    if trouble:
        raise ConfigError(f"the rivals need scikit-learn: {trouble}, or leave them out (--no-rivals)")


def _rivals(vectors: Embeddings, people: Indices) -> list[tuple[str, Indices]]:
    try:
        from sklearn.cluster import DBSCAN, HDBSCAN
    except (ImportError, OSError) as exc:
        trouble = why_unusable(
            "sklearn", exc, title="scikit-learn", install="pip install 'facestream[bench]'"
        )
        raise ModelError(f"the rivals need scikit-learn: {trouble}, or leave them out (--no-rivals)") from exc
    distances = np.maximum(1 - vectors.astype(np.float64) @ vectors.T, 0)
    tried = [
        _no_noise(DBSCAN(eps=max(1 - each, 1e-9), min_samples=2, metric="precomputed").fit_predict(distances))
        for each in _cuts(vectors)
    ]
    best = max(tried, key=lambda groups: b_cubed(groups, people).f)
    dense = HDBSCAN(min_cluster_size=2, min_samples=1, metric="precomputed", copy=True)
    return [("dbscan", best), ("hdbscan", _no_noise(dense.fit_predict(distances)))]


def _no_noise(labels: Indices) -> Indices:
    """Noise, which is labelled -1, as groups of one."""
    groups = labels.astype(np.intp)
    noise = np.flatnonzero(groups < 0)
    groups[noise] = groups.max(initial=-1) + 1 + np.arange(len(noise))
    return groups
