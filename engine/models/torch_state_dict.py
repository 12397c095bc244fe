"""Read a PyTorch state dict (the format before PyTorch 1.6) without PyTorch and without unpickling.

The file is five pickles (a magic number, a version, the writer's machine, the dict of tensors, the keys of
their storages) and then, for each storage, its length and its numbers. A pickle is a program; what runs it
here knows only the operations and the three names that such a dict is written with, makes only plain data,
and calls nothing.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from engine.errors import ModelError
from engine.faces import FloatArray

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_DICT: Final = "collections OrderedDict"
_TENSOR: Final = "torch._utils _rebuild_tensor_v2"
_FLOATS: Final = "torch FloatStorage"


def read_state_dict(data: bytes, *, origin: str) -> dict[str, FloatArray]:
    """Read the tensors of a state dict.

    Args:
        data: The file's bytes.
        origin: Where they come from, for the error message.

    Returns:
        float32 arrays by name.

    Raises:
        ModelError: The bytes are anything else than a dict of finite float32 tensors.
    """
    try:
        stream = io.BytesIO(data)
        head = [_run(stream) for _ in range(5)]
        magic, protocol, system, tensors, keys = head
        _require(
            magic == _MAGIC and protocol == _PROTOCOL, "the magic number and version of PyTorch's format"
        )
        _require(isinstance(system, dict) and system.get("little_endian") is True, "little-endian numbers")
        _require(isinstance(tensors, dict), "a dict of tensors")
        storages = _read_storages(stream, keys)
        return {name: _strided(tensor, storages) for name, tensor in tensors.items()}
    except (_Unexpected, ValueError, IndexError, KeyError, TypeError, UnicodeError) as exc:
        reason = next(iter(str(exc).strip().splitlines()), type(exc).__name__)
        raise ModelError(
            f"{origin}: expected a PyTorch state dict of float32 tensors, got {len(data)} bytes that are "
            f"none ({reason}); install the file again"
        ) from exc


class _Unexpected(Exception):  # noqa: N818 - says what it is, and never leaves this file
    """The bytes are not what they should be."""


def _require(fits: bool, expected: str) -> None:
    if not fits:
        raise _Unexpected(f"expected {expected}")


@dataclass(frozen=True, slots=True)
class _Name:
    """One of the three names that a state dict refers to; never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True)
