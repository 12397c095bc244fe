"""The data of events in Avro 1.11, binary encoding. The only file that imports ``fastavro``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, to_parsing_canonical_form

from stream.events.fields import NOUNS, Noun
from stream.events.schema_files import releases, schema_text

MAX_SCHEMA_BYTES: Final = 1_000_000

_WRITTEN: Final = {"float32-b64": "FLOAT32", "int8-b64": "INT8"}
_READ: Final = {symbol: encoding for encoding, symbol in _WRITTEN.items()}
_PRIMITIVES: Final = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
_READING_ERRORS: Final = (
    *(EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, RecursionError),
    SchemaResolutionError,
)


def write_avro(noun: Noun, fields: Mapping[str, Any]) -> bytes:
    """An event's data in Avro.

    Args:
        noun: What the event is about.
        fields: As ``stream.events.fields.event_fields`` gives them.

    Raises:
        ValueError: Avro cannot hold a value.
    """
    record = dict(fields)
    if (embedding := fields.get("embedding")) is not None:
        record["embedding"] = embedding | {"encoding": _WRITTEN[embedding["encoding"]]}
    body = BytesIO()
    try:
        schemaless_writer(body, _parsed(schema_text(noun, "avro")), record)
    except (OverflowError, TypeError) as exc:
        raise ValueError(f"expected values that Avro can hold, got none ({exc})") from exc
    return body.getvalue()


def read_avro(noun: Noun, writer_schema: str, body: bytes) -> dict[str, Any]:
    """Read an event's data; trusts nothing.

    What only the writer's schema has is skipped; what ours has and the writer's has not takes
    its default (Avro 1.11, section "Schema Resolution").

    Args:
        noun: What the event says it is about.
        writer_schema: The schema that the data was written with, JSON.
        body: The data, without framing.

    Returns:
        Fields as ``stream.events.fields.event_fields`` gives them, their values unchecked.

    Raises:
        ValueError: It is not what the schema says.
    """
    schema = _parsed(writer_schema)
    if (name := schema.get("name")) != record_name(noun):
        raise ValueError(f"expected Avro of {record_name(noun)}, got the schema of {str(name)[:80]!r}")
    stream, own = BytesIO(body), _parsed(schema_text(noun, "avro"))
    try:
        if schema != own:  # fastavro passes over a foreign list without seeing where the data ends: forever
            schemaless_reader(BytesIO(body), schema, None)
        fields = schemaless_reader(stream, schema, own)
    except _READING_ERRORS as exc:
        raise ValueError(f"not Avro of {record_name(noun)} ({type(exc).__name__})") from exc
    if stream.tell() != len(body):
        raise ValueError(f"not Avro of {record_name(noun)}: {len(body) - stream.tell()} bytes too many")
    if not isinstance(fields, dict):
        raise ValueError(f"not Avro of {record_name(noun)}: no record")  # noqa: TRY004 - bytes from outside
    if (embedding := fields.get("embedding")) is not None:
        embedding["encoding"] = _READ[embedding["encoding"]]
    return fields


def record_name(noun: Noun) -> str:
    """Full name of the record of a noun."""
    return f"facestream.v1.{noun.capitalize()}"


def schema_id(schema: str) -> int:
    """The id of a schema where no registry gave it one: of its own content, so it never means another.

    Args:
        schema: JSON.

    Returns:
        31 bits of the SHA-256 of its parsing canonical form.

    Raises:
        ValueError: It is no Avro schema.
    """
    canonical = to_parsing_canonical_form(_parsed(schema))
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4]) & 0x7FFF_FFFF


@lru_cache(maxsize=1)
def bundled_schemas() -> Mapping[int, str]:
    """Every Avro schema that this package knows, also of earlier releases, by ``schema_id``."""
    texts = [schema_text(noun, "avro", release=each) for noun in NOUNS for each in (*releases(), None)]
    return {schema_id(text): text for text in texts}


@lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MAX_SCHEMA_BYTES:
        raise ValueError(f"expected an Avro schema of at most {MAX_SCHEMA_BYTES} bytes, got {len(text)}")
    load: Callable[[str], Any] = json.loads
    try:
        parsed = parse_schema(load(text))
    except (SchemaParseException, UnknownType, ValueError, *_READING_ERRORS, AttributeError) as exc:
        raise ValueError(f"expected an Avro schema, got none ({type(exc).__name__})") from exc
    if not isinstance(parsed, dict):
        raise ValueError("expected the Avro schema of a record, got another")  # noqa: TRY004 - from outside
    _least_bytes(parsed)
    return parsed


def _least_bytes(node: Any) -> int:  # noqa: PLR0911 - one for each sort
    """How many bytes a value has at least; 1 stands for more.

    Raises:
        ValueError: A few bytes of this schema could be read forever: a list of values without bytes, or a
            type within itself.
    """
    match node:
        case str():
            if node not in _PRIMITIVES:
                raise ValueError("expected an Avro schema that names no type twice")
            return node != "null"
        case list():
            return max(1, *map(_least_bytes, node))
        case {"type": "record" | "error", "fields": fields}:
            return sum(_least_bytes(each["type"]) for each in fields)
        case {"type": "array", "items": items} | {"type": "map", "values": items}:
            if not _least_bytes(items):
                raise ValueError("expected an Avro schema without lists of nothing")
            return 1
        case {"type": "enum"}:
            return 1
        case {"type": "fixed", "size": int(size)} if size >= 0:
            return size
        case {"type": inner}:
            return _least_bytes(inner)
    raise ValueError("expected an Avro schema, got none")
