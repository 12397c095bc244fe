"""The ``facestream`` command: arguments in, one clear line out when something is wrong."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from engine.backends import telemetry
from stream.cli.bench.speed import bench_app
from stream.cli.cluster import cluster_tracks
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors, say_error, say_os_error
from stream.cli.events.log import events_app
from stream.cli.faces import faces_app
from stream.cli.folder_options import choose_folders
from stream.cli.gallery.manage import gallery_app
from stream.cli.identify import identify_tracks
from stream.cli.models import compile_model, models_app
from stream.cli.run import run
from stream.cli.spool import spool_app
from stream.common.open_files import raise_limit
from stream.console.terminal import open_console

app = typer.Typer(
    help="Turns camera feeds into identity events.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(bench_app, name="bench")
app.add_typer(models_app, name="models")
app.add_typer(events_app, name="events")
app.add_typer(gallery_app, name="gallery")
app.add_typer(faces_app, name="faces")
app.add_typer(spool_app, name="spool")
app.callback()(choose_folders)
app.command("compile")(compile_model)
app.command("cluster")(cluster_tracks)
app.command("identify")(identify_tracks)
app.command("run")(run)


def main() -> None:
    """Run the command line. What a terminal's encoding lacks, such as bytes of file names, is escaped."""
    _open_standard_streams()
    # Before any library is imported, and for whatever this process starts.
    telemetry.switch_off()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    raise_limit()
    try:
        app(prog_name="facestream")
    except OSError as exc:  # what is said before a command begins: --version, --help
        if "--debug" in sys.argv:
            raise
        sys.exit(say_os_error(exc))


def _open_standard_streams() -> None:
    """Where one of the three was closed (``>&-``), a file must not take its number.

    Nobody reads standard error then, which is no error; what is written to standard output is one.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


@app.command()
def demo(
    source: Annotated[
        str | None, typer.Option(help="Your own file or URI; without it, a clip is made.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what it makes.  [default: out/demo, or out/demo-source with --source]",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so many seconds of the clock.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show the main job: a clip to events, an annotated video and a picture of who was there."""
    with one_line_errors(debug=debug):
        from stream.app import preflight
        from stream.console.progress import Progress

        with Progress("loading"):
            from stream.cli.demo.demo import run_demo

        if out is None:
            out = Path("out/demo" if source is None else "out/demo-source")
        preflight.check_output_folder(out, "--out", room_mib=20.0)
        failed = run_demo(source, out, console=open_console(), max_s=max_seconds)
        for error in failed:
            say_error(error)
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def doctor(
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also see whether this Kafka broker lets us in; kafka://… with a login is taken as well.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say what this machine has and lacks, and the command that mends each lack."""
    with one_line_errors(debug=debug):
        from stream.console.progress import Progress

        with Progress("looking at this machine"):
            from stream.cli.doctor import examine, show_findings

            findings = examine(broker=broker)
        show_findings(findings, open_console())
    if any(finding.is_failure for finding in findings):
        raise typer.Exit(EXIT_FAILED)
