"""Every command sees that what it will make can be kept before it loads a model or computes anything."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from people import MODEL
from typer.testing import CliRunner, Result

from engine.errors import ConfigError, DatasetError, SinkError, SourceError
from engine.models import catalogue
from stream.app import preflight
from stream.cli.root import app
from stream.clusters import html_report
from stream.gallery.people import Gallery
from training.report import markup

OUTPUTS: dict[str, tuple[tuple[str, ...], str]] = {
    # Option or argument that names what is written: the rest of the command line, and what stands for it.
    "run --render": (("{clip}",), "seen.mp4"),
    "run --sink": (("{clip}",), "sqlite:{bad}/events.db"),
    "run --config": (("--config", "{shots}"), ""),
    "run --metrics": (("{clip}",), "127.0.0.1:{port}"),
    "demo --out": ((), "demo"),
    "compile --out": (("yunet", "--engine", "onnxruntime"), "engines"),
    "cluster --report": (("{events}",), "page.html"),
    "cluster --edits": (("{events}", "--undo"), "edits.json"),
    "cluster --gallery": (("{events}", "--enrol", "1=Ann"), "people.db"),
    "bench lfw --report": (("--root", "{folder}", "--pairs", "{clip}"), "page.html"),
    "bench lfw --json": (("--root", "{folder}", "--pairs", "{clip}"), "run.json"),
    "bench lfw --sweep flip --json": (("--root", "{folder}", "--pairs", "{clip}"), "runs"),
    "bench ytf --report": (("--root", "{folder}", "--pairs", "{clip}"), "page.html"),
    "bench ytf --json": (("--root", "{folder}", "--pairs", "{clip}"), "run.json"),
    "bench fruits --report": (("--root", "{folder}", "--pairs", "{clip}"), "page.html"),
    "bench ident --report": (("--videos", "{folder}"), "page.html"),
    "bench ident --json": (("--videos", "{folder}"), "run.json"),
    "bench cluster --json": (("--videos", "{folder}"), "run.json"),
    "bench audit --sheet": (("--videos", "{folder}", "--stills", "{folder}"), "page.html"),
    "bench engine --json": ((), "figures.json"),
    "bench engine --plot": ((), "plot.png"),
    "bench stream --json": ((), "figures.json"),
    "bench gallery --json": ((), "figures.json"),
    "bench events --json": (("--broker", "127.0.0.1:1"), "figures.json"),
    "faces find --render": (("{clip}",), "drawn"),
    "gallery create": ((), "people.db"),
    "gallery export": (("{gallery}",), "people.jsonl"),
    "gallery fit-map": (("--folders", "{folder}", "--from", "sface", "--to", "dlib"), "map.npz"),
    "gallery import": (("{clip}",), "people.db"),
    "events replay --sink": (("jsonl:{events}",), "jsonl:{bad}/copy.jsonl"),
    "identify --metrics": (
        ("kafka://127.0.0.1:1/t", "--gallery", "{gallery}"),
        "127.0.0.1:{port}",
    ),
}
READ = {
    # Parameters that name what is read, or changed where it is; `file` and `out` are arguments, tried above.
    *("config", "gallery", "faces", "lfw", "ytf", "pairs", "shots", "first", "second", "source", "root"),
    *("videos", "stills", "leave_out", "fit_on", "folders", "map_file", "folder", "photos", "spool"),
    *("best_shots", "file", "out"),
}


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "clip.mp4").write_text("never looked at")
    (tmp_path / "folder").mkdir()
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "shots.yaml").write_text(
        f"cameras: [{{id: a, uri: '{tmp_path}/clip.mp4'}}]\nbest_shots: {{dir: '{tmp_path}/file/shots'}}\n"
    )
    Gallery.create(tmp_path / "people.db", MODEL, sealer=None).close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield {
            "clip": str(tmp_path / "clip.mp4"),
            "folder": str(tmp_path / "folder"),
            "events": str(tmp_path / "events.jsonl"),
            "gallery": str(tmp_path / "people.db"),
            "shots": str(tmp_path / "shots.yaml"),
            "bad": str(tmp_path / "file"),
            "port": str(taken.getsockname()[1]),
        }


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a model, of which nothing comes, is a mistake."""

    def load(*_arguments: Any, **_named: Any) -> Any:
        raise AssertionError("a model is loaded before it is known whether what it finds can be kept")

    monkeypatch.setattr(catalogue, "cached_package", load)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("output", OUTPUTS)
def test_what_cannot_be_written_is_said_before_anything_is_done(output: str, places: dict[str, str]) -> None:
    others, value = OUTPUTS[output]
    value = value.format(**places)
    if value and not value.startswith(("jsonl:", "sqlite:", "127.")):
        value = f"{places['bad']}/{value}"
    words = [word.format(**places) for word in others]
    command = output.split()
    is_option = command[-1].startswith("--")
    given = [] if not value else [command.pop(), value] if is_option else [value]
    if command[-1:] == ["--config"]:
        command.pop()
    before_words = output in {"gallery import", "gallery fit-map", "gallery create"}
    done = invoke(*command, *(given + words if before_words else words + given))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in {1, 2}
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert places["bad"] in lines[0] or places["port"] in lines[0]


