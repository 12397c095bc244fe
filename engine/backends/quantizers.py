"""ONNX Runtime's converters to lower precision, as plain functions on models."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx

from engine.backends import telemetry
from engine.errors import ModelError

telemetry.switch_off()  # before the functions below import the library

_LARGEST_BATCH: Final = 8
_PERCENTILE: Final = 99.99


def convert_to_fp16(model: onnx.ModelProto, *, keep: Sequence[str]) -> onnx.ModelProto:
    """Write a model in fp16; inputs and outputs keep their types.

    Args:
        model: fp32, every node with a name.
        keep: Names of nodes that stay fp32.

    Raises:
        ModelError: The model cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    with _quietly():
        try:
            converted: onnx.ModelProto = convert_float_to_float16(
                copied, keep_io_types=True, node_block_list=list(keep)
            )
        except Exception as exc:  # what it raises on strange graphs is not defined
            raise ModelError(f"cannot write fp16: {_reason(exc)}") from exc
    _widen_between(converted.graph, frozenset(keep))
    return converted


def _widen_between(graph: onnx.GraphProto, kept: frozenset[str]) -> None:
    """Let what one fp32 node gives to another stay fp32: the converter casts it to fp16 and back."""
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        narrowed = made_by.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if narrowed is None or not _casts_to(narrowed, onnx.TensorProto.FLOAT16):
            continue
        source = made_by.get(narrowed.input[0])
        if source is not None and source.name in kept:
            node.input[0] = narrowed.input[0]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in used]:
        graph.node.remove(node)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)


def quantise_static(
    model: onnx.ModelProto,
    samples: npt.NDArray[np.uint8],
    *,
    calibration: Literal["percentile", "entropy", "minmax"],
) -> onnx.ModelProto:
    """Quantise the convolutions to int8 with Q/DQ nodes: symmetric, weights by output channel.

    Biases stay fp32, since TensorRT's parser refuses Q/DQ on int32.

    Args:
        model: fp32, of one input ``pixels``, every node with a name.
        samples: uint8 (N, H, W, 3), on which the ranges of activations are measured.
        calibration: How; percentile is the 99.99th.

    Raises:
        ModelError: The model cannot be quantised.
    """
    from onnxruntime import quantization as ort

    methods = {
        "percentile": ort.CalibrationMethod.Percentile,
        "entropy": ort.CalibrationMethod.Entropy,
        "minmax": ort.CalibrationMethod.MinMax,
    }
    with tempfile.TemporaryDirectory() as folder, _quietly():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        try:
            source.write_bytes(model.SerializeToString())
            ort.quantize_static(
                source,
                target,
                _Samples(samples),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=ort.QuantType.QInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=methods[calibration],
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "CalibPercentile": _PERCENTILE,
                },
            )
            return onnx.load(target)
        except Exception as exc:  # what it raises on strange graphs is not defined
            raise ModelError(f"cannot write int8: {_reason(exc)}") from exc


class _Samples:
    """What the quantiser calls a calibration data reader. Batches are alike: it stacks what they give."""

    def __init__(self, samples: npt.NDArray[np.uint8]) -> None:
        size = max(size for size in range(1, _LARGEST_BATCH + 1) if len(samples) % size == 0)
        self._batches = iter(
            np.ascontiguousarray(samples[start : start + size]) for start in range(0, len(samples), size)
        )

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The tools print, warn and log about what they are meant to do."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _reason(exc: Exception) -> str:
    return next(iter(str(exc).strip().splitlines()), type(exc).__name__)
