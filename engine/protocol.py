"""The common interface of TensorRT, OpenVINO and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An engine's input or output.

    Attributes:
        name: In the graph.
        shape: None marks a dimension that may vary.
        dtype: Of its numbers.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Pending(Protocol):
    """A call of an engine that has begun."""

    def result(self) -> Arrays:
        """Wait for the outputs.

        Returns:
            A new array for each output; the engine keeps no reference to it. The same at each call.

        Raises:
            ModelError: The engine failed.
        """


@dataclass(frozen=True, slots=True)
class Done:
    """A call that has ended already.

    Attributes:
        outputs: What it gave.
    """

    outputs: Arrays

    def result(self) -> Arrays:
        """The outputs."""
        return self.outputs


class Engine(Protocol):
    """A compiled model that maps arrays to arrays.

    ``infer`` and ``submit`` may be called from several threads. After ``close`` an engine is of no use.
    """

    @property
    def name(self) -> str:
        """Kind of engine: ``openvino``, ``onnxruntime``, ``tensorrt``."""

    @property
    def precision(self) -> str:
        """Arithmetic that it computes in: ``fp32``, ``fp16``, ``bf16`` or ``int8``."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` returns."""

    @property
    def max_batch(self) -> int | None:
        """Largest first dimension that one call may have; None where there is no limit."""

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the model once.

        Args:
            feeds: One C-contiguous array for each input, of its dtype and shape.

        Returns:
            A new array for each output; the engine keeps no reference to it.

        Raises:
            ValueError: An input is missing, unknown, or has the wrong shape or dtype.
            ModelError: The engine failed.
        """

    def submit(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Pending:
        """Start a run of the model, so that the next call's copies overlap with this one's work.

        Any number of calls may be pending: one that finds the engine busy waits for the oldest to end.

        Args:
            feeds: One C-contiguous array for each input, of its dtype and shape; not to be written to before
                the result is there.

        Raises:
            ValueError: An input is missing, unknown, or has the wrong shape or dtype.
            ModelError: The engine failed.
        """

    def close(self) -> None:
        """Free what the engine holds. May be called twice."""


def check_feeds(feeds: Mapping[str, npt.NDArray[Any]], inputs: tuple[TensorSpec, ...]) -> None:
    """Refuse arrays that are not what an engine takes.

    Args:
        feeds: Arrays by name.
        inputs: Of the engine.

    Raises:
        ValueError: A name is missing or unknown, or an array has the wrong dtype or shape or is not
            C-contiguous.
    """
    expected = {spec.name for spec in inputs}
    if feeds.keys() != expected:
        raise ValueError(f"feeds: expected {sorted(expected)}, got {sorted(feeds)}")
    for spec in inputs:
        array = feeds[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            wanted is None or got == wanted for got, wanted in zip(array.shape, spec.shape, strict=True)
        )
        if array.dtype != spec.dtype or not fits or 0 in array.shape:
            raise ValueError(
                f"{spec.name}: expected {spec.dtype} {spec.shape} without empty dimensions, "
                f"got {array.dtype} {array.shape}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"{spec.name}: expected a C-contiguous array; use numpy.ascontiguousarray")
