"""Search over templates: exact while they are few, a compressed scan and exact cosines when they are many.

docs/decisions/0013-gallery-index.md has the measurements behind the sizes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.search.faiss_scan import CompressedScan, can_scan

Store: TypeAlias = Literal["float32", "int8"]
"""How templates are kept: exact, or in a quarter of the memory."""

Keys: TypeAlias = npt.NDArray[np.int64]

SCAN_FROM: Final = 50_000
"""Templates from which on the compressed scan is quicker by much."""

_BLOCK: Final = 65_536
_ROWS_AT_ONCE: Final = 512
_SAMPLE: Final = 60_000
_CANDIDATES: Final = 1_000
_DEAD_SHARE: Final = 0.125


class TemplateIndex:
    """Templates by key, and those nearest to a query.

    Threads may add, remove and search at the same time. A search sees each template whole or not at all, and
    waits at most for the adding of 512 templates.

    Args:
        size: Numbers of an embedding.
        store: ``int8`` keeps each embedding as one byte a number and a scale: cosines are off by about 0.001.
        scan_from: Number of templates from which on the compressed scan is used, where faiss is installed and
            ``size`` is even; None always searches all exactly.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, size: int, *, store: Store = "float32", scan_from: int | None = SCAN_FROM) -> None:
        if size < 1 or store not in {"float32", "int8"}:
            raise ValueError(f"expected size >= 1 and store float32 or int8, got {size} and {store!r}")
        if scan_from is not None and scan_from < 2_048:
            raise ValueError(f"scan_from: expected at least 2048, or None, got {scan_from}")
        self._size = size
        self._store: Store = store
        self._scan_from = scan_from if scan_from is not None and can_scan(size) else None
        self._writing = threading.Lock()
        self._lock = _Turns()
        self._rows = _Rows(size, store)
        self._scan: CompressedScan | None = None
        self._largest_key = -1

    def __len__(self) -> int:
        return self._rows.alive

    @property
    def is_exact(self) -> bool:
        """Whether searches look at all templates exactly."""
        return self._scan is None

    @property
    def nbytes(self) -> int:
        """Memory of the templates, their keys and codes."""
        with self._lock:
            return self._rows.nbytes + (0 if self._scan is None else self._scan.nbytes)

    def add(self, keys: Keys, embeddings: Embeddings) -> None:
        """Add templates.

        The call with which the scan begins takes about a second; searches go on meanwhile.

        Args:
            keys: int64 (N,), at least 0, of which none is there yet.
            embeddings: float32 (N, D), unit rows.

        Raises:
            ValueError: An array has another shape or dtype, a key is negative, is there already or stands
                there twice, or a value is not finite.
        """
        self._check(keys, embeddings)
        with self._writing:
            self._check_new(keys)
            for start in range(0, len(keys), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                with self._lock:
                    self._rows.append(keys[part], embeddings[part])
                    if self._scan is not None:
                        self._scan.add(embeddings[part])
            self._largest_key = max(self._largest_key, int(keys.max(initial=-1)))
            if self._scan is None and self._scan_from is not None and len(self) >= self._scan_from:
                self._rebuild()

    def remove(self, keys: Keys) -> int:
        """Forget templates. Their numbers are overwritten at once.

        Args:
            keys: int64 (N,); those that are not there are skipped.

        Returns:
            How many there were.
        """
        with self._writing:
            with self._lock:
                gone = self._rows.remove(np.asarray(keys, np.int64))
            if self._rows.dead > _DEAD_SHARE * max(len(self), _BLOCK):
                self._rebuild()
        return gone

    def search(self, queries: Embeddings, k: int) -> tuple[Keys, npt.NDArray[np.float32]]:
        """The nearest templates to each query, nearest first.

        Args:
            queries: float32 (Q, D), unit rows.
            k: How many for each; at least 1.

        Returns:
            Keys int64 (Q, k), -1 where there are no more; cosines float32 (Q, k), -1..1, -1 beside key -1.

        Raises:
            ValueError: An array has another shape or dtype, or ``k`` is below 1.
        """
        if queries.ndim != 2 or queries.shape[1] != self._size or queries.dtype != np.float32 or k < 1:
            raise ValueError(
                f"expected queries float32 (Q, {self._size}) and k >= 1, "
                f"got {queries.dtype} {queries.shape} and {k}"
            )
        keys = np.full((len(queries), k), -1, np.int64)
        cosines = np.full((len(queries), k), -1.0, np.float32)
        for number, query in enumerate(queries):
            with self._lock:
                found, near = self._search_one(query, k)
            keys[number, : len(found)] = found
            cosines[number, : len(near)] = near
        return keys, cosines

    def _search_one(self, query: npt.NDArray[np.float32], k: int) -> tuple[Keys, npt.NDArray[np.float32]]:
        if self._scan is None:
            keys, cosines = self._rows.cosines(query)
        else:
            count = min(max(_CANDIDATES, 50 * k) + min(self._rows.dead, _CANDIDATES), len(self._scan))
            rows = np.sort(self._scan.candidates(query[None], count)[0])
            keys, embeddings = self._rows.take(rows[rows >= 0])
            cosines = np.einsum("nd,d->n", embeddings, query)  # too few for BLAS's threads to help
        there = keys >= 0
        keys, cosines = keys[there], cosines[there]
        if k < len(keys):
            nearest = np.argpartition(-cosines, k)[:k]
            keys, cosines = keys[nearest], cosines[nearest]
        order = np.lexsort((keys, -cosines))
        return keys[order], cosines[order]

    def _rebuild(self) -> None:
        """Close the gaps, and encode all rows again if there are enough; the old rows answer until then."""
        rows = _Rows(self._size, self._store)
        for keys, embeddings in self._rows.parts():
            rows.append(keys, embeddings)
        scan = None
        if self._scan_from is not None and rows.alive >= self._scan_from:
            chosen = np.random.default_rng(0).permutation(rows.alive)[:_SAMPLE]
            scan = CompressedScan(rows.take(np.sort(chosen))[1])
            for _, embeddings in rows.parts():
                scan.add(embeddings)
        with self._lock:
            self._rows, self._scan = rows, scan

    def _check(self, keys: Keys, embeddings: Embeddings) -> None:
        if keys.ndim != 1 or keys.dtype != np.int64 or (keys < 0).any():
            raise ValueError(f"keys: expected int64 (N,) of at least 0, got {keys.dtype} {keys.shape}")
        if embeddings.shape != (len(keys), self._size) or embeddings.dtype != np.float32:
            raise ValueError(
                f"embeddings: expected float32 {(len(keys), self._size)}, "
                f"got {embeddings.dtype} {embeddings.shape}"
            )
        if not np.isfinite(embeddings).all():
            raise ValueError("embeddings: expected finite numbers")

    def _check_new(self, keys: Keys) -> None:
        if len(np.unique(keys)) != len(keys):
            raise ValueError("keys: duplicate key")
        if len(keys) and keys.min() <= self._largest_key and self._rows.holds(keys):
            raise ValueError("keys: already in the index; remove it first")


class _Turns:
    """A lock that goes to who waits for it, and not back to a thread that takes it again at once.

    Who waits holds the place of the next one, for which the other has to wait. With a plain lock, a thread
    that adds one template after the other kept searches waiting for many of its turns.
    """

    def __init__(self) -> None:
        self._next, self._now = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._next:
            self._now.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._now.release()


class _Rows:
    """Keys and embeddings in blocks that never move, so that growing copies nothing. A removed key is -1."""

    def __init__(self, size: int, store: Store) -> None:
        self._size = size
        self._store: Store = store
        self._keys: list[Keys] = []
        self._values: list[npt.NDArray[np.float32] | npt.NDArray[np.int8]] = []
        self._scales: list[npt.NDArray[np.float32]] = []
        self._length = 0
        self.dead = 0

    @property
    def alive(self) -> int:
        return self._length - self.dead

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for arrays in (self._keys, self._values, self._scales) for array in arrays)

    def append(self, keys: Keys, embeddings: Embeddings) -> None:
        done = 0
        while done < len(keys):
            block, start = divmod(self._length, _BLOCK)
            if block == len(self._keys):
                self._grow()
            count = min(_BLOCK - start, len(keys) - done)
            place, part = slice(start, start + count), slice(done, done + count)
            self._put(block, place, embeddings[part])
            self._keys[block][place] = keys[part]
            self._length += count
            done += count

    def _grow(self) -> None:
        self._keys.append(np.full(_BLOCK, -1, np.int64))
        self._values.append(np.zeros((_BLOCK, self._size), np.dtype(self._store)))
        self._scales.append(np.ones(_BLOCK if self._store == "int8" else 0, np.float32))

    def _put(self, block: int, place: slice, embeddings: Embeddings) -> None:
        if self._store == "float32":
            self._values[block][place] = embeddings
            return
        scales = np.maximum(np.abs(embeddings).max(axis=1), np.finfo(np.float32).tiny) / 127
        self._values[block][place] = np.rint(embeddings / scales[:, None]).astype(np.int8)
        self._scales[block][place] = scales

    def _get(self, block: int, rows: slice | npt.NDArray[np.int64]) -> Embeddings:
        values = self._values[block][rows].astype(np.float32, copy=False)
        return values * self._scales[block][rows, None] if self._store == "int8" else values

    def holds(self, keys: Keys) -> bool:
        return any(np.isin(block, keys).any() for block in self._keys)

    def remove(self, keys: Keys) -> int:
        gone = 0
        wanted = keys[keys >= 0]
        for block, own in enumerate(self._keys):
            rows = np.flatnonzero(np.isin(own, wanted))
            self._values[block][rows] = 0
            own[rows] = -1
            gone += len(rows)
        self.dead += gone
        return gone

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[Keys, Embeddings]:
        """Keys and embeddings of some rows, which ascend."""
        keys, taken = np.empty(len(rows), np.int64), np.empty((len(rows), self._size), np.float32)
        bounds = np.searchsorted(rows, np.arange(len(self._keys) + 1) * _BLOCK)
        for block in np.flatnonzero(np.diff(bounds)).tolist():
            part = slice(bounds[block], bounds[block + 1])
            places = rows[part] - block * _BLOCK
            keys[part] = self._keys[block][places]
            taken[part] = self._get(block, places)
        return keys, taken

    def parts(self) -> Iterator[tuple[Keys, Embeddings]]:
        """Keys and embeddings of those that are left, block by block."""
        for block, keys in enumerate(self._keys):
            rows = np.flatnonzero(keys >= 0)
            yield keys[rows], self._get(block, rows)

    def cosines(self, query: npt.NDArray[np.float32]) -> tuple[Keys, npt.NDArray[np.float32]]:
        """Keys of all rows, -1 for those that are removed, and their cosines with a query."""
        keys = np.empty(self._length, np.int64)
        cosines = np.empty(self._length, np.float32)
        for block in range(len(self._keys)):
            start = block * _BLOCK
            count = min(_BLOCK, self._length - start)
            place = slice(start, start + count)
            keys[place] = self._keys[block][:count]
            if self._store == "int8":
                raw = self._values[block][:count].astype(np.float32) @ query
                cosines[place] = raw * self._scales[block][:count]
            else:
                cosines[place] = self._values[block][:count] @ query
        return keys, cosines
