from __future__ import annotations

import struct
from typing import Any

import pytest
from event_checks import camera_event, face_event, identity_event
from event_strategies import any_events
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.events.avro import bundled_schemas
from stream.events.cloudevents import to_json
from stream.events.codecs import bundled_ids, decode, encoder, read_frame, read_message_indexes
from stream.events.event_types import Event
from stream.events.kafka_record import BinaryMessage, to_binary
from stream.events.parsing import MAX_EVENT_BYTES
from stream.events.schema_files import schema_text

FORMATS: tuple[Any, ...] = ("avro", "protobuf")
some = settings(max_examples=60)


def with_value(message: BinaryMessage, value: bytes) -> BinaryMessage:
    return BinaryMessage(message.key, value, message.headers)


def read(message: BinaryMessage) -> Event:
    return decode(message.headers, message.value)


@pytest.mark.parametrize("event_format", FORMATS)
@pytest.mark.parametrize("encoding", ["float32-b64", "int8-b64"])
@some
@given(event=any_events)
def test_every_format_tells_exactly_what_json_tells(event_format: Any, encoding: Any, event: Event):
    message = encoder(event_format, encoding)(event)
    plain = to_binary(event, encoding=encoding)
    assert to_json(read(message)) == to_json(read(plain))
    assert message.key == plain.key
    headers, plain_headers = dict(message.headers), dict(plain.headers)
    assert headers.pop("content-type") == f"application/{event_format}".encode()
    assert plain_headers.pop("content-type") == b"application/json"
    assert headers == plain_headers


def test_json_stays_as_it_was_byte_for_byte():
    for event in (face_event(), camera_event(), identity_event()):
        assert encoder()(event) == to_binary(event)


@pytest.mark.parametrize("event_format", FORMATS)
def test_an_int8_embedding_takes_128_bytes_in_the_record(event_format: Any):
    exact = encoder(event_format, "float32-b64")(face_event()).value
    small = encoder(event_format, "int8-b64")(face_event()).value
    assert len(exact) - len(small) in range(384 - 2, 384 + 3)  # lengths and the scale take a byte or two
    assert len(small) < len(to_binary(face_event(), encoding="int8-b64").value) * 0.6


def test_confluents_framing_stands_before_the_data():
    ids: Any = {"track": 1, "camera": 0xDEADBEEF, "identity": 3}
    value = encoder("avro", schema_ids=ids)(camera_event()).value
    assert value[:5] == bytes.fromhex("00deadbeef")
    assert value[5:] == b"\x08door\x12door-7f3a\x02\x2ertsp://10.0.0.7/stream1\x20no frame for 3 s\0"
    value = encoder("protobuf", schema_ids=ids)(camera_event()).value
    assert value[:6] == bytes.fromhex("00deadbeef00")
    assert (
        value[6:]
        == b"\x0a\x04door\x12\x09door-7f3a\x18\x01\x22\x17rtsp://10.0.0.7/stream1\x2a\x10no frame for 3 s"
    )


@pytest.mark.parametrize(("raw", "indexes"), [(b"\0", [0]), (b"\2\0", [0]), (b"\4\2\1", [1, -1])])
def test_message_indexes_are_zigzag_varints_behind_a_count(raw: bytes, indexes: list[int]):
    assert read_message_indexes(raw + b"body") == (indexes, b"body")


def test_the_long_form_of_the_first_message_is_read_too():
    message = encoder("protobuf")(camera_event())
    assert read(with_value(message, message.value[:5] + b"\2\0" + message.value[6:])) == camera_event()


@pytest.mark.parametrize("event_format", FORMATS)
def test_an_id_for_every_schema_is_needed(event_format: Any):
    for ids in ({"track": 1, "camera": 2}, {"track": 1, "camera": 2, "identity": 1 << 32}):
        with pytest.raises(ValueError, match=r"for each noun.*identity"):
            encoder(event_format, schema_ids=ids)


def test_bundled_ids_differ_and_are_known():
    ids = bundled_ids("avro")
    assert len(set(ids.values())) == 3
    assert set(ids.values()) <= set(bundled_schemas())


@pytest.mark.parametrize("event_format", FORMATS)
@given(body=st.binary(max_size=300))
def test_no_bytes_bring_the_reader_down(event_format: Any, body: bytes):
    for event in (face_event(), identity_event()):
        message = encoder(event_format)(event)
        for value in (body, message.value[:5] + body, message.value[:6] + body):
            with pytest.raises(ValueError, match=r"^not an event of facestream: ") as caught:
                read(with_value(message, value))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("event_format", FORMATS)
