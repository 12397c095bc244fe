from __future__ import annotations

import re
from itertools import permutations
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError, SourceError
from stream.app.settings import RunSettings, override_settings
from stream.common.uris import NetworkStream, parse_source
from stream.kafka.address import parse_kafka
from stream.video.camera_ids import clean_camera_id, name_sources


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clips/lobby 3.mp4", "lobby-3"),
        ("file:///var/video.one.mkv", "video.one"),
        ("rtsp://me:geheim@10.0.0.7:554/stream1?token=geheim", "10.0.0.7-554-stream1"),
        ("test://ball?frames=3", "test-ball"),
        ("v4l2:///dev/video0", "dev-video0"),
        ("大厅.mp4", "大厅"),
        ("入口 2.mp4", "入口-2"),
        ("हिन्दी.mp4", "हिन्दी"),
        ("Caf\u0065\u0301.mp4", "Café"),
        ("\u0301x.mp4", "x"),
        ("🎥.mp4", "camera"),
    ],
)
def test_a_source_is_named_after_its_file_or_host(source: str, name: str):
    assert name_sources([source]) == [name]


@pytest.mark.parametrize(
    "sources",
    [
        ["north/door.mp4", "south/door.mp4"],
        ["a/x/door.mp4", "b/x/door.mp4", "c/door.mp4"],
        ["door.mp4", "door.avi"],
        ["rtsp://h/cam?channel=1", "rtsp://h/cam?channel=2"],
        ["😀.mp4", "😁.mp4"],
        ["é.mp4", "e\u0301.mp4"],
        ["test://ball?frames=1", "test://ball?frames=2"],
    ],
)
def test_ids_do_not_depend_on_the_order(sources: list[str]):
    names = name_sources(sources)
    assert len(set(names)) == len(sources)
    for order in permutations(sources):
        assert dict(zip(order, name_sources(order), strict=True)) == dict(zip(sources, names, strict=True))
    assert names == [clean_camera_id(name) for name in names]


def test_files_of_one_name_are_told_apart_by_their_folders():
    assert name_sources(["north/door.mp4", "south/door.mp4"]) == ["door-north", "door-south"]
    assert name_sources(["door.mp4", "./door.mp4"]) == ["door", "door-2"]
    assert name_sources(["in/door.mp4"], taken=["door"]) == ["door-in"]
    hashed = name_sources(["in/door.mp4"], taken=["door", "door-in"])[0]
    assert re.fullmatch(r"door-[0-9a-f]{8}", hashed)


@given(st.lists(st.text(min_size=1, max_size=80) | st.from_regex(r"rtsp://.*"), min_size=1, max_size=3))
def test_every_source_gets_a_valid_name_or_is_refused(texts: list[str]):
    try:
        names = name_sources(texts)
    except SourceError:
        return
    assert len(set(names)) == len(texts)
    for name in names:
        assert clean_camera_id(name) == name
        # What an id becomes: a key, a label, a part of a file's name and of a URI, a setting.
        assert len(f"{name}.mp4".encode()) < 255
        assert not set(name) & set("/\\\0\n\"' ")
        RunSettings.model_validate({"cameras": [{"id": name, "uri": "x"}]})


@pytest.mark.parametrize("text", ["", "a b", "a/b", "a\u200b", "\u3164", "\ud800", "x" * 65, "𠀀" * 60])
def test_what_is_no_id(text: str):
    with pytest.raises(ValueError, match="expected"):
        clean_camera_id(text)


def test_an_id_is_kept_in_one_form():
    settings = RunSettings.model_validate({"cameras": [{"id": "Re\u0301", "uri": "x"}]})
    assert settings.cameras[0].id == "Ré"


@given(st.text("ab@:/?#%[]&=+é \\", min_size=1), st.sampled_from(["rtsp", "rtsps", "http", "https"]))
def test_a_password_of_the_environment_may_hold_anything(password: str, scheme: str):
    environment = {"PW": password, "HOST": "h", "URL": f"{scheme}://a:b@h/x"}
    source = f"{scheme}://me:${{PW}}@${{HOST}}/live?token=${{PW}}"
    camera = override_settings(None, sources=[source], sinks=[], environment=environment).cameras[0]
    address = parse_source(camera.uri)
    assert isinstance(address, NetworkStream)
    assert (address.username, address.password) == ("me", password)
    assert parse_qs(urlsplit(address.uri).query, keep_blank_values=True) == {"token": [password]}
    same = parse_kafka("kafka://me:${PW}@${HOST}/t", environment=environment)
    assert same.password == password
    (whole,) = override_settings(None, sources=["${URL}"], sinks=[], environment=environment).cameras
    assert whole.uri == environment["URL"]


def test_what_is_no_text_in_the_environment_is_refused():
    with pytest.raises(ConfigError, match="PW is not valid UTF-8"):
        override_settings(None, sources=["rtsp://a:${PW}@h/x"], sinks=[], environment={"PW": "\udcff"})


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
        ("a-videos", "/videos/a.mp4"),
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
