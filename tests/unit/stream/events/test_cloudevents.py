from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_checks import (
    AT,
    SCHEMAS,
    camera_event,
    face_event,
    identity_event,
    schema,
    validate_event,
    validator,
)
from event_strategies import any_events, camera_events, face_events, identity_events
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from stream.events.cloudevents import from_cloudevent, from_json, to_cloudevent, to_json
from stream.events.codecs import decode, encoder
from stream.events.event_types import (
    CameraChange,
    CameraEvent,
    Event,
    FaceEvent,
    IdentityChange,
    IdentityEvent,
    TrackChange,
)
from stream.events.kafka_record import from_binary, to_binary
from stream.events.parsing import MAX_EVENT_BYTES

GOLDEN = Path(__file__).parent / "golden"
EMBEDDER = {"embedding_model_id": "0123456789abcdef", "embedding_mirrored": True}

some = settings(max_examples=40)


def through_json(envelope: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(envelope, allow_nan=False))


@some
@given(face_events)
def test_a_track_event_comes_back_as_it_was_up_to_rounding(event: FaceEvent):
    back = from_cloudevent(through_json(to_cloudevent(event)))
    assert isinstance(back, FaceEvent)
    tolerance = {"box_xyxy": 0.0051, "last_box_xyxy": 0.0051, "landmarks_xy": 0.0051} | {
        "detection_score": 0.000051,
        "quality": 0.000051,
        "media_time_s": 1e-6,
    }
    for field in fields(FaceEvent):
        got, expected = getattr(back, field.name), getattr(event, field.name)
        if field.name in tolerance:
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=tolerance[field.name])
        elif field.name == "embedding":
            np.testing.assert_array_equal(got, expected)
        else:
            assert got == expected


@some
@given(face_events)
def test_what_was_read_is_written_again_byte_for_byte(event: FaceEvent):
    line = to_json(event)
    assert to_json(from_json(line)) == line


@some
@given(face_events)
def test_int8_keeps_the_direction_in_a_quarter_of_the_bytes(event: FaceEvent):
    envelope = to_cloudevent(event, encoding="int8-b64")
    assert len(base64.b64decode(envelope["data"]["embedding"]["data"])) == len(event.embedding)
    back = from_cloudevent(through_json(envelope))
    assert isinstance(back, FaceEvent)
    assert float(back.embedding @ event.embedding) > 0.999
    validate_event(envelope)


@given(camera_events)
def test_a_camera_event_comes_back_as_it_was(event: CameraEvent):
    assert from_json(to_json(event)) == event


@pytest.mark.parametrize("planned", [True, False, None])
def test_a_planned_end_and_an_outage_differ_in_every_format(planned: bool | None):
    event = camera_event(planned=planned)
    envelope = through_json(to_cloudevent(event))
    validate_event(envelope)
    assert ("planned" in envelope["data"]) == (planned is not None)
    for event_format in ("json", "avro", "protobuf"):
        message = encoder(event_format)(event)
        assert decode(message.headers, message.value) == event


@given(identity_events())
def test_an_identity_event_comes_back_as_it_was(event: IdentityEvent):
    assert from_json(to_json(event)) == event


@some
@given(any_events)
def test_every_event_meets_the_schema_in_both_modes(event: Event):
    envelope = through_json(to_cloudevent(event))
    validate_event(envelope)
    validator(envelope["dataschema"].removeprefix("urn:facestream:schema:")).validate(envelope["data"])
    message = to_binary(event)
    assert json.loads(message.value) == envelope["data"]
    assert message.key.decode() == event.camera_id
    assert to_json(from_binary(message.headers, message.value)) == to_json(event)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas_and_strict(name: str):
    tree = schema(name)
    Draft202012Validator.check_schema(tree)
    assert tree["additionalProperties"] is False
    assert set(tree["properties"]) - set(tree["required"]) == ({"planned"} if name == "camera.v1" else set())
    assert all(
        "description" in spec or "const" in spec for spec in tree["properties"].values() if len(spec) > 1
    )


