"""The three networks of MTCNN as ONNX, from the weights that facenet-pytorch ships.

Zhang and others, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016,
figure 2. Of the two-way softmax only the probability of a face is kept, which is the sigmoid of the
difference of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx

from engine.errors import ModelError
from engine.faces import FloatArray
from engine.graphs.builder import GraphBuilder
from engine.models.torch_state_dict import read_state_dict

MTCNN_MEAN: Final = (127.5, 127.5, 127.5)
MTCNN_SCALE: Final = 1 / 128

SCORES: Final = "scores"
BOXES: Final = "boxes"
POINTS: Final = "points"

RNET_SIZE_PX: Final = 24
ONET_SIZE_PX: Final = 48


def pnet_onnx(data: bytes, *, origin: str) -> onnx.ModelProto:
    """The proposal network, fully convolutional.

    Args:
        data: facenet-pytorch's ``pnet.pt``.
        origin: Where it comes from, for the error message.

    Returns:
        ``image`` (N, 3, H, W), RGB, sides of at least 12; gives, for each 12 by 12 window in steps of 2
        pixels, ``scores`` (N, 1, rows, columns), 0..1, and ``boxes`` (N, 4, rows, columns): how far the
        face's left, upper, right and lower edge lie from the window's, in window sides.

    Raises:
        ModelError: The bytes are anything else than those weights.
    """
    net = _Net(data, origin, "mtcnn_pnet")
    x = net.convolve("image", "1", (10, 3, 3, 3))
    x = net.pool(x, 2)
    x = net.convolve(x, "2", (16, 10, 3, 3))
    x = net.convolve(x, "3", (32, 16, 3, 3))
    weights, biases = net.take("conv4_1", (2, 32, 1, 1))
    face = net.graph.node("Conv", x, weights[1:] - weights[:1], biases[1:] - biases[:1])
    net.graph.node("Sigmoid", face, output=SCORES)
    net.graph.node("Conv", x, *net.take("conv4_2", (4, 32, 1, 1)), output=BOXES)
    return net.model(("height", "width"), {SCORES: (1, "rows", "columns"), BOXES: (4, "rows", "columns")})


def rnet_onnx(data: bytes, *, origin: str) -> onnx.ModelProto:
    """The refinement network.

    Args:
        data: facenet-pytorch's ``rnet.pt``.
        origin: Where it comes from, for the error message.

    Returns:
        ``image`` (N, 3, 24, 24), RGB; gives ``scores`` (N, 1), 0..1, and ``boxes`` (N, 4), as P-Net's.

    Raises:
        ModelError: The bytes are anything else than those weights.
    """
    net = _Net(data, origin, "mtcnn_rnet")
    x = net.convolve("image", "1", (28, 3, 3, 3))
    x = net.pool(x, 3)
    x = net.convolve(x, "2", (48, 28, 3, 3))
    x = net.pool(x, 3)
    x = net.convolve(x, "3", (64, 48, 2, 2))
    x = net.connect(x, "4", 128, (64, 3, 3))
    net.score(x, "dense5_1", 128)
    net.regress(x, "dense5_2", (4, 128), BOXES)
    return net.model((RNET_SIZE_PX, RNET_SIZE_PX), {SCORES: (1,), BOXES: (4,)})


def onet_onnx(data: bytes, *, origin: str) -> onnx.ModelProto:
    """The output network.

    Args:
        data: facenet-pytorch's ``onet.pt``.
        origin: Where it comes from, for the error message.

    Returns:
        ``image`` (N, 3, 48, 48), RGB; gives ``scores`` and ``boxes`` as R-Net, and ``points`` (N, 10): the x
        of the five landmarks, then their y, in window sides from its upper left corner.

    Raises:
        ModelError: The bytes are anything else than those weights.
    """
    net = _Net(data, origin, "mtcnn_onet")
    x = net.convolve("image", "1", (32, 3, 3, 3))
    x = net.pool(x, 3)
    x = net.convolve(x, "2", (64, 32, 3, 3))
    x = net.pool(x, 3)
    x = net.convolve(x, "3", (64, 64, 3, 3))
    x = net.pool(x, 2)
    x = net.convolve(x, "4", (128, 64, 2, 2))
    x = net.connect(x, "5", 256, (128, 3, 3))
    net.score(x, "dense6_1", 256)
    net.regress(x, "dense6_2", (4, 256), BOXES)
    net.regress(x, "dense6_3", (10, 256), POINTS)
    return net.model((ONET_SIZE_PX, ONET_SIZE_PX), {SCORES: (1,), BOXES: (4,), POINTS: (10,)})


class _Net:
    """A graph in the making, and the weights that it has not used yet."""

    def __init__(self, data: bytes, origin: str, name: str) -> None:
        self.graph = GraphBuilder(name)
        self._weights = read_state_dict(data, origin=origin)
        self._origin = origin

    def take(self, layer: str, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Weights and biases of a layer."""
        return self._tensor(f"{layer}.weight", shape), self._tensor(f"{layer}.bias", shape[:1])

    def convolve(self, source: str, number: str, shape: tuple[int, int, int, int]) -> str:
        x = self.graph.node("Conv", source, *self.take(f"conv{number}", shape))
        slopes = self._tensor(f"prelu{number}.weight", shape[:1])
        return self.graph.node("PRelu", x, slopes.reshape(-1, 1, 1))

    def pool(self, source: str, side: int) -> str:
        shape = [side, side]
        return self.graph.node("MaxPool", source, kernel_shape=shape, strides=[2, 2], ceil_mode=1)

    def connect(self, source: str, number: str, outputs: int, shape: tuple[int, int, int]) -> str:
        """A dense layer on an image, whose pixels the weights take in the order column, row, channel."""
        channels, height, width = shape
        weights, biases = self.take(f"dense{number}", (outputs, channels * height * width))
        ordered = weights.reshape(outputs, width, height, channels).transpose(0, 3, 2, 1).reshape(outputs, -1)
        x = self.graph.node("Gemm", self.graph.node("Flatten", source, axis=1), ordered, biases, transB=1)
        return self.graph.node("PRelu", x, self._tensor(f"prelu{number}.weight", (outputs,)))

    def score(self, source: str, layer: str, inputs: int) -> None:
        weights, biases = self.take(layer, (2, inputs))
        face = self.graph.node("Gemm", source, weights[1:] - weights[:1], biases[1:] - biases[:1], transB=1)
        self.graph.node("Sigmoid", face, output=SCORES)

    def regress(self, source: str, layer: str, shape: tuple[int, int], output: str) -> None:
        self.graph.node("Gemm", source, *self.take(layer, shape), output=output, transB=1)

    def model(
        self, size: tuple[int | str, int | str], outputs: dict[str, Sequence[int | str]]
    ) -> onnx.ModelProto:
        if self._weights:
            raise ModelError(f"{self._origin}: unexpected tensors {sorted(self._weights)}; install it again")
        shapes = {name: ("batch", *shape) for name, shape in outputs.items()}
        return self.graph.model(("batch", 3, *size), shapes, image="image")

    def _tensor(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        found = self._weights.pop(name, None)
        if found is None or found.shape != shape:
            got = "none" if found is None else found.shape
            raise ModelError(f"{self._origin}: {name}: expected {shape}, got {got}; install the file again")
        return found
