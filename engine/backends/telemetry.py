"""Switch off the telemetry of bundled libraries.

To be called before those libraries are imported: afterwards it is too late for this process.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Final

_SWITCH: Final = "ORT_DISABLE_TELEMETRY"
_SENDER: Final = "openvino_telemetry"


def switch_off() -> None:
    """Switch the telemetry of ONNX Runtime and OpenVINO off, for this process and its children.

    Warns where the program has imported one of them before, with its telemetry on.
    """
    if "onnxruntime" in sys.modules and _is_on() and "CI" not in os.environ:
        _warn("onnxruntime", f"set {_SWITCH}=1 in the environment")
    if sys.modules.get(_SENDER) is not None:
        _warn("openvino", "pip uninstall openvino-telemetry")
    # ONNX Runtime from 1.29 on keeps a device id and usage events in the user's cache, and sends them. It
    # reads this when it is imported; `disable_telemetry_events()` comes too late.
    os.environ[_SWITCH] = "1"
    # OpenVINO calls its maker's statistics server when it is imported, from a process that it forks while
    # threads run. A package that cannot be found is its own way of leaving that out.
    sys.modules.setdefault(_SENDER, None)  # type: ignore[arg-type]  # None means: not to be found


def why_on() -> str | None:
    """What keeps telemetry on in this process; None where all of it is off."""
    if _is_on():
        return f"{_SWITCH} is not set"
    return None if sys.modules.get(_SENDER, ...) is None else f"{_SENDER} can be imported"


def device_id() -> Path | None:
    """The folder in which ONNX Runtime keeps a device id, where some program let it; None elsewhere."""
    cache = os.environ.get("XDG_CACHE_HOME") or f"{os.environ.get('HOME', '')}/.cache"
    folder = Path(cache, "Microsoft", "DeveloperTools", ".onnxruntime")
    return folder if os.access(folder / "deviceid", os.F_OK) else None


def _is_on() -> bool:
    return os.environ.get(_SWITCH, "").lower() not in {"1", "true", "yes"}


def _warn(library: str, mend: str) -> None:
    warnings.warn(
        f"{library} was imported before facestream, with its telemetry on: import facestream first, "
        f"or {mend}",
        stacklevel=4,
    )
