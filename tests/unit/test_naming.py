from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, SourceError
from stream.config import RunSettings, override_settings
from stream.uris import name_source


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clips/lobby 3.mp4", "lobby-3"),
        ("file:///var/video.one.mkv", "video.one"),
        ("rtsp://me:geheim@10.0.0.7:554/stream1?token=geheim", "10.0.0.7-554-stream1"),
        ("test://ball?frames=3", "test-ball"),
        ("v4l2:///dev/video0", "dev-video0"),
    ],
)
def test_a_source_is_named_after_its_file_or_host(source: str, name: str):
    assert name_source(source, []) == name
    assert name_source(source, [name]) == f"{name}-2"
    assert name_source(source, [name, f"{name}-2"]) == f"{name}-3"


@given(st.text(min_size=1, max_size=80))
def test_every_source_gets_a_valid_name(text: str):
    try:
        name = name_source(text, [])
    except (SourceError, ValueError):
        return
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name)


def test_the_command_line_goes_on_top_of_the_file():
    base = RunSettings.model_validate(
        {"cameras": [{"id": "a", "uri": "a.mp4"}], "sinks": ["jsonl:x"], "models": {"threads": 3}}
    )
    merged = override_settings(
        base,
        sources=["${FOLDER}/a.mp4"],
        sinks=["sqlite:${FOLDER}/e.db"],
        environment={"FOLDER": "/videos"},
        engine="onnxruntime",
        analysis_fps=0.0,
        realtime=True,
    )
    assert [(camera.id, camera.uri) for camera in merged.cameras] == [
        ("a", "a.mp4"),
        ("a-2", "/videos/a.mp4"),
    ]
    assert [camera.analysis_fps for camera in merged.cameras] == [None, None]
    assert all(camera.realtime for camera in merged.cameras)
    assert [sink.get_secret_value() for sink in merged.sinks] == ["sqlite:/videos/e.db"]
    assert (merged.models.engine, merged.models.threads) == ("onnxruntime", 3)
    unchanged = override_settings(base, sources=[], sinks=[], environment={})
    assert unchanged == base


def test_what_the_command_line_gets_wrong_is_said_without_the_value():
    with pytest.raises(ConfigError, match=r"metrics: .*HOST:PORT"):
        override_settings(None, sources=[], sinks=[], environment={}, metrics="geheim")
    with pytest.raises(ConfigError, match="PASSWORD is not set"):
        override_settings(None, sources=["rtsp://a:${PASSWORD}@h/x"], sinks=[], environment={})