@pytest.mark.parametrize(
    ("name", "event", "encoding"),
    [
        ("track.appeared.float32", face_event(**EMBEDDER), "float32-b64"),
        ("track.updated.int8", face_event(change=TrackChange.UPDATED, sequence=1, **EMBEDDER), "int8-b64"),
        ("track.left.float32", face_event(change=TrackChange.LEFT, sequence=2), "float32-b64"),
        ("camera.up", camera_event(change=CameraChange.UP, sequence=0, reason=""), "float32-b64"),
        ("camera.down", camera_event(camera_id="yard/west ü"), "float32-b64"),
        ("identity.decided", identity_event(), "float32-b64"),
        (
            "identity.corrected",
            identity_event(
                change=IdentityChange.CORRECTED,
                sequence=3,
                person_id=None,
                person_name=None,
                margin=None,
                previous_person_id="p-000017",
                reason="the person was removed",
            ),
            "float32-b64",
        ),
    ],
)
def test_the_wire_format_is_frozen(name: str, event: Event, encoding: Any):
    golden = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    assert to_cloudevent(event, encoding=encoding) == golden
    assert list(to_cloudevent(event, encoding=encoding)) == list(golden)
    validate_event(golden)


def test_attributes_of_a_track_event():
    envelope = to_cloudevent(
        face_event(camera_id="yard/west ü", at=AT.astimezone(timezone(timedelta(hours=2))))
    )
    del envelope["data"]
    assert envelope == {
        "specversion": "1.0",
        "id": "door-7f3a-1.0",
        "source": "/facestream/cameras/yard%2Fwest%20%C3%BC",
        "type": "facestream.track.appeared.v1",
        "subject": "door-7f3a-1",
        "time": "2026-03-01T12:30:15.250000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:facestream:schema:track.v1",
    }


def test_headers_of_a_kafka_record():
    message = to_binary(camera_event())
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"door-7f3a.camera.1",
        "ce_source": b"/facestream/cameras/door",
        "ce_type": b"facestream.camera.down.v1",
        "ce_subject": b"door",
        "ce_time": b"2026-03-01T12:30:15.250000Z",
        "ce_dataschema": b"urn:facestream:schema:camera.v1",
        "content-type": b"application/json",
    }


def test_pixels_have_two_decimals_and_scores_four():
    event = face_event(box_xyxy=(1.23456, -0.001, 2.0, 3.999), detection_score=0.123456, quality=1 / 3)
    data = to_cloudevent(event)["data"]
    assert data["box_xyxy"] == [1.23, 0.0, 2.0, 4.0]
    assert str(data["box_xyxy"][1]) == "0.0"
    assert (data["detection_score"], data["quality"]) == (0.1235, 0.3333)


def test_an_event_that_does_not_tell_its_model_apart_is_read():
    envelope = to_cloudevent(face_event(**EMBEDDER))
    for name in ("model_id", "mirrored"):
        del envelope["data"]["embedding"][name]
    event = from_cloudevent(envelope)
    assert isinstance(event, FaceEvent)
    assert (event.embedding_model_id, event.embedding_mirrored) == (None, None)
    envelope["data"]["embedding"]["model_id"] = "0123456789ABCDEF"
    with pytest.raises(ValueError, match=r"data.embedding.model_id"):
        from_cloudevent(envelope)


def test_an_embedding_is_little_endian_float32():
    event = face_event(embedding=np.array([0.6, 0.8], ">f4"))
    assert to_cloudevent(event)["data"]["embedding"] == {
        "model": "sface",
        "model_id": None,
        "mirrored": None,
        "dim": 2,
        "encoding": "float32-b64",
        "scale": 1.0,
        "data": base64.b64encode(bytes.fromhex("9a99193fcdcc4c3f")).decode(),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"box_xyxy": (0.0, 0.0, float("nan"), 1.0)},
        {"quality": float("inf")},
        {"media_time_s": float("nan")},
        {"landmarks_xy": np.full((5, 2), np.nan, np.float32)},
        {"embedding": np.array([np.nan, 1], np.float32)},
        {"at": datetime(2026, 1, 1)},  # noqa: DTZ001 - the mistake that is to be found
    ],
)
@pytest.mark.parametrize("encoding", ["float32-b64", "int8-b64"])
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], encoding: Any):
    with pytest.raises(ValueError, match=r"expected a (finite|time)"):
        to_cloudevent(face_event(**changes), encoding=encoding)


