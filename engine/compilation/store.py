"""Compiled engines on disk: what each was built from and for, and how close it is to its model."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from engine import home_folders
from engine.atomic_files import write_atomically
from engine.compilation.staging import open_workshop
from engine.compilation.tolerances import Parity
from engine.errors import ModelError
from engine.models.package import read_verified

CompiledKind: TypeAlias = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]

ENGINE_FILE: Final = "engine.bin"
MANIFEST_FILE: Final = "manifest.json"
_FORMAT: Final = "facestream-engine/1"
_NOT_IN_A_FOLDER_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What decides whether two compiled engines are the same.

    Attributes:
        model: Name of the model package.
        model_sha256: Of its ONNX file.
        kind: The library that runs it.
        version: Of that library.
        targets: What it was built for: GPU architectures such as ``sm86``, or the processor's key.
        precision: What it computes in.
        batches: Least, usual and greatest number of images in one call.
        long_side_px: Greatest side of an image, for models that take any size; None for others.
    """

    model: str
    model_sha256: str
    kind: CompiledKind
    version: str
    targets: tuple[str, ...]
    precision: str
    batches: tuple[int, int, int]
    long_side_px: int | None = None

    @property
    def folder_name(self) -> str:
        """A name that people can read and no other key has."""
        digest = hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()
        model = _NOT_IN_A_FOLDER_NAME.sub("_", self.model)[:_LONGEST_NAME].lstrip(".") or "model"
        return f"{model}.{self.kind}.{self.precision}.{digest[:12]}"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Verification accuracy of an engine on a data set, beside that of the reference.

    Attributes:
        dataset: What was measured, with its number of pairs.
        accuracy: 0..1.
        reference: Accuracy of ONNX Runtime in fp32, 0..1.
    """

    dataset: str
    accuracy: float
    reference: float


@dataclass(frozen=True, slots=True)
class CompiledEngine:
    """A compiled engine and its record.

    Attributes:
        key: What it is.
        folder: Where it is.
        sha256: Of the engine's file.
        parity: What the gate found; None where it has not yet run.
        forced: Published although the gate failed.
        accuracies: On data sets that were given.
        calibration: How the ranges of int8 were found; None for other precisions, and in older records.
        faces_sha256: Of the folder of faces that int8 was calibrated on; None for the portrait, for other
            precisions, and in older records.
    """

    key: EngineKey
    folder: Path
    sha256: str
    parity: Parity | None = None
    forced: bool = False
    accuracies: tuple[Accuracy, ...] = ()
    calibration: str | None = None
    faces_sha256: str | None = None

    @property
    def path(self) -> Path:
        """The engine's file."""
        return self.folder / ENGINE_FILE

    @property
    def verdict(self) -> str:
        """``passed``, ``failed``, ``failed, forced`` or ``not yet run``."""
        if self.parity is None:
            return "not yet run"
        if self.parity.passed:
            return "passed"
        return "failed, forced" if self.forced else "failed"

    @property
    def may_serve(self) -> bool:
        """Whether the gate has not refused it, or was overruled."""
        return self.parity is None or self.parity.passed or self.forced

    def compile_command(self, *, target: str | None = None) -> str:
        """The command that rebuilds it, in the same store.

        Args:
            target: What to make it for, instead of what it was made for.
        """
        key = self.key if target is None else dataclasses.replace(self.key, targets=(target,))
        command = compile_command(key)
        root = self.folder.parent
        return (
            command if root == home_folders.existing("engines") else f"{command} -o {shlex.quote(str(root))}"
        )

    def read(self) -> bytes:
        """The engine's bytes.

        Raises:
            ModelError: The file cannot be read or is damaged.
        """
        try:
            return read_verified(self.path, self.sha256)
        except ModelError as exc:
            raise ModelError(
                f"{self.folder.name}: the engine is damaged ({exc}); run: {self.compile_command()}"
            ) from exc

    def save(self) -> None:
        """Write the record beside the engine.

        Raises:
            ModelError: It cannot be written.
        """
        raw = dataclasses.asdict(self) | {"format": _FORMAT}
        del raw["folder"]
        write_atomically(self.folder / MANIFEST_FILE, (json.dumps(raw, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> CompiledEngine:
        """Read the record of a compiled engine.

        Raises:
            ModelError: There is none, or it makes no sense.
        """
        path = folder / MANIFEST_FILE
        try:
            return cls(**_engine_fields(json.loads(path.read_bytes())), folder=folder)
        except OSError as exc:
            raise ModelError(f"{path}: cannot read the engine's manifest: {exc.strerror}") from exc
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise ModelError(f"{path}: not an engine's manifest: {exc}; compile it again") from exc


def _engine_fields(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or raw.pop("format", None) != _FORMAT:
        raise ValueError(f"expected an object with the format {_FORMAT!r}")
    key, parity = raw["key"], raw["parity"]
    _check_kinds(raw, key, parity or {}, *raw["accuracies"])
    key |= {"targets": _tuple_of(str, key["targets"]), "batches": _tuple_of(int, key["batches"])}
    if len(key["batches"]) != 3:
        raise ValueError(f"batches: expected three, got {key['batches']}")
    if parity is not None:
        parity = Parity(**parity | {"failures": _tuple_of(str, parity["failures"])})
    accuracies = tuple(Accuracy(**each) for each in raw["accuracies"])
    return raw | {"key": EngineKey(**key), "parity": parity, "accuracies": accuracies}


_KINDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("model", "model_sha256", "kind", "version", "precision", "sha256", "dataset"), str),
    **dict.fromkeys(("least_cosine", "mean_cosine", "most_box_error_px"), float | int | None),
    **dict.fromkeys(("accuracy", "reference"), float | int),
    **dict.fromkeys(("calibration", "faces_sha256"), str | None),
    "samples": int,
    "long_side_px": int | None,
    "forced": bool,
}
"""Types of values in a record, by name."""
_MOST: Final = 2**63


def _check_kinds(*objects: Any) -> None:
    for each in objects:
        if not isinstance(each, dict):
            raise TypeError(f"expected an object, got {json.dumps(each)}")
        for name, value in each.items():
            is_odd = isinstance(value, int) and abs(value) > _MOST
            if is_odd or not isinstance(value, _KINDS.get(name, object)):
                raise TypeError(f"{name}: got {json.dumps(value)[:80]}")


def _tuple_of(kind: type, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"expected a list of {kind.__name__}, got {json.dumps(values)}")
    return tuple(values)


class EngineStore:
    """A folder of compiled engines.

    Args:
        root: The folder; by default that of ``engine.home_folders``. It is made with the first engine.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home_folders.existing("engines")

    def engines(self) -> list[CompiledEngine]:
        """All engines whose record can be read, by folder name."""
        found = []
        for path in sorted(self.root.glob(f"[!.]*/{MANIFEST_FILE}")):
            try:
                found.append(CompiledEngine.load(path.parent))
            except ModelError:
                continue  # damaged: treated as missing, and rebuilt by the next compilation
        return found

    def find(self, key: EngineKey) -> CompiledEngine | None:
        """The engine of exactly this key, or None."""
        folder = self.root / key.folder_name
        try:
            engine = CompiledEngine.load(folder)
        except ModelError:
            return None
        return engine if engine.key == key else None

    @contextmanager
    def workshop(self) -> Iterator[Path]:
        """A new folder beside the engines in which one is built; what is left in it goes at the end.

        What killed builders left goes before.

        Raises:
            ModelError: The folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(open_workshop(self.root))
            except OSError as exc:
                raise _unwritable(self.root, exc) from exc
            yield folder

    def publish(self, engine: CompiledEngine) -> CompiledEngine:
        """Move an engine from its workshop to its place; one of the same key makes way.

        Raises:
            ModelError: It cannot be moved.
        """
        engine.save()
        place = self.root / engine.key.folder_name
        try:
            with open_workshop(self.root) as waste:
                if place.exists():
                    place.rename(waste / place.name)
                engine.folder.rename(place)
        except OSError as exc:
            raise _unwritable(place, exc) from exc
        return dataclasses.replace(engine, folder=place)


def _unwritable(path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{path}: cannot write: {error.strerror}; choose another folder (-o, or "
        f"{home_folders.KINDS['engines'].variable})"
    )


def compile_command(key: EngineKey) -> str:
    """The command that rebuilds an engine."""
    batches = ",".join(map(str, key.batches))
    words = ["facestream", "compile", key.model, "--engine", key.kind, "--precision", key.precision]
    words += ["--batch", batches]
    if key.kind == "tensorrt-rtx":
        words += ["--gpu", ",".join(key.targets)]
    return shlex.join(words)
