"""ONNX Runtime: the engine where OpenVINO is missing. The only file that imports ``onnxruntime``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, untyped

from engine.backends import telemetry

telemetry.switch_off()

import onnxruntime as ort  # noqa: E402 - after the line above

from engine.errors import ModelError  # noqa: E402 - the same
from engine.graphs.edits import graph_precision  # noqa: E402 - the same
from engine.protocol import Arrays, Done, Pending, TensorSpec, check_feeds  # noqa: E402 - the same

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int64)": np.dtype(np.int64),
}
_ERRORS_ONLY: Final = 3


class OnnxRuntimeEngine:
    """An ONNX model run by ONNX Runtime on the processor, in the precision that its graph is written in.

    Calls from several threads run at the same time. A graph in fp16 keeps its values in fp16; where the
    processor has no such kernel, ONNX Runtime widens them to fp32 for the arithmetic.

    Args:
        model: Serialised ONNX.
        precision: ``auto``, or the graph's own: ``fp32``, ``fp16``, or ``int8`` with Q/DQ nodes.
        threads: Most threads that compute; None takes one for each core.
        streams: Calls that are expected at the same time; each uses ``threads / streams`` threads.

    Raises:
        ModelError: The model cannot be loaded, or another precision is wanted.
        ValueError: ``threads`` or ``streams`` is below 1.
    """

    name = "onnxruntime"
    max_batch: int | None = None

    def __init__(
        self, model: bytes, *, precision: str = "auto", threads: int | None = None, streams: int = 1
    ) -> None:
        if (threads is not None and threads < 1) or streams < 1:
            raise ValueError(f"expected threads and streams of at least 1, got {threads} and {streams}")
        self._precision = _precision_of(model)
        if precision not in {"auto", self._precision}:
            raise ModelError(
                f"ONNX Runtime computes in {self._precision} as this graph says, got {precision!r}; "
                f"use precision auto or {self._precision}, or convert the graph"
            )
        options = ort.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 0 if threads is None else max(1, threads // streams)
        options.log_severity_level = _ERRORS_ONLY
        # Waiting threads sleep: the decoder and the tracker want the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # its exceptions have no common base but Exception
            raise ModelError(f"ONNX Runtime cannot load the model: {_reason(exc)}") from exc
        self._inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self._outputs = tuple(_spec(node) for node in self._session.get_outputs())

    @property
    def precision(self) -> str:
        """What the graph is written in."""
        return self._precision

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``infer`` returns."""
        return self._outputs

    def infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the model once; see ``Engine.infer``."""
        check_feeds(feeds, self._inputs)
        session = self._session
        if session is None:
            raise ModelError("the engine is closed; open a new one")
        try:
            values = session.run(None, dict(feeds))
        except Exception as exc:  # its exceptions have no common base but Exception
            raise ModelError(f"ONNX Runtime failed: {_reason(exc)}") from exc
        return {spec.name: value for spec, value in zip(self._outputs, values, strict=True)}

    def submit(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Pending:
        """Run the model before returning; see ``Engine.submit``."""
        return Done(self.infer(feeds))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _precision_of(model: bytes) -> str:
    try:
        return graph_precision(onnx.load_model_from_string(model))
    except (DecodeError, ValueError, TypeError) as exc:
        raise ModelError(f"ONNX Runtime cannot load the model: {_reason(exc)}") from exc


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise ModelError(
            f"{node.name}: expected {', '.join(_DTYPES)}, got {node.type}; export the model again"
        )
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return TensorSpec(node.name, shape, _DTYPES[node.type])


def _reason(exc: Exception) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)
