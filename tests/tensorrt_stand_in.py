"""Stands in for TensorRT at run time where no GPU is; see ``cuda_stand_in`` for what that means.

A plan is ``plan_of(onnx, profile)``: ONNX Runtime computes it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cuda_stand_in import Bound, MisuseError, StandIn, bind, make_driver
from onnx import helper, numpy_helper

MAGIC = b"stand-in plan\n"
VERSION = "11.4.0.106"

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]


def plan_of(model: bytes, profile: Profile, *, version: str = VERSION) -> bytes:
    """A plan that the stand-in runs; the profile gives the least, usual and greatest shape of inputs."""
    head = {"version": version, "profile": {name: list(shapes) for name, shapes in profile.items()}}
    return MAGIC + json.dumps(head).encode() + b"\n" + model


def make_stand_in() -> StandIn:
    """A fake GPU, with ``tensorrt``, ``tensorrt_rtx``, ``pycuda`` and ``pycuda.driver`` in ``modules``."""
    gpu = StandIn()
    package: Any = ModuleType("pycuda")
    package.driver = make_driver(gpu)
    gpu.modules = {
        "pycuda": package,
        "pycuda.driver": package.driver,
        "tensorrt": make_tensorrt(gpu, "tensorrt"),
        "tensorrt_rtx": make_tensorrt(gpu, "tensorrt_rtx"),
    }
    return gpu


def make_tensorrt(gpu: StandIn, name: str) -> Any:
    """The run-time part of ``tensorrt`` (11.4) or ``tensorrt_rtx`` (1.7) that facestream uses."""
    trt: Any = ModuleType(name)
    trt.__version__ = VERSION
    trt.Logger, trt.DataType, trt.nptype = Logger, DataType, nptype
    trt.TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.TensorLocation = Enum("TensorLocation", ["DEVICE", "HOST"])
    bind(gpu, trt, ILogger, Runtime, ICudaEngine, IExecutionContext)
    if name == "tensorrt_rtx":
        trt.CudaGraphStrategy = Enum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"])
        bind(gpu, trt, IRuntimeCache, IRuntimeConfig)
        trt.ICudaEngine.create_runtime_config = lambda _: trt.IRuntimeConfig()
    return trt


class DataType(Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    BF16 = "tensor(bfloat16)"
    UINT8 = "tensor(uint8)"


def nptype(kind: DataType) -> Any:
    known = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8}
    if kind not in known:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {kind}")
    return known[kind]


class Logger:
    Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity


class ILogger(Bound):
    def __init__(self) -> None:
        if any(isinstance(logger, self.module.ILogger) for logger in self.gpu.alive("logger")):
            raise MisuseError("a second logger: TensorRT keeps the first and ignores this one")
        self.gpu.register("logger", self)


class Runtime(Bound):
    def __init__(self, logger: ILogger) -> None:
        self._logger = weakref.ref(logger)  # it is the caller who keeps it
        self.gpu.register("runtime", self)

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        self.gpu.called("deserialize_cuda_engine")
        head, _, model = plan.removeprefix(MAGIC).partition(b"\n")
        if not plan.startswith(MAGIC) or json.loads(head)["version"] != VERSION:
            self.complain("Serialization assertion failed.\nVersion tag does not match.")
            return None
        try:
            return self.module.ICudaEngine(self, model, json.loads(head)["profile"])
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf:
            self.complain("Serialization assertion plan.header.size == blobSize failed.")
            return None

    def complain(self, message: str) -> None:
        logger: Any = self._logger()
        if logger is None:
            raise MisuseError("the logger is dead: TensorRT would crash")
        logger.log(Logger.ERROR, message)

    def __del__(self) -> None:
        if self.gpu.alive("engine"):
            self.gpu.faults.append("the runtime died before its engine")


class ICudaEngine(Bound):
    def __init__(self, runtime: Runtime, model: bytes, profile: dict[str, list[list[int]]]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.nodes = {node.name: node for node in self.session.get_inputs() + self.session.get_outputs()}
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self._runtime = weakref.ref(runtime)
        self._profile = profile
        self._output_shapes: dict[Any, dict[str, Shape]] = {}
        self.gpu.register("engine", self)

    @property
    def num_io_tensors(self) -> int:
        return len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.nodes[name].type)

    def get_tensor_location(self, name: str) -> Any:
        return self.module.TensorLocation["HOST" if name.startswith("host_") else "DEVICE"]

    def get_tensor_mode(self, name: str) -> Any:
        return self.module.TensorIOMode["INPUT" if name in self.inputs else "OUTPUT"]

    def get_tensor_shape(self, name: str) -> Shape:
        return tuple(size if isinstance(size, int) else -1 for size in self.nodes[name].shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        if profile_index != 0 or name not in self._profile:
            raise MisuseError(f"no profile {profile_index} of {name}")
        return [tuple(shape) for shape in self._profile[name]]

    def create_execution_context(self, options: Any = None) -> Any:
        self.gpu.called("create_execution_context")
        if "create_execution_context" in self.gpu.refuse:
            self.complain("IExecutionContext: Error Code 2: OutOfMemory (no further information)")
            return None
        if options is not None and options.cuda_graph_strategy.name != "WHOLE_GRAPH_CAPTURE":
            raise MisuseError("options without CUDA graphs")
        return self.module.IExecutionContext(self)

    def complain(self, message: str) -> None:
        runtime = self._runtime()
        if runtime is None:
            raise MisuseError("the runtime is dead: TensorRT would crash")
        runtime.complain(message)

    def shapes_of(self, shapes: dict[str, Shape]) -> dict[str, Shape]:
        """Of all tensors. ONNX Runtime tells them by running; the values do not matter."""
        key = tuple(sorted(shapes.items()))
        if key not in self._output_shapes:
            feeds = {n: np.zeros(s, nptype(self.get_tensor_dtype(n))) for n, s in shapes.items()}
            results = self.session.run(None, feeds)
            self._output_shapes[key] = {n: r.shape for n, r in zip(self.outputs, results, strict=True)}
        return shapes | self._output_shapes[key]

    def __del__(self) -> None:
        if self.gpu.alive("context"):
            self.gpu.faults.append("an engine died before its contexts")


class IExecutionContext(Bound):
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = weakref.ref(engine)
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self.gpu.register("context", self)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.gpu.called("set_optimization_profile_async")
        self.gpu.stream(stream_handle)
        self._profile = profile_index
        return profile_index == 0

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.gpu.called("set_input_shape")
        engine = self._living_engine()
        if self._profile is None or name not in engine.inputs:
            raise MisuseError(f"set_input_shape: no profile was set, or there is no input {name}")
        fixed = engine.get_tensor_shape(name)
        least, _, most = (fixed,) * 3 if -1 not in fixed else engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(least) or not all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        ):
            raise MisuseError(f"set_input_shape: {name} {shape} is outside of the profile {least}..{most}")
        self._shapes[name] = tuple(shape)
        return "set_input_shape" not in self.gpu.refuse

    def infer_shapes(self) -> list[str]:
        return [name for name in self._living_engine().inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Shape:
        if self.infer_shapes():
            raise MisuseError("get_tensor_shape: not all inputs have a shape")
        if "get_tensor_shape" in self.gpu.refuse:
            return tuple(-1 for _ in self._living_engine().get_tensor_shape(name))
        return self._living_engine().shapes_of(self._shapes)[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._living_engine().nodes:
            raise MisuseError(f"set_tensor_address: there is no tensor {name}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self.gpu.called("execute_async_v3")
        engine, stream = self._living_engine(), self.gpu.stream(stream_handle)
        missing = [name for name in engine.nodes if name not in self._addresses] + self.infer_shapes()
        if missing:
            raise MisuseError(f"execute_async_v3: no address or shape for {missing}")
        if "execute_async_v3" in self.gpu.refuse:
            engine.complain("IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (misaligned address)")
            return False
        shapes, addresses = engine.shapes_of(self._shapes), dict(self._addresses)
        self._memories(engine, shapes, addresses)
        context = weakref.ref(self)

        def work() -> None:
            if context() is None:
                raise MisuseError("the context died while it worked: TensorRT would crash")
            context()._compute(engine, shapes, addresses)

        stream.work.append(work)
        return True

    def _compute(self, engine: ICudaEngine, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        memories = self._memories(engine, shapes, addresses)
        feeds = {}
        for name in engine.inputs:
            dtype = np.dtype(nptype(engine.get_tensor_dtype(name)))
            data = memories[name].read(addresses[name], int(np.prod(shapes[name])) * dtype.itemsize)
            feeds[name] = data.view(dtype).reshape(shapes[name])
        for name, result in zip(engine.outputs, engine.session.run(None, feeds), strict=True):
            memories[name].write(addresses[name], np.frombuffer(result.tobytes(), np.uint8))

    def _memories(
        self, engine: ICudaEngine, shapes: dict[str, Shape], addresses: dict[str, int]
    ) -> dict[str, Any]:
        sizes = {
            name: int(np.prod(shape)) * np.dtype(nptype(engine.get_tensor_dtype(name))).itemsize
            for name, shape in shapes.items()
        }
        return {name: self.gpu.memory_at(addresses[name], size, host=False) for name, size in sizes.items()}

    def _living_engine(self) -> ICudaEngine:
        engine = self._engine()
        if engine is None:
            raise MisuseError("the engine is dead: TensorRT would crash")
        return engine


class IRuntimeCache(Bound):
    def __init__(self) -> None:
        self._kernels = b"fresh kernels"

    def deserialize(self, blob: bytes) -> bool:
        self.gpu.called("IRuntimeCache.deserialize")
        if not blob.endswith(b"kernels"):
            return False
        self._kernels = b"kept " + blob
        return True

    def serialize(self) -> bytes:
        return self._kernels


class IRuntimeConfig(Bound):
    def __init__(self) -> None:
        self.gpu.called("create_runtime_config")
        self.cuda_graph_strategy = self.module.CudaGraphStrategy.DISABLED

    def create_runtime_cache(self) -> IRuntimeCache:
        return self.module.IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        return isinstance(cache, IRuntimeCache)


FLOAT, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
PROFILE: Profile = {"pixels": ((1, 4, 4, 3), (2, 4, 4, 3), (8, 4, 6, 3))}
"""Of the plans that tests make of ``tiny``."""


def tiny(*, output: str = "mean") -> bytes:
    """Takes pixels of any size, gives four means a picture and the pixels as they came."""
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["mixed"]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], [output]),
    ]
    pixels = helper.make_tensor_value_info("pixels", UINT8, ["n", "h", "w", 3])
    ends = [
        helper.make_tensor_value_info(output, FLOAT, ["n", 4]),
        helper.make_tensor_value_info("nchw", FLOAT, ["n", 3, "h", "w"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [pixels], ends, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def pixels(seed: int, shape: tuple[int, ...] = (2, 4, 4, 3)) -> dict[str, np.ndarray]:
    return {"pixels": np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}
