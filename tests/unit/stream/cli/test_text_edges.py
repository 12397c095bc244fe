"""Whatever text comes to the command line, what comes back is an answer or one clear line, never a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from people import gallery_of, template, vector
from typer.main import get_command

from stream.cli.root import app
from stream.gallery.people import Gallery

ODD = (
    "",
    " x ",
    "a\nb",
    "\udce9",
    "\u202e",
    "\u200b",
    "\u0301",
    "x" * 201,
    "-",
    "--",
    "\x1b[2J",
    "[/b]",
    "\u3164",
)
ANY = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(codec=None, exclude_categories=(), exclude_characters="\0"), max_size=30),
)
SOME = settings(max_examples=12)
COMMAND = get_command(app)


def answer(*args: str) -> Result:
    """Run a command; arguments hold no NUL, since no system passes one on."""
    result = CliRunner().invoke(COMMAND, list(args))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.exit_code in {0, 1, 2, 3}
    if result.exit_code == 1 and result.stderr:
        (_,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    return result


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("edges") / "g.db"
    gallery_of(path, "Ann").close()
    return str(path)


@SOME
@given(ANY)
@example("Ann")
def test_a_person_of_any_name_is_shown_or_not_there(people: str, text: str) -> None:
    for command in (["show"], ["not", "--track", "t", "--events", people + ".jsonl"]):
        answer("gallery", *command, people, "--", text)


@SOME
@given(ANY)
def test_a_person_can_be_given_any_name_or_it_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.db"
    path.unlink(missing_ok=True)
    with gallery_of(path, "Ann", "Bob") as gallery:
        result = answer("gallery", "rename", str(path), "--", "Ann", text)
        names = [each.name for each in gallery.people()]
    assert (result.exit_code == 0) == ("Ann" not in names or text == "Ann")
    answer("gallery", "merge", str(path), "--", text, text)
    answer("gallery", "remove", str(path), "--", text)
    answer("gallery", "list", str(path))


@SOME
@given(ANY, ANY)
def test_any_name_and_path_can_be_enrolled_or_is_refused(people: str, name: str, path: str) -> None:
    answer("gallery", "enrol", people, "--folders", f"{people}.none/{path}")
    answer("gallery", "enrol", people, "--track", name, "--events", f"{people}.none{path}", "--name", name)
    answer("gallery", "create", f"{people}.none/{path}", "--embedder", f"x{name}")
    answer("gallery", "list", f"{people}.none/{path}")
    answer("gallery", "export", people, f"{people}.none/{path}", "--plain")
    answer("gallery", "import", f"{people}.none/{path}", f"{people}.none/{path}")


@SOME
@given(ANY)
def test_any_address_is_taken_or_refused(people: str, text: str) -> None:
    answer("events", "tail", "--", f"jsonl:{people}.none/{text}")
    answer("events", "verify", "--", f"{people}.none/{text}")
    answer("cluster", "--", f"{people}.none/{text}")
    answer("identify", "--gallery", people, "--", f"kafka://{text}/x")
    answer("run", f"{people}.none/{text}", "--sink", f"sqlite:{people}.none/{text}")
    answer("run", "--config", f"{people}.none/{text}")


JSON_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30) | st.sampled_from(
    ["\0", *ODD]
)


@SOME
@given(JSON_TEXT)
def test_any_text_in_a_configuration_is_taken_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    quoted = json.dumps(text)  # a JSON string is YAML
    for line in (
        f"cameras: [{{id: {quoted}, uri: /none/x.mp4}}]",
        f"cameras: [{{id: a, uri: {quoted}}}]",
        f"sinks: [{quoted}]\ncameras: [{{id: a, uri: /none/x.mp4}}]",
        f"identity: {{gallery: {quoted}}}\ncameras: [{{id: a, uri: /none/x.mp4}}]",
        f"{quoted}: 1",
    ):
        path.write_text(line, "utf-8")
        sink = () if "sinks" in line else ("--sink", "jsonl:/none/events.jsonl")
        answer("run", "--config", str(path), "--max-seconds", "0.01", *sink)


@SOME
@given(st.recursive(JSON_TEXT | st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_any_edits_of_clusters_are_taken_or_refused(tmp_path: Path, tree: Any) -> None:
    events, edits = tmp_path / "e.jsonl", tmp_path / "edits.json"
    events.write_text("")
    edits.write_text(json.dumps({"format": "facestream-clusters/1", "edits": tree}))
    answer("cluster", str(events), "--edits", str(edits))


def test_a_name_that_was_damaged_is_said_to_be(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery, gallery.writing():
        gallery.put_person("p", "Ann", "", None)
        gallery.put_template("p", template(vector(1)))
        gallery.database.execute("UPDATE people SET name = x'ff00fe'")
    result = answer("gallery", "list", str(tmp_path / "g.db"))
    assert result.exit_code == 1
    assert "damaged" in result.stderr
    with Gallery.open(tmp_path / "g.db", sealer=None) as gallery:
        assert gallery.count() == 1
