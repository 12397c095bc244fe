"""Events as Kafka records in JSON, Avro or Protobuf, and back, whatever format they came in.

The attributes are headers in every format (CloudEvents' Kafka binding, binary mode); ``content-type`` says
how the value is written. Avro and Protobuf follow Confluent's framing: a zero byte, the schema's id in
four bytes, big-endian, for Protobuf the indexes of the message within the file, then the body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from stream.common.varint import decode_varint
from stream.events.avro import bundled_schemas, read_avro, write_avro
from stream.events.avro import schema_id as avro_schema_id
from stream.events.cloudevents import from_cloudevent, json_ready
from stream.events.event_types import Event
from stream.events.fields import NOUNS, Noun, event_fields, noun_of
from stream.events.json_encoder import quick_binary
from stream.events.kafka_record import BinaryMessage, binary_message, read_attributes
from stream.events.parsing import MAX_EVENT_BYTES, EmbeddingEncoding, load_object
from stream.events.protobuf import read_protobuf, write_protobuf
from stream.events.protobuf import schema_id as protobuf_schema_id
from stream.events.schema_files import schema_text

EventFormat: TypeAlias = Literal["json", "avro", "protobuf"]
"""How the data of events is written in Kafka."""

Encoder: TypeAlias = Callable[[Event], BinaryMessage]
SchemaLookup: TypeAlias = Callable[[int], str]
"""The Avro schema of an id, JSON; ValueError when there is none."""

AVRO: Final = "application/avro"
PROTOBUF: Final = "application/protobuf"

_MAGIC: Final = 0
_FRAME: Final = struct.Struct(">BI")
_FIRST_MESSAGE: Final = b"\0"  # short for the indexes [0]
_SCHEMA_PREFIX, _SCHEMA_SUFFIX = "urn:facestream:schema:", ".v1"


def encoder(
    event_format: EventFormat = "json",
    encoding: EmbeddingEncoding = "float32-b64",
    *,
    schema_ids: Mapping[Noun, int] | None = None,
) -> Encoder:
    """What writes events as Kafka records.

    Args:
        event_format: How the data is written.
        encoding: How embeddings are written; Avro and Protobuf hold the bytes themselves, without base64.
        schema_ids: Ids of the schemas, 0 to 2**32 - 1, from a registry, say; those of the schemas' content
            when not given. JSON has none.

    Returns:
        A function that raises ValueError for an event that cannot be written.

    Raises:
        ValueError: An id is missing or out of range.
    """
    if event_format == "json":
        return partial(quick_binary, encoding=encoding)
    ids = bundled_ids(event_format) if schema_ids is None else schema_ids
    if missing := [noun for noun in NOUNS if not 0 <= ids.get(noun, -1) < 1 << 32]:
        raise ValueError(f"expected a schema id in 0..2**32 - 1 for each noun, got none for {missing}")
    frames = {noun: _FRAME.pack(_MAGIC, ids[noun]) for noun in NOUNS}
    write = _avro if event_format == "avro" else _protobuf
    return partial(write, encoding=encoding, frames=frames)


def decode(
    headers: Iterable[tuple[str, bytes]], value: bytes | None, *, lookup: SchemaLookup | None = None
) -> Event:
    """Read a Kafka record in any format; trusts nothing.

    Args:
        headers: Of the record; those that are not CloudEvents' are skipped.
        value: Of the record.
        lookup: Finds Avro schemas that are not facestream's own, such as ``SchemaRegistry.schema``. Without
            one, only ids of the bundled schemas are known.

    Raises:
        ValueError: It is not an event of facestream, version 1; says what is wrong in one line.
        SinkError: The lookup's registry cannot be reached; the record may be good.
    """
    attributes = read_attributes(headers)
    content_type = attributes.get("datacontenttype")
    if value is None:
        raise _refusal("a record without a value")
    if len(value) > MAX_EVENT_BYTES:
        raise _refusal(f"longer than {MAX_EVENT_BYTES} bytes")
    if content_type not in (AVRO, PROTOBUF):
        return from_cloudevent({**attributes, "data": load_object(value)})
    noun = _noun_of_schema(attributes.get("dataschema", ""))
    try:
        fields = _read_avro(noun, value, lookup) if content_type == AVRO else _read_protobuf(noun, value)
        data = json_ready(fields)
    except ValueError as exc:
        raise _refusal(str(exc)) from exc
    return from_cloudevent({**attributes, "datacontenttype": "application/json", "data": data})


def bundled_ids(event_format: Literal["avro", "protobuf"]) -> dict[Noun, int]:
    """The ids of the bundled schemas where no registry gave them any."""
    identify = avro_schema_id if event_format == "avro" else protobuf_schema_id
    return {noun: identify(schema_text(noun, event_format)) for noun in NOUNS}


def read_frame(value: bytes) -> tuple[int, bytes]:
    """Take Confluent's framing off.

    Args:
        value: Of a record.

    Returns:
        The schema's id, and what follows it.

    Raises:
        ValueError: There is no such framing.
    """
    if len(value) < _FRAME.size or value[0] != _MAGIC:
        raise ValueError("expected a zero byte and four of a schema's id before the data")
    return _FRAME.unpack_from(value)[1], value[_FRAME.size :]


def read_message_indexes(raw: bytes) -> tuple[list[int], bytes]:
    """Take the indexes of the message within its file off, as Confluent's Protobuf framing has them.

    A count and so many indexes, each a zigzag varint; a count of 0 is short for the indexes [0].

    Args:
        raw: What follows the schema's id.

    Returns:
        The indexes, and the body.

    Raises:
        ValueError: They are cut off, or more than facestream's schemas could need.
    """
    count, at = _read_index(raw, 0)
    if not 0 <= count <= 8:
        raise ValueError(f"expected up to 8 message indexes, got {count}")
    indexes = []
    for _ in range(count):
        index, at = _read_index(raw, at)
        indexes.append(index)
    return indexes or [0], raw[at:]


def _read_index(raw: bytes, at: int) -> tuple[int, int]:
    try:
        return decode_varint(raw, at)
    except ValueError as exc:
        raise ValueError("expected message indexes before the data") from exc


# Writing.


def _avro(event: Event, *, encoding: EmbeddingEncoding, frames: Mapping[Noun, bytes]) -> BinaryMessage:
    noun = noun_of(event)
    return binary_message(event, AVRO, frames[noun] + write_avro(noun, event_fields(event, encoding)))


def _protobuf(event: Event, *, encoding: EmbeddingEncoding, frames: Mapping[Noun, bytes]) -> BinaryMessage:
    noun = noun_of(event)
    body = write_protobuf(noun, event_fields(event, encoding))
    return binary_message(event, PROTOBUF, frames[noun] + _FIRST_MESSAGE + body)


# Reading.


def _read_avro(noun: Noun, value: bytes, lookup: SchemaLookup | None) -> dict[str, Any]:
    number, body = read_frame(value)
    schema = bundled_schemas().get(number)
    if schema is None:
        if lookup is None:
            raise ValueError(f"Avro schema {number} is not one of facestream's own; give its registry")
        schema = lookup(number)
    return read_avro(noun, schema, body)


def _read_protobuf(noun: Noun, value: bytes) -> dict[str, Any]:
    indexes, body = read_message_indexes(read_frame(value)[1])
    if indexes != [0]:
        raise ValueError(f"expected the first message of the schema, got {indexes}")
    return read_protobuf(noun, body)


def _noun_of_schema(urn: str) -> Noun:
    name = urn.removeprefix(_SCHEMA_PREFIX).removesuffix(_SCHEMA_SUFFIX)
    for noun in NOUNS:
        if name == noun:
            return noun
    raise _refusal("dataschema: expected urn:facestream:schema:track.v1, camera.v1 or identity.v1")


def _refusal(reason: str) -> ValueError:
    return ValueError(f"not an event of facestream: {reason}")
