"""Every shell block of the documents can be pasted as it stands.

All blocks of a page run as one script in a real shell. What facestream is told is parsed by the real command
line, and carried out wherever what it needs is at hand; ``ONLY_PARSED`` says what is not, and why.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import typer
import yaml
from doc_shell import PAGES, ROOT, Call, calls_of, fenced, lay_out, page_id, script_of
from typer.testing import CliRunner

from stream.app.settings import load_settings
from stream.cli.root import app
from stream.common.uris import parse_source
from stream.sinks.event_sink import parse_sink

CallsOf: TypeAlias = Callable[[Path], list[Call]]

ONLY_PARSED = {
    r"kafka://": "needs a broker; README's are run with one below",
    r"v4l2://": "needs a webcam",
    r"rtsp://": "needs a camera",
    r"--config configs/": "needs cameras",
    r"\bbench ": "needs a data set, or takes minutes",
    r"\bcompile ": "takes minutes",
    r"\bmodels verify ": "takes a minute",
    r"\bmodels import ": "needs a model of the reader's own",
    r"--embedder fused": "takes long to build",
    r"Ann Lee": "names a person of the reader's own",
}

EXTRAS = {
    r"\b(fused|dlib)\b": "dlib",
    r"\bbench (lfw|ytf|ident|fruits|cluster) .*--report|\bbench cluster": "bench",
    r"--engine tensorrt-rtx": "tensorrt-rtx",
}
"""What an extra is needed for, which the page must have installed before."""

WITH_SHELL = [page for page in PAGES if script_of(page)]
WITH_OURS = [page for page in WITH_SHELL if "facestream " in script_of(page)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "checkout"
    lay_out(folder)
    return folder


@pytest.fixture
def demo_checkout(checkout: Path, short_demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout of its own after ``make demo``; the working directory."""
    folder = tmp_path / "checkout"
    shutil.copytree(checkout, folder, symlinks=True)
    (folder / "out").mkdir()
    (folder / "out" / "demo").symlink_to(short_demo)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def calls(checkout: Path) -> CallsOf:
    return functools.cache(lambda page: calls_of(page, checkout))