@settings(max_examples=300)
@given(data=st.data())
def test_spoilt_records_are_refused_or_read_as_events(event_format: Any, data: st.DataObject):
    message = encoder(event_format)(data.draw(st.sampled_from([face_event(), identity_event()])))
    value = bytearray(message.value)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        match data.draw(st.sampled_from(["set", "cut", "add"])):
            case "set":
                value[at] = data.draw(st.integers(0, 255))
            case "cut":
                del value[at : at + data.draw(st.integers(1, 9))]
            case _:
                value[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        if not value:
            break
    try:
        event = read(with_value(message, bytes(value)))
    except ValueError as exc:
        assert str(exc).startswith("not an event of facestream: ")  # noqa: PT017 - either outcome is right
    else:
        to_json(event)


@pytest.mark.parametrize(
    ("event_format", "spoil", "reason"),
    [
        ("avro", lambda value: value[:4], "four of a schema's id"),
        ("avro", lambda value: b"\1" + value[1:], "zero byte"),
        ("avro", lambda value: value + b"\0", "1 bytes too many"),
        ("avro", lambda value: value[:-1], "not Avro"),
        ("avro", lambda value: b"\0" + struct.pack(">I", 7) + value[5:], "7 is not one of facestream's own"),
        ("protobuf", lambda value: value[:5], "message indexes"),
        (
            "protobuf",
            lambda value: value[:5] + b"\2\2" + value[6:],
            r"first message.*, got \[1\]",
        ),
        ("protobuf", lambda value: value[:5] + b"\xfe\1" + value[6:], "up to 8 message indexes"),
        ("protobuf", lambda value: value[:-1], "not Protobuf"),
        ("avro", lambda _: b"\0" * (MAX_EVENT_BYTES + 1), "longer than"),
        ("avro", lambda _: None, "without a value"),
    ],
)
def test_what_is_wrong_is_said(event_format: Any, spoil: Any, reason: str):
    message = encoder(event_format)(face_event())
    with pytest.raises(ValueError, match=reason):
        decode(message.headers, spoil(message.value))


@pytest.mark.parametrize("event_format", FORMATS)
def test_a_schema_of_another_noun_is_refused(event_format: Any):
    track, camera = (encoder(event_format)(event) for event in (face_event(), camera_event()))
    with pytest.raises(ValueError, match="not an event of facestream"):
        decode(track.headers, camera.value)
    headers = [(name, b"urn:other" if name == "ce_dataschema" else text) for name, text in track.headers]
    with pytest.raises(ValueError, match="dataschema: expected urn:facestream"):
        decode(headers, track.value)


def test_an_unknown_content_type_is_refused():
    message = to_binary(camera_event())
    headers = [(name, b"image/png" if name == "content-type" else text) for name, text in message.headers]
    with pytest.raises(ValueError, match="datacontenttype"):
        decode(headers, message.value)


def test_a_looked_up_schema_is_held_to_the_noun():
    message = encoder("avro", schema_ids={"track": 7, "camera": 8, "identity": 9})(camera_event())
    assert (
        decode(message.headers, message.value, lookup=lambda _: schema_text("camera", "avro"))
        == camera_event()
    )
    for schema in (
        "[]",
        "7",
        '"string"',
        "{",
        '{"type":"record"}',
        schema_text("track", "avro"),
        "[" * 99_999,
    ):
        with pytest.raises(ValueError, match=r"not an event of facestream: expected (an|the)? ?Avro"):
            decode(message.headers, message.value, lookup=lambda _, schema=schema: schema)
    assert read_frame(message.value)[0] == 8


@pytest.mark.parametrize(
    "field",
    [
        '{"type": "array", "items": "null"}',
        '{"type": "map", "values": {"type": "record", "name": "N", "fields": []}}',
        '{"type": "array", "items": {"type": "fixed", "name": "N", "size": 0}}',
        '{"type": "array", "items": {"type": "fixed", "name": "N", "size": -1}}',
        '{"type": "fixed", "name": "N", "size": 1e400}',
        '{"type": "record", "name": "N", "fields": [{"name": "n", "type": "N"}]}',
    ],
)
def test_a_schema_that_could_be_read_for_ever_is_refused(field: str):
    own = schema_text("camera", "avro")
    endless = own.replace('"fields": [', f'"fields": [{{"name": "x", "type": {field}}},')
    message = encoder("avro", schema_ids={"track": 7, "camera": 8, "identity": 9})(camera_event())
    value = message.value[:5] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + message.value[5:]
    with pytest.raises(ValueError, match=r"without lists of nothing|names no type twice"):
        decode(message.headers, value, lookup=lambda _: endless)


@pytest.mark.parametrize(
    "items", ['"double"', '"float"', '"boolean"', '{"type":"fixed","name":"N","size":1}']
)
def test_a_list_that_says_it_is_longer_than_its_data_is_not_passed_over_for_ever(items: str):
    own = schema_text("camera", "avro")
    longer = own.replace(
        '"fields": [', f'"fields": [{{"name": "x", "type": {{"type":"array","items":{items}}}}},'
    )
    message = encoder("avro", schema_ids={"track": 7, "camera": 8, "identity": 9})(camera_event())
    value = message.value[:5] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + message.value[5:]
    with pytest.raises(ValueError, match=r"not Avro of facestream\.v1\.Camera \(EOFError\)"):
        decode(message.headers, value, lookup=lambda _: longer)
