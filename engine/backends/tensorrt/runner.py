"""Run TensorRT plans, two calls in flight, so that the copies of one overlap with the work of the other.

Not yet run on a GPU: written against the interfaces of TensorRT 11.4, TensorRT for RTX 1.7 and PyCUDA 2026.1,
and tested against a stand-in for them (docs/decisions/0008-tensorrt-and-pycuda.md).
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy.typing as npt

from engine.backends.cuda import Buffer, CudaDevice
from engine.backends.tensorrt.bindings import Flavour, library, message_log
from engine.backends.tensorrt.loading import PlanTensor, load_plan, rtx_options, save_kernels, tensors_of
from engine.errors import ModelError
from engine.protocol import Arrays, Pending, TensorSpec, check_feeds

_MOST_IN_FLIGHT: Final = 2


class TensorRtEngine:
    """A plan on a GPU.

    Calls from several threads run at the same time, two of them; a third waits for the oldest to end. Memory
    is laid out for the largest shapes of the plan, once for each of the two.

    Args:
        plan: What ``build_plan`` gave, with this flavour, this version and a GPU of this architecture: check
            that before, deserialising is not made for plans that nobody vouches for.
        flavour: Which library built it.
        precision: What the graph computes in, to be told.
        device: Number of the GPU.
        model: Name for the error messages.
        runtime_cache: File in which TensorRT for RTX keeps what it compiled at the start for this GPU, so
            that the next start is quicker; unused by ``tensorrt``.

    Raises:
        ModelError: The library, PyCUDA or the GPU is missing, or the plan is damaged or made for another
            version or GPU.
    """

    def __init__(
        self,
        plan: bytes,
        *,
        flavour: Flavour,
        precision: str = "fp32",
        device: int = 0,
        model: str = "model",
        runtime_cache: Path | None = None,
    ) -> None:
        self.name: str = flavour
        self.precision = precision
        self._model = model
        self._runtime_cache = runtime_cache
        self._lock = Lock()
        self._closed = False
        self._slots: list[_Slot] = []
        self._trt = library(flavour)
        self._log = message_log(self._trt)
        self._device = CudaDevice(device)
        self._runtime: Any = None
        self._engine: Any = None
        self._options: Any = None
        self._kernels: Any = None
        try:
            self._open(plan, flavour)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: bytes, flavour: Flavour) -> None:
        with self._device.active():
            try:
                self._runtime, self._engine = load_plan(self._trt, plan, model=self._model, flavour=flavour)
                self._tensors = tensors_of(self._trt, self._engine, self._model)
                if flavour == "tensorrt-rtx":
                    self._options, self._kernels = rtx_options(self._trt, self._engine, self._runtime_cache)
                self._slots.append(self._new_slot())
            except BaseException as exc:
                # Or the traceback keeps a context that outlives its plan, freed who knows where.
                traceback.clear_frames(exc.__traceback__)
                raise

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` takes."""
        return tuple(tensor.spec for tensor in self._tensors if tensor.is_input)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` returns."""
        return tuple(tensor.spec for tensor in self._tensors if not tensor.is_input)

    @property
    def max_batch(self) -> int | None:
        """Largest first dimension that the plan was built for."""
        return min(tensor.largest[0] for tensor in self._tensors if tensor.is_input)

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the model once; see ``Engine.infer``."""
        return self.submit(feeds).result()

    def submit(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Pending:
        """Begin to run the model; see ``Engine.submit``. The arrays may be changed once this returns."""
        check_feeds(feeds, self.inputs)
        self._check_range(feeds)
        with self._lock:
            if self._closed:
                raise ModelError("the engine is closed; open a new one")
            slot = self._free_slot()
            with self._device.active():
                slot.start(feeds)
            slot.call = _Call(self._device, slot)
            return slot.call

    def close(self) -> None:
        """Wait for the calls in flight, whose results stay to be had, and free all that the engine holds."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # What was made last goes first: a plan outlives its contexts. One failure does not keep the rest.
            with self._device.active(), contextlib.ExitStack() as last_first:
                last_first.callback(self._release)
                while self._slots:
                    last_first.callback(self._slots.pop().close)

    def _release(self) -> None:
        save_kernels(self._kernels, self._runtime_cache)
        self._options = self._kernels = None
        self._engine = None
        self._runtime = None

    def _check_range(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        for tensor in self._tensors:
            if tensor.is_input:
                shape = feeds[tensor.spec.name].shape
                limits = zip(tensor.smallest, shape, tensor.largest, strict=True)
                if not all(low <= size <= high for low, size, high in limits):
                    raise ValueError(
                        f"{tensor.spec.name}: the plan was built for shapes from {tensor.smallest} to "
                        f"{tensor.largest}, got {shape}; compile it for this size"
                    )

    def _free_slot(self) -> _Slot:
        """One that is idle, or a new one, or the one whose call is the oldest, once that has ended."""
        for slot in self._slots:
            if slot.call is None or slot.call.done:
                break
        else:
            if len(self._slots) < _MOST_IN_FLIGHT:
                with self._device.active():
                    slot = self._new_slot()
                self._slots.append(slot)
            else:
                slot = self._slots[0]
        if slot.call is not None:
            slot.call.settle()
            slot.call = None
        # The list stays in the order of the calls, oldest first.
        self._slots.remove(slot)
        self._slots.append(slot)
        return slot

    def _new_slot(self) -> _Slot:
        mark = self._log.mark()
        context = (
            self._engine.create_execution_context()
            if self._options is None
            else self._engine.create_execution_context(self._options)
        )
        if context is None:
            raise ModelError(
                f"{self._model}: the GPU has no room for the plan: {self._log.reason(mark)}; "
                "compile with a smaller --batch, or stop other programs that use the GPU"
            )
        return _Slot(self._device, context, self._tensors, self._log)


class _Slot:
    """All that one call in flight needs: an execution context, a stream and memory for the largest shapes."""

    def __init__(self, device: CudaDevice, context: Any, tensors: tuple[PlanTensor, ...], log: Any) -> None:
        self.call: _Call | None = None
        self._context = context
        self._tensors = tensors
        self._log = log
        self._mark = log.mark()
        self._buffers: dict[str, Buffer] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._queue = device.queue()
        try:
            self._lay_out(device)
        except BaseException:
            self.close()
            raise

    def _lay_out(self, device: CudaDevice) -> None:
        """Allocate for the largest shapes. Addresses never change, which lets TensorRT keep CUDA graphs."""
        self._demand(self._context.set_optimization_profile_async(0, self._queue.handle), "take its profile")
        self._queue.drain()
        self._set_shapes({tensor.spec.name: tensor.largest for tensor in self._tensors if tensor.is_input})
        for tensor in self._tensors:
            name = tensor.spec.name
            self._buffers[name] = device.buffer(self._nbytes(tensor))
            self._demand(self._context.set_tensor_address(name, self._buffers[name].address), "take memory")

    def start(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """Ask for the copies and the work; the GPU's context must be that of this thread."""
        self._mark = self._log.mark()
        self._set_shapes({name: array.shape for name, array in feeds.items()})
        outputs = [tensor for tensor in self._tensors if not tensor.is_input]
        try:
            for name, array in feeds.items():
                self._buffers[name].upload(array, self._queue)
            self._demand(self._context.execute_async_v3(self._queue.handle), "run")
            for tensor in outputs:
                self._buffers[tensor.spec.name].download(self._nbytes(tensor), self._queue)
            self._queue.mark()
        except BaseException:
            self._queue.drain()
            raise

    def finish(self) -> Arrays:
        """Wait for the work; the GPU's context must be that of this thread."""
        self._queue.wait()
        specs = [tensor.spec for tensor in self._tensors if not tensor.is_input]
        return {s.name: self._buffers[s.name].read(self._shapes[s.name], s.dtype) for s in specs}

    def close(self) -> None:
        """Free all, once no work is under way."""
        if self.call is not None:
            self.call.settle()
        with contextlib.ExitStack() as last_first:
            last_first.callback(self._queue.close)
            for buffer in self._buffers.values():
                last_first.callback(buffer.free)
            self._buffers.clear()
            last_first.callback(self._drop_context)
            last_first.callback(self._queue.drain)

    def _drop_context(self) -> None:
        self._context = None

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            self._demand(self._context.set_input_shape(name, shape), f"take {name} of {shape}")
        self._demand(not self._context.infer_shapes(), "infer the shapes of its outputs")
        for tensor in self._tensors:
            name = tensor.spec.name
            self._shapes[name] = tuple(self._context.get_tensor_shape(name))
            self._demand(-1 not in self._shapes[name], f"tell the size of {name} before it runs")
            fits = name not in self._buffers or self._nbytes(tensor) <= self._buffers[name].nbytes
            self._demand(fits, f"keep {name} of {self._shapes[name]} within its largest size")

    def _nbytes(self, tensor: PlanTensor) -> int:
        return math.prod(self._shapes[tensor.spec.name]) * tensor.spec.dtype.itemsize

    def _demand(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise ModelError(
                f"TensorRT cannot {what}: {self._log.reason(self._mark)}; compile the model again"
            )


class _Call:
    """A call in flight. Its lock is never held while the engine's is wanted, so the two cannot block."""

    def __init__(self, device: CudaDevice, slot: _Slot) -> None:
        self.done = False
        self._device = device
        self._slot: _Slot | None = slot
        self._lock = Lock()
        self._outputs: Arrays = {}
        self._failure: str | None = None

    def result(self) -> Arrays:
        """Wait for the outputs; see ``Pending.result``."""
        self.settle()
        if self._failure is not None:
            raise ModelError(self._failure)
        return dict(self._outputs)

    def settle(self) -> None:
        """Wait, and keep the outputs or the failure, so that the slot is free."""
        with self._lock:
            if self._slot is None:
                return
            try:
                with self._device.active():
                    self._outputs = self._slot.finish()
            except ModelError as exc:
                self._failure = str(exc)
            except BaseException:
                self._failure = "the call was interrupted; run it again"
                raise
            finally:
                self._slot = None
                self.done = True