def reason_not_to_run(call: Call) -> str | None:
    return next((why for pattern, why in ONLY_PARSED.items() if re.search(pattern, str(call))), None)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_says_what_it_is(page: Path) -> None:
    known = {"sh", "python", "yaml", "json", "sql", "text", "mermaid"}
    assert {language for language, _ in fenced(page)} <= known, (
        "a block without a language is tested by nobody"
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_are_python_and_import_what_there_is(page: Path) -> None:
    for language, text in fenced(page):
        if language == "python":
            tree = ast.parse(text)
            imports = [each for each in ast.walk(tree) if isinstance(each, ast.Import | ast.ImportFrom)]
            exec(compile(ast.unparse(ast.Module(imports, [])), page.name, "exec"), {})


@pytest.mark.parametrize("page", WITH_SHELL, ids=page_id)
def test_the_shell_takes_all_blocks_of_a_page(page: Path, calls: CallsOf) -> None:
    assert calls(page)


@pytest.mark.parametrize("page", WITH_SHELL, ids=page_id)
def test_every_command_is_one_that_there_is(
    page: Path, calls: CallsOf, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    for call in calls(page):
        check_call(call)


@pytest.mark.parametrize("page", WITH_SHELL, ids=page_id)
def test_extras_are_installed_before_they_are_needed(page: Path, calls: CallsOf) -> None:
    extras: set[str] = set()
    for call in calls(page):
        if call.program == "pip":
            extras |= {
                name for found in re.findall(r"facestream\[(.*?)]", str(call)) for name in found.split(",")
            }
        for pattern, extra in EXTRAS.items():
            if call.program == "facestream" and re.search(pattern, str(call)):
                assert extra in extras, f"{call}: needs pip install 'facestream[{extra}]' before it"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_running_text_are_some_that_there_are(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`facestream ([^`]+)`", prose):
        words = re.split(r"\s\\?\|\s", span)[0].split()
        command: Any = typer.main.get_command(app)
        while (
            words and hasattr(command, "commands") and (found := words[0].split("|")[0]) in command.commands
        ):
            command, words = command.commands[found], words[1:]
        assert not (hasattr(command, "commands") and words and re.match(r"[a-z]", words[0])), span
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        told = {word.split("=")[0].strip("[]") for word in words if word.startswith("-")}
        assert told <= {*options, "--help", "--"}, span


def check_call(call: Call) -> None:
    """The program knows what it is told."""
    match call.program:
        case "facestream":
            check_facestream(call)
        case "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {each for each in call.arguments if "=" not in each} <= set(targets), call
        case "docker" if call.arguments[0] == "compose":
            services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
            assert set(call.arguments) & set(services), call
        case "pip":
            known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            for names in re.findall(r"facestream\[(.*?)]", str(call)):
                assert set(names.split(",")) <= set(known), call
        case "python":
            assert (ROOT / call.arguments[0]).is_file(), call
        case "kafka":
            assert re.search(rf"\b{call.arguments[0]}\b", (ROOT / "scripts/kafka/kafka").read_text()), call


def check_facestream(call: Call) -> None:
    """The real command line parses it, as far as it can be judged without running."""
    parameters = parse(call.arguments)
    for source in parameters.get("sources") or []:
        parse_source(expand(source, call))
    sinks = parameters.get("sink") or []
    for sink in [sinks] if isinstance(sinks, str) else sinks:
        parse_sink(expand(sink, call))
    if parameters.get("config"):
        assert load_settings(parameters["config"], environment=call.environment).cameras


def expand(text: str, call: Call) -> str:
    """With ``${NAME}`` taken from the variables that the page has exported."""
    return re.sub(r"\$\{(\w+)}", lambda found: "x" if call.environment[found[1]] else "", text)


def parse(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What the command's parameters get; fails where there is no such command, option or argument."""
    command: Any = typer.main.get_command(app)
    context, rest = None, list(arguments)
    while hasattr(command, "resolve_command"):
        context = command.make_context("facestream", rest, parent=context)
        _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    return dict(command.make_context("facestream", rest, parent=context).params)


def run(call: Call) -> None:
    """Carry it out in this process, or in one of its own where it writes to standard output itself."""
    if "jsonl:-" in call.arguments:
        program = [sys.executable, "-c", "from stream.cli import main; main()"]
        subprocess.run([*program, *call.arguments], env=call.environment, check=True, timeout=300)
        return
    done = CliRunner().invoke(app, list(call.arguments), env=call.environment | {"COLUMNS": "200"})
    assert done.exit_code == 0, f"{call}\n{done.output}\n{done.exception!r}"


@pytest.mark.parametrize("page", WITH_OURS, ids=page_id)
def test_what_can_be_run_here_runs(page: Path, calls: CallsOf, request: pytest.FixtureRequest) -> None:
    ours = [each for each in calls(page) if each.program == "facestream"]
    mine = [each for each in ours if reason_not_to_run(each) is None]
    if not mine:
        pytest.skip(f"only parsed: {'; '.join(sorted({str(reason_not_to_run(each)) for each in ours}))}")
    request.getfixturevalue("demo_checkout")
    for call in mine:
        run(call)


def test_every_reason_not_to_run_something_is_needed(calls: CallsOf) -> None:
    ours = [str(each) for page in WITH_OURS for each in calls(page) if each.program == "facestream"]
    unused = [pattern for pattern in ONLY_PARSED if not any(re.search(pattern, each) for each in ours)]
    assert not unused


@pytest.mark.kafka
def test_the_readme_writes_to_kafka_and_reads_it_back(
    kafka_broker: str,
    calls: CallsOf,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    clip = tmp_path / "out" / "demo" / "clip.mp4"
    clip.parent.mkdir(parents=True)
    pipeline = "videotestsrc num-buffers=30 ! x264enc tune=zerolatency ! h264parse ! mp4mux ! filesink"
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split(), f"location={clip}"], check=True, timeout=120)
    monkeypatch.chdir(tmp_path)
    topic = f"readme-{uuid.uuid4().hex[:12]}"
    ran = []
    for call in calls(ROOT / "README.md"):
        is_mine = call.program == "facestream" and "kafka://localhost" in str(call)
        if is_mine and "rtsp://" not in str(call) and "tail" not in call.arguments:  # it waits for ever
            told = (
                each.replace("localhost:9092/faces", f"{kafka_broker}/{topic}") for each in call.arguments
            )
            run(Call(call.page, call.program, tuple(told), call.environment))
            ran.append(call.arguments[:2])
    assert len(ran) == 3
    assert len((tmp_path / "day.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_without_arguments_says_how_it_is_used(example: Path) -> None:
    for arguments in ([], ["--help"]):
        done = subprocess.run(
            [sys.executable, example, *arguments],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("usage: python ")
        assert "Traceback" not in done.stderr
