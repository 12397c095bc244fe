from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DatasetError
from training.data import cache as embedding_cache
from training.data.cache import VectorCache, cache_key

REPOSITORY = Path(__file__).resolve().parents[4]


def vector(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def key(number: int) -> bytes:
    return cache_key(number.to_bytes(32, "big"), "test")


def test_what_was_put_is_there_next_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.db"
    with VectorCache(path) as cache:
        assert cache.get([key(1)]) == {}
        cache.put({key(1): vector(1, 2), key(2): vector()})
        assert path.stat().st_mode & 0o777 == 0o600, "embeddings identify people"
        assert Path(f"{path}-wal").stat().st_mode & 0o777 == 0o600
    with VectorCache(path) as cache:
        found = cache.get([key(n) for n in range(1200)])
        assert found.keys() == {key(1), key(2)}
        np.testing.assert_array_equal(found[key(1)], vector(1, 2))
        assert found[key(2)].shape == (0,)
        cache.close()
        assert cache.get([key(1)]), "opens again"


def test_no_file_keeps_nothing() -> None:
    with VectorCache(None) as cache:
        cache.put({key(1): vector(1)})
        assert cache.get([key(1)]) == {}


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_keys_differ_where_recipes_do(one: list[str], other: list[str]) -> None:
    assert (cache_key(b"image", *one) == cache_key(b"image", *other)) == (one == other)
    assert cache_key(b"other", *one) != cache_key(b"image", *one)


def test_damaged_entries_are_absent_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with VectorCache(path) as cache:
        cache.put({key(n): vector(n, 1) for n in range(4)})
    database = sqlite3.connect(path)
    data = vector(9, 1).tobytes()
    database.execute("UPDATE vectors_1 SET data = ? WHERE key = ?", (data, key(0)))
    database.execute("UPDATE vectors_1 SET data = ? WHERE key = ?", (data[:5], key(1)))
    database.execute("UPDATE vectors_1 SET data = 'text' WHERE key = ?", (key(2),))
    database.commit()
    database.close()
    with VectorCache(path) as cache:
        assert cache.get([key(n) for n in range(4)]).keys() == {key(3)}
        cache.put({key(0): vector(0, 1)})
        np.testing.assert_array_equal(cache.get([key(0)])[key(0)], vector(0, 1))


@pytest.mark.parametrize("use", ["get", "put"])
def test_a_file_that_is_no_database_is_set_aside(use: str, tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"what is this?" * 1000)
    with VectorCache(path) as cache:
        if use == "get":
            assert cache.get([key(1)]) == {}
        cache.put({key(1): vector(5)})
        assert cache.get([key(1)])[key(1)] == 5
    assert (tmp_path / "cache.db.damaged").read_bytes().startswith(b"what is this?")


def test_pages_torn_in_the_middle_cost_no_more_than_work(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with VectorCache(path) as cache:
        cache.put({key(n): np.full(500, n, np.float32) for n in range(200)})
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data) - 4096, 3 * 4096):
        data[start : start + 2048] = b"\xa5" * 2048
    path.write_bytes(data)
    with VectorCache(path) as cache:
        for n in range(200):
            for found in cache.get([key(n)]).values():
                np.testing.assert_array_equal(found, np.full(500, n, np.float32))
        cache.put({key(n): np.full(500, n, np.float32) for n in range(200)})
        assert len(cache.get([key(n) for n in range(200)])) == 200


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        VectorCache(tmp_path / "file" / "cache.db") as cache,
        pytest.raises(DatasetError, match="the cache cannot be used"),
    ):
        cache.get([key(1)])
    (tmp_path / "folder.db").mkdir()
    with (
        VectorCache(tmp_path / "folder.db") as cache,
        pytest.raises(DatasetError, match="the cache cannot be used"),
    ):
        cache.put({key(1): vector(1)})


WRITER = """
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from training.data import cache as embedding_cache
from training.data.cache import VectorCache, cache_key
own = int(sys.argv[2])
with VectorCache(Path(sys.argv[1])) as cache:
    for n in range(60):
        cache.put({cache_key(bytes([own, n])): np.full(40, n, np.float32)})
        print(n, flush=True)
        if own == 1 and n == 30:
            import os
            os.kill(os.getpid(), 9)
"""


def test_processes_write_side_by_side_and_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(own)], cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        for own in range(3)
    ]
    assert [writer.wait(100) for writer in writers] == [0, -9, 0]
    with VectorCache(path) as cache:
        counts = [len(cache.get([cache_key(bytes([own, n])) for n in range(60)])) for own in range(3)]
    assert counts == [60, 31, 60]


def test_whoever_begins_a_file_with_others_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(
            embedding_cache, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: other.commit())
        )
        with VectorCache(tmp_path / "cache.db") as cache:
            cache.put({key(1): vector(1)})
            assert cache.get([key(1)])


def test_threads_share_one_cache(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "cache.db") as cache:

        def work(own: int) -> None:
            for n in range(20):
                cache.put({key(100 * own + n): vector(own, n)})
                assert cache.get([key(100 * own + n)])

        threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(cache.get([key(100 * own + n) for own in range(4) for n in range(20)])) == 80
