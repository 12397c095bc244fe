"""Libraries that a user may lack, or have and be unable to load: two troubles with two cures."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

_BROKEN: Final = (ImportError, OSError, RuntimeError, AttributeError)
"""What a library raises that is there and cannot be loaded: a broken or foreign shared object, mostly."""

_SYSTEM_LIBRARY: Final = re.compile(r"\b(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


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
    """What is wrong with a library that could not be imported, and what mends it.

    Args:
        module: The top-level module that was wanted.
        error: What the import raised.
        title: The library's name for people; the module's when not given.
        install: The command that installs it.

    Returns:
        One line: that it is not installed, or that it is and why it does not load all the same.
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
        title: As for ``why_unusable``.
        install: The same.
        load: Imports it.

    Returns:
        None where it can be used, otherwise what ``why_unusable`` says.
    """
    try:
        load(module)
    except _BROKEN as exc:
        return why_unusable(module, exc, title=title, install=install)
    return None


def describe(error: ImportError) -> str:
    """The same for an import that nobody guarded, as far as the error tells which library it was of."""
    module = (error.name or "").partition(".")[0]
    is_part = not isinstance(error, ModuleNotFoundError) and not is_installed(module)
    if not module or is_part:  # a shared object inside a package is named without the package
        return f"a library does not load ({' '.join(str(error).split())}); install facestream again"
    return why_unusable(module, error, install=f"pip install {module}")


def _again(install: str) -> str:
    return install.replace("pip install", "pip install --force-reinstall", 1)
