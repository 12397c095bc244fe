from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from stream.app.settings import CameraSettings, RunSettings, load_settings, parse_address, parse_settings

CONFIGS = Path(__file__).resolve().parents[4] / "configs"


def test_an_empty_file_gives_the_defaults():
    assert parse_settings("") == RunSettings()


def test_a_camera_with_secrets_from_the_environment():
    settings = parse_settings(
        """
        cameras:
          - id: front-door
            uri: rtsp://10.0.0.5/stream
            username: ${CAM_USER}
            password: ${CAM_PASSWORD}
        sinks: ["kafka://${BROKER}/events"]
        """,
        environment={"CAM_USER": "ann", "CAM_PASSWORD": "s3cret", "BROKER": "kafka:9092"},
    )
    (camera,) = settings.cameras
    assert camera.username == "ann"
    assert camera.password is not None
    assert camera.password.get_secret_value() == "s3cret"
    assert settings.sinks[0].get_secret_value() == "kafka://kafka:9092/events"
    assert "s3cret" not in repr(settings)
    assert camera.analysis_fps == 10.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cameraz: []", "cameraz: unknown key"),
        ("cameras: [{id: a, uri: x, pasword: y}]", "cameras.0.pasword: unknown key"),
        ("cameras: [{id: 'a b', uri: x}]", "cameras.0.id"),
        ("cameras: [{id: a, uri: x}, {id: a, uri: y}]", "camera ids must differ; used twice: a"),
        ("cameras: [{id: a, uri: x, start_at: 2026-01-01T00:00:00}]", "needs a time zone"),
        ("cameras: [{id: a, uri: x, analysis_fps: 0}]", "analysis_fps"),
        ("models: {engine: cuda}", "models.engine"),
        ("detection: {min_score: 2}", "detection.min_score"),
        ("metrics: nowhere", "expected HOST:PORT"),
        ("sinks: ['kafka://${NOT_SET}/x']", "environment variable NOT_SET is not set"),
        ("sinks: ['${a b}']", "does not name an environment variable"),
        ("- a\n- b", "got a list"),
        ("cameras: [", "not valid YAML"),
        ("a: &x 1\nb: *x", "aliases"),
        ("metrics: null\nmetrics: null", "appears twice"),
        ("? [a]\n: 1", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(text: str, complaint: str):
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, environment={})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cameras:\n- id: a\n  url: x", "line 3: cameras.0.url: unknown key; did you mean uri?"),
        ("cameras:\n- id: a", "line 2: cameras.0.uri: missing; add it: uri: …"),
        ("cameras: [{name: a, uri: x}]", "did you mean id?"),
        ("camera: []", "line 1: camera: unknown key; did you mean cameras?"),
        ("sources: []", "did you mean cameras?"),
        ("\nmodels:\n  flip: yes", "line 3: models.flip: unknown key; did you mean mirror?"),
        ("min_score: 1", "line 1: min_score: unknown key; it belongs under detection:"),
        ("models: {xyzzy: 1}", "known here: detector, embedder"),
        ("cameras: {id: a, uri: x}", "cameras: expected a list: items in lines of their own"),
        ("sinks: jsonl:x", "sinks: expected a list"),
        ("models: sface", "models: expected keys and values in the lines below it"),
        ("cameras: [{id: 5, uri: x}]", "cameras.0.id: expected text; put quotes round"),
        ("cameras: [{id: a, uri: x, realtime: perhaps}]", "realtime: expected true or false"),
        ("cameras: [{id: a, uri: x, analysis_fps: -1}]", "analysis_fps: expected a number above 0"),
        ("cameras: [{id: a, uri: x, start_at: soon}]", "start_at: expected a time such as"),
        ("detection: {long_side_px: 100.5}", "long_side_px: expected a whole number"),
        ("detection: {long_side_px: 10}", "long_side_px: expected a number from 64 on"),
        ("models: {engine: cuda}", "models.engine: expected auto, openvino, onnxruntime"),
        ("1: 2", "unknown key"),
        ("a: 1\n\tb: 2", "line 2: a tab; indent with spaces"),
        (b"a: \xff", "line 1: is not UTF-8; save the file as UTF-8"),
        ("metrics: null\nmetrics: null", "line 2: the key 'metrics' appears twice"),
        ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: aliases (*name) are not supported; write"),
        ("a: [1,\nb: 2", "a list that begins with ["),
        ("a: 'b", "a text in quotes that does not end"),
        ("a: b: c", "line 1: a colon too many"),
        ("a: @b", "line 1: a value that begins with @ needs quotes"),
        ("a:\n  b: 1\n c: 2", "line 3: its indentation does not fit the lines above it"),
        ("a: 2026-13-45", "line 1: looks like a number or a date, but is not; put it in quotes"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ("[" * 5000, "nested too deeply"),
        ("a: \x07", "a character that cannot be seen"),
        ("- a", "line 1: expected keys such as 'cameras:', got a list"),
        ("a", "line 1: expected keys such as 'cameras:', got a single value"),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_what_was_meant(text: str | bytes, complaint: str):
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, environment={})
    assert complaint in str(caught.value)
    for jargon in (
        "Input should",
        "Extra",
        "Field required",
        "valid dictionary",
        "instance of",
        "<",
        "tuple",
    ):
        assert jargon not in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from([*RunSettings.model_fields, *CameraSettings.model_fields, "url"])
cameras = st.lists(st.dictionaries(keys, values, max_size=3), max_size=2)


@given(st.binary() | st.text() | st.text(":-[]{}&*!|>'\"%@`#, \n\ta1?", max_size=30))
def test_any_text_is_settings_or_is_refused(text: str | bytes):
    with contextlib.suppress(ConfigError):
        parse_settings(text, environment={})


@given(st.dictionaries(keys, values | cameras, max_size=4))
def test_any_tree_is_settings_or_is_refused_in_our_words(tree: dict[str, object]):
    told = ""
    try:
        parse_settings(yaml.safe_dump(tree), environment={})
    except ConfigError as exc:
        told = str(exc)
    assert not told or "line " in told
    assert not re.search(r"[Ii]nput|valid|Extra", told), told


def test_errors_do_not_repeat_values_which_may_be_secrets():
    with pytest.raises(ConfigError) as caught:
        parse_settings("cameras: [{id: a, uri: x, password: [hunter2]}]", environment={})
    assert "hunter2" not in str(caught.value)


def test_missing_and_oversized_files(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "no.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than"):
        load_settings(tmp_path / "big.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_are_either_settings_or_a_config_error(raw: bytes):
    with contextlib.suppress(ConfigError):
        parse_settings(raw, environment={})


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configurations_load(path: Path):
    names = {"CAMERA_USER": "u", "CAMERA_PASSWORD": "p", "KAFKA_USER": "u", "KAFKA_PASSWORD": "p"}
    assert load_settings(path, environment=names).cameras


def test_addresses():
    assert parse_address("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert parse_address("[::1]:0") == ("::1", 0)
    for bad in ("", "host", "host:", ":1", "host:x", "host:70000"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_address(bad)
