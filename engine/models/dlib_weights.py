"""dlib's face recognition network: from the bytes that dlib wrote to ONNX.

The file holds C++ objects one after the other, without a table of contents; only a reader that knows the
network can follow it. This one knows one network (``anet_type`` of dlib's ``dnn_face_recognition_ex.cpp``)
and takes no other: each number that is no weight must be the expected one, which also bounds what is read.

dlib writes an integer as a byte (how many bytes follow; the sign in the high bit) and its bytes, a single
number as two integers (``mantissa * 2 ** exponent``), and a tensor as its version, four sizes, and
little-endian float32. A network begins with the versions of all layers, the outermost first; then the
layers follow, the innermost first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from engine.errors import ModelError
from engine.faces import FloatArray
from engine.graphs.builder import GraphBuilder
from engine.models.package import Point

CHIP_SIZE_PX: Final = 150
CHIP_MEAN_RGB: Final = (122.782, 117.001, 104.298)
CHIP_SCALE: Final = 1 / 256
DLIB_EMBEDDING_SIZE: Final = 128

CHIP_TEMPLATE_XY: Final[tuple[Point, ...]] = (
    (47.5492, 46.5990),
    (100.4761, 46.5990),
    (74.0127, 76.5625),
    (50.4149, 103.0233),
    (97.6104, 103.0233),
)
"""The five landmarks in dlib's chip of 150 by 150 pixels with padding 0.25.

