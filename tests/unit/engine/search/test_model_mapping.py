from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.embeddings import unit_rows
from engine.errors import ModelError
from engine.search.model_mapping import EmbeddingMap, MapLoss, fit_map

OLD, NEW = ("old-v1", "a" * 64), ("new-v2", "b" * 64)


def faces(*, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces of 60 people by two models that see the same things in other directions, each with noise."""
    random = np.random.default_rng(seed)
    people = np.repeat(np.arange(60), 4)
    seen = random.normal(size=(60, 12))[people] + 0.3 * random.normal(size=(240, 12))
    views = [seen @ random.normal(size=(12, size)) + 2 for size in (12, 16)]
    old, new = (unit_rows(view + noise * random.normal(size=view.shape)) for view in views)
    return old, new, people.astype(np.intp)


@pytest.fixture(scope="module")
def fitted() -> EmbeddingMap:
    return fit_map(*faces(noise=0.3), old_model=OLD, new_model=NEW)


def test_mapped_embeddings_are_compared_with_those_of_the_new_model(fitted: EmbeddingMap) -> None:
    old, new, people = faces(noise=0.3)
    mapped = fitted(old)
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-5)
    assert (mapped * new).sum(axis=1).mean() > 0.9
    unrelated = (mapped @ new.T)[people[:, None] != people]
    assert unrelated.mean() < 0.6
    assert fitted.pairs == 240
    with pytest.raises(ValueError, match=r"expected \(N, 12\)"):
        fitted(new)


@pytest.mark.parametrize(
    ("mapped", "false_accepts", "poor"),
    [(0.9, 1e-3, False), (0.73, 1e-3, False), (0.71, 1e-3, True), (0.9, 2.1e-3, True)],
)
def test_a_map_is_poor_when_a_tenth_is_lost_or_twice_as_many_strangers_pass(
    mapped: float, false_accepts: float, poor: bool
) -> None:
    loss = MapLoss(30, 100_000, 1e-3, 0.9, 0.8, mapped, false_accepts, 0.9)
    assert loss.is_poor is poor
    assert (loss.least_accepted, loss.most_false_accepts) == (pytest.approx(0.72), pytest.approx(2e-3))


def test_loss_is_measured_on_other_people_and_grows_with_what_the_models_do_not_share() -> None:
    losses = [fit_map(*faces(noise=each), old_model=OLD, new_model=NEW).loss for each in (0.0, 0.5, 1.5)]
    kept = [each.cosine_kept for each in losses]
    accepted = [each.accepted_mapped for each in losses]
    assert kept == sorted(kept, reverse=True)
    assert accepted == sorted(accepted, reverse=True)
    assert kept[0] > 0.85 > kept[2]
    assert losses[0].people == 30
    assert losses[0].impostor_pairs == 120 * 119 // 2 - 30 * 6
    assert losses[0].far == pytest.approx(10 / losses[0].impostor_pairs)
    # Random pairs cannot be mapped, however well the fit itself looks.
    old, new, people = faces(noise=0.3)
    nonsense = fit_map(np.random.default_rng(1).permutation(old), new, people, old_model=OLD, new_model=NEW)
    assert nonsense.loss.accepted_mapped < 0.2 < nonsense.loss.accepted_new
    assert "accepted (old model" in str(nonsense.loss)


def test_fitting_refuses_what_does_not_fit() -> None:
    old, new, people = faces(noise=0.3)
    for arrays, message in [
        ((old, new[:-1], people), r"expected \(N, D\)"),
        ((old * np.nan, new, people), "finite"),
        ((old[:20], new[:20], people[:20]), "at least 24 faces of many people, got 20 of 5"),
        ((old, new, np.arange(240)), "several faces of a person"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit_map(*arrays, old_model=OLD, new_model=NEW)


def test_a_map_is_kept_in_a_file(fitted: EmbeddingMap, tmp_path: Path) -> None:
    path = tmp_path / "old-to-new.npz"
    fitted.save(path)
    again = EmbeddingMap.load(path)
    assert (again.old_model, again.old_sha256, again.new_model, again.new_sha256) == (*OLD, *NEW)
    assert (again.pairs, again.loss) == (fitted.pairs, fitted.loss)
    assert isinstance(again.loss.people, int)
    old, _, _ = faces(noise=0.3)
    np.testing.assert_array_equal(again(old), fitted(old))


def test_a_map_refuses_models_that_it_was_not_fitted_for(fitted: EmbeddingMap) -> None:
    fitted.check(old=OLD, new=NEW)
    with pytest.raises(ModelError, match=r"is from old-v1 \(aaaaaaaaaaaa\), not new-v2"):
        fitted.check(old=NEW, new=NEW)
    with pytest.raises(ModelError, match=r"is to new-v2 \(bbbbbbbbbbbb\), not new-v2 \(cccccccccccc\)"):
        fitted.check(old=OLD, new=("new-v2", "c" * 64))


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_told_of_in_one_line(
    fitted: EmbeddingMap, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "map.npz"
    fitted.save(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["cut", "flip"]))
    flipped = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
    path.write_bytes(whole[:at] if change == "cut" else flipped)
    error = None
    try:
        EmbeddingMap.load(path)
    except ModelError as exc:
        error = str(exc)
    assert error is None or ("\n" not in error and str(path) in error)
    assert error is not None or change == "flip", "a bit in an array's header or name may change nothing"


def test_files_of_something_else_are_refused(fitted: EmbeddingMap, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the map"):
        EmbeddingMap.load(tmp_path / "none.npz")
    path = tmp_path / "other.npz"
    np.savez(path, embeddings=np.eye(3))
    with pytest.raises(ModelError, match="not a complete map of embeddings"):
        EmbeddingMap.load(path)
    about = np.frombuffer(json.dumps({"format": "facestream-map/9"}).encode(), np.uint8)
    np.savez(path, about=about, weights=np.eye(2), old_mean=np.eye(2), new_mean=np.eye(2))
    with pytest.raises(ModelError, match="expected the format facestream-map/1, got 'facestream-map/9'"):
        EmbeddingMap.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", bytes(65 * 2**20))
    with pytest.raises(ModelError, match="too large for a map"):
        EmbeddingMap.load(path)
    fitted.save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    np.savez(path, **(parts | {"weights": parts["weights"] * np.float32(np.inf)}))
    with pytest.raises(ModelError, match="weights: expected finite float32"):
        EmbeddingMap.load(path)


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An array's file, whatever its header says of the data."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def test_files_that_would_break_their_reader_are_refused(fitted: EmbeddingMap, tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    fitted.save(path)
    with np.load(path) as arrays:
        parts = dict(arrays)
    about = json.loads(parts["about"].tobytes())
    endless = json.dumps(about | {"pairs": "PAIRS"}).replace('"PAIRS"', "1e400").encode()
    for text in (endless, b"[" * 100_000):
        np.savez(path, **(parts | {"about": np.frombuffer(text, np.uint8)}))
        with pytest.raises(ModelError, match="not a complete map of embeddings"):
            EmbeddingMap.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", npy((1_000_000, 1_000_000, 1_000)))
    with pytest.raises(ModelError, match="not a complete map of embeddings"):
        EmbeddingMap.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.npy", npy((1000,), bytes(4000)))
    packed = bytearray(path.read_bytes())
    packed[60:70] = b"\xff" * 10
    path.write_bytes(packed)
    with pytest.raises(ModelError, match="not a complete map of embeddings"):
        EmbeddingMap.load(path)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("sprung"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "trap.npz", about=np.array([Trap()], object))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.npz", "bare.npz"):
        with pytest.raises(ModelError, match="not a complete map"):
            EmbeddingMap.load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_bad_maps_cannot_be_built() -> None:
    loss = MapLoss(1, 1, 0.1, 1, 1, 1, 0, 1)
    eye, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    for changed, message in [
        ({"old_sha256": "beef"}, "SHA-256"),
        ({"new_model": ""}, "names of models"),
        ({"old_mean": np.zeros(3, np.float32)}, "expected weights"),
        ({"new_mean": np.zeros(2)}, "finite float32"),
    ]:
        fields = {
            "old_model": "a",
            "old_sha256": "a" * 64,
            "new_model": "b",
            "new_sha256": "b" * 64,
            "weights": eye,
            "old_mean": zero,
            "new_mean": zero,
            "pairs": 1,
            "loss": loss,
        }
        with pytest.raises(ValueError, match=message):
            EmbeddingMap(**(fields | changed))
