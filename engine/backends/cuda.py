"""The GPU by PyCUDA: its primary context, streams and buffers. The only file that imports ``pycuda``.

Not yet run on a GPU; written against PyCUDA 2026.1 and tested against a stand-in
(docs/decisions/0008-tensorrt-and-pycuda.md).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.optional_libraries import why_unusable

_INSTALL: Final = "pip install 'pycuda>=2025.1'"
_RETAINING: Final = Lock()


def cuda_missing(index: int = 0) -> str | None:
    """Why a GPU cannot be used.

    Args:
        index: Number of the GPU.

    Returns:
        None where it can be used, otherwise the reason and how to fix it, on one line.
    """
    try:
        CudaDevice(index)
    except ModelError as exc:
        return str(exc)
    return None


def device_architecture(index: int = 0) -> str:
    """Architecture of a GPU, such as ``sm86``.

    Raises:
        ModelError: There is no such GPU, or no PyCUDA.
    """
    return CudaDevice(index).architecture


class CudaDevice:
    """One GPU and its primary context, which all libraries of the process share.

    Args:
        index: Number of the GPU.

    Raises:
        ModelError: There is no such GPU, or no PyCUDA.
    """

    def __init__(self, index: int = 0) -> None:
        self._driver = _load_driver()
        with _translated(self._driver, f"open GPU {index}"):
            self._driver.init()
            count = self._driver.Device.count()
            if not 0 <= index < count:
                found = f"0 to {count - 1}" if count else "none: check whether nvidia-smi lists it"
                raise ModelError(f"GPU {index}: expected one of those that this machine has, {found}")
            self._device = self._driver.Device(index)
        self._index = index

    @property
    def architecture(self) -> str:
        """Such as ``sm86``."""
        major, minor = self._device.compute_capability()
        return f"sm{major}{minor}"

    @property
    def name(self) -> str:
        """What its maker calls it."""
        return str(self._device.name())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU's context that of this thread; everything else here needs that.

        Raises:
            ModelError: What was done within failed.
        """
        with _translated(self._driver, "compute"):
            context = _primary_context(self._driver, self._index)
            context.push()
            try:
                yield
            finally:
                context.pop()

    def queue(self) -> Queue:
        """A new stream."""
        return Queue(self._driver)

    def buffer(self, nbytes: int) -> Buffer:
        """New memory of at least one byte."""
        return Buffer(self._driver, max(nbytes, 1))


class Queue:
    """A stream: work that the GPU does one after the other, beside that of other streams."""

    def __init__(self, driver: Any) -> None:
        self.stream: Any = driver.Stream()
        # The thread that waits sleeps: the decoder and the tracker want the core.
        flags = driver.event_flags.BLOCKING_SYNC | driver.event_flags.DISABLE_TIMING
        self._end: Any = driver.Event(flags)

    @property
    def handle(self) -> int:
        """What TensorRT calls the stream."""
        return int(self.stream.handle)

    def mark(self) -> None:
        """Note what has been asked for up to now."""
        self._end.record(self.stream)

    def wait(self) -> None:
        """Wait until all that was noted is done. Other threads of Python run meanwhile."""
        self._end.synchronize()

    def drain(self) -> None:
        """Wait until all is done, whether noted or not."""
        self.stream.synchronize()

    def close(self) -> None:
        """Free the stream, which must be idle."""
        self._end = self.stream = None


class Buffer:
    """Memory of the GPU, and page-locked memory of the same size that copies go to and from.

    Args:
        driver: PyCUDA's.
        nbytes: Size.

    Attributes:
        nbytes: Size.
        address: Where the memory of the GPU begins.
    """

    def __init__(self, driver: Any, nbytes: int) -> None:
        self._driver = driver
        self.nbytes = nbytes
        self._host: Any = driver.pagelocked_empty(nbytes, np.uint8)
        try:
            self._device: Any = driver.mem_alloc(nbytes)
        except BaseException:
            self._host.base.free()
            raise
        self.address = int(self._device)

    def upload(self, array: npt.NDArray[Any], queue: Queue) -> None:
        """Copy an array, which may be changed once this returns, and ask for its transfer to the GPU.

        Args:
            array: No larger than the buffer.
            queue: Where the transfer takes its turn.
        """
        staged = self._host[: array.nbytes]
        np.copyto(staged.view(array.dtype).reshape(array.shape), array)
        self._driver.memcpy_htod_async(self._device, staged, queue.stream)

    def download(self, nbytes: int, queue: Queue) -> None:
        """Ask for a transfer from the GPU.

        Args:
            nbytes: How much, from the beginning.
            queue: Where it takes its turn; what came is there once its work is done.
        """
        self._driver.memcpy_dtoh_async(self._host[:nbytes], self._device, queue.stream)

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """What the last transfer brought, once it is done, as a new array.

        Args:
            shape: Of the array.
            dtype: Of the array.
        """
        count = int(np.prod(shape, dtype=np.int64))
        values: npt.NDArray[Any] = self._host[: count * dtype.itemsize].view(dtype).reshape(shape)
        return values.copy()

    def free(self) -> None:
        """Give both memories back; no transfer may be under way."""
        self._device.free()
        self._host.base.free()
        self._device = self._host = None


def _load_driver() -> Any:
    try:
        from pycuda import driver
    except (ImportError, OSError) as exc:
        trouble = why_unusable("pycuda", exc, title="PyCUDA", install=_INSTALL)
        raise ModelError(f"{trouble}; it needs NVIDIA's driver and CUDA toolkit") from exc
    return driver


def _primary_context(driver: Any, index: int) -> Any:
    with _RETAINING:
        return _retained_context(driver, index)


@functools.cache
def _retained_context(driver: Any, index: int) -> Any:
    """Retained once and kept as long as the process lives.

    PyCUDA gives a primary context back only in the thread that retained it, and then leaves it current there.
    """
    return driver.Device(index).retain_primary_context()


@contextmanager
def _translated(driver: Any, what: str) -> Iterator[None]:
    try:
        yield
    except driver.MemoryError as exc:
        raise ModelError(
            f"the GPU cannot {what}: out of memory; compile with a smaller --batch, or stop "
            "other programs that use it"
        ) from exc
    except driver.Error as exc:
        reason = " ".join(str(exc).split())
        raise ModelError(f"the GPU cannot {what}: {reason}; look at nvidia-smi and start again") from exc