``(p + 0.25) / 1.5 * 150`` of dlib's mean face of 68 points (``get_face_chip_details``): the mean of each
eye's six points, the tip of the nose (30) and the corners of the mouth (48, 54).
"""


@dataclass(frozen=True, slots=True)
class _Block:
    """Two convolutions and a shortcut around them."""

    filters: int
    channels: int
    halves: bool


_BLOCKS: Final = (
    *[_Block(32, 32, halves=False)] * 3,
    _Block(64, 32, halves=True),
    *[_Block(64, 64, halves=False)] * 3,
    _Block(128, 64, halves=True),
    *[_Block(128, 128, halves=False)] * 2,
    _Block(256, 128, halves=True),
    *[_Block(256, 256, halves=False)] * 2,
    _Block(256, 256, halves=True),
)
_STEM_FILTERS: Final = 32
_STEM_KERNEL: Final = 7


def resnet_onnx(data: bytes, *, origin: str) -> onnx.ModelProto:
    """Read dlib's ``dlib_face_recognition_resnet_model_v1.dat``.

    Args:
        data: The file's bytes.
        origin: Where they come from, for the error message.

    Returns:
        A model of opset 17: ``data`` (N, 3, 150, 150), RGB, ``(pixel - CHIP_MEAN_RGB) * CHIP_SCALE``; gives
        ``embedding`` (N, 128), not of unit length.

    Raises:
        ModelError: The bytes are anything else than that network.
    """
    reader = _Reader(data, origin)
    _read_header(reader)
    graph = GraphBuilder("dlib_face_recognition_resnet")
    size = (CHIP_SIZE_PX - _STEM_KERNEL) // 2 + 1
    x = _read_convolution(
        reader, graph, "data", _STEM_FILTERS, 3, kernel=_STEM_KERNEL, stride=2, padding=0, innermost=True
    )
    x = _read_relu(reader, graph, x)
    reader.expect_text("max_pool_2")
    reader.expect_integers("max pooling", 3, 3, 2, 2, 0, 0)
    reader.expect_tail()
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    size = (size - 3) // 2 + 1
    for block in _BLOCKS:
        x, size = _read_block(reader, graph, x, block, size)
    _read_head(reader, graph, x)
    reader.expect_end()
    image = ("batch", 3, CHIP_SIZE_PX, CHIP_SIZE_PX)
    return graph.model(image, {"embedding": ("batch", DLIB_EMBEDDING_SIZE)}, image="data")


class _Reader:
    """Reads dlib's serialisation from the front; anything unexpected is a ``ModelError``."""

    def __init__(self, data: bytes, origin: str) -> None:
        self._data = data
        self._origin = origin
        self._at = 0

    def expect_integers(self, what: str, *expected: int) -> None:
        for number in expected:
            got = self._integer()
            if got != number:
                raise self._error(f"{what}: expected {number}, got {got}")

    def expect_number(self, what: str, expected: float) -> None:
        got = self.number()
        if abs(got - expected) > 1e-4 * abs(expected):
            raise self._error(f"{what}: expected {expected}, got {got:.6g}")

    def expect_text(self, expected: str) -> None:
        self.expect_integers(f"length of {expected!r}", len(expected))
        got = self._take(len(expected))
        if got != expected.encode():
            raise self._error(f"expected {expected!r}, got {got!r}")

    def expect_tail(self) -> None:
        """What follows each layer: three flags of training, then two gradients and an output, all empty."""
        flags = self._take(3)
        if set(flags) - set(b"01"):
            raise self._error(f"a layer's flags: expected zeros and ones, got {flags!r}")
        for _ in range(3):
            self.tensor(0, 0, 0, 0)

    def expect_end(self) -> None:
        if self._at != len(self._data):
            raise self._error(f"expected the end, got {len(self._data) - self._at} bytes more")

    def number(self) -> float:
        mantissa, exponent = self._integer(), self._integer()
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            raise self._error(f"expected a finite number, got {mantissa} * 2 ** {exponent}") from None

    def tensor(self, *shape: int) -> FloatArray:
        self.expect_integers("a tensor's version and sizes", 2, *shape)
        values = np.frombuffer(self._take(4 * int(np.prod(shape))), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self._error("expected finite weights, got others")
        return values.reshape(shape)

    def _integer(self) -> int:
        head = self._take(1)[0]
        size = head & 0x0F
        if size > 8 or head & 0x70:
            raise self._error(f"expected an integer, got the byte {head}")
        value = int.from_bytes(self._take(size), "little")
        return -value if head & 0x80 else value

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise self._error(f"expected {size} bytes more, got {len(self._data) - self._at}")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _error(self, reason: str) -> ModelError:
        return ModelError(
            f"{self._origin}: not dlib's face recognition network: at byte {self._at}: {reason}; "
            "install the file again"
        )


def _read_header(reader: _Reader) -> None:
    reader.expect_integers("the loss's version", 1)
    reader.expect_text("loss_metric_2")
    reader.expect_number("margin", 0.04)
    reader.expect_number("distance threshold", 0.6)
    reader.expect_integers("versions of the last layers", 2, 2)
    for block in reversed(_BLOCKS):
        # From the outside: relu, add, the pooled shortcut, affine, convolution, relu, affine, convolution.
        shortcut = (2, 1, 1) if block.halves else ()
        reader.expect_integers("versions of a block's layers", 2, 2, *shortcut, 2, 2, 2, 2, 2, 1)
    reader.expect_integers("versions of the first layers", 2, 2, 2, 3)
    reader.expect_text("input_rgb_image_sized")
    for mean in CHIP_MEAN_RGB:
        reader.expect_number("mean of a channel", mean)
    reader.expect_integers("size of the image", CHIP_SIZE_PX, CHIP_SIZE_PX)


def _read_convolution(
    reader: _Reader,
    graph: GraphBuilder,
    source: str,
    filters: int,
    channels: int,
    *,
    kernel: int,
    stride: int,
    padding: int,
    innermost: bool = False,
) -> str:
    """A convolution and the affine layer after it (what training left of a batch normalisation), in one."""
    shape = (filters, channels, kernel, kernel)
    reader.expect_text("con_4")
    parameters = reader.tensor(int(np.prod(shape)) + filters, 1, 1, 1).ravel()
    geometry = (filters, kernel, kernel, stride, stride, padding, padding)
    reader.expect_integers("a convolution's geometry", *geometry)
    reader.expect_integers("a convolution's weights", 1, *shape)
    reader.expect_integers("a convolution's biases", 1, 1, filters, 1, 1)
    _skip_rates(reader)
    reader.expect_tail()
    if innermost:
        reader.expect_integers("images a sample", 1)
    gamma, beta = _read_affine(reader, filters)
    weights = parameters[:-filters].reshape(shape) * gamma[:, None, None, None]
    biases = parameters[-filters:] * gamma + beta
    return graph.node("Conv", source, weights, biases, strides=[stride] * 2, pads=[padding] * 4)


def _read_affine(reader: _Reader, filters: int) -> tuple[FloatArray, FloatArray]:
    reader.expect_text("affine_")
    parameters = reader.tensor(2 * filters, 1, 1, 1).ravel()
    for what in ("factors", "offsets"):
        reader.expect_integers(f"an affine layer's {what}", 1, 1, filters, 1, 1)
    reader.expect_integers("an affine layer's mode", 0)
    reader.expect_tail()
    return parameters[:filters], parameters[filters:]


def _skip_rates(reader: _Reader) -> None:
    """How fast weights and biases were to be learnt and to decay."""
    for _ in range(4):
        reader.number()


def _read_relu(reader: _Reader, graph: GraphBuilder, source: str) -> str:
    reader.expect_text("relu_")
    reader.expect_tail()
    return graph.node("Relu", source)


def _read_block(
    reader: _Reader, graph: GraphBuilder, source: str, block: _Block, size: int
) -> tuple[str, int]:
    """Read a block; dlib adds tensors of different sizes as if the smaller one went on with zeros.

    Returns:
        Its result, and the side of it, pixels.
    """
    filters, stride = block.filters, 2 if block.halves else 1
    x = _read_convolution(
        reader, graph, source, filters, block.channels, kernel=3, stride=stride, padding=2 - stride
    )
    x = _read_relu(reader, graph, x)
    x = _read_convolution(reader, graph, x, filters, filters, kernel=3, stride=1, padding=1)
    shortcut = source
    if block.halves:
        reader.expect_text("avg_pool_2")
        reader.expect_integers("average pooling", 2, 2, 2, 2, 0, 0)
        reader.expect_tail()
        own, size = (size - 3) // 2 + 1, size // 2
        shortcut = graph.node("AveragePool", source, kernel_shape=[2, 2], strides=[2, 2])
        shortcut = _grow(graph, shortcut, filters - block.channels, 0)
        x = _grow(graph, x, 0, size - own)
    reader.expect_text("add_prev_")
    reader.expect_tail()
    return _read_relu(reader, graph, graph.node("Add", x, shortcut)), size


def _grow(graph: GraphBuilder, source: str, channels: int, pixels: int) -> str:
    """Append channels, and pixels to the right and below, of zeros."""
    if not channels and not pixels:
        return source
    return graph.node("Pad", source, np.array([0, 0, 0, 0, 0, channels, pixels, pixels], np.int64))


def _read_head(reader: _Reader, graph: GraphBuilder, source: str) -> None:
    channels, outputs = _BLOCKS[-1].filters, DLIB_EMBEDDING_SIZE
    reader.expect_text("avg_pool_2")
    reader.expect_integers("average pooling", 0, 0, 1, 1, 0, 0)
    reader.expect_tail()
    reader.expect_text("fc_2")
    reader.expect_integers("the last layer's sizes", outputs, channels)
    weights = reader.tensor(channels, outputs, 1, 1)[:, :, 0, 0]
    reader.expect_integers("the last layer's weights", 1, channels, outputs, 1, 1)
    reader.expect_integers("the last layer's biases and their mode", 1, 0, 0, 0, 0, 1)
    _skip_rates(reader)
    reader.expect_tail()
    x = graph.node("Flatten", graph.node("GlobalAveragePool", source), axis=1)
    graph.node("Gemm", x, weights, output="embedding")
