from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.compilation.store import Accuracy, CompiledEngine, EngineKey, EngineStore, compile_command
from engine.compilation.tolerances import Parity
from engine.errors import ModelError

KEY = EngineKey(
    model="sface",
    model_sha256="0" * 64,
    kind="tensorrt-rtx",
    version="1.7.1",
    targets=("sm86", "sm89"),
    precision="fp16",
    batches=(1, 8, 32),
)
PASSED = Parity(48, 0.9998, 0.9999)
FAILED = Parity(48, 0.5, 0.7, failures=("cosine to the reference is 0.50000, fp16 needs 0.999",))
COMMAND = "facestream compile sface --engine tensorrt-rtx --precision fp16 --batch 1,8,32 --gpu sm86,sm89"


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def publish(
    store: EngineStore,
    key: EngineKey = KEY,
    data: bytes = b"plan",
    *,
    parity: Parity | None = PASSED,
    forced: bool = False,
    accuracies: tuple[Accuracy, ...] = (),
) -> CompiledEngine:
    sha256 = hashlib.sha256(data).hexdigest()
    with store.workshop() as folder:
        (folder / "engine.bin").write_bytes(data)
        return store.publish(CompiledEngine(key, folder, sha256, parity, forced, accuracies))


def names(store: EngineStore) -> set[str]:
    return {path.name for path in store.root.iterdir()}


@pytest.mark.parametrize(
    "parity", [None, PASSED, FAILED, Parity(5, None, None, 0.25)], ids=["none", "passed", "failed", "boxes"]
)
def test_what_is_published_is_found(store: EngineStore, parity: Parity | None) -> None:
    accuracies = (Accuracy("LFW, 6000 pairs", 0.994, 0.9942),)
    published = publish(store, parity=parity, forced=parity is FAILED, accuracies=accuracies)
    assert store.find(KEY) == published
    assert store.engines() == [published]
    assert published.read() == b"plan"
    assert published.folder == store.root / KEY.folder_name
    assert names(store) == {KEY.folder_name}, "the workshop is gone"
    assert {path.name for path in published.folder.iterdir()} == {"engine.bin", "manifest.json"}


def test_records_from_before_calibration_was_noted_are_read(store: EngineStore) -> None:
    published = publish(store)
    manifest = published.folder / "manifest.json"
    raw = json.loads(manifest.read_text())
    del raw["calibration"], raw["faces_sha256"]
    manifest.write_text(json.dumps(raw))
    assert store.find(KEY) == published


@pytest.mark.parametrize(
    ("parity", "forced", "verdict", "may_serve"),
    [
        (None, False, "not yet run", True),
        (PASSED, False, "passed", True),
        (FAILED, False, "failed", False),
        (FAILED, True, "failed, forced", True),
    ],
)
def test_verdicts(parity: Parity | None, forced: bool, verdict: str, may_serve: bool, tmp_path: Path) -> None:
    engine = CompiledEngine(KEY, tmp_path, "0" * 64, parity, forced)
    assert (engine.verdict, engine.may_serve) == (verdict, may_serve)


OTHER_VALUES = {
    "model": "dlib",
    "model_sha256": "1" * 64,
    "kind": "tensorrt",
    "version": "1.7.2",
    "targets": ("sm86",),
    "precision": "bf16",
    "batches": (1, 8, 64),
    "long_side_px": 640,
}


def test_all_of_a_key_counts(store: EngineStore) -> None:
    assert OTHER_VALUES.keys() == {field.name for field in dataclasses.fields(EngineKey)}
    published = publish(store)
    for field, value in OTHER_VALUES.items():
        other = dataclasses.replace(KEY, **{field: value})
        assert other.folder_name != KEY.folder_name, field
        assert store.find(other) is None
    assert store.find(KEY) == published


@given(st.text(max_size=300))
@example("../../escaped")
@example("/etc/engine")
@example(".")
@example("..hidden")
@example("x" * 300)
def test_any_model_has_a_folder_of_its_own_in_the_store(model: str) -> None:
    name = dataclasses.replace(KEY, model=model).folder_name
    assert Path(name).name == name
    assert not name.startswith("."), "folders of that kind are workshops"
    assert len(name.encode()) < 255
    assert name == KEY.folder_name or model != KEY.model


def test_a_record_of_another_engine_in_the_folder_is_not_taken(store: EngineStore) -> None:
    published = publish(store)
    other = dataclasses.replace(KEY, version="9")
    published.folder.rename(store.root / other.folder_name)
    assert store.find(other) is None


def test_publishing_again_replaces(store: EngineStore) -> None:
    first = publish(store, data=b"first")
    second = publish(store, data=b"second")
    assert first.folder == second.folder
    assert [engine.read() for engine in store.engines()] == [b"second"]
    assert names(store) == {KEY.folder_name}


