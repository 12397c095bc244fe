"""Write small ONNX graphs by hand: networks whose weights come in other formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

OPSET: Final = 17


class GraphBuilder:
    """Nodes and constants in the order in which they are added; each result gets a name of its own.

    Args:
        name: Of the graph.
        opset: Of the operators.
    """

    def __init__(self, name: str, *, opset: int = OPSET) -> None:
        self._name = name
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.NDArray[Any]) -> str:
        """Add a constant.

        Returns:
            Its name.
        """
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self,
        operator: str,
        source: str,
        *operands: npt.NDArray[Any] | str,
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node with one output.

        Args:
            operator: Of ONNX, in the graph's opset.
            source: Name of the first input.
            operands: The other inputs: names, or arrays that become constants.
            output: Name of the result; made up when not given.
            attributes: Of the operator.

        Returns:
            The name of the result.
        """
        inputs = [source, *(o if isinstance(o, str) else self.constant(o) for o in operands)]
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def include(self, graph: onnx.GraphProto) -> None:
        """Take over the nodes and constants of another graph, whose names must be new here."""
        self._nodes += graph.node
        self._constants += graph.initializer

    def model(
        self, image_shape: Sequence[int | str], outputs: Mapping[str, Sequence[int | str]], *, image: str
    ) -> onnx.ModelProto:
        """The model: one float32 image in.

        Args:
            image_shape: Of the input; a word is a dimension that may vary.
            outputs: Shape of each output; all are float32.
            image: Name of the input.

        Raises:
            onnx.checker.ValidationError: The graph is not valid.
        """
        values = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
            for name, shape in {image: image_shape, **outputs}.items()
        ]
        graph = helper.make_graph(self._nodes, self._name, values[:1], values[1:], self._constants)
        opsets = [helper.make_opsetid("", self._opset)]
        # The oldest format that knows the opset, so that older engines read it.
        version = helper.find_min_ir_version_for(opsets)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
        onnx.checker.check_model(model)
        return model
