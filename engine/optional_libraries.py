"""Libraries that are missing, or installed but do not load: two problems with different fixes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Final

_BROKEN: Final = (ImportError, OSError, RuntimeError, AttributeError)
"""What a library raises that is there and cannot be loaded: a broken or foreign shared object, mostly."""

_SYSTEM_LIBRARY: Final = re.compile(r"\b(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")

_IMPORT_ALL: Final = """
import contextlib, importlib, os, sys
for module in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(module)
    os.write(1, bytes(1))
os._exit(0)
"""
_IMPORT_S: Final = 60.0


def is_installed(module: str) -> bool:
    """Whether a top-level module is there, loadable or not. Does not import it.

    Args:
        module: Its name.
    """
    try:
        return find_spec(module) is not None
    except (ValueError, ImportError):  # a stand-in without a specification, or None in its place
        return False


def why_unusable(module: str, error: BaseException, *, title: str | None = None, install: str) -> str:
    """What is wrong with a library that could not be imported, and how to fix it.

    Args:
        module: The top-level module that was wanted.
        error: What the import raised.
        title: The library's name for people; by default the module's.
        install: The command that installs it.

    Returns:
        One line: that it is not installed, or that it is, and why it does not load.
    """
    title = title or module
    if not is_installed(module):
        return f"{title} is not installed; run: {install}"
    reason = " ".join(str(error).split()) or type(error).__name__
    missing = _SYSTEM_LIBRARY.search(reason)
    cure = f"install the system's {missing.group(1)}, or run" if missing else "run"
    return f"{title} is installed but does not load ({reason}); {cure}: {_again(install)}"


def trouble_with(
    module: str,
    *,
    title: str | None = None,
    install: str,
    load: Callable[[str], object] = importlib.import_module,
) -> str | None:
    """Import a library and say what is wrong with it.

    Args:
        module: A top-level module.
        title: The library's name for people; by default the module's.
        install: The command that installs it.
        load: Imports it.

    Returns:
        None where it can be used, otherwise what ``why_unusable`` says.
    """
    try:
        load(module)
    except _BROKEN as exc:
        return why_unusable(module, exc, title=title, install=install)
    return None


def that_kill(modules: Iterable[str]) -> dict[str, str]:
    """Which libraries end a process that imports them, as one does whose shared object is cut short.

    They are imported in a process of its own, and after one that ends it, the others in another.

    Args:
        modules: Top-level modules; those that are not installed are skipped.

    Returns:
        By module, what ends it, such as ``SIGBUS``.
    """
    waiting, deadly = [each for each in modules if is_installed(each)], {}
    while waiting:
        imported, ending = _import_elsewhere(waiting)
        waiting = waiting[imported:]
        if waiting:
            deadly[waiting.pop(0)] = ending
    return deadly


def _import_elsewhere(modules: Sequence[str]) -> tuple[int, str]:
    """How many modules another process has imported, in vain or not, and what ended it then."""
    command = [sys.executable, "-c", _IMPORT_ALL, *modules]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(  # noqa: S603 - our own program, and names of modules
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_IMPORT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        return (exc.stdout or b"").count(b"\0"), f"not done after {_IMPORT_S:.0f} s"
    ending = f"exit code {done.returncode}"
    if done.returncode < 0:
        ending = signal.Signals(-done.returncode).name
    return done.stdout.count(b"\0"), ending


def describe(error: ImportError) -> str:
    """The same for an import that nobody guarded, as far as the error tells which library it was of."""
    module = (error.name or "").partition(".")[0]
    is_part = not isinstance(error, ModuleNotFoundError) and not is_installed(module)
    if not module or is_part:  # a shared object inside a package is named without the package
        return f"a library does not load ({' '.join(str(error).split())}); install facestream again"
    return why_unusable(module, error, install=f"pip install {module}")


def _again(install: str) -> str:
    return install.replace("pip install", "pip install --force-reinstall", 1)
