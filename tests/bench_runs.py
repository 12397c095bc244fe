"""Benchmark runs that nobody measured."""

from __future__ import annotations

import numpy as np

from training.data.results import BenchRun, ModelRecord, PairRecord
from training.evaluation.fold_accuracy import PairScores, k_fold_accuracy
from training.evaluation.roc import area_under, equal_error_rate, roc


def made_run(
    similarities: np.ndarray | None = None,
    *,
    per_kind: int = 20,
    fold_count: int = 4,
    seed: int = 0,
    apart: float = 0.5,
    **changes: object,
) -> BenchRun:
    """A run over pairs of Ann and Bob, half of them genuine, the folds in turn."""
    random = np.random.default_rng(seed)
    same = np.arange(2 * per_kind) < per_kind
    if similarities is None:
        similarities = np.clip(random.normal(np.where(same, apart, 0.0), 0.15), -0.9, 0.9)
    fold = np.arange(2 * per_kind) % fold_count + 1
    scores = PairScores(np.asarray(similarities, np.float64), same, fold.astype(np.intp))
    accuracy, curve = k_fold_accuracy(scores), roc(scores)
    told: dict[str, object] = {
        "benchmark": "lfw",
        "protocol": {"mirror": False, "score": "cosine", "frames": 100, "projection": None},
        "models": (ModelRecord("sface", "a" * 64, "openvino 2026.4.1", "fp32", "embedder"),),
        "data": {
            "root": "lfw",
            "list": "some_pairs.txt",
            "list_sha256": "b" * 64,
            "pairs": len(same),
            "without face": 3,
        },
        "command": ("facestream", "bench", "lfw", "--root", "my data"),
        "machine": {"processor": "A Processor", "cores": 2},
        "seconds": {"detect": 2.0, "embed": 7.5, "score": 0.5},
        "figures": {
            "accuracy": accuracy.mean,
            "standard_error": accuracy.standard_error,
            "auc": area_under(curve),
            "eer": equal_error_rate(curve),
            "tar@far=0.1": 0.875,
            "tar@far=0.1 low": 0.8125,
            "tar@far=0.1 high": 0.9375,
            "tar@far=0.001": None,
        },
        "folds": tuple(
            {"fold": float(f), "pairs": float(n), "accuracy": float(a), "threshold": float(t)}
            for f, n, a, t in zip(
                accuracy.folds, accuracy.sizes, accuracy.accuracies, accuracy.thresholds, strict=True
            )
        ),
        "pairs": tuple(
            PairRecord(
                f"Ann/Ann_{row:04d}.jpg",
                f"{'Ann' if same[row] else 'Bob'}/{row}.jpg",
                bool(same[row]),
                int(fold[row]),
                float(similarities[row]),
                f"Ann/Ann_{row:04d}.jpg",
                f"Bob/{row}.jpg",
            )
            for row in range(len(same))
        ),
        "notes": ("a note",),
        "measured_at": "2026-11-28T09:44:00Z",
    }
    return BenchRun(**(told | changes))  # type: ignore[arg-type]
