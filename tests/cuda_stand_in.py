"""Stands in for ``pycuda.driver`` where no GPU is: strict, and as late as a GPU may be.

Work that is asked for is done only when somebody waits for it, and what a transfer is to fill holds rubbish
until then, so that whoever reads early sees it. What a GPU answers with wrong numbers or a crash raises
``MisuseError`` here; misuse that is found when objects die is kept in ``StandIn.faults``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType
from typing import Any, ClassVar

import numpy as np


class MisuseError(AssertionError):
    """A call that a GPU would have answered with wrong numbers or a crash."""


@dataclass(eq=False)
class Memory:
    """An allocation; ``host`` is page-locked memory."""

    data: np.ndarray
    address: int
    host: bool
    live: bool = True

    def write(self, address: int, data: np.ndarray) -> None:
        self.data[address - self.address :][: data.nbytes] = data

    def read(self, address: int, nbytes: int) -> np.ndarray:
        return self.data[address - self.address :][:nbytes].copy()


@dataclass(eq=False)
class StandIn:
    """All that the fake GPU knows, and what it is to do wrong."""

    faults: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    device_count: int = 1
    retained: int = 0
    memories: list[Memory] = field(default_factory=list)
    objects: dict[str, weakref.WeakSet[Any]] = field(default_factory=dict)
    modules: dict[str, Any] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)
    _threads: Any = field(default_factory=threading.local)

    @property
    def stack(self) -> list[Any]:
        """Contexts that are current in this thread, the last one on top."""
        return self._threads.__dict__.setdefault("stack", [])

    def called(self, call: str, *, needs_context: bool = True) -> None:
        with self._lock:
            self.calls.append(call)
        if needs_context and not self.stack:
            raise MisuseError(f"{call}: no context is current in this thread")

    def register(self, kind: str, thing: object) -> None:
        self.objects.setdefault(kind, weakref.WeakSet()).add(thing)

    def alive(self, kind: str) -> list[Any]:
        return list(self.objects.get(kind, ()))

    def allocate(self, nbytes: int, *, host: bool) -> Memory:
        data = np.full(nbytes, 0xA5, np.uint8)
        memory = Memory(data, data.__array_interface__["data"][0], host)
        self.memories.append(memory)
        return memory

    def memory_at(self, address: int, nbytes: int, *, host: bool) -> Memory:
        for memory in self.memories:
            inside = memory.address <= address and address + nbytes <= memory.address + memory.data.nbytes
            if memory.live and memory.host == host and inside:
                return memory
        kind = "page-locked" if host else "GPU"
        raise MisuseError(f"no live {kind} memory holds {nbytes} bytes at {address:#x}")

    def stream(self, handle: int) -> Stream:
        for stream in self.alive("stream"):
            if stream.handle == handle:
                return stream
        raise MisuseError(f"no live stream {handle}")

    def held(self) -> dict[str, int]:
        """What has not been freed, by kind."""
        counts = {kind: len(things) for kind, things in self.objects.items()}
        counts["memory"] = sum(memory.live for memory in self.memories)
        return {kind: count for kind, count in counts.items() if count}


def bind(gpu: StandIn, module: Any, *classes: type) -> None:
    """Put classes into a module, each as one of its own that knows the GPU."""
    for cls in classes:
        setattr(module, cls.__name__, type(cls.__name__, (cls,), {"gpu": gpu, "module": module}))


class Bound:
    """A class of a library that is stood in for."""

    gpu: ClassVar[StandIn]
    module: ClassVar[Any]


class Error(Exception):
    pass


class LogicError(Error):
    pass


class MemoryError(Error):  # noqa: A001 - its name in PyCUDA
    pass


class Device(Bound):
    def __init__(self, index: int) -> None:
        if "init" not in self.gpu.calls:
            raise MisuseError("Device: before init()")
        self._index = index

    @classmethod
    def count(cls) -> int:
        return cls.gpu.device_count

    def name(self) -> str:
        return "stand-in"

    def compute_capability(self) -> tuple[int, int]:
        return 8, 6

    def retain_primary_context(self) -> Any:
        self.gpu.retained += 1
        return self.module.Context()


class Context(Bound):
    def push(self) -> None:
        self.gpu.stack.append(self)

    @classmethod
    def pop(cls) -> None:
        if not cls.gpu.stack:
            raise LogicError("cannot pop context from empty stack")
        cls.gpu.stack.pop()


class Stream(Bound):
    def __init__(self) -> None:
        self.gpu.called("Stream")
        self.work: list[Callable[[], None]] = []
        self.gpu.register("stream", self)

    @property
    def handle(self) -> int:
        return id(self)

    def synchronize(self) -> None:
        self.gpu.called("Stream.synchronize")
        self.run(len(self.work))

    def run(self, count: int) -> None:
        todo, self.work[:count] = self.work[:count], []
        for work in todo:
            work()

    def __del__(self) -> None:
        if self.work:
            self.gpu.faults.append("a stream died with work under way")
        if not self.gpu.stack:
            self.gpu.faults.append("a stream died where no context is current: PyCUDA would leak it")


class Event(Bound):
    def __init__(self, flags: int) -> None:
        self.gpu.called("Event")
        assert flags == self.module.event_flags.BLOCKING_SYNC | self.module.event_flags.DISABLE_TIMING
        self._stream: Stream | None = None
        self._count = 0

    def record(self, stream: Stream) -> Event:
        self.gpu.called("Event.record")
        self._stream, self._count = stream, len(stream.work)
        return self

    def synchronize(self) -> Event:
        self.gpu.called("Event.synchronize")
        if "Event.synchronize" in self.gpu.refuse:
            raise LogicError("cuEventSynchronize failed: an illegal memory access was encountered")
        if self._stream is not None:
            self._stream.run(self._count)
            self._stream = None
        return self


class DeviceAllocation(Bound):
    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def free(self) -> None:
        self.gpu.called("free")
        if not self._memory.live:
            raise LogicError("free failed: invalid resource handle")
        self._memory.live = False

    def __int__(self) -> int:
        return self._memory.address


class HostAllocation(DeviceAllocation):
    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self._memory.data.__array_interface__


def make_driver(gpu: StandIn) -> Any:
    """The part of ``pycuda.driver`` (2026.1) that facestream uses."""
    driver: Any = ModuleType("pycuda.driver")
    bind(gpu, driver, Device, Context, Stream, Event, DeviceAllocation, HostAllocation)
    driver.event_flags = IntEnum("event_flags", {"DEFAULT": 0, "BLOCKING_SYNC": 1, "DISABLE_TIMING": 2})
    driver.Error, driver.LogicError, driver.MemoryError = Error, LogicError, MemoryError

    def mem_alloc(nbytes: int) -> Any:
        gpu.called("mem_alloc")
        if "mem_alloc" in gpu.refuse:
            raise MemoryError("cuMemAlloc failed: out of memory")
        return driver.DeviceAllocation(gpu.allocate(nbytes, host=False))

    def pagelocked_empty(shape: int, dtype: Any) -> np.ndarray:
        gpu.called("pagelocked_empty")
        assert np.dtype(dtype) == np.uint8
        return np.asarray(driver.HostAllocation(gpu.allocate(shape, host=True)))

    def memcpy_htod_async(dest: Any, src: np.ndarray, stream: Stream) -> None:
        gpu.called("memcpy_htod_async")
        transfer(source=src.__array_interface__["data"][0], target=int(dest), array=src, up=True)(stream)

    def memcpy_dtoh_async(dest: np.ndarray, src: Any, stream: Stream) -> None:
        gpu.called("memcpy_dtoh_async")
        transfer(source=int(src), target=dest.__array_interface__["data"][0], array=dest, up=False)(stream)
        dest[:] = 0xFF  # rubbish, and as float32 not a number

    def transfer(*, source: int, target: int, array: np.ndarray, up: bool) -> Callable[[Stream], None]:
        nbytes = array.nbytes

        def memories() -> tuple[Memory, Memory]:
            return gpu.memory_at(source, nbytes, host=up), gpu.memory_at(target, nbytes, host=not up)

        def work() -> None:
            begin, end = memories()
            end.write(target, begin.read(source, nbytes))

        memories()
        return lambda stream: stream.work.append(work)

    driver.init = lambda: gpu.called("init", needs_context=False)
    driver.mem_alloc, driver.pagelocked_empty = mem_alloc, pagelocked_empty
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    return driver
