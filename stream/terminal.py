"""The terminal of a command."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def open_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that shows text as it stands.

    Names of people, cameras and topics come from outside, and may look like rich's markup or its codes for
    pictures: ``[/b]`` would end the command, ``[black]`` hide what follows.

    Args:
        stderr: Standard error; else standard output.
        soft_wrap: Leave long lines to the terminal.
    """
    return Console(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False)


def text_table(*headings: str) -> Table:
    """A table of texts that cuts none off: paths and hashes are there to be copied."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
