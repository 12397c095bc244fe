"""Check what a command will need before it begins: nothing is computed that cannot be stored.

Each function takes what an option was given, None for nothing, and raises where it will not do.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from engine.errors import ConfigError, DatasetError, SinkError, SourceError
from engine.home_folders import lend
from engine.html_pages import is_own_page
from engine.optional_libraries import trouble_with
from stream.common.uris import LocalPath, parse_source
from stream.video.media_files import check_local

_MIB: Final = 1 << 20


def check_report(path: Path | None, option: str = "--report") -> None:
    """A page with plots.

    Raises:
        ConfigError: matplotlib is missing.
        SinkError: The file cannot be written.
    """
    if path is not None:
        check_output(path, option, room_mib=5.0)
        lend("MPLCONFIGDIR", "matplotlib")
        if trouble := trouble_with("matplotlib", install='pip install "facestream[bench]"'):
            raise ConfigError(f"{option} needs matplotlib: {trouble}")


def check_page(path: Path | None, option: str) -> None:
    """A page that is written where nothing is, or over an earlier one, and over nothing else.

    Raises:
        SinkError: Something else is there.
    """
    if path is None or not path.is_file():
        return
    try:
        is_ours = is_own_page(path)
    except OSError as exc:
        raise SinkError(f"{option} {path}: cannot be read ({exc.strerror}); choose another name") from exc
    if not is_ours:
        raise SinkError(
            f"{option} {path}: is there already, and no page of facestream (or one of version 0.2.0 or "
            "earlier); choose another name, or delete it first"
        )


def check_output(
    path: Path | None,
    option: str,
    *,
    endings: Sequence[str] = (),
    room_mib: float = 1.0,
    is_new: bool = False,
    if_there: str = "choose another name, or delete it first",
    makes_folder: bool = True,
) -> None:
    """A file that will be written.

    Args:
        path: Of the file.
        option: That names it.
        endings: Of which the name must have one; none means any.
        room_mib: Free space that it will need at least.
        is_new: It must not be there yet.
        if_there: What to do if it is.
        makes_folder: Its folder is made where it is missing.

    Raises:
        ConfigError: The name ends otherwise.
        SinkError: It cannot be written.
    """
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{option}: expected a name that ends in {' or '.join(endings)}, got {path.name!r}")
    if path.is_dir():
        raise SinkError(f"{option} {path}: is a folder; name a file within it")
    if is_new and path.exists():
        raise SinkError(f"{option} {path}: exists already; {if_there}")
    if path.exists() and not path.is_file():  # a pipe or a device
        return
    if not makes_folder and not path.parent.is_dir():
        raise SinkError(f"{option} {path}: there is no folder {path.parent}; make it first")
    _check_room(path.parent, f"{option} {path}", room_mib)


def check_output_folder(path: Path | None, option: str, *, room_mib: float = 1.0) -> None:
    """A folder that will be written to; it is made where it is missing.

    Args:
        path: Of the folder.
        option: That names it.
        room_mib: Free space that it will need at least.

    Raises:
        SinkError: It can be neither made nor written, or has no room.
    """
    if path is not None:
        _check_room(path, f"{option} {path}", room_mib)


def _check_room(folder: Path, what: str, room_mib: float) -> None:
    there = _nearest(folder)
    probe = there / f".facestream-{secrets.token_hex(8)}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        probe.unlink()
        free_mib = shutil.disk_usage(there).free / _MIB
    except OSError as exc:
        raise SinkError(f"{what}: cannot be written ({there}: {exc.strerror}); choose another place") from exc
    if free_mib < room_mib:
        raise SinkError(
            f"{what}: {free_mib:.1f} MiB are free and {room_mib:.3g} needed; make room, or choose another "
            "place"
        )


def size_mib(path: Path) -> float:
    """Size of a file; 0 where it is not there, which who reads it will say."""
    return path.stat().st_size / _MIB if path.is_file() else 0.0


def check_change(path: Path, what: str) -> None:
    """A file that will be changed in its place, and has others beside it meanwhile.

    Args:
        path: Of the file, which is there.
        what: It is, for the message.

    Raises:
        SinkError: It cannot be written.
    """
    if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise SinkError(
            f"{what} {path}: cannot be changed (no permission to write to its folder); change its permissions"
        )
    check_output_folder(path.parent, what)
    if path.exists() and not os.access(path, os.W_OK):
        raise SinkError(f"{what} {path}: cannot be changed (Permission denied); change its permissions")


def check_apart(
    written: Iterable[tuple[str, Path | None]], read: Iterable[tuple[str, Path | None]] = ()
) -> None:
    """Files that will be written: none is one of those that are read, or is named twice.

    Links and other spellings of one file are seen through; folders, pipes and devices are skipped.

    Args:
        written: What names them, and their paths.
        read: Files that are read: what names them, and their paths.

    Raises:
        ConfigError: Two are one.
    """
    taken: dict[object, str] = {}
    for option, path in read:
        if path is not None and (key := _file_key(path)) is not None:
            taken.setdefault(key, f"{option} reads")
    for option, path in written:
        if path is None or (key := _file_key(path)) is None:
            continue
        if other := taken.get(key):
            raise ConfigError(f"{option} {path}: is the file that {other}; name another")
        taken[key] = f"{option} writes"


def _file_key(path: Path) -> object:
    """The same for all names of a file; None where it is there and not a plain file."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def check_sources(uris: Sequence[str]) -> None:
    """What a run watches: that not all of it are files and folders that cannot be played.

    Where others are left, a run plays those and says of these what is wrong.

    Args:
        uris: As ``stream.common.uris.parse_source`` takes them; one or more.

    Raises:
        SourceError: Nothing can be played; says why for the first. Or an address does not make sense.
    """
    wrong = []
    for address in map(parse_source, uris):
        try:
            if not isinstance(address, LocalPath):
                return
            check_local(address.path)
        except SourceError as exc:
            wrong.append(exc)
        else:
            return
    raise wrong[0]


def check_input(path: Path | None, option: str) -> None:
    """A file that will be read.

    Raises:
        DatasetError: It is not there, or cannot be read.
    """
    if path is not None:
        _check_readable(path, option, "file", is_there=path.is_file())


def check_input_folder(path: Path | None, option: str) -> None:
    """A folder that will be read.

    Raises:
        DatasetError: It is not there, or cannot be read.
    """
    if path is not None:
        _check_readable(path, option, "folder", is_there=path.is_dir())


def check_listen(address: tuple[str, int] | None, option: str) -> None:
    """A port at which something will be served.

    Raises:
        ConfigError: It is taken, or not this machine's.
    """
    if address is None:
        return
    host, port = address
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, socket.SOCK_STREAM)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except OSError as exc:
        raise ConfigError(
            f"{option}: cannot listen at {host}:{port} ({exc.strerror}); choose another port"
        ) from exc


def _check_readable(path: Path, option: str, kind: str, *, is_there: bool) -> None:
    if not is_there:
        raise DatasetError(f"{option} {path}: no such {kind}; check the path")
    if not os.access(path, os.R_OK):
        raise DatasetError(f"{option} {path}: cannot be read (Permission denied); change its permissions")


def _nearest(path: Path) -> Path:
    """The folder, or what is there of its path."""
    for part in (path, *path.absolute().parents):
        if os.path.lexists(part):
            return part
    return Path("/")
