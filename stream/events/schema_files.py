"""The schemas of events, as files of this package: one a noun in each language, and every release's."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final, Literal, TypeAlias

from stream.events.fields import Noun

SchemaKind: TypeAlias = Literal["json", "avro", "protobuf"]
"""The languages that schemas are written in."""

_ENDINGS: Final[dict[SchemaKind, str]] = {"json": "json", "avro": "avsc", "protobuf": "proto"}
_FOLDER: Final = files("stream.events") / "schemas"


@cache
def releases() -> tuple[str, ...]:
    """The released versions whose schemas are kept, the oldest first."""
    names = [folder.name for folder in (_FOLDER / "released").iterdir() if folder.is_dir()]
    return tuple(sorted(names, key=lambda name: [int(part) for part in name.split(".")]))


@cache
def schema_text(noun: Noun | Literal["event"], kind: SchemaKind, *, release: str | None = None) -> str:
    """A schema's text.

    Args:
        noun: What the events are about; ``event`` is the envelope of JSON events.
        kind: Its language.
        release: One of ``releases()``; as it is now when not given.

    Raises:
        ValueError: There is no such schema.
    """
    folder = _FOLDER if release is None else _FOLDER / "released" / release
    try:
        return (folder / f"{noun}.v1.{_ENDINGS[kind]}").read_text("utf-8")
    except OSError as exc:
        raise ValueError(f"expected a schema that is there, got {noun} in {kind}") from exc
