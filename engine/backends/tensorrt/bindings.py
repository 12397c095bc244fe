"""TensorRT and TensorRT for RTX: which is here, and what it says. The only file that imports them.

Both have the same interface but for what each was made for: the standard library builds on the machine with
the GPU and tunes itself there; that for RTX builds for GPUs that need not be there, and tunes at the start.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from threading import Lock
from typing import Any, Final, Literal, TypeAlias

from engine.backends.cuda import cuda_missing
from engine.errors import ModelError
from engine.optional_libraries import why_unusable

Flavour: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

TURING: Final = "sm75"
"""The oldest architecture: its plans must be asked for by name, and it has no float32 matrix product."""

_INSTALL: Final[dict[Flavour, str]] = {
    "tensorrt": "pip install tensorrt-cu13",
    "tensorrt-rtx": "pip install 'facestream[tensorrt-rtx]'",
}
_TITLE: Final[dict[Flavour, str]] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_NO_TARGETS: Final = frozenset({"NONE", "CURRENT"})
_MAKING_LOG: Final = Lock()
_MOST_MESSAGES: Final = 100
_MOST_CHARACTERS: Final = 400

# What the libraries say beside the reason: places in their own source, and errors that follow from the first.
_SOURCE_PLACE: Final = re.compile(
    r"\.?\s*In \w+ at /_src/\S+?(?=[)\s]|$)|^\[?[\w.]+\.(?:cpp|h):+\w+(?:::\d+)?\]?:?\s*"
)
_NO_REASON: Final = re.compile(r"--- (?:Begin|End) node ---|catchCudaError|^Node name:")


def library(flavour: Flavour) -> Any:
    """The Python module of one flavour.

    Raises:
        ModelError: It is not installed, or does not load.
        ValueError: There is no such flavour.
    """
    try:
        match flavour:
            case "tensorrt":
                import tensorrt as trt
            case "tensorrt-rtx":
                import tensorrt_rtx as trt
            case _:
                raise ValueError(f"flavour: expected {' or '.join(_INSTALL)}, got {flavour!r}")
    except (ImportError, OSError, RuntimeError) as exc:
        module, install = flavour.replace("-", "_"), _INSTALL[flavour]
        raise ModelError(why_unusable(module, exc, title=_TITLE[flavour], install=install)) from exc
    return trt


def flavour_available(flavour: Flavour, *, purpose: Literal["build", "run"] = "run") -> str | None:
    """Whether a flavour can be used on this machine.

    Args:
        flavour: Which.
        purpose: ``build`` needs no GPU where the flavour is ``tensorrt-rtx``; all else needs one.

    Returns:
        None where it can, otherwise the reason and how to fix it, on one line.
    """
    try:
        library(flavour)
    except ModelError as exc:
        return str(exc)
    if purpose == "build" and flavour == "tensorrt-rtx":
        return None
    return cuda_missing()


def runtime_version(flavour: Flavour) -> str:
    """Version of the library, such as ``1.7.1.116``; a plan is of use to this one only.

    Raises:
        ModelError: The flavour is not installed.
    """
    return str(library(flavour).__version__)


def supported_gpus(flavour: Flavour = "tensorrt-rtx") -> tuple[str, ...]:
    """Architectures that a plan can be built for by name, such as ``sm86``, oldest first.

    Returns:
        Nothing for the standard library, which builds for the GPU of this machine only.

    Raises:
        ModelError: The flavour is not installed.
    """
    trt = library(flavour)
    if flavour == "tensorrt":
        return ()
    names = [name.lower() for name in trt.ComputeCapability.__members__ if name not in _NO_TARGETS]
    return tuple(sorted(names, key=_number))


def _number(gpu: str) -> int:
    return int(gpu.lower().removeprefix("sm"))


def network_flags(trt: Any) -> int:
    """Flags of a network whose precision is that of its ONNX graph.

    Version 11 knows no other network, version 10 has to be asked for it.
    """
    return int(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def message_log(trt: Any) -> Any:
    """The one logger of a library, which keeps the first that it gets for as long as the process lives.

    Returns:
        A logger that prints nothing, with ``mark() -> int`` and ``reason(mark) -> str``: the errors since.
    """
    with _MAKING_LOG:
        return _new_message_log(trt)


@functools.cache
def _new_message_log(trt: Any) -> Any:

    class MessageLog(trt.ILogger):  # type: ignore[misc]  # the base is found at run time
        """Keeps the last errors. May be called from threads of the library."""

        def __init__(self) -> None:
            super().__init__()
            self._count = 0
            self._errors: deque[tuple[int, str]] = deque(maxlen=_MOST_MESSAGES)

        def log(self, severity: Any, msg: str) -> None:
            if severity in {trt.Logger.ERROR, trt.Logger.INTERNAL_ERROR}:
                self._count += 1
                self._errors.append((self._count, msg))

        def mark(self) -> int:
            return self._count

        def reason(self, mark: int) -> str:
            return reason_of([message for number, message in tuple(self._errors) if number > mark])

    return MessageLog()


def reason_of(messages: list[str]) -> str:
    """What a library's error messages have to say, on one line of a few hundred characters."""
    lines = [line for message in messages for line in message.splitlines() if not _NO_REASON.search(line)]
    told = dict.fromkeys(one_line(line) for line in lines)
    return "; ".join(line for line in told if line)[:_MOST_CHARACTERS] or "no reason given"


def one_line(message: str) -> str:
    """A message without line breaks and without places in the source of the library."""
    return _SOURCE_PLACE.sub("", " ".join(message.split())).strip()