class _Machine:
    """What a pickle's program works on."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self, count: int) -> tuple[Any, ...]:
        at = len(self.stack) - count
        _require(at >= (self.marks[-1] if self.marks else 0), f"{count} values on the stack")
        taken = tuple(self.stack[at:])
        del self.stack[at:]
        return taken

    def pop_mark(self) -> tuple[Any, ...]:
        _require(bool(self.marks), "a mark")
        return self.pop(len(self.stack) - self.marks.pop())


def _run(stream: io.BytesIO) -> Any:
    """Run one pickle; what it leaves is made of numbers, words, tuples, lists, dicts and tensors."""
    machine = _Machine()
    with warnings.catch_warnings():
        # Damaged words hold escapes that Python warns of; what they stand for is refused by what it is.
        warnings.simplefilter("ignore", DeprecationWarning)
        steps = list(pickletools.genops(stream))
    for opcode, argument, _ in steps:
        operation = _OPERATIONS.get(opcode.name)
        if operation is None:
            raise _Unexpected(f"the operation {opcode.name} has no place in it")
        operation(machine, argument)
    _require(len(machine.stack) == 1 and not machine.marks, "one value")
    return machine.stack[0]


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _mark(machine: _Machine, _: Any) -> None:
    machine.marks.append(len(machine.stack))


def _put(machine: _Machine, argument: Any) -> None:
    (machine.memo[argument],) = machine.pop(1)
    machine.stack.append(machine.memo[argument])


def _get(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.memo[argument])


def _global(machine: _Machine, argument: Any) -> None:
    if argument not in {_DICT, _TENSOR, _FLOATS}:
        raise _Unexpected(f"the name {argument!r} has no place in it")
    machine.stack.append(_Name(argument))


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(machine.pop(count))


def _tuple_from_mark(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.pop_mark())


def _append(machine: _Machine, items: tuple[Any, ...]) -> None:
    _require(isinstance(machine.stack[-1], list), "a list")
    machine.stack[-1].extend(items)


def _set_items(machine: _Machine, items: tuple[Any, ...]) -> None:
    target = machine.stack[-1]
    _require(isinstance(target, dict) and len(items) % 2 == 0, "a dict and pairs")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _require(isinstance(key, str), "words as keys")
        target[key] = value


def _storage(machine: _Machine, _: Any) -> None:
    ((kind, name, key, device, size, view),) = machine.pop(1)
    fits = kind == "storage" and name == _Name(_FLOATS) and isinstance(key, str) and view is None
    _require(fits and isinstance(device, str) and _is_size(size), "a storage of float32 numbers")
    machine.stack.append(_Storage(key, size))


def _reduce(machine: _Machine, _: Any) -> None:
    name, arguments = machine.pop(2)
    if name == _Name(_DICT) and arguments == ():
        machine.stack.append({})
        return
    _require(name == _Name(_TENSOR), "a dict or a tensor to make")
    storage, offset, shape, strides, _gradient, _hooks = arguments
    _require(isinstance(storage, _Storage) and _is_size(offset), "a tensor's storage")
    for sizes in (shape, strides):
        _require(isinstance(sizes, tuple) and all(map(_is_size, sizes)), "a tensor's sizes")
    _require(len(shape) == len(strides), "a stride for each dimension")
    machine.stack.append(_Tensor(storage, offset, shape, strides))


def _ignore_state(machine: _Machine, _: Any) -> None:
    """PyTorch's metadata of versions, which the dict carries as an attribute."""
    target, _state = machine.pop(2)
    _require(isinstance(target, dict), "a dict")
    machine.stack.append(target)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


_Operation: TypeAlias = Callable[[_Machine, Any], None]

_OPERATIONS: Final[Mapping[str, _Operation]] = {
    "PROTO": lambda _machine, _: None,
    "STOP": lambda _machine, _: None,
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"], _push),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "MARK": _mark,
    "TUPLE": _tuple_from_mark,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT"], _put),
    **dict.fromkeys(["BINGET", "LONG_BINGET"], _get),
    "APPEND": lambda machine, _: _append(machine, machine.pop(1)),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, machine.pop(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_mark()),
    "GLOBAL": _global,
    "BINPERSID": _storage,
    "REDUCE": _reduce,
    "BUILD": _ignore_state,
}


def _read_storages(stream: io.BytesIO, keys: Any) -> dict[str, FloatArray]:
    _require(isinstance(keys, list) and all(isinstance(key, str) for key in keys), "the storages' keys")
    storages: dict[str, FloatArray] = {}
    for key in keys:
        count = int.from_bytes(_take(stream, 8), "little")
        storages[key] = np.frombuffer(_take(stream, 4 * count), "<f4").astype(np.float32)
        _require(bool(np.isfinite(storages[key]).all()), "finite numbers")
    _require(not stream.read(1), "the end of the file")
    return storages


def _take(stream: io.BytesIO, size: int) -> bytes:
    left = len(stream.getbuffer()) - stream.tell()
    _require(size <= left, f"{size} bytes more, got {left}")
    return stream.read(size)


def _strided(tensor: Any, storages: Mapping[str, FloatArray]) -> FloatArray:
    """The tensor's numbers in their order; strides that leave the storage or repeat numbers are refused."""
    _require(isinstance(tensor, _Tensor), "tensors")
    values = storages[tensor.storage.key]
    _require(len(values) == tensor.storage.size, "a storage of the size that its tensor says")
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    count = 1
    for size in tensor.shape:
        count *= size
    _require(0 < count <= len(values) and last < len(values), "a tensor within its storage")
    index = np.full(tensor.shape, tensor.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True)):
        steps = np.arange(size, dtype=np.int64) * stride
        index += steps.reshape([-1 if each == axis else 1 for each in range(len(tensor.shape))])
    return values[index]
