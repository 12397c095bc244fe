"""What the processor is and what it can compute in."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")

_TOLD_FEATURES: Final = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
    "asimd",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)
"""Of all that a processor lists, what decides which arithmetic is fast (x86 and ARM)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor.

    Attributes:
        processor: Name.
        cores: How many of them this process may use.
        features: Instruction sets that matter to models, as Linux calls them; empty on other systems.
        precisions: What OpenVINO computes in here, as it calls it; empty where it is not installed.
    """

    processor: str
    cores: int
    features: tuple[str, ...]
    precisions: tuple[str, ...]


def this_machine() -> Machine:
    """The processor that this process runs on."""
    name, precisions = _by_openvino()
    cpuinfo = _CPUINFO.read_text("utf-8", "replace") if _CPUINFO.is_file() else ""
    return Machine(
        processor=name or _field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        cores=_usable_cores(),
        features=_features(cpuinfo),
        precisions=precisions,
    )


def processor_key(machine: Machine | None = None) -> str:
    """A name for files that hold what was measured or built on one kind of processor.

    Args:
        machine: None takes this one.

    Returns:
        Lower-case letters, digits and hyphens: the processor's name, then a hash of all of ``Machine``.
    """
    machine = machine or this_machine()
    told = "|".join([machine.processor, str(machine.cores), *machine.features, "", *machine.precisions])
    name = re.sub(r"[^a-z0-9]+", "-", machine.processor.lower()).strip("-")
    return f"{name or 'processor'}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _by_openvino() -> tuple[str, tuple[str, ...]]:
    try:
        from engine.backends.openvino import processor
    except (ImportError, OSError):
        return "", ()
    return processor()


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS or Windows
        return os.cpu_count() or 1


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _features(cpuinfo: str) -> tuple[str, ...]:
    listed = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())
    return tuple(name for name in _TOLD_FEATURES if name in listed)


@contextmanager
def one_core() -> Iterator[set[int]]:
    """Keep the calling thread, and those that it begins meanwhile, on one core, where the system can.

    Yields:
        The cores that it might use before, for a thread that is not measured; empty where the system cannot.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield set()
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield before
    finally:
        os.sched_setaffinity(0, before)
