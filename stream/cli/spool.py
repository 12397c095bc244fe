"""``facestream spool``: what waits for Kafka on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from engine.errors import ConfigError
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.common.printable import counted
from stream.console.terminal import open_console

spool_app = typer.Typer(
    help="Events that wait on this machine until Kafka has them.", no_args_is_help=True, rich_markup_mode=None
)


@spool_app.command("status")
def spool_status(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Folder of the spools: spool.dir of the configuration.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Show what waits, and whether all of it can be read. Exit code 1 when a part is damaged."""
    with one_line_errors(debug=debug):
        from stream.console.progress import Progress
        from stream.spool.administration import list_spools, look_at_spool
        from stream.spool.cursor_and_lock import spools_folder

        base = spools_folder(folder)
        console = open_console()
        with Progress("reading the spools"):
            states = [look_at_spool(each) for each in list_spools(base)]
        if not states:
            typer.echo(f"nothing waits in {base}")
            return
        table = Table(title=str(base), title_justify="left")
        table.add_column("spool", overflow="fold")
        for heading in ("events", "MiB", "oldest", "damaged bytes", "used by"):
            table.add_column(heading, justify="right")
        for state in states:
            age = "" if state.oldest_ms is None else f"{time.time() - state.oldest_ms / 1000:.0f} s"
            holder = "nobody" if state.holder is None else f"process {state.holder}"
            size = f"{state.bytes / (1 << 20):.1f}"
            table.add_row(state.folder.name, str(state.events), size, age, str(state.damaged_bytes), holder)
        console.print(table)
    if any(state.damaged_bytes for state in states):
        raise typer.Exit(EXIT_FAILED)


@spool_app.command("purge")
def spool_purge(
    folder: Annotated[Path, typer.Argument(help="Of one spool.", exists=True, file_okay=False)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    debug: Debug = False,
) -> None:
    """Give up the events that wait in a spool. They are lost."""
    with one_line_errors(debug=debug):
        from stream.spool.administration import look_at_spool, purge_spool

        events = look_at_spool(folder).events
        if not yes:
            _ask(f"give up {counted(events, 'event')} in {folder}?")
        typer.echo(f"given up: {counted(purge_spool(folder), 'event')}")


def _ask(question: str) -> None:
    """Go on only after a yes.

    Raises:
        ConfigError: Nobody is there to answer.
        typer.Abort: The answer was no.
    """
    try:
        typer.confirm(question, abort=True)
    except typer.Abort as exc:
        if not isinstance(exc.__context__, EOFError):
            raise
        typer.echo()
        raise ConfigError(
            "nobody answers, and nothing was given up; add --yes to do it without asking"
        ) from None