def data_with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda envelope: envelope["data"].update(changes)


def embedding_with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda envelope: envelope["data"]["embedding"].update(changes)


def envelope_with(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda envelope: envelope.update(changes)


# What both the schema and the reader must refuse.
MALFORMED = [
    envelope_with(specversion="0.3"),
    envelope_with(type="facestream.track.appeared.v2"),
    envelope_with(type="facestream.camera.up.v1"),
    envelope_with(type=7),
    envelope_with(time="2026-03-01T12:30:15Z"),
    envelope_with(time="2026-13-01T12:30:15.250000Z"),
    envelope_with(time="2026-03-01T12:30:15.250000+00:00"),
    envelope_with(datacontenttype="text/plain"),
    envelope_with(dataschema="urn:facestream:schema:camera.v1"),
    envelope_with(data=None),
    envelope_with(data=[]),
    lambda envelope: envelope.pop("id"),
    lambda envelope: envelope.pop("data"),
    lambda envelope: envelope["data"].pop("quality"),
    lambda envelope: envelope["data"].pop("embedding"),
    data_with(quality=1.01),
    data_with(quality="0.5"),
    data_with(detection_score=-0.1),
    data_with(sequence=-1),
    data_with(sequence=1.5),
    data_with(sequence=True),
    data_with(sequence=2**63),
    data_with(faces_seen=0),
    data_with(camera_id=""),
    data_with(camera_id=7),
    data_with(image_size_wh=[0, 720]),
    data_with(image_size_wh=[1280, 720, 3]),
    data_with(box_xyxy=[1, 2, 3]),
    data_with(box_xyxy=[1, 2, 3, 1e300]),
    data_with(box_xyxy=None),
    data_with(landmarks_xy=[[1, 2]] * 4),
    data_with(landmarks_xy=[[1, 2]] * 4 + [[1, 2, 3]]),
    data_with(first_seen="yesterday"),
    embedding_with(encoding="pickle"),
    embedding_with(scale=0),
    embedding_with(scale=1e300),
    embedding_with(dim=0),
    embedding_with(data="not base64!"),
    embedding_with(model=""),
]

# What a schema cannot see.
CONTRADICTORY = [
    (envelope_with(id="door-7f3a-1.1"), "id: does not agree"),
    (envelope_with(source="/facestream/cameras/yard"), "source: does not agree"),
    (envelope_with(subject="door-7f3a-2"), "subject: does not agree"),
    (embedding_with(dim=64), "256 bytes for 64 values of float32-b64, got 512"),
    (embedding_with(dim=1, data=base64.b64encode(b"\0\0\xc0\x7f").decode()), "length 1, got nan"),
    (embedding_with(dim=1, data=base64.b64encode(b"\0\0\0\0").decode()), "length 1, got 0"),
    (embedding_with(dim=2, encoding="int8-b64", data="AAA="), "length 1, got 0"),
    (embedding_with(data="AAA"), "expected base64"),
]


@pytest.mark.parametrize("spoil", MALFORMED)
def test_reader_and_schema_refuse_the_malformed(spoil: Callable[[dict[str, Any]], Any]):
    envelope = through_json(to_cloudevent(face_event()))
    spoil(envelope)
    with pytest.raises(ValidationError):
        validate_event(envelope)
    with pytest.raises(ValueError, match=r"^not an event of facestream: ") as caught:
        from_cloudevent(envelope)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        data_with(person_id=""),
        data_with(person_id=7),
        data_with(similarity="0.5"),
        data_with(similarity=1000),
        data_with(margin=-0.1),
        data_with(false_accept_rate=1.5),
        data_with(gallery_version=-1),
        data_with(threshold=None),
        lambda envelope: envelope["data"].pop("reason"),
    ],
)
def test_reader_and_schema_refuse_a_malformed_identity(spoil: Callable[[dict[str, Any]], Any]):
    envelope = through_json(to_cloudevent(identity_event()))
    spoil(envelope)
    with pytest.raises(ValidationError):
        validate_event(envelope)
    with pytest.raises(ValueError, match=r"^not an event of facestream: "):
        from_cloudevent(envelope)


