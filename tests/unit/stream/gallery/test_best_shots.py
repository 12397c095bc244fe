from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from event_checks import face_event

from engine.errors import ConfigError
from stream.common.encryption import Sealer
from stream.gallery.best_shots import BestShots

SEALER = Sealer(bytes(range(32)))
DAY_S = 86_400.0


@pytest.fixture
def picture() -> np.ndarray:
    return np.kron(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5, np.ones((16, 16, 1), np.uint8))


@pytest.mark.parametrize("sealer", [None, SEALER])
def test_a_picture_comes_back(tmp_path: Path, picture: np.ndarray, sealer: Sealer | None):
    shots = BestShots(tmp_path / "shots", sealer=sealer)
    shots(face_event(track_id="door-1"), picture)
    back = shots.read("door-1")
    assert back is not None
    assert np.abs(back.astype(int) - picture).mean() < 4
    assert shots.read("door-2") is None
    (file,) = (tmp_path / "shots").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_sealed_picture_is_none_to_others(tmp_path: Path, picture: np.ndarray):
    BestShots(tmp_path, sealer=SEALER)(face_event(track_id="door-1"), picture)
    (file,) = tmp_path.iterdir()
    assert not file.read_bytes().startswith(b"\xff\xd8")
    with pytest.raises(ConfigError, match="set the key"):
        BestShots(tmp_path).read("door-1")
    with pytest.raises(ConfigError, match="the key that it was encrypted with"):
        BestShots(tmp_path, sealer=Sealer(bytes(32))).read("door-1")
    file.rename(tmp_path / "door-2.jpg.sealed")
    with pytest.raises(ConfigError, match="another place"):
        BestShots(tmp_path, sealer=SEALER).read("door-2")


def test_a_damaged_picture_is_named(tmp_path: Path):
    (tmp_path / "door-1.jpg").write_bytes(b"\xff\xd8 not really")
    with pytest.raises(ConfigError, match=r"door-1\.jpg: no picture"):
        BestShots(tmp_path).read("door-1")


def test_a_picture_that_would_fill_the_memory_is_not_unpacked(tmp_path: Path):
    photo = bytearray(cv2.imencode(".bmp", np.zeros((30, 70, 3), np.uint8))[1].tobytes())
    photo[18:26] = (30_000).to_bytes(4, "little") * 2
    (tmp_path / "door-1.jpg").write_bytes(photo)
    with pytest.raises(ConfigError, match=r"no picture, or a damaged one \(it has 30000 by 30000 pixels"):
        BestShots(tmp_path).read("door-1")


def test_erasing_deletes_and_counts(tmp_path: Path, picture: np.ndarray):
    shots = BestShots(tmp_path)
    for number in range(3):
        shots(face_event(track_id=f"door-{number}"), picture)
    assert shots.erase(["door-0", "door-2", "door-9"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["door-1.jpg"]


@pytest.mark.parametrize("track_id", ["../outside", "a/b", "", ".", "x" * 300, "a\0b"])
def test_an_id_that_is_none_reaches_no_file(tmp_path: Path, track_id: str):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"\xff\xd8")
    shots = BestShots(tmp_path / "shots")
    assert shots.read(track_id) is None
    assert shots.erase([track_id]) == 0
    assert outside.exists()


def test_old_pictures_are_swept_and_other_files_are_not(tmp_path: Path):
    shots = BestShots(tmp_path, keep_days=2)
    for name, age_days in (("old.jpg", 3), ("older.jpg.sealed", 30), ("young.jpg", 1), ("notes.txt", 90)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (100 * DAY_S - age_days * DAY_S,) * 2)
    assert shots.sweep(now_s=100 * DAY_S) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"young.jpg", "notes.txt"}


def test_the_first_picture_sweeps(tmp_path: Path, picture: np.ndarray):
    (tmp_path / "old.jpg").write_bytes(b"x")
    os.utime(tmp_path / "old.jpg", (DAY_S, DAY_S))
    BestShots(tmp_path)(face_event(track_id="door-1"), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["door-1.jpg"]


def test_without_a_limit_nothing_is_swept(tmp_path: Path):
    (tmp_path / "old.jpg").write_bytes(b"x")
    assert BestShots(tmp_path, keep_days=None).sweep(now_s=1e12) == 0
    with pytest.raises(ValueError, match="above 0"):
        BestShots(tmp_path, keep_days=0)


def test_a_picture_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, picture: np.ndarray):
    shots = BestShots(tmp_path / "shots")
    (tmp_path / "shots").rmdir()
    (tmp_path / "shots").write_bytes(b"in the way")
    shots(face_event(track_id="door-1"), picture)
    with pytest.raises(ConfigError, match="another folder"):
        BestShots(tmp_path / "shots")
