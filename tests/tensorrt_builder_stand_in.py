"""The builder's half of the fake ``tensorrt``: its plans are those that ``tensorrt_stand_in`` runs."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import onnx
from cuda_stand_in import Bound, MisuseError, StandIn, bind
from tensorrt_stand_in import Shape, plan_of


def add_builder(gpu: StandIn, trt: Any) -> None:
    """Give a fake ``tensorrt`` module what builds plans."""
    trt.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    trt.BuilderFlag = IntEnum("BuilderFlag", ["TF32"])
    bind(gpu, trt, Builder, INetworkDefinition, OnnxParser, IBuilderConfig, IOptimizationProfile)
    bind(gpu, trt, IProgressMonitor, ITimingCache)


class Builder(Bound):
    def __init__(self, logger: Any) -> None:
        if "Builder" in self.gpu.refuse:
            logger.log(self.module.Logger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        if flags != 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            raise MisuseError("the network is not strongly typed")
        return self.module.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self.module.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self.module.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if "build_serialized_network" in self.gpu.refuse:
            self._logger.log(self.module.Logger.ERROR, "Error Code 10: Could not find any implementation")
            return None
        monitor = config.progress_monitor
        if monitor is not None and not walk(monitor):
            return None
        if config.timing_cache is not None:
            config.timing_cache.measured += 1
        self.gpu.called(f"built with {[flag.name for flag in config.flags]}", needs_context=False)
        return plan_of(network.model, config.profile or {})


def walk(monitor: Any) -> bool:
    """A build of four steps, the second of which has two; False where it was stopped."""
    monitor.phase_start("build", None, 4)
    going = monitor.step_complete("build", 0)
    monitor.phase_start("inner", "build", 2)
    going = going and monitor.step_complete("inner", 0) and monitor.step_complete("inner", 1)
    monitor.phase_finish("inner")
    going = going and all(monitor.step_complete("build", step) for step in (1, 2, 3))
    monitor.phase_finish("build")
    return going


class INetworkDefinition(Bound):
    model = b""

    @property
    def _graph(self) -> onnx.GraphProto:
        return onnx.load_model_from_string(self.model).graph

    @property
    def num_inputs(self) -> int:
        return len(self._graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._graph.output)

    def get_input(self, index: int) -> Any:
        value = self._graph.input[index]
        dims = value.type.tensor_type.shape.dim
        return SimpleNamespace(name=value.name, shape=tuple(dim.dim_value or -1 for dim in dims))


class OnnxParser(Bound):
    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger

    def parse(self, model: bytes) -> bool:
        graph = onnx.load_model_from_string(model).graph
        bytes_in = {i.name for i in graph.input if i.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
        if any(node.op_type != "Cast" and bytes_in & set(node.input) for node in graph.node):
            raise MisuseError("TensorRT has no operation on uint8 but Cast")
        self._network.model = model
        return True


class IBuilderConfig(Bound):
    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.timing_cache: Any = None
        self.flags = {self.module.BuilderFlag.TF32}
        self.profile: dict[str, tuple[Shape, Shape, Shape]] | None = None

    def clear_flag(self, flag: Any) -> None:
        self.flags.remove(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profile = profile.ranges
        return -1 if "add_optimization_profile" in self.gpu.refuse else 0

    def create_timing_cache(self, serialized: bytes) -> Any:
        damaged = serialized and b"timings" not in serialized
        return None if damaged else self.module.ITimingCache(serialized)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.gpu_name != "stand-in":
            return False
        self.timing_cache = cache
        return True


class IOptimizationProfile(Bound):
    def __init__(self) -> None:
        self.ranges: dict[str, tuple[Shape, Shape, Shape]] = {}

    def set_shape(self, name: str, least: Shape, usual: Shape, most: Shape) -> None:
        self.ranges[name] = (least, usual, most)


class IProgressMonitor(Bound):
    pass


class ITimingCache(Bound):
    def __init__(self, serialized: bytes) -> None:
        kept = serialized.decode().split() or ["timings", "0", "stand-in"]
        self.measured, self.gpu_name = int(kept[1]), kept[2]

    def serialize(self) -> bytes:
        return f"timings {self.measured} {self.gpu_name}".encode()
