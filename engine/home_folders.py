"""Where facestream keeps its own files: caches, models, engines, and undelivered events.

The one place that decides. Each folder has a variable and an option of the command, which are taken as they
are. Without them, the first that can be written of these is used: what systemd gives a service, XDG's, those
in the home of ``HOME`` and of the account, and a private folder below ``/var/tmp`` or ``/tmp``.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from engine.errors import ConfigError

Kind: TypeAlias = Literal["cache", "models", "engines", "state", "spool"]

log = logging.getLogger(f"facestream.{__name__}")

_NAME: Final = "facestream"


@dataclass(frozen=True, slots=True)
class FolderKind:
    """One of the folders.

    Attributes:
        holds: What is kept there, for people.
        variable: Of the environment, which names it.
        within: The folder that it is a part of by default.
        systemd: The variable in which systemd names a service's folder for such things.
        xdg: The desktop's variable for them.
        at_home: Where they are in a home.
        tail: Part of the path that follows.
    """

    holds: str
    variable: str
    within: Literal["cache", "state"] | None = None
    systemd: str = ""
    xdg: str = ""
    at_home: str = ""
    tail: str = ""

    @property
    def option(self) -> str:
        """The command's option, such as ``--cache-dir``."""
        return "--" + self.variable.removeprefix("FACESTREAM_").lower().replace("_", "-")


_IS_MAC: Final = sys.platform == "darwin"
_MAC_DATA: Final = "Library/Application Support"

KINDS: Final[dict[Kind, FolderKind]] = {
    "cache": FolderKind(
        "caches",
        "FACESTREAM_CACHE_DIR",
        systemd="CACHE_DIRECTORY",
        xdg="XDG_CACHE_HOME",
        at_home="Library/Caches" if _IS_MAC else ".cache",
    ),
    "models": FolderKind(
        "imported models",
        "FACESTREAM_MODELS_DIR",
        systemd="STATE_DIRECTORY",
        xdg="XDG_DATA_HOME",
        at_home=_MAC_DATA if _IS_MAC else ".local/share",
        tail="models",
    ),
    "engines": FolderKind("compiled engines", "FACESTREAM_ENGINES_DIR", within="cache", tail="engines"),
    "state": FolderKind(
        "state",
        "FACESTREAM_STATE_DIR",
        systemd="STATE_DIRECTORY",
        xdg="XDG_STATE_HOME",
        at_home=_MAC_DATA if _IS_MAC else ".local/state",
    ),
    "spool": FolderKind("undelivered events", "FACESTREAM_SPOOL_DIR", within="state", tail="spool"),
}


def writable(kind: Kind) -> Path:
    """The folder to write to. It is made by who writes; only one below ``/tmp`` is there already.

    Args:
        kind: Which.

    Raises:
        ConfigError: The folder that the user named cannot be written, or none can.
    """
    folder = KINDS[kind]
    if path := _named(folder):
        if reason := _why_unwritable(path):
            raise ConfigError(f"{folder.variable}: {path} cannot be written ({reason}); name another folder")
        return path
    if folder.within is not None:
        return writable(folder.within) / folder.tail
    refused = []
    for path, home in _candidates(folder):
        reason = _why_not_home(home) or _why_unwritable(path)
        if reason is None:
            return path
        refused.append(reason)
    return _temporary(kind, tuple(dict.fromkeys(refused)))


def existing(kind: Kind) -> Path:
    """The folder to read from: one that is there already, though it may not be written, or else ``writable``.

    Args:
        kind: Which.

    Raises:
        ConfigError: There is none, and none can be made.
    """
    return next(iter(readable(kind)), None) or writable(kind)


def readable(kind: Kind) -> list[Path]:
    """The folders in which earlier runs may have kept something, the usual one first.

    Args:
        kind: Which.
    """
    folder = KINDS[kind]
    if path := _named(folder):
        return [path] if os.access(path, os.R_OK | os.X_OK) else []
    if folder.within is not None:
        return [
            path for path in (each / folder.tail for each in readable(folder.within)) if _is_trusted(path)
        ]
    places = []
    for path, home in _candidates(folder):
        places.append(path)
        if (_why_not_home(home) or _why_unwritable(path)) is None:
            break  # what is usual here; those after it are for where it cannot be written
    else:
        places += [each / kind for each in _temporaries()]
    return [path for path in places if _is_trusted(path)]