SAME_FILE = {
    # What would be written over: the command line that names it twice.
    "the video that is watched": ("clip", "run {clip} --render {link}"),
    "the video that is watched, by events": ("clip", "run {clip} --sink jsonl:{clip}"),
    "the gallery of a run": ("gallery", "run {clip} --gallery {gallery} --sink sqlite:{gallery}"),
    "one of two outputs of a run": ("new", "run {clip} --sink jsonl:{new} --render {new}"),
    "one of two sinks": ("new", "run {clip} --sink jsonl:{new} --sink sqlite:{new}"),
    "events that are replayed": ("events", "events replay jsonl:{events} --sink jsonl:{events_link}"),
    "events that are grouped": ("events", "cluster {events} --report {events}"),
    "events, by corrections": ("events", "cluster {events} --edits {events}"),
    "corrections": ("new", "cluster {events} --edits {new} --report {new}"),
    "the video of a page": ("clip", "cluster {events} --video {clip} --report {link}"),
    "the gallery of a page": ("gallery", "cluster {events} --gallery {gallery} --report {gallery}"),
    "a photograph": ("photo", "faces find {photo} --render {photo}"),
    "a photograph among others": ("photo", "faces find {folder} --render {folder}"),
    "a list of pairs": ("clip", "bench lfw --root {folder} --pairs {clip} --json {clip}"),
    "the figures of a page": ("new", "bench ident --videos {folder} --report {new} --json {new}"),
    "the figures of a plot": ("photo", "bench engine --json {photo} --plot {photo}"),
    "the video that is measured on": ("clip", "bench stream {clip} --json {clip}"),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("lost", SAME_FILE)
def test_nothing_is_written_over_what_is_read_or_written_too(
    lost: str, places: dict[str, str], tmp_path: Path
) -> None:
    name, command = SAME_FILE[lost]
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    (tmp_path / "events-link.jsonl").hardlink_to(tmp_path / "events.jsonl")
    (tmp_path / "folder" / "photo.png").write_bytes(b"never looked at")
    (tmp_path / "folder" / "photo.jpg").write_bytes(b"never looked at")
    places |= {
        "link": str(tmp_path / "link.mp4"),
        "events_link": str(tmp_path / "events-link.jsonl"),
        "photo": str(tmp_path / "folder" / "photo.png"),
        "new": str(tmp_path / "new.mp4"),
    }
    path = Path(places[name])
    before = path.read_bytes() if path.exists() else None
    done = invoke(*command.format(**places).split())
    assert done.exit_code == 2, done.exception
    refused = r"error: (--|FILE).*(: is the file that .* (reads|writes); name another|holds the photographs)"
    assert re.search(refused, done.stderr)
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "command",
    [
        "cluster {events} --report",
        "bench lfw --root {folder} --pairs {clip} --report",
        "bench ident --videos {folder} --report",
        "bench audit --videos {folder} --stills {folder} --sheet",
    ],
)
def test_a_page_is_written_over_nothing_else(command: str, places: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "holiday.mp4"
    other.write_text("not a page")
    *words, option = command.format(**places).split()
    done = invoke(*words, option, str(other))
    assert done.exit_code == 1, done.exception
    assert f"error: {option} {other}: is there already, and no page of facestream" in done.stderr
    assert done.stderr.count("\n") == 1
    assert other.read_text() == "not a page"


def test_pages_and_empty_files_may_be_written_over(tmp_path: Path) -> None:
    markup.write_page(tmp_path / "figures.html", "figures", "x" * 10_000)
    html_report.write_report([], {}, tmp_path / "people.html", source="x", cut=0.5)
    (tmp_path / "empty.html").touch()
    for name in ("figures.html", "people.html", "empty.html", "not-there.html", "."):
        preflight.check_page(tmp_path / name, "--report")
    preflight.check_page(Path("/dev/null"), "--report")
    preflight.check_page(None, "--report")


def paths_of(group: typer.Typer, name: str = "") -> Iterator[str]:
    """Every parameter of every command that takes paths, such as ``bench lfw root``."""
    for command in group.registered_commands:
        assert command.callback is not None
        words = f"{name}{command.name or command.callback.__name__}"
        for parameter, kind in get_type_hints(command.callback).items():
            if Path in {kind, *get_args(kind)}:
                yield f"{words} {parameter}"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from paths_of(inner.typer_instance, f"{name}{inner.name} ")


def test_every_path_is_known_to_be_read_or_written() -> None:
    written = {re.sub(r" --| --sweep flip --", " ", each) for each in OUTPUTS}
    known = written | {f"{each.rpartition(' ')[0]} json_out" for each in written if each.endswith(" json")}
    assert {
        each for each in paths_of(app) if each not in known and each.rpartition(" ")[2] not in READ
    } == set()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("command", "module", "mend"),
    [
        (
            "bench lfw --root {folder} --pairs {clip} --report {folder}/r.html",
            "matplotlib",
            "facestream[bench]",
        ),
        (
            "bench ytf --root {folder} --pairs {clip} --report {folder}/r.html",
            "matplotlib",
            "facestream[bench]",
        ),
        ("bench ident --videos {folder} --report {folder}/r.html", "matplotlib", "facestream[bench]"),
        (
            "bench fruits --root {folder} --pairs {clip} --report {folder}/r.html",
            "matplotlib",
            "facestream[bench]",
        ),
        ("bench engine --plot {folder}/r.png", "matplotlib", "facestream[bench]"),
        ("bench cluster --videos {folder}", "sklearn", "--no-rivals"),
    ],
)
def test_a_missing_extra_is_said_before_anything_is_done(
    command: str, module: str, mend: str, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = invoke(*command.format(**places).split())
    assert done.exit_code == 2, done.exception
    assert mend in done.stderr


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("missing", ["--root", "--pairs", "--videos", "--stills", "--leave-out", "--fit-on"])
def test_a_data_set_that_is_not_there_is_said_before_anything_is_done(
    missing: str, places: dict[str, str]
) -> None:
    name, options = "lfw", {"--root": places["folder"], "--pairs": places["clip"]}
    if missing in {"--videos", "--stills", "--leave-out"}:
        name, options = "ident", {"--videos": places["folder"]}
    options[missing] = "/nowhere/to/be/found"
    done = invoke("bench", name, *(word for pair in options.items() for word in pair))
    assert done.exit_code == 1, done.exception
    assert f"error: {missing} /nowhere/to/be/found: no such f" in done.stderr


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("name", ["lfw", "ytf"])
def test_a_sweep_of_dimensions_without_other_faces(name: str, places: dict[str, str]) -> None:
    done = invoke("bench", name, "--root", places["folder"], "--pairs", places["clip"], "--sweep", "dim")
    assert done.exit_code == 2, done.exception
    assert done.stderr.startswith("error: --sweep dim: ")
    assert "give a folder of images with --fit-on" in done.stderr


def test_a_disk_without_room(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"--out .*: \d+\.\d MiB are free and 1e\+12 needed"):
        preflight.check_output_folder(tmp_path / "new", "--out", room_mib=1e12)
    with pytest.raises(SinkError, match=r"--json .*run\.json: \d+\.\d MiB are free and 1e\+12 needed"):
        preflight.check_output(tmp_path / "run.json", "--json", room_mib=1e12)


def test_what_will_do_leaves_nothing_behind(tmp_path: Path) -> None:
    preflight.check_output(tmp_path / "a" / "b" / "run.json", "--json")
    preflight.check_output_folder(tmp_path / "c", "--out")
    preflight.check_output(Path("/dev/null"), "--json")
    preflight.check_output(None, "--json")
    assert list(tmp_path.iterdir()) == []


def test_what_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="is a folder; name a file within it"):
        preflight.check_output(tmp_path, "--json")
    with pytest.raises(ConfigError, match=r"--plot: expected a name that ends in \.png or \.svg, got"):
        preflight.check_output(tmp_path / "a.jpg", "--plot", endings=(".png", ".svg"))
    with pytest.raises(SinkError, match=r"there is no folder .*; make it first"):
        preflight.check_output(tmp_path / "none" / "a.mp4", "--render", makes_folder=False)
    with pytest.raises(DatasetError, match=r"--pairs .*: no such file; check the path"):
        preflight.check_input(tmp_path, "--pairs")
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1:80"):
        preflight.check_listen(("192.0.2.1", 80), "--metrics")


def not_to_be_called(*_args: object, **_options: object) -> None:
    raise AssertionError("models would be loaded")


def test_a_run_with_nothing_to_play_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.app.wiring.open_pipeline", not_to_be_called)
    (tmp_path / "empty").mkdir()
    for source, says in {"none.mp4": "no such file", "empty": "no picture among 0 files"}.items():
        done = CliRunner().invoke(app, ["run", str(tmp_path / source), "--sink", "jsonl:-"])
        assert done.exit_code == 1
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_run_that_is_stopped_while_models_load_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_args: object, **_options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    monkeypatch.setattr("stream.app.wiring.open_pipeline", load)
    done = CliRunner().invoke(app, ["run", "test://ball", "--sink", f"jsonl:{tmp_path / 'events'}"])
    assert done.exit_code == 0
    assert done.stderr.endswith("stopped before anything was watched\n")


def test_sources_of_which_some_can_be_played(tmp_path: Path) -> None:
    preflight.check_sources([str(tmp_path / "none.mp4"), "rtsp://192.0.2.1/x"])
    with pytest.raises(SourceError, match=r"a\.mp4: no such file"):
        preflight.check_sources([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")])
