"""What a TensorRT plan is at run time: its tensors, and what TensorRT for RTX keeps beside it.

Not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.atomic_files import write_atomically
from engine.backends.tensorrt.bindings import Flavour, message_log
from engine.errors import ModelError
from engine.protocol import TensorSpec


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """An input or output of a plan.

    Attributes:
        spec: Its name, shape and dtype.
        is_input: Or an output.
        smallest: Least shape that the plan was built for; of inputs only.
        largest: Greatest one.
    """

    spec: TensorSpec
    is_input: bool
    smallest: tuple[int, ...] = ()
    largest: tuple[int, ...] = ()


def load_plan(trt: Any, plan: bytes, *, model: str, flavour: Flavour) -> tuple[Any, Any]:
    """Deserialise a plan that is known to be whole and of this version and GPU.

    Args:
        trt: The module of the flavour.
        plan: The plan.
        model: Name for the error message.
        flavour: For the error message.

    Returns:
        Runtime and engine; the runtime must outlive the engine.

    Raises:
        ModelError: The library refuses the plan, or cannot use the GPU.
    """
    log = message_log(trt)
    mark = log.mark()
    try:
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(plan)
    except (RuntimeError, TypeError, ValueError) as exc:  # what the bindings make of a failed constructor
        raise _refused(log.reason(mark), model, flavour) from exc
    if engine is None:
        raise _refused(log.reason(mark), model, flavour)
    return runtime, engine


def _refused(reason: str, model: str, flavour: Flavour) -> ModelError:
    return ModelError(
        f"{model}: {flavour} refuses the plan: {reason}; run: facestream compile {model} --engine {flavour}"
    )


def tensors_of(trt: Any, engine: Any, model: str) -> tuple[PlanTensor, ...]:
    """Inputs and outputs of a plan.

    Raises:
        ModelError: One of them is of a type that NumPy has not, or is a shape and not data.
    """
    tensors: list[PlanTensor] = []
    for number in range(engine.num_io_tensors):  # no closure: a traceback must not keep the plan alive
        tensors.append(_tensor(trt, engine, engine.get_tensor_name(number), model))  # noqa: PERF401 - the same
    return tuple(tensors)


def _tensor(trt: Any, engine: Any, name: str, model: str) -> PlanTensor:
    kind = engine.get_tensor_dtype(name)
    try:
        dtype = np.dtype(trt.nptype(kind))
    except TypeError as exc:
        raise ModelError(
            f"{model}: {name} is {kind}, which NumPy does not have; export inputs and outputs as "
            "float32 or uint8"
        ) from exc
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise ModelError(
            f"{model}: {name} is a shape, not data; export the model without such inputs and outputs"
        )
    shape = tuple(engine.get_tensor_shape(name))
    spec = TensorSpec(name, tuple(None if size == -1 else size for size in shape), dtype)
    if engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT:
        return PlanTensor(spec, is_input=False)
    smallest, _, largest = (shape,) * 3 if -1 not in shape else engine.get_tensor_profile_shape(name, 0)
    return PlanTensor(spec, is_input=True, smallest=tuple(smallest), largest=tuple(largest))


def rtx_options(trt: Any, engine: Any, path: Path | None) -> tuple[Any, Any]:
    """Let TensorRT for RTX capture CUDA graphs itself, and keep the kernels that it compiles at the start.

    Args:
        trt: The module.
        engine: The plan.
        path: File of kernels from an earlier start; None for none.

    Returns:
        Options for execution contexts, and the kernels for ``save_kernels``.
    """
    options = engine.create_runtime_config()
    options.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    kernels = options.create_runtime_cache()
    if path is not None:
        with contextlib.suppress(OSError):
            # One that is damaged or of another GPU or version is refused by the library, and rebuilt.
            kernels.deserialize(path.read_bytes())
    options.set_runtime_cache(kernels)
    return options, kernels


def save_kernels(kernels: Any, path: Path | None) -> None:
    """Write what was compiled since the start to a file, if there are kernels and a file to keep them."""
    if kernels is None or path is None:
        return
    saved = kernels.serialize()
    if saved is not None:
        # Without it the next start takes longer, and nothing else.
        with contextlib.suppress(ModelError):
            write_atomically(path, bytes(saved))
