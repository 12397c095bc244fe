from __future__ import annotations

import logging
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from engine import home_folders
from engine.errors import ConfigError
from engine.home_folders import KINDS, existing, lend, readable, writable
from stream.cli.folder_options import choose_folders


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing in the environment but a place for temporary files, and no account; the place."""

    def no_account(_uid: int) -> Any:
        raise KeyError

    names = [each.variable for each in KINDS.values()] + [each.xdg for each in KINDS.values()]
    names += ["CACHE_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "HOME"]
    for name in filter(None, names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_account)
    (place := tmp_path / "tmp").mkdir()
    monkeypatch.setattr(home_folders, "_temporaries", lambda: [place / "facestream-1"])
    home_folders._temporary.cache_clear()
    return place


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_at_home_by_default(home: Path) -> None:
    assert writable("cache") == home / ".cache/facestream"
    assert writable("engines") == home / ".cache/facestream/engines"
    assert writable("models") == home / ".local/share/facestream/models"
    assert writable("spool") == home / ".local/state/facestream/spool"
    assert list(home.iterdir()) == []  # nothing is made by asking


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_named_goes_before_all(
    kind: home_folders.Kind, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(home))
    monkeypatch.setenv(KINDS[kind].variable, str(tmp_path / "named"))
    assert writable(kind) == existing(kind) == tmp_path / "named"


def test_parts_are_within_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setenv("FACESTREAM_STATE_DIR", str(tmp_path / "s"))
    assert (writable("engines"), writable("spool")) == (tmp_path / "c/engines", tmp_path / "s/spool")


def test_what_systemd_gives_a_service(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.setenv(name, f"{tmp_path}/{name}:{home}")
    assert writable("cache") == tmp_path / "CACHE_DIRECTORY"
    assert writable("models") == tmp_path / "STATE_DIRECTORY/models"
    assert writable("spool") == tmp_path / "STATE_DIRECTORY/spool"


@pytest.mark.parametrize(("given", "counts"), [("{tmp}/xdg", True), ("relative", False), ("", False)])
def test_xdg(given: str, counts: bool, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given.format(tmp=tmp_path))
    assert writable("cache") == (tmp_path / "xdg/facestream" if counts else home / ".cache/facestream")


@pytest.mark.parametrize("named", [None, "", "relative", "/nonexistent", "/proc/version"])
def test_without_a_home_a_private_folder_serves_and_is_told_of_once(
    named: str | None, stranger: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if named is not None:
        monkeypatch.setenv("HOME", named)
    place = stranger / "facestream-1"
    assert writable("spool") == writable("spool") == place / "state/spool"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "FACESTREAM_STATE_DIR or --state-dir" in record.getMessage()


def test_the_home_of_the_account_where_that_of_the_environment_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = pwd.struct_passwd(("svc", "x", 1, 1, "", str(tmp_path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: account)
    monkeypatch.setenv("HOME", "/nonexistent")
    assert writable("cache") == tmp_path / ".cache/facestream"


def test_root_leaves_nothing_in_a_users_home(
    home: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = home.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert writable("cache") == home / ".cache/facestream"
    if os.getuid() == 0:
        os.chown(home, 12345, 12345)
        assert writable("cache") == stranger / "facestream-1/cache"


@pytest.mark.parametrize("trap", ["open to all", "link", "file"])
def test_a_trap_in_the_temporary_folder_is_not_used(trap: str, stranger: Path) -> None:
    place = stranger / "facestream-1"
    match trap:
        case "open to all":
            place.mkdir()
            place.chmod(0o777)
        case "link":
            (stranger / "elsewhere").mkdir(mode=0o700)
            place.symlink_to(stranger / "elsewhere")
        case _:
            place.write_text("")
    with pytest.raises(ConfigError, match=r"FACESTREAM_CACHE_DIR=/some/folder or --cache-dir /some/folder"):
        writable("cache")
    assert readable("cache") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_folder_that_cannot_be_written_is_said(
    kind: home_folders.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(KINDS[kind].variable, str(tmp_path / "file" / "below"))
    with pytest.raises(ConfigError, match=rf"{KINDS[kind].variable}: .*file: not a folder.*another folder"):
        writable(kind)


def test_what_lies_in_a_home_that_cannot_be_written_is_read(
    home: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = home / ".local/share/facestream/models"
    models.mkdir(parents=True)
    monkeypatch.setattr(
        home_folders, "_why_unwritable", lambda path: "read-only" if home in path.parents else None
    )
    assert existing("models") == models
    assert writable("models") == stranger / "facestream-1/models"


def test_libraries_keep_their_caches_with_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_LIBRARY", "")
    lend("A_LIBRARY", "library", file="list.bin")
    assert os.environ["A_LIBRARY"] == str(home / ".cache/facestream/library/list.bin")
    assert (home / ".cache/facestream/library").is_dir()
    lend("A_LIBRARY", "other")
    assert os.environ["A_LIBRARY"].endswith("list.bin")  # what the environment names stays


def test_a_tilde_that_no_shell_has_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FACESTREAM_CACHE_DIR", "")  # so that it is put back afterwards
    choose_folders(cache_dir=Path("~/caches"))
    assert writable("cache") == tmp_path / "caches"
