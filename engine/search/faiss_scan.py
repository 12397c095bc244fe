"""A quick look at all templates, in 4 bits for two numbers each: the one file that imports faiss.

Product quantisation (Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", PAMI 2011)
with 16 centroids for each two numbers of an embedding, so that the tables of a query fit into vector
registers (André, Kermarrec and Le Scouarnec, "Cache locality is not enough", VLDB 2015). It looks at every
template: there is no graph to build and no cell to miss. Exact cosines of its candidates mend its rounding.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.embeddings import Embeddings
from engine.errors import ConfigError
from engine.optional_libraries import is_installed, trouble_with, why_unusable

log = logging.getLogger(f"facestream.{__name__}")

_INSTALL: Final = "pip install 'facestream[gallery]'"
_NUMBERS_A_CODE: Final = 2
_BITS: Final = 4
_FEWEST_TO_TRAIN: Final = 1024


def can_scan(size: int) -> bool:
    """Whether embeddings of a length can be scanned here: faiss is installed, and the length is even.

    One that is installed and does not load is reported once, since without it large galleries are slow.
    """
    return size % _NUMBERS_A_CODE == 0 and _loads()


@cache
def _loads() -> bool:
    if is_installed("faiss") and (trouble := trouble_with("faiss", install=_INSTALL)):
        log.warning("large galleries are searched face by face: %s", trouble)
        return False
    return is_installed("faiss")


class CompressedScan:
    """Codes of embeddings, in rows that are numbered from 0 in the order in which they were added.

    Not for several threads at once.

    Args:
        sample: float32 (N, D), N at least 1,024, D even: embeddings like those to come, from which the
            centroids are made. About half a second for 60,000.

    Raises:
        ValueError: There are too few, or their length is odd.
        ConfigError: faiss is not installed.
    """

    def __init__(self, sample: Embeddings) -> None:
        if sample.ndim != 2 or len(sample) < _FEWEST_TO_TRAIN or sample.shape[1] % _NUMBERS_A_CODE:
            raise ValueError(
                f"sample: expected ({_FEWEST_TO_TRAIN} or more, an even length), got {sample.shape}"
            )
        faiss = _one_thread()
        size = sample.shape[1]
        self._index = faiss.IndexPQFastScan(size, size // _NUMBERS_A_CODE, _BITS, faiss.METRIC_INNER_PRODUCT)
        self._index.train(np.ascontiguousarray(sample))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        """Memory of the codes."""
        return len(self) * int(self._index.d) // _NUMBERS_A_CODE * _BITS // 8

    def add(self, embeddings: Embeddings) -> None:
        """Add rows, float32 (N, D)."""
        _one_thread()
        self._index.add(np.ascontiguousarray(embeddings))

    def candidates(self, queries: Embeddings, count: int) -> npt.NDArray[np.int64]:
        """The rows that look nearest to each query.

        Args:
            queries: float32 (Q, D).
            count: How many; no more than there are rows.

        Returns:
            int64 (Q, count), in no order to rely on; -1 where none was found.
        """
        _one_thread()
        _, rows = self._index.search(np.ascontiguousarray(queries), count)
        return np.asarray(rows, np.int64)


def _one_thread() -> Any:
    """faiss, told to use the calling thread alone.

    Its threads wait for each other by spinning: where other work shares the cores, training took 6 to 17
    times as long with two of them.
    """
    try:
        import faiss
    except (ImportError, OSError) as exc:
        trouble = why_unusable("faiss", exc, install=_INSTALL)
        raise ConfigError(f"{trouble}, or use an exact index") from exc
    faiss.omp_set_num_threads(1)
    return faiss
