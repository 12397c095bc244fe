"""Whether what is written today can be read by every release, and the reverse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from event_checks import camera_event, face_event, identity_event
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from stream.events.avro import read_avro, schema_id, write_avro
from stream.events.fields import NOUNS, Noun, event_fields, noun_of
from stream.events.schema_files import SchemaKind, releases, schema_text

ROOT = Path(__file__).resolve().parents[4]
SAMPLES = (
    face_event(embedding_model_id="0123456789abcdef", embedding_mirrored=True),
    face_event(),
    camera_event(),
    camera_event(planned=False),
    camera_event(planned=True),
    identity_event(),
    identity_event(person_id=None, person_name=None, similarity=None, margin=None, previous_person_id="p-1"),
)
NOT_ALWAYS_TOLD = {"model_id", "mirrored", "planned"}
KINDS: tuple[SchemaKind, ...] = ("json", "avro", "protobuf")

released = pytest.mark.parametrize("release", releases())
nouns = pytest.mark.parametrize("noun", NOUNS)


def json_properties(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    for name, spec in tree["properties"].items():
        yield (
            prefix + name,
            {key: value for key, value in spec.items() if key != "description"},
            (name in tree["required"]),
        )
    for name, spec in tree.get("$defs", {}).items():
        if "properties" in spec:
            yield from json_properties(spec, f"{prefix}{name}.")


def proto_fields(text: str) -> dict[tuple[str, int], tuple[str, str]]:
    """(message, number) to (type, name) of every field of a .proto file."""
    found: dict[tuple[str, int], tuple[str, str]] = {}
    stack: list[str] = []
    for line in re.sub(r"//[^\n]*", "", text).splitlines():
        if opened := re.match(r"\s*(?:message|enum) (\w+) \{", line):
            stack.append(opened[1])
        elif line.strip() == "}":
            stack.pop()
        elif (field := re.match(r"\s*((?:optional |repeated )?[\w.]+ )?(\w+) = (\d+);", line)) and stack:
            key = ".".join(stack), int(field[3])
            assert key not in found, f"{key} stands there twice"
            found[key] = (field[1] or "").strip(), field[2]
    return found


def proto_reserved(text: str) -> set[int]:
    return {int(number) for line in re.findall(r"reserved ([\d, ]+);", text) for number in line.split(",")}


@released
@pytest.mark.parametrize("kind", KINDS)
@nouns
def test_every_release_keeps_every_schema(release: str, kind: SchemaKind, noun: Noun):
    assert schema_text(noun, kind, release=release)


@released
@nouns
def test_json_is_only_added_to_and_what_is_added_is_optional(release: str, noun: Noun):
    check_json(json.loads(schema_text(noun, "json", release=release)), json.loads(schema_text(noun, "json")))


def check_json(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = {name: (spec, required) for name, spec, required in json_properties(old)}
    now = {name: (spec, required) for name, spec, required in json_properties(new)}
    assert {name: now.get(name) for name in before} == before
    assert not [name for name, (_, required) in now.items() if required and name not in before]
    shared = {name: spec for name, spec in old.get("$defs", {}).items() if "properties" not in spec}
    assert {name: new["$defs"].get(name) for name in shared} == shared


@released
@pytest.mark.parametrize("sample", SAMPLES)
def test_avro_of_every_release_is_read_and_every_release_reads_ours(release: str, sample: Any):
    noun, old = noun_of(sample), schema_text(noun_of(sample), "avro", release=release)
    check_avro(old, schema_text(noun, "avro"), event_fields(sample, "float32-b64"), noun)


def check_avro(old: str, new: str, fields: dict[str, Any], noun: Noun) -> None:
    record = fields | (
        {"embedding": fields["embedding"] | {"encoding": "FLOAT32"}} if noun == "track" else {}
    )
    schemas = {text: parse_schema(json.loads(text)) for text in (old, new)}
    for writer, reader in ((old, new), (new, old)):
        body = BytesIO()
        schemaless_writer(body, schemas[writer], record)
        body.seek(0)
        read = schemaless_reader(body, schemas[writer], schemas[reader])
        assert_same(read, record)
    assert_same(fields, read_avro(noun, new, write_avro(noun, fields)))


@pytest.mark.parametrize("sample", SAMPLES[:2])
def test_avro_that_does_not_tell_models_of_one_name_apart_is_read(sample: Any):
    tree = json.loads(schema_text("track", "avro"))
    (embedding,) = (each["type"] for each in tree["fields"] if each["name"] == "embedding")
    embedding["fields"] = [each for each in embedding["fields"] if each["name"] not in NOT_ALWAYS_TOLD]
    check_avro(json.dumps(tree), schema_text("track", "avro"), event_fields(sample, "float32-b64"), "track")


def assert_same(read: dict[str, Any], record: dict[str, Any]) -> None:
    """What was read is as it was written, as far as writer and reader both know of it."""
    assert record.keys() - read.keys() <= NOT_ALWAYS_TOLD
    for name in read.keys() & record.keys():
        if isinstance(record[name], dict):
            assert_same(read[name], record[name])
        else:
            assert read[name] == record[name] or (name in NOT_ALWAYS_TOLD and read[name] is None)


@released
@nouns
def test_protobuf_numbers_are_never_used_again(release: str, noun: Noun):
    check_protobuf(schema_text(noun, "protobuf", release=release), schema_text(noun, "protobuf"))


def check_protobuf(old: str, new: str) -> None:
    now, reserved = proto_fields(new), proto_reserved(new)
    for (message, number), field in proto_fields(old).items():
        assert now.get((message, number)) == field, f"field {number} of {message} is another now"
        assert number not in reserved


@pytest.mark.parametrize(
    ("noun", "check", "change"),
    [
        ("camera", "json", lambda text: text.replace('"uri"', '"url"')),
        ("camera", "json", lambda text: text.replace('"type": "integer"', '"type": "number"')),
        ("camera", "json", lambda text: text.replace('"minLength": 1', '"minLength": 2')),
        ("camera", "avro", lambda text: text.replace('"name": "uri"', '"name": "url"')),
        ("camera", "avro", lambda text: text.replace('"long"', '"string"')),
        ("camera", "protobuf", lambda text: text.replace("uri = 4", "uri = 6")),
        ("camera", "protobuf", lambda text: text.replace("int64 sequence", "string sequence")),
        ("track", "protobuf", lambda text: text.replace("INT8 = 2", "FLOAT16 = 2")),
    ],
)
def test_the_rules_notice_what_would_break_somebody(noun: Noun, check: SchemaKind, change: Any):
    old = schema_text(noun, check)
    new = change(old)
    assert new != old
    with pytest.raises(Exception, match=r".") as caught:  # noqa: PT012 - one of three checks
        match check:
            case "json":
                check_json(json.loads(old), json.loads(new))
            case "avro":
                check_avro(old, new, event_fields(camera_event(), "float32-b64"), "camera")
            case _:
                check_protobuf(old, new)
    assert not isinstance(caught.value, KeyError | AttributeError)


@nouns
def test_all_kinds_have_the_same_fields_in_the_same_order(noun: Noun):
    names = list(json.loads(schema_text(noun, "json"))["properties"])
    assert [field["name"] for field in json.loads(schema_text(noun, "avro"))["fields"]] == names
    message = noun.capitalize()
    fields = proto_fields(schema_text(noun, "protobuf"))
    assert [name for (owner, _), (_, name) in fields.items() if owner == message] == names


@nouns
def test_an_avro_id_is_of_the_content_and_not_of_the_words_about_it(noun: Noun):
    text = schema_text(noun, "avro")
    assert schema_id(text) == schema_id(text.replace('"Which camera."', '"That one."'))
    assert schema_id(text) != schema_id(text.replace('"run_id"', '"run"'))


def test_the_generated_modules_are_what_protoc_makes_of_the_schemas(tmp_path: Path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools makes them: pip install grpcio-tools")
    spec = spec_from_file_location("make_protobuf", ROOT / "scripts" / "protobuf.py")
    assert spec
    assert spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.generate(tmp_path)
    kept = sorted((ROOT / "stream" / "events" / "schemas").glob("*_pb2.py"))
    assert [path.name for path in made] == [path.name for path in kept]
    for new, old in zip(made, kept, strict=True):
        assert new.read_text() == old.read_text(), f"run: .venv/bin/python scripts/protobuf.py ({old.name})"
