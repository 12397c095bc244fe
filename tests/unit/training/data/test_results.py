from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import DatasetError
from training.data.results import BenchRun, ModelRecord, PairRecord, load, save

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(max_size=8)
RUNS = st.builds(
    BenchRun,
    benchmark=WORDS,
    protocol=st.dictionaries(WORDS, st.one_of(WORDS, st.integers(), NUMBERS, st.booleans(), st.none())),
    models=st.lists(st.builds(ModelRecord, *[WORDS] * 5), max_size=2).map(tuple),
    data=st.dictionaries(WORDS, st.one_of(WORDS, st.integers())),
    command=st.lists(WORDS, max_size=3).map(tuple),
    machine=st.dictionaries(WORDS, st.one_of(WORDS, st.integers())),
    seconds=st.dictionaries(WORDS, NUMBERS),
    figures=st.dictionaries(WORDS, st.one_of(NUMBERS, WORDS, st.none())),
    folds=st.lists(st.dictionaries(WORDS, NUMBERS), max_size=2).map(tuple),
    pairs=st.lists(
        st.builds(
            PairRecord,
            WORDS,
            WORDS,
            st.booleans(),
            st.integers(),
            NUMBERS,
            st.none() | WORDS,
            st.none() | WORDS,
        ),
        max_size=3,
    ).map(tuple),
    notes=st.lists(WORDS, max_size=2).map(tuple),
    measured_at=st.none() | WORDS,
)
SMALL = BenchRun(
    benchmark="lfw",
    protocol={"flip": True},
    models=(ModelRecord("sface", "00", "openvino 1", "fp32", "embedder"),),
    data={"pairs": 1},
    command=("facestream", "bench", "lfw"),
    machine={"cores": 2},
    seconds={"embed": 1.5},
    figures={"accuracy": 0.5, "tar@far=0.001": None},
    folds=({"accuracy": 0.5},),
    pairs=(PairRecord("a", "b", True, 1, 0.25, "a.jpg"),),
    notes=("small",),
)


@settings(max_examples=60)
@given(run=RUNS)
def test_what_was_saved_is_loaded(run: BenchRun, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(run, path)
    again = load(path)
    assert again == run
    assert repr(again) == repr(run), "also the kinds of numbers, which compare equal"


def changed(**fields: object) -> str:
    document = {"format": "facestream-bench/1", **dataclasses.asdict(SMALL)} | fields
    return json.dumps({name: value for name, value in document.items() if value != "gone"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("[]", "expected format facestream-bench/1"),
        (changed(format="facestream-bench/2"), "expected format facestream-bench/1"),
        (changed(notes="gone"), "document: expected benchmark, protocol"),
        (changed(more=1), "document: expected benchmark, protocol"),
        (changed(benchmark=3), "/benchmark: expected text, got int"),
        (changed(machine={"cores": True}), "/machine/cores: expected text or a whole number, got bool"),
        (changed(machine={"cores": 2.5}), "/machine/cores: expected text or a whole number, got float"),
        (changed(seconds={"embed": "1"}), "/seconds/embed: expected a number, got str"),
        (changed(seconds=[]), "/seconds: expected a list or object, got list"),
        (changed(pairs=[{"first": "a"}]), "/pairs/0: expected first, second, same"),
        (
            changed(pairs=[dataclasses.asdict(SMALL.pairs[0]) | {"same": 1}]),
            "/pairs/0/same: expected a truth",
        ),
        (changed(figures={"auc": [1]}), "/figures/auc: expected a number or text or null, got list"),
        (changed().replace("1.5", "NaN"), "expected finite numbers, got NaN"),
        (changed().replace("1.5", "1" + "0" * 400), "not a benchmark's result"),
        (changed().replace("1.5", "1e999"), "embed: expected a finite number, got inf"),
        (changed().replace('"cores": 2', '"cores": 2, "cores": 2'), "duplicate name"),
        ("[" * 100_000, "not a benchmark's result"),
        ("\udcff", "not a benchmark's result"),
    ],
)
def test_anything_else_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match="not a benchmark's result") as caught:
        load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_result_that_does_not_say_when_it_was_measured_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(changed(measured_at="gone"))
    assert load(path) == SMALL


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(changed(seconds={"embed": 2}))
    assert repr(load(path).seconds) == "{'embed': 2.0}"


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot read the result: No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written; choose another file"):
        save(SMALL, tmp_path / "file" / "run.json")


def test_numbers_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(ValueError, match="auc: expected a finite number, got nan"):
        dataclasses.replace(SMALL, figures={"auc": float("nan")})
    with pytest.raises(ValueError, match="a and b: expected a finite number, got inf"):
        dataclasses.replace(SMALL, pairs=(dataclasses.replace(SMALL.pairs[0], similarity=float("inf")),))
