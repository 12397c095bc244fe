from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from stream.config import RunSettings, load_settings, parse_address, parse_settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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
        ("metrics: null\nmetrics: null", "stands there twice"),
        ("? [a]\n: 1", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(text: str, complaint: str):
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, environment={})
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configurations_load(path: Path):
    names = {"CAMERA_USER": "u", "CAMERA_PASSWORD": "p", "KAFKA_USER": "u", "KAFKA_PASSWORD": "p"}
    assert load_settings(path, environment=names).cameras


def test_addresses():
    assert parse_address("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert parse_address("[::1]:0") == ("::1", 0)
    for bad in ("", "host", "host:", ":1", "host:x", "host:70000"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_address(bad)