def lend(variable: str, folder: str, *, file: str = "") -> None:
    """Let a library keep its cache within ours, unless the environment names another place.

    Args:
        variable: Of the library, read when it is loaded.
        folder: Name of its folder in our cache.
        file: Of the file in that, for a library that wants one.
    """
    if os.environ.get(variable):
        return
    try:
        place = writable("cache") / folder
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (ConfigError, OSError) as exc:
        log.debug("no cache for %s: %s", variable, exc)  # it finds another place, or does without
    else:
        os.environ[variable] = str(place / file)


def has_home() -> bool:
    """Whether there is one, by the environment or the account; it need not be there, nor writable."""
    return os.path.expanduser("~") != "~"  # noqa: PTH111 - Path.expanduser raises where there is none


def _named(folder: FolderKind) -> Path | None:
    """What the user named."""
    named = os.environ.get(folder.variable)
    return Path(os.path.expanduser(named)) if named else None  # noqa: PTH111 - as in has_home


def _candidates(folder: FolderKind) -> Iterator[tuple[Path, Path | None]]:
    """Usual places, with the home in which they are."""
    if given := os.environ.get(folder.systemd, "").partition(":")[0]:
        yield Path(given) / folder.tail, None
    given = os.environ.get(folder.xdg, "")
    if given.startswith("/"):  # others are not to be heeded, says the specification
        yield Path(given) / _NAME / folder.tail, None
    for home in _homes():
        yield home / folder.at_home / _NAME / folder.tail, home


def _homes() -> Iterator[Path]:
    """That of the environment, which may be another user's, and that of the account, where there is one."""
    named = os.environ.get("HOME", "")
    if named.startswith("/"):
        yield Path(named)
    with suppress(KeyError):  # a number without an account, as containers have them
        home = pwd.getpwuid(os.geteuid()).pw_dir
        if home.startswith("/") and home != named:
            yield Path(home)


def _why_not_home(home: Path | None) -> str | None:
    """Why a folder is not to be used as our home; None where it may."""
    if home is None:
        return None
    try:
        found = home.stat()
    except OSError as exc:
        return f"{home}: {exc.strerror}"
    # Root may write everywhere, but what it leaves in a user's home that user can neither change nor remove.
    if os.geteuid() == 0 and found.st_uid != 0:
        return f"{home}: another user's"
    return None


def _why_unwritable(path: Path) -> str | None:
    """Why a folder cannot be made or written, by what is there of it; None where it can."""
    for part in (path, *path.absolute().parents):
        try:
            found = part.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            return f"{part}: {exc.strerror}"
        if not stat.S_ISDIR(found.st_mode):
            return f"{part}: not a folder"
        if not os.access(part, os.W_OK | os.X_OK):
            return f"{part}: {'read-only' if os.statvfs(part).f_flag & os.ST_RDONLY else 'not writable'}"
        return None
    return f"{path}: no such folder"


def _is_trusted(path: Path) -> bool:
    """Whether a folder is there, and ours or the system's: models that others laid there are not run."""
    try:
        found = path.stat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid in {os.geteuid(), 0}
        and os.access(path, os.R_OK | os.X_OK)
    )


def _temporaries() -> list[Path]:
    """Private folders for users without a home, in the order in which they are tried."""
    roots = [os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0], os.environ.get("TMPDIR", "")]
    return [Path(root) / f"{_NAME}-{os.geteuid()}" for root in (*roots, "/var/tmp", "/tmp") if root]  # noqa: S108


@cache  # so that it is said once
def _temporary(kind: Kind, refused: tuple[str, ...]) -> Path:
    folder, tried = KINDS[kind], list(refused)
    for place in _temporaries():
        if reason := _why_not_private(place):
            tried.append(reason)
            continue
        log.warning(
            "%s kept in %s, which may be cleared at any restart, since no other folder can be written (%s); "
            "name one with %s or %s",
            folder.holds,
            place / kind,
            "; ".join(refused) or "there is no home",
            folder.variable,
            folder.option,
        )
        return place / kind
    raise ConfigError(
        f"no folder for {folder.holds} can be written ({'; '.join(tried)}); name one with "
        f"{folder.variable}=/some/folder or {folder.option} /some/folder"
    )


def _why_not_private(place: Path) -> str | None:
    """Make a folder for this user alone; why it is none, or None. Others may have laid something there."""
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as exc:
        return f"{place}: {exc.strerror}"
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not is_ours:
        return f"{place}: not a folder of this user alone"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place}: not writable"
