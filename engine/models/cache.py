"""Cache models that are converted from other files, so that conversion happens once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import onnx

from engine import home_folders
from engine.atomic_files import write_atomically
from engine.errors import ModelError
from engine.models.package import ModelPackage

log = logging.getLogger(f"facestream.{__name__}")

_WITHIN: Final = "models"
_VERSION: Final = 2
"""Part of the names in the cache; to be raised when models are made in another way."""


def cached_package(
    folder: Path | None, stem: str, fields: Mapping[str, Any], make: Callable[[], onnx.ModelProto]
) -> ModelPackage:
    """The package of that name in a folder; created if missing, or damaged.

    Several processes may do so at the same time.

    Args:
        folder: The cache; None for that of ``engine.home_folders``.
        stem: Beginning of the files' names; says what the model is made from, by hash.
        fields: Of the ``ModelPackage``, without ``onnx_path`` and ``sha256``. A package with other fields is
            another package.
        make: Makes the model.

    Raises:
        ConfigError: No folder for caches can be written.
        ModelError: ``make`` says so, or the cache cannot be written.
    """
    described = hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()
    stem = f"{stem}-v{_VERSION}-{described[:8]}"
    for place in _places() if folder is None else [folder]:
        manifest = place / f"{stem}.json"
        if manifest.is_file():
            try:
                return ModelPackage.load(manifest)
            except ModelError:
                pass  # damaged: made again below
    folder = home_folders.writable("cache") / _WITHIN if folder is None else folder
    log.info("converting the model %s, once", fields["name"])
    data = make().SerializeToString()
    sha256 = hashlib.sha256(data).hexdigest()
    # The name holds the content's hash, so that a manifest never meets another process's file.
    path = folder / f"{stem}-{sha256[:16]}.onnx"
    package = ModelPackage(**dict(fields) | {"onnx_path": path, "sha256": sha256})
    try:
        write_atomically(path, data)
        package.save(folder / f"{stem}.json")
    except ModelError as exc:
        cache = home_folders.KINDS["cache"]
        raise ModelError(f"{exc} ({cache.variable}, or facestream {cache.option})") from exc
    return package


def _places() -> list[Path]:
    return [cache / _WITHIN for cache in home_folders.readable("cache")]
