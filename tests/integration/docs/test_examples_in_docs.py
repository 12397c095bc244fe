"""What the documents tell users to run."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from event_checks import face_event

from stream.app.settings import RunSettings, load_settings
from stream.events.cloudevents import to_cloudevent
from stream.sinks.event_sink import open_sink
from stream.spool.spool import Spool

ROOT = Path(__file__).resolve().parents[3]


def snippets(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)


@pytest.mark.kafka
def test_the_readme_consumer_says_what_a_topic_holds(kafka_broker: str, tmp_path: Path) -> None:
    topic = f"readme-{uuid.uuid4().hex[:12]}"
    sink = open_sink(
        f"kafka://{kafka_broker}/{topic}", spool_of=lambda _: Spool(tmp_path / "spool"), track_states=False
    )
    sink.emit([face_event(camera_id="the-readme-door")])
    sink.close(120.0)
    code = snippets("README.md", "python")[0].replace("localhost:9092/faces", f"{kafka_broker}/{topic}")
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as reader:
        assert reader.stdout is not None
        line = next((line for line in reader.stdout if "the-readme-door" in line), "")
        reader.terminate()
    assert "appeared" in line


def test_the_readme_snippet_iterates_over_events(short_clip: Path, tmp_path: Path) -> None:
    code = snippets("README.md", "python")[1]
    assert len(code.splitlines()) < 10
    (tmp_path / "out" / "demo").mkdir(parents=True)
    (tmp_path / "out" / "demo" / "clip.mp4").symlink_to(short_clip)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "appeared" in done.stdout


def test_the_photograph_snippet_finds_and_compares(
    portrait: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = snippets("docs/identity.md", "python")
    for name in ("passport.jpg", "door.jpg"):
        cv2.imwrite(str(tmp_path / name), portrait)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/identity.md", "exec"), {})
    box, result = capsys.readouterr().out.splitlines()
    assert box.startswith("[1")
    assert result.startswith("1.0 very likely the same person")


@pytest.mark.parametrize("encoding", ["float32-b64", "int8-b64"])
def test_the_decoding_snippet_decodes(encoding: str) -> None:
    decode, consume = snippets("docs/events.md", "python")
    names: dict[str, object] = {}
    exec(compile(decode, "docs/events.md", "exec"), names)
    event = face_event()
    envelope = to_cloudevent(event, encoding=encoding)
    vector = names["vector"](envelope["data"]["embedding"])
    assert float(np.dot(vector, event.embedding)) > 0.999
    compile(consume, "docs/events.md", "exec")


def test_every_setting_is_documented_and_nothing_else() -> None:
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    for section, model in _sections(RunSettings):
        documented = set(re.findall(r"^\| `([a-z_]+)`", _section(text, section), re.MULTILINE))
        documented |= set(re.findall(r"^\| `[a-z_]+`, `([a-z_]+)`", _section(text, section), re.MULTILINE))
        assert documented == set(model.model_fields), section


def _sections(settings: type[RunSettings]):
    fields = settings.model_fields
    yield "cameras", fields["cameras"].annotation.__args__[0]
    for name in ("models", "detection", "tracking", "events", "spool", "identity", "best_shots"):
        yield name, fields[name].annotation


def _section(text: str, name: str) -> str:
    return re.split(r"^### ", text.split(f"### `{name}`", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_example_configuration_is_valid(path: Path) -> None:
    environment = {"CAMERA_USER": "viewer", "CAMERA_PASSWORD": "x"}
    assert load_settings(path, environment=environment).cameras


def test_every_link_within_the_project_leads_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
