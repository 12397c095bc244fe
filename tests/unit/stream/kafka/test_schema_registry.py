from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from event_checks import camera_event, face_event, identity_event
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_registry import schema_registry

from engine.errors import SinkError
from stream.events.cloudevents import to_json
from stream.events.codecs import decode, read_frame
from stream.events.schema_files import schema_text
from stream.kafka.schema_registry import SchemaRegistry, subject_of, topic_encoder

EVENTS = (face_event(), camera_event(), identity_event())


@pytest.mark.parametrize("event_format", ["avro", "protobuf"])
def test_the_schemas_of_a_topic_are_registered_and_their_ids_written(event_format: Any):
    with schema_registry() as stand_in:
        registry = SchemaRegistry(stand_in.url)
        encode = topic_encoder("faces", event_format, "float32-b64", registry)
        assert set(stand_in.subjects) == {
            "faces-facestream.v1.Track",
            "faces-facestream.v1.Camera",
            "faces-facestream.v1.Identity",
        }
        for event in EVENTS:
            message = encode(event)
            assert read_frame(message.value)[0] > 100_000
            assert to_json(decode(message.headers, message.value, lookup=registry.schema)) == to_json(event)


def test_registering_again_gives_the_same_ids():
    with schema_registry() as stand_in:
        first, second = (
            topic_encoder("faces", "avro", "int8-b64", SchemaRegistry(stand_in.url)) for _ in range(2)
        )
        assert first(face_event()) == second(face_event())


def test_one_name_for_all_nouns_of_a_topic_would_be_refused():
    with schema_registry() as stand_in:
        registry = SchemaRegistry(stand_in.url)
        registry.register("faces-value", schema_text("track", "avro"), "avro")
        with pytest.raises(SinkError, match=r"not compatible with .* at /subjects/faces-value"):
            registry.register("faces-value", schema_text("camera", "avro"), "avro")


def test_a_schema_is_asked_for_once():
    with schema_registry() as stand_in:
        registry = SchemaRegistry(stand_in.url)
        number = stand_in.put(schema_text("camera", "avro"))
        assert registry.schema(number) == registry.schema(number) == schema_text("camera", "avro")
        for _ in range(2):
            with pytest.raises(ValueError, match="has no schema 7"):
                registry.schema(7)
        assert stand_in.asked == [f"GET /schemas/ids/{number}", "GET /schemas/ids/7"]


def test_what_a_newer_schema_has_added_is_passed_over():
    tree = json.loads(schema_text("camera", "avro"))
    tree["fields"].insert(0, {"name": "floor", "type": "long", "default": 0})
    with schema_registry() as stand_in:
        registry = SchemaRegistry(stand_in.url)
        number = stand_in.put(json.dumps(tree))
        message = topic_encoder("faces", "avro", "float32-b64", registry)(camera_event())
        newer = b"\0" + number.to_bytes(4) + b"\x08" + message.value[5:]
        assert decode(message.headers, newer, lookup=registry.schema) == camera_event()


def test_json_asks_no_registry():
    encode = topic_encoder("faces", "json", "float32-b64", SchemaRegistry("http://127.0.0.1:9"))
    assert encode(camera_event()).value.startswith(b"{")


def test_the_login_comes_from_the_environment():
    with schema_registry("ann:pässword") as stand_in:
        good = {"FACESTREAM_REGISTRY_USER": "ann", "FACESTREAM_REGISTRY_PASSWORD": "pässword"}
        registry = SchemaRegistry.from_environment(stand_in.url, good)
        assert registry.register("a", schema_text("camera", "avro"), "avro") > 0
        for environment in ({}, good | {"FACESTREAM_REGISTRY_PASSWORD": "geheim"}):
            registry = SchemaRegistry.from_environment(stand_in.url, environment)
            with pytest.raises(SinkError, match="set FACESTREAM_REGISTRY_USER and") as caught:
                registry.register("a", schema_text("camera", "avro"), "avro")
            assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((302, b""), "answers HTTP 302"),
        ((500, b'{"error_code":50001,"message":"secret"}'), r"answers HTTP 500 \(error_code 50001\); check"),
        ((500, b"<html>"), "answers HTTP 500; check"),
        ((404, b"{}"), "it has no /subjects/a/versions"),
        ((200, b"<html>"), "expected JSON"),
        ((200, b"[]"), "expected an id for a"),
        ((200, b'{"id":"7"}'), "expected an id for a"),
        ((200, b'{"id":-1}'), "expected an id for a"),
        ((200, b'{"id":true}'), "expected an id for a"),
        ((200, b"[" * 100_000), "expected JSON"),
    ],
)
def test_what_a_registry_answers_is_not_trusted(answer: tuple[int, bytes], reason: str):
    with schema_registry() as stand_in:
        stand_in.answers["*"] = answer
        with pytest.raises(SinkError, match=reason) as caught:
            SchemaRegistry(stand_in.url).register("a", schema_text("camera", "avro"), "avro")
        assert str(caught.value).startswith(f"registry {stand_in.url}: ")
        assert "secret" not in str(caught.value)
        assert len(stand_in.asked) == 1, "a redirection is not followed: the login is for the registry alone"


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(SinkError, match=r"cannot be reached .*; start it or correct its address"):
            SchemaRegistry(url, timeout_s=2.0).schema(1)


def test_a_registry_that_says_nothing_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(SinkError, match="cannot be reached"):
            SchemaRegistry(url, timeout_s=0.1).schema(1)


@pytest.mark.parametrize(
    "url",
    ["", "host:8081", "ftp://host", "http://", "http://a:b@host", "http://h?x=1", "http://h:x", "http://h\n"],
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(SinkError, match=r"expected http\(s\)://HOST:PORT without a login"):
        SchemaRegistry(url)


def test_a_password_does_not_go_over_the_network_in_the_clear():
    with pytest.raises(SinkError, match="expected https://"):
        SchemaRegistry("http://registry.example:8081", username="ann", password="geheim")
    SchemaRegistry("https://registry.example", username="ann", password="geheim")


def test_subjects_name_topic_and_record():
    assert subject_of("faces", "track") == "faces-facestream.v1.Track"


@pytest.fixture(scope="module")
def strange_registry() -> Iterator[tuple[str, dict[str, Any]]]:
    """Its URL, and what it answers to everything."""
    answer: dict[str, Any] = {"status": 200, "body": b""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer["status"])
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answer
        server.shutdown()


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "schema", "schemaType", "error_code"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.sampled_from([200, 200, 201, 400, 401, 404, 409, 422, 500]),
    st.binary(max_size=40) | json_trees.map(lambda tree: json.dumps(tree).encode()),
)
def test_whatever_a_registry_answers_is_taken_or_refused_in_one_line(
    strange_registry: tuple[str, dict[str, Any]], status: int, body: bytes
):
    url, answer = strange_registry
    answer.update(status=status, body=body)
    registry = SchemaRegistry(url)
    number, refusal = attempt(
        lambda: registry.register("faces-facestream.v1.Camera", schema_text("camera", "avro"), "avro")
    )
    assert number is None or number == json.loads(body)["id"]
    assert number is not None or refusal.startswith("registry ")
    assert "\n" not in refusal
    schema, refusal = attempt(lambda: registry.schema(1))
    assert isinstance(schema, str) or refusal
    assert "\n" not in refusal


def attempt(ask: Callable[[], Any]) -> tuple[Any, str]:
    """The answer, or why there is none."""
    try:
        return ask(), ""
    except (SinkError, ValueError) as exc:
        return None, str(exc)
