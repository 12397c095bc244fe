from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.torch_state_dict import read_state_dict

MAGIC = 0x1950A86A20F9469CFC6C


class Torch(pickle._Pickler):
    """Writes tensors as PyTorch did, with stand-ins for its classes."""

    def persistent_id(self, value: object) -> object:
        if isinstance(value, Storage):
            return ("storage", Named("torch", "FloatStorage"), value.key, "cpu", value.size, None)
        return None

    def save_named(self, value: Named) -> None:
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())

    def save_tensor(self, value: Tensor) -> None:
        arguments = (value.storage, value.offset, value.shape, value.strides, False, OrderedDict())
        self.save_reduce(Named("torch._utils", value.rebuild), arguments, obj=value)

    def save_reduce(
        self, func: object, args: object, *rest: object, obj: object = None, **more: object
    ) -> None:
        if isinstance(func, Named):
            self.save(func)
            self.save(args)
            self.write(b"R")
        else:
            super().save_reduce(func, args, *rest, obj=obj, **more)

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)


class Named:
    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Storage:
    def __init__(self, key: str, size: int) -> None:
        self.key, self.size = key, size


class Tensor:
    def __init__(
        self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
    ) -> None:
        self.storage, self.shape, self.strides, self.offset = storage, shape, strides, offset
        self.rebuild = "_rebuild_tensor_v2"


Torch.dispatch[Named] = Torch.save_named
Torch.dispatch[Tensor] = Torch.save_tensor


def written(tensors: object, storages: dict[str, np.ndarray], **head: object) -> bytes:
    stream = io.BytesIO()
    known = {"magic": MAGIC, "version": 1001, "little_endian": True}
    known |= head
    system = {"protocol_version": 1001, "little_endian": known["little_endian"], "type_sizes": {"int": 4}}
    for value in (known["magic"], known["version"], system, tensors, list(storages)):
        Torch(stream, protocol=2).dump(value)
    for values in storages.values():
        stream.write(len(values).to_bytes(8, "little") + values.astype("<f4").tobytes())
    return stream.getvalue()


VALUES = np.arange(24, dtype=np.float32)


def state_dict(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    return written(OrderedDict(weight=Tensor(Storage("7", 24), shape, strides, offset)), {"7": VALUES})


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((24,), (1,), 0),
        ((2, 3, 4), (12, 4, 1), 0),
        ((4, 3, 2), (1, 4, 12), 0),
        ((5,), (2,), 3),
        ((1, 2), (9, 5), 18),
    ],
)
def test_tensors_are_read_by_their_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    got = read_state_dict(state_dict(shape, strides, offset), origin="test.pt")["weight"]
    bytes_per_step = tuple(4 * stride for stride in strides)
    expected = np.lib.stride_tricks.as_strided(VALUES[offset:], shape, bytes_per_step)
    assert got.dtype == np.float32
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2,), (24,), 0),
        ((1 << 30, 1 << 30), (0, 0), 0),
        ((5, 5), (0, 0), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 5),
        ((2, 2), (1,), 0),
        ((0,), (1,), 0),
        ((1 << 40,), (1,), 0),
    ],
)
def test_tensors_that_leave_their_storage(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    with pytest.raises(ModelError, match="expected a PyTorch state dict of float32 tensors"):
        read_state_dict(state_dict(shape, strides, offset), origin="test.pt")


class Runs:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["head", "dict", "keys"])
def test_nothing_is_called(tmp_path: Path, where: str) -> None:
    trap = tmp_path / "trap"
    data = {
        "head": lambda: pickle.dumps(Runs(trap), protocol=2),
        "dict": lambda: written(OrderedDict(weight=Runs(trap)), {}),
        "keys": lambda: written(OrderedDict(), {}) + pickle.dumps(Runs(trap), protocol=2),
    }[where]()
    with pytest.raises(ModelError):
        read_state_dict(data, origin="test.pt")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Runs(trap)))
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cos\nsystem\nX\x04\x00\x00\x00trueR.", "the name 'os system' has no place in it"),
        (b"\x8c\x02os\x8c\x06system\x93.", "the operation SHORT_BINUNICODE has no place in it"),
        (b"]q\x00h\x00.", "expected"),
        (b"h\x05.", "5"),
        (b"0.", "the operation POP has no place in it"),
        (b"\x85.", "expected 1 values on the stack"),
        (b"(\x85.", "expected 1 values on the stack"),
        (b"t.", "expected a mark"),
        (b"X\xff\xff\xff\xffa.", "bytes"),
    ],
)
def test_programs_that_are_no_state_dict(data: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as failure:
        read_state_dict(data * 5, origin="test.pt")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("head", [{"magic": 1}, {"version": 1002}, {"little_endian": False}])
def test_other_formats(head: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"expected (the magic number|little-endian)"):
        read_state_dict(written(OrderedDict(), {}, **head), origin="test.pt")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(ModelError, match="expected finite numbers"):
        read_state_dict(written(OrderedDict(), {"1": np.array([bad])}), origin="test.pt")


def test_truncated_and_longer_files() -> None:
    whole = state_dict((24,), (1,))
    for end in range(len(whole)):
        with pytest.raises(ModelError):
            read_state_dict(whole[:end], origin="test.pt")
    with pytest.raises(ModelError, match="expected the end of the file"):
        read_state_dict(whole + b"\0", origin="test.pt")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ModelError, match="expected a PyTorch state dict") as failure:
        read_state_dict(data, origin="test.pt")
    assert "\n" not in str(failure.value)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_an_error(at: int, value: int) -> None:
    data = bytearray(state_dict((2, 3, 4), (12, 4, 1)))
    data[at % len(data)] = value
    try:
        tensors = read_state_dict(bytes(data), origin="test.pt")
    except ModelError:
        return
    assert all(array.size <= 24 for array in tensors.values())