def test_what_a_later_version_has_added_is_passed_over():
    envelope = through_json(to_cloudevent(face_event()))
    envelope["traceparent"] = "00-1-2-03"
    envelope["data"]["mask"] = True
    envelope["data"]["embedding"]["a\nb"] = 1
    assert to_json(from_cloudevent(envelope)) == to_json(face_event())
    message = to_binary(camera_event())
    assert from_binary([*message.headers, ("ce_more", b"x")], message.value) == camera_event()


def test_a_person_has_an_id_and_a_name_or_neither():
    envelope = through_json(to_cloudevent(identity_event()))
    envelope["data"]["person_name"] = None
    with pytest.raises(ValueError, match="go together"):
        from_cloudevent(envelope)


@pytest.mark.parametrize(("spoil", "reason"), CONTRADICTORY)
def test_reader_refuses_contradictions(spoil: Callable[[dict[str, Any]], Any], reason: str):
    envelope = through_json(to_cloudevent(face_event()))
    spoil(envelope)
    with pytest.raises(ValueError, match=reason):
        from_cloudevent(envelope)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid UTF-8"),
        (b"[]", "expected a JSON object, got list"),
        (b"{}", "specversion: Field required"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "not JSON"),
        (b'{"a":1,"a":2}', "duplicate key"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * (MAX_EVENT_BYTES + 1), "longer than"),
    ],
)
def test_reader_refuses_what_is_not_an_event(raw: bytes, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        from_json(raw)
    assert "\n" not in str(caught.value)


def test_reader_refuses_half_a_character():
    raw = to_json(camera_event(reason="?")).replace(b'"?"', b'"\\ud800"')
    with pytest.raises(ValueError, match="not valid Unicode"):
        from_json(raw)


def test_reader_refuses_a_number_beyond_all_bounds():
    raw = to_json(face_event()).replace(b'"quality":0.7421', b'"quality":1e999')
    with pytest.raises(ValueError, match="quality"):
        from_json(raw)


@given(st.binary(max_size=200))
def test_no_bytes_bring_the_reader_down(raw: bytes):
    with pytest.raises(ValueError, match="not an event"):
        from_json(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([face_event(), camera_event()]),
    st.lists(st.integers(0, 30), min_size=1, max_size=3),
    json_values,
)
def test_no_value_in_any_place_brings_the_reader_down(event: Event, way: list[int], value: Any):
    envelope = copy.deepcopy(to_cloudevent(event))
    node: Any = envelope
    for step in way[:-1]:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        child = node[keys[step % len(keys)]]
        if not isinstance(child, (dict, list)):
            break
        node = child
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    node[keys[way[-1] % len(keys)]] = value
    try:
        event = from_cloudevent(envelope)
    except ValueError as exc:
        assert str(exc).startswith("not an event of facestream: ")  # noqa: PT017 - either outcome is right
    else:
        validate_event(through_json(to_cloudevent(event)))


def test_headers_are_read_strictly():
    message = to_binary(camera_event())
    assert from_binary([*message.headers, ("traceparent", b"\xff")], message.value) == camera_event()
    for spoilt in (
        [*message.headers, ("ce_id", b"other")],
        [*message.headers, ("ce_data", b"{}")],
        [(name, b"\xff") for name, _ in message.headers],
        [(name, None) for name, _ in message.headers],
        message.headers[1:],
    ):
        with pytest.raises(ValueError, match="not an event of facestream"):
            from_binary(spoilt, message.value)
