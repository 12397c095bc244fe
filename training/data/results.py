"""A benchmark's result, with everything needed to repeat it, as a JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from engine.atomic_files import write_atomically
from engine.errors import DatasetError, ModelError

_FORMAT: Final = "facestream-bench/1"
_KIND: Final = "format"
_NAMES: Final = {type(None): "null", float: "a number", int: "a whole number", str: "text", bool: "a truth"}


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model that took part.

    Attributes:
        name: Of its package.
        sha256: Of its ONNX file.
        engine: What ran it, with its version: ``openvino 2026.4.1``.
        precision: What it computed in.
        task: ``detector``, ``detector-stage`` or ``embedder``.
    """

    name: str
    sha256: str
    engine: str
    precision: str
    task: str


@dataclass(frozen=True, slots=True)
class PairRecord:
    """A pair, and how alike its sides were found.

    Attributes:
        first: Label: ``Ann_Lee/Ann_Lee_0001.jpg`` of an image, ``Ann_Lee/3`` of a video.
        second: Label.
        same: Whether both show one person.
        fold: Part of the benchmark that it belongs to.
        similarity: Higher is nearer.
        first_image: Path of a picture to show, relative to the data set's folder.
        second_image: Path of a picture to show.
    """

    first: str
    second: str
    same: bool
    fold: int
    similarity: float
    first_image: str | None = None
    second_image: str | None = None


@dataclass(frozen=True, slots=True)
class BenchRun:
    """A benchmark's outcome.

    Attributes:
        benchmark: ``lfw``, ``ytf`` or ``ident``.
        protocol: Every choice that a number depends on, by name.
        models: All that took part.
        data: What it was measured on: the list's name and SHA-256, how many images and pairs, how many are
            missing, skipped, or without a face.
        command: What was typed.
        machine: Where it ran, and which versions.
        seconds: What each stage took: decode, detect, align, embed, score, other.
        figures: By name; text or None where a figure cannot be given.
        folds: For each fold its accuracy, threshold and number of pairs.
        pairs: All pairs, in the order of the list.
        notes: What a reader must know.
        measured_at: When it ended, RFC 3339 in UTC; None where that was not noted.

    Raises:
        ValueError: A number is not finite, so that it cannot be written.
    """

    benchmark: str
    protocol: dict[str, str | int | float | bool | None]
    models: tuple[ModelRecord, ...]
    data: dict[str, str | int]
    command: tuple[str, ...]
    machine: dict[str, str | int]
    seconds: dict[str, float]
    figures: dict[str, float | str | None]
    folds: tuple[dict[str, float], ...]
    pairs: tuple[PairRecord, ...]
    notes: tuple[str, ...]
    measured_at: str | None = None

    def __post_init__(self) -> None:
        named: list[Mapping[str, object]] = [self.protocol, self.seconds, self.figures, *self.folds]
        numbers = [(name, value) for group in named for name, value in group.items()]
        numbers += [(f"{pair.first} and {pair.second}", pair.similarity) for pair in self.pairs]
        for name, value in numbers:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value}")


def now_utc() -> str:
    """This moment for ``BenchRun.measured_at``: ``2026-11-28T09:44:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def save(run: BenchRun, path: Path) -> None:
    """Write a run; readers see the old file or the whole new one.

    Raises:
        DatasetError: The file cannot be written.
    """
    document = {_KIND: _FORMAT, **dataclasses.asdict(run)}
    try:
        write_atomically(path, (json.dumps(document, allow_nan=False, indent=1) + "\n").encode())
    except ModelError as exc:
        raise DatasetError(f"{path}: the result cannot be written; choose another file") from exc


def load(path: Path) -> BenchRun:
    """Read what ``save`` wrote.

    Raises:
        DatasetError: The file cannot be read, or is anything else; the message names the first odd value.
    """
    try:
        document = json.loads(
            path.read_bytes().decode(), parse_constant=_no_number, object_pairs_hook=_without_twins
        )
        if not isinstance(document, dict) or document.pop(_KIND, None) != _FORMAT:
            raise ValueError(f"expected {_KIND} {_FORMAT}")  # noqa: TRY301 (one place says it all)
        run: BenchRun = _parse(document, BenchRun, "")
    except OSError as exc:
        raise DatasetError(f"{path}: cannot read the result: {exc.strerror}; check the path") from exc
    except (ValueError, OverflowError, RecursionError) as exc:
        raise DatasetError(f"{path}: not a benchmark's result ({exc}); give a file that bench wrote") from exc
    return run


def _no_number(text: str) -> float:
    raise ValueError(f"expected finite numbers, got {text}")


def _without_twins(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        raise ValueError("duplicate name in an object")
    return found


def _parse(value: Any, hint: Any, where: str) -> Any:
    """A value of a JSON document as the type that is expected there."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        needed = {each.name for each in dataclasses.fields(hint) if each.default is dataclasses.MISSING}
        if not isinstance(value, dict) or not needed <= value.keys() <= hints.keys():
            raise ValueError(f"{where or 'document'}: expected {', '.join(hints)}")
        return hint(**{name: _parse(each, hints[name], f"{where}/{name}") for name, each in value.items()})
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_parse(each, get_args(hint)[0], f"{where}/{row}") for row, each in enumerate(value))
    if get_origin(hint) is dict and isinstance(value, dict):
        return {name: _parse(each, get_args(hint)[1], f"{where}/{name}") for name, each in value.items()}
    choices = get_args(hint) if get_origin(hint) in {types.UnionType, Union} else (hint,)
    # A whole number is a number, but a truth value is not a whole number.
    if type(value) in choices or (type(value) is int and float in choices):
        if type(value) is int and int not in choices:
            return float(value)
        return value
    wanted = " or ".join(_NAMES.get(choice, "a list or object") for choice in choices)
    raise ValueError(f"{where}: expected {wanted}, got {type(value).__name__}")
