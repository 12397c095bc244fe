"""Make embeddings of one model comparable with another's where the photographs are gone: a linear map.

FaceNet's harmonic embeddings (arXiv 1503.03832, appendix) are trained for it: the new network learns to be
compared with the old one's frozen embeddings, and mixed comparisons come out better than old ones (v2-v2 >
v2-v1 > v1-v1). A fitted map trains nothing. It can only turn and stretch what the old model kept of a face,
so a mapped comparison is at best about as good as the old model's, and may be worse where the two models see
faces differently; how much worse is measured on people who had no part in the fit, and kept with the map.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.atomic_files import write_atomically
from engine.embeddings import Embeddings, unit_rows
from engine.errors import ModelError
from engine.faces import FloatArray
from engine.search.open_set_threshold import Indices

_FORMAT: Final = "facestream-map/1"
_RIDGE: Final = 0.1
_FAR: Final = 1e-3
_LEAST_ALARMS: Final = 10
"""A rate is stated where it rests on so many impostor pairs at least."""
_LEAST_KEPT: Final = 0.9
_MOST_FALSE_ACCEPTS: Final = 2.0
_MOST_BYTES: Final = 64 * 2**20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ARRAYS: Final = ("weights", "old_mean", "new_mean")


@dataclass(frozen=True, slots=True)
class MapLoss:
    """The loss of a map, measured on people who were not used to fit it.

    Attributes:
        people: Of whom there were faces to measure on.
        impostor_pairs: Pairs of different people that the rates rest on.
        far: False accept rate that is compared at.
        accepted_old: Share of the pairs of one person that the old model accepts at it, 0..1.
        accepted_new: Share of them that the new model accepts, 0..1.
        accepted_mapped: Share of them accepted when mapped old embeddings are compared with new ones, 0..1.
        false_accepts_mapped: False accept rate of mapped comparisons at the new model's threshold, 0..1.
        cosine_kept: Mean cosine of a mapped embedding with the new one of the same face, -1..1.

    Raises:
        ValueError: A number is not finite.
    """

    people: int
    impostor_pairs: int
    far: float
    accepted_old: float
    accepted_new: float
    accepted_mapped: float
    false_accepts_mapped: float
    cosine_kept: float

    def __post_init__(self) -> None:
        numbers = dataclasses.astuple(self)
        if not np.isfinite(numbers).all():
            raise ValueError(f"expected finite numbers, got {numbers}")

    def __str__(self) -> str:
        return (
            f"of one person's pairs {self.accepted_mapped:.1%} accepted (old model {self.accepted_old:.1%}, "
            f"new {self.accepted_new:.1%}) at a false accept rate of {self.far:g}; at the new model's own "
            f"threshold strangers are accepted at {self.false_accepts_mapped:.2g}; {self.people} people"
        )

    @property
    def least_accepted(self) -> float:
        """Share of one person's pairs that a fit map has accepted at least: 0.9 of what either model has."""
        return _LEAST_KEPT * min(self.accepted_old, self.accepted_new)

    @property
    def most_false_accepts(self) -> float:
        """Rate at which a fit map lets strangers pass at the new model's threshold at most: twice its own."""
        return _MOST_FALSE_ACCEPTS * self.far

    @property
    def is_poor(self) -> bool:
        """Whether a gallery that is moved by the map names people less often, or strangers more often."""
        lost = self.accepted_mapped < self.least_accepted
        return lost or self.false_accepts_mapped > self.most_false_accepts


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingMap:
    """A linear map from one model's embeddings to another's.

    Attributes:
        old_model: Name of the package that it takes embeddings of.
        old_sha256: Of that model's ONNX file.
        new_model: Name of the package that what it gives may be compared with.
        new_sha256: Of that model's ONNX file.
        weights: float32 (old size, new size).
        old_mean: float32 (old size,), is taken off first.
        new_mean: float32 (new size,), is added afterwards.
        pairs: Faces that it was fitted on.
        loss: What it costs.

    Raises:
        ValueError: The arrays do not fit, are not finite, or a hash is none.
    """

    old_model: str
    old_sha256: str
    new_model: str
    new_sha256: str
    weights: FloatArray
    old_mean: FloatArray
    new_mean: FloatArray
    pairs: int
    loss: MapLoss

    def __post_init__(self) -> None:
        for sha256 in (self.old_sha256, self.new_sha256):
            if not _SHA256.fullmatch(sha256):
                raise ValueError(f"expected a SHA-256 of 64 hexadecimal digits, got {sha256!r}")
        if not self.old_model or not self.new_model:
            raise ValueError(f"expected two names of models, got {self.old_model!r}, {self.new_model!r}")
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        if self.weights.ndim != 2 or self.weights.shape != (*self.old_mean.shape, *self.new_mean.shape):
            raise ValueError(f"expected weights (old, new) and means (old,) and (new,), got {shapes}")
        for name in _ARRAYS:
            array: npt.NDArray[Any] = getattr(self, name)
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite float32, got {array.dtype}")

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """Map embeddings.

        Args:
            embeddings: float32 (N, old size), unit rows, of the old model.

        Returns:
            float32 (N, new size), unit rows, to be compared with the new model's.

        Raises:
            ValueError: They have another size.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.old_mean):
            raise ValueError(f"embeddings: expected (N, {len(self.old_mean)}), got {embeddings.shape}")
        return unit_rows((embeddings - self.old_mean) @ self.weights + self.new_mean)

    def check(self, *, old: tuple[str, str], new: tuple[str, str]) -> None:
        """Refuse models that the map was not fitted for.

        Args:
            old: Name and SHA-256 of the model that made the embeddings.
            new: Name and SHA-256 of the model whose embeddings they are compared with.

        Raises:
            ModelError: One is another.
        """
        for side, own, (name, sha256) in (
            ("from", (self.old_model, self.old_sha256), old),
            ("to", (self.new_model, self.new_sha256), new),
        ):
            if own != (name, sha256):
                raise ModelError(
                    f"the map is {side} {own[0]} ({own[1][:12]}), not {name} ({sha256[:12]}); "
                    "fit one for these models"
                )

    def save(self, path: Path) -> None:
        """Write it to an .npz file; readers see the old file or the whole new one.

        Raises:
            ModelError: The file cannot be written.
        """
        about = {
            "format": _FORMAT,
            "old_model": self.old_model,
            "old_sha256": self.old_sha256,
            "new_model": self.new_model,
            "new_sha256": self.new_sha256,
            "pairs": self.pairs,
            "loss": dataclasses.asdict(self.loss),
        }
        text = np.frombuffer(json.dumps(about, allow_nan=False).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, about=text, weights=self.weights, old_mean=self.old_mean, new_mean=self.new_mean)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> EmbeddingMap:
        """Read what ``save`` wrote. Nothing in the file is executed.

        Raises:
            ModelError: The file cannot be read, is damaged, or is no map.
        """
        try:
            return _read(path)
        except OSError as exc:
            raise ModelError(f"{path}: cannot read the map: {exc.strerror or exc}; check the path") from exc
        except _UNREADABLE as exc:
            reason = " ".join(str(exc).split()) or type(exc).__name__
            raise ModelError(f"{path}: not a complete map of embeddings ({reason}); fit it again") from exc


_UNREADABLE: Final = (
    *(ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError, EOFError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError),
)
"""What reading a file that is no map may raise; an array may say that it is larger than the memory."""


def _read(path: Path) -> EmbeddingMap:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
            raise ValueError("it is too large for a map")
    with np.load(path, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        weights, old_mean, new_mean = (arrays[name] for name in _ARRAYS)
    if about["format"] != _FORMAT:
        raise ValueError(f"expected the format {_FORMAT}, got {about['format']!r}")
    rates = about["loss"]
    loss = MapLoss(
        people=int(rates["people"]),
        impostor_pairs=int(rates["impostor_pairs"]),
        far=float(rates["far"]),
        accepted_old=float(rates["accepted_old"]),
        accepted_new=float(rates["accepted_new"]),
        accepted_mapped=float(rates["accepted_mapped"]),
        false_accepts_mapped=float(rates["false_accepts_mapped"]),
        cosine_kept=float(rates["cosine_kept"]),
    )
    return EmbeddingMap(
        old_model=str(about["old_model"]),
        old_sha256=str(about["old_sha256"]),
        new_model=str(about["new_model"]),
        new_sha256=str(about["new_sha256"]),
        weights=weights,
        old_mean=old_mean,
        new_mean=new_mean,
        pairs=int(about["pairs"]),
        loss=loss,
    )


def fit_map(
    old: Embeddings,
    new: Embeddings,
    people: Indices,
    *,
    old_model: tuple[str, str],
    new_model: tuple[str, str],
    seed: int = 0,
) -> EmbeddingMap:
    """Fit a map on embeddings of the same faces by both models, and measure what it costs.

    It is least squares with a ridge of 0.1 around the means. On CelebA this kept more than a rotation
    (orthogonal Procrustes) wherever the models differ, and as much where one contains the other
    (docs/decisions/0012-open-set-and-clustering.md). The loss is that of a map fitted on half of the people,
    measured on the other half; the map itself is fitted on all.

    Args:
        old: float32 (N, old size), unit rows.
        new: float32 (N, new size), unit rows, of the same faces.
        people: intp (N,), whom each face shows.
        old_model: Name and SHA-256 of the old model.
        new_model: Name and SHA-256 of the new model.
        seed: Of which half of the people is measured on.

    Raises:
        ValueError: The arrays do not fit, or there are too few pairs: at least as many in each half as the
            old embeddings have numbers, and somebody with two faces.
    """
    if old.ndim != 2 or new.ndim != 2 or not len(old) == len(new) == len(people):
        raise ValueError(f"expected (N, D), (N, E) and (N,), got {old.shape}, {new.shape}, {people.shape}")
    if not np.isfinite(old).all() or not np.isfinite(new).all():
        raise ValueError("embeddings: expected finite numbers")
    names = np.random.default_rng(seed).permutation(np.unique(people))
    held_out = np.isin(people, names[: len(names) // 2])
    if min(held_out.sum(), (~held_out).sum()) < old.shape[1]:
        raise ValueError(
            f"expected at least {2 * old.shape[1]:,} faces of many people, got {len(old):,} of {len(names):,}"
        )
    trial = _Affine.fitted(old[~held_out], new[~held_out])
    loss = _loss(old[held_out], new[held_out], trial(old[held_out]), people[held_out])
    whole = _Affine.fitted(old, new)
    return EmbeddingMap(
        *old_model, *new_model, whole.weights, whole.old_mean, whole.new_mean, pairs=len(old), loss=loss
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Affine:
    weights: FloatArray
    old_mean: FloatArray
    new_mean: FloatArray

    @classmethod
    def fitted(cls, old: Embeddings, new: Embeddings) -> _Affine:
        a, b = old.astype(np.float64), new.astype(np.float64)
        old_mean, new_mean = a.mean(axis=0), b.mean(axis=0)
        a -= old_mean
        weights = np.linalg.solve(a.T @ a + _RIDGE * np.eye(a.shape[1]), a.T @ (b - new_mean))
        return cls(*(each.astype(np.float32) for each in (weights, old_mean, new_mean)))

    def __call__(self, old: Embeddings) -> Embeddings:
        return unit_rows((old - self.old_mean) @ self.weights + self.new_mean)


def _loss(old: Embeddings, new: Embeddings, mapped: Embeddings, people: Indices) -> MapLoss:
    rows, columns = np.triu_indices(len(people), 1)
    same = people[rows] == people[columns]
    impostors = int((~same).sum())
    if not same.any() or not impostors:
        raise ValueError("expected several faces of a person, and several people, among those measured on")
    far = max(_FAR, min(_LEAST_ALARMS / impostors, 1.0))
    # A mapped face is compared with a new one: both ways, since either may be the older.
    scores = {
        "old": (old @ old.T)[rows, columns],
        "new": (new @ new.T)[rows, columns],
        "mapped": np.concatenate([(mapped @ new.T)[rows, columns], (mapped @ new.T)[columns, rows]]),
    }
    is_same = {"old": same, "new": same, "mapped": np.concatenate([same, same])}
    thresholds = {name: np.quantile(each[~is_same[name]], 1 - far) for name, each in scores.items()}
    accepted = {
        name: float((each[is_same[name]] >= thresholds[name]).mean()) for name, each in scores.items()
    }
    return MapLoss(
        people=len(np.unique(people)),
        impostor_pairs=impostors,
        far=far,
        accepted_old=accepted["old"],
        accepted_new=accepted["new"],
        accepted_mapped=accepted["mapped"],
        false_accepts_mapped=float((scores["mapped"][~is_same["mapped"]] >= thresholds["new"]).mean()),
        cosine_kept=float((mapped * new).sum(axis=1).mean()),
    )
