"""The tables of a gallery's file, and how the file is opened and told from others."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from engine.errors import GalleryError
from stream.common.encryption import KEY_VARIABLE, Sealer
from stream.common.printable import printable

_SHUT: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_NO_ROOM: Final = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
SCHEMA_VERSION: Final = 1

_APPLICATION_ID: Final = 0x66616367  # "facg"
IF_THERE: Final = "if it is a gallery, use it as it is; for a new one choose another name, or delete this one"
"""What to do where a gallery should be made and something is there already."""
BUSY_TIMEOUT_S: Final = 10.0
"""So long is waited for another process that is writing."""
FILE_NAMES: Final = """
CREATE TABLE IF NOT EXISTS file_names (
    template INTEGER PRIMARY KEY REFERENCES templates ON DELETE CASCADE,
    name BLOB NOT NULL
) STRICT"""
"""What photographs' files were called. Galleries made by release 0.2.0 and earlier have no such table until
one is needed, and earlier versions pass it over."""
SCHEMA: Final = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE gallery (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    removals INTEGER NOT NULL,
    created TEXT NOT NULL,
    model TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    mirror INTEGER NOT NULL,
    size INTEGER NOT NULL,
    likeness_factor REAL NOT NULL,
    likeness_shift REAL NOT NULL,
    keep_photos INTEGER NOT NULL,
    key TEXT NOT NULL,
    salt BLOB NOT NULL
) STRICT;
CREATE TABLE people (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name BLOB NOT NULL,
    notes BLOB NOT NULL,
    created TEXT NOT NULL
) STRICT;
CREATE TABLE templates (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    embedding BLOB NOT NULL,
    quality REAL NOT NULL,
    source TEXT NOT NULL,
    origin BLOB NOT NULL,
    added TEXT NOT NULL
) STRICT;
CREATE INDEX templates_by_person ON templates (person);
CREATE TABLE photos (
    template INTEGER PRIMARY KEY REFERENCES templates ON DELETE CASCADE,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE negatives (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    person INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    embedding BLOB NOT NULL,
    origin BLOB NOT NULL,
    added TEXT NOT NULL
) STRICT;
CREATE INDEX negatives_by_person ON negatives (person);
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
{FILE_NAMES};
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a file as a database in which deleted rows are overwritten with zeros.

    Where this user may not write, it is opened to be read.

    Raises:
        GalleryError: It cannot be opened, or is no database.
    """
    is_fixed = is_read_only(path)
    address = _address_to_read(path) if is_fixed else path
    try:
        database = sqlite3.connect(address, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=is_fixed)
    except sqlite3.Error as exc:
        raise GalleryError(f"{path}: cannot be opened ({exc}); check the path and its permissions") from exc
    try:
        for pragma in ("foreign_keys = ON", "secure_delete = ON", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {pragma}")
        if not is_fixed:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
    except (sqlite3.Error, UnicodeDecodeError) as exc:
        database.close()
        raise not_opened(path, exc) from exc
    return database


def is_read_only(path: Path) -> bool:
    """Whether there is a file that this user cannot change, or cannot put another one beside."""
    may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)
    return path.exists() and not may_write


def state_on_disk(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Something else for a file that cannot be written here, once others may have written to it."""
    return tuple(map(_stamp, (path, _beside(path, "-wal"))))


def _address_to_read(path: Path) -> str:
    """Of a file that cannot be written. Without a writer at work, nothing has to stand beside it."""
    written = _stamp(_beside(path, "-wal"))
    is_at_rest = written is None or written[1] == 0
    return f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if is_at_rest else "")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written, and how long it is; None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def not_opened(path: Path, error: Exception) -> GalleryError:
    """Why a gallery's file cannot be read: what is around it must not be taken for damage.

    Args:
        path: Of the file, which is there.
        error: What SQLite, or who read what it gave, has raised.
    """
    reason, folder = one_line(error), path.parent
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
    if code in _SHUT:
        return GalleryError(
            f"{path}: cannot be opened ({reason}): SQLite keeps two files beside an open gallery, even for "
            f"reading; make {folder} writable, or read a copy in a writable folder"
        )
    if code in _NO_ROOM:
        free_mib = shutil.disk_usage(folder).free / (1 << 20)
        return GalleryError(
            f"{path}: cannot be opened ({reason}; {free_mib:.1f} MiB are free); make room, or check the disk"
        )
    return GalleryError(f"{path}: damaged, or not a gallery ({reason}); restore a copy of it")


def new_file(path: Path, row: tuple[object, ...]) -> None:
    """Make an empty gallery that others see when it is whole; for its owner alone.

    Args:
        path: Of the file, which is not there yet.
        row: Of the table ``gallery``.

    Raises:
        GalleryError: The file is there already, or cannot be made.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with closing(connect(temporary)) as database:
            database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO gallery VALUES ({marks})", row)  # noqa: S608 - question marks
        _appear(temporary, path)
    except FileExistsError:
        raise GalleryError(f"{path}: exists already; {IF_THERE}") from None
    except (OSError, sqlite3.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise GalleryError(
            f"{path}: cannot be created ({reason}); create its folder, or choose another place"
        ) from exc
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _appear(temporary: Path, path: Path) -> None:
    """Give a file its name, if no other has it.

    What SQLite kept beside an earlier file of that name, which was moved away while it was in use, would be
    taken for a part of the new one, and is removed.
    """
    beside = [path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")]
    stale = [each for each in beside if each.exists()]
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)
    for each in stale:
        each.unlink(missing_ok=True)


def check_file(path: Path, database: sqlite3.Connection) -> str:
    """Check that a database is a gallery.

    Args:
        path: Of its file, for the error message.
        database: As ``connect`` opens it.

    Returns:
        Fingerprint of the key that it was made with; empty for none.

    Raises:
        GalleryError: It is another program's, or of another version.
        sqlite3.Error: It is damaged.
    """
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION_ID:
        raise GalleryError(f"{path}: not a facestream gallery; choose another file")
    if version != SCHEMA_VERSION:
        raise GalleryError(
            f"{path}: of version {version}, expected {SCHEMA_VERSION}; use the release of facestream that "
            "created it"
        )
    row = database.execute("SELECT key FROM gallery").fetchone()
    if row is None:
        raise GalleryError(f"{path}: its creation was interrupted; delete it and create it again")
    return str(row[0])


def right_sealer(path: Path, key: str, sealer: Sealer | None) -> Sealer | None:
    """The sealer of a file that was made with a key, or without.

    Args:
        path: Of the file.
        key: Fingerprint of its key; empty for none.
        sealer: That was given; one that is not needed is not used.

    Raises:
        GalleryError: It wants a key, or another one.
    """
    if not key:
        return None
    if sealer is None:
        raise GalleryError(
            f"{path}: is encrypted; set the key that it was created with: export {KEY_VARIABLE}=…"
        )
    if sealer.fingerprint != key:
        raise GalleryError(
            f"{path}: is encrypted with another key than {KEY_VARIABLE}; set the key with the "
            f"fingerprint {key}"
        )
    return sealer


def timestamp(at: datetime | None) -> str:
    """RFC 3339 in UTC; None is now."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


def one_line(error: Exception) -> str:
    """What an error says, in one line that can be printed: SQLite's may quote what a damaged file holds."""
    return printable(" ".join(str(error).split()))