def test_a_workshop_leaves_nothing_behind_when_building_fails(store: EngineStore) -> None:
    published = publish(store)

    def build() -> None:
        with store.workshop() as folder:
            (folder / "engine.bin").write_bytes(b"half")
            (folder / "sub").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert names(store) == {KEY.folder_name}
    assert published.read() == b"plan"


def test_what_is_being_built_is_not_an_engine_yet(store: EngineStore) -> None:
    with store.workshop() as folder:
        CompiledEngine(KEY, folder, "0" * 64).save()
        assert store.engines() == []


DAMAGES = {
    "missing": None,
    "empty": b"",
    "cut": b'{"format": "facestream-engine/1", "key": {',
    "no text": b"\xff\xfe\x00",
    "another thing": b"[]",
    "another format": b'{"format": "facestream-engine/2"}',
    "no key": b'{"format": "facestream-engine/1"}',
    "deep": b"[" * 100_000,
    "endless number": b'{"format": "facestream-engine/1", "forced": false, "sha256": "", "parity": null, '
    b'"accuracies": [{"dataset": "LFW", "accuracy": 1' + b"0" * 400 + b', "reference": 1}], "key": {}}',
}


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_record_is_as_good_as_none(store: EngineStore, content: bytes | None) -> None:
    published = publish(store)
    whole = publish(store, dataclasses.replace(KEY, precision="fp32"))
    manifest = published.folder / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    assert store.engines() == [whole]
    assert store.find(KEY) is None
    with pytest.raises(
        ModelError, match=r"manifest\.json: (cannot read the|not an) engine's manifest"
    ) as failure:
        CompiledEngine.load(published.folder)
    assert "\n" not in str(failure.value)
    assert publish(store) == store.find(KEY), "the next compilation mends it"


@given(st.data())
def test_a_record_with_odd_values_is_refused_or_read(data: st.DataObject) -> None:
    engine = CompiledEngine(KEY, Path("somewhere"), "0" * 64, PASSED, False, (Accuracy("LFW", 0.9, 0.9),))
    raw = {"format": "facestream-engine/1"} | json.loads(json.dumps(dataclasses.asdict(engine), default=str))
    del raw["folder"]
    odd = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()) | st.just({})
    place = data.draw(st.sampled_from([raw, raw["key"], raw["parity"], raw["accuracies"][0]]))
    key = data.draw(st.sampled_from(sorted(place)) | st.just("unknown"))
    place[key] = data.draw(odd)
    with TemporaryDirectory() as folder, contextlib.suppress(ModelError):
        (Path(folder) / "manifest.json").write_text(json.dumps(raw))
        loaded = CompiledEngine.load(Path(folder))
        assert loaded.verdict in {"passed", "failed", "failed, forced", "not yet run"}
        assert str(loaded.parity)
        assert loaded.compile_command()
        assert loaded.key.folder_name


def test_a_damaged_engine_is_refused_with_the_command_that_mends_it(store: EngineStore) -> None:
    published = publish(store)
    for damage in (b"plam", b"plan.", b""):
        published.path.write_bytes(damage)
        with pytest.raises(ModelError, match=r"the engine is damaged \(.*wrong SHA-256") as failure:
            published.read()
        assert str(failure.value).endswith(f"run: {COMMAND} -o {store.root}")
        assert "\n" not in str(failure.value)
    published.path.unlink()
    with pytest.raises(ModelError, match="cannot read the model file"):
        published.read()


def test_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert compile_command(KEY) == COMMAND
    on_a_processor = dataclasses.replace(KEY, kind="openvino", targets=("x86",), precision="int8")
    assert compile_command(on_a_processor) == (
        "facestream compile sface --engine openvino --precision int8 --batch 1,8,32"
    )
    elsewhere = CompiledEngine(KEY, tmp_path / "my engines" / "x", "0" * 64)
    assert elsewhere.compile_command() == f"{COMMAND} -o '{tmp_path}/my engines'"
    assert "--gpu sm120 -o" in elsewhere.compile_command(target="sm120")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = EngineStore()
    assert store.root == tmp_path / "facestream" / "engines"
    assert CompiledEngine(KEY, store.root / "x", "0" * 64).compile_command() == COMMAND


def test_a_store_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            ModelError, match=r"cannot write: .*choose another folder \(-o, or FACESTREAM_ENGINES_DIR\)"
        ) as failure,
        EngineStore(tmp_path / "file").workshop(),
    ):
        pass
    assert "\n" not in str(failure.value)


def test_an_empty_store_has_no_engines(store: EngineStore) -> None:
    assert store.engines() == []
    assert store.find(KEY) is None
