"""The ONNX graphs that engines are made of, from a model package."""

from __future__ import annotations

import onnx

from engine.graphs.edits import parse_model, take_pixels, without_prelu
from engine.models.package import ModelPackage


def reference_graph(package: ModelPackage) -> bytes:
    """The model as it is, but for its input: ``pixels``, uint8 (N, H, W, 3), BGR.

    Raises:
        ModelError: The package is damaged.
    """
    return _serialised(_taking_pixels(package))


def pixel_graph(package: ModelPackage, *, keep_prelu: bool = False) -> bytes:
    """The graph that an engine gets: the reference's, in the operations that it is fast at.

    Args:
        package: The model.
        keep_prelu: Leave PRelu as it is, which OpenVINO fuses; otherwise it becomes simple operations,
            which ONNX Runtime is twice as fast with.

    Raises:
        ModelError: The package is damaged.
    """
    model = _taking_pixels(package)
    return _serialised(model if keep_prelu else without_prelu(model))


def _taking_pixels(package: ModelPackage) -> onnx.ModelProto:
    model = parse_model(package.read(), origin=str(package.onnx_path))
    return take_pixels(model, colour_order=package.colour_order, mean=package.mean, scale=package.scale)


def _serialised(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString()
    return data
