"""The terminal of a command, and the one place where tables are laid out for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final, NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ANY_WIDTH: Final = 1_000_000


def open_console(*, stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that shows text as it stands, and tables so that no word of them is broken.

    Names of people, cameras and topics come from outside, and may look like rich's markup or its codes for
    pictures: ``[/b]`` would end the command, ``[black]`` hide what follows.

    Args:
        stderr: Standard error; else standard output.
        soft_wrap: Leave long lines to the terminal.
    """
    return _TableConsole(stderr=stderr, soft_wrap=soft_wrap, markup=False, emoji=False)


def text_table(*headings: str) -> Table:
    """A table of texts that cuts none off: paths and hashes are there to be copied."""
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def show_commands(console: Console, commands: Sequence[tuple[str, str]]) -> None:
    """Print commands to copy, each on a line of its own below what it is for.

    Args:
        console: Where to.
        commands: What for, and the command; none where nothing is to be done.
    """
    for what, command in commands:
        console.print(f"{what}:", soft_wrap=True, highlight=False)
        console.print(f"    {command}", soft_wrap=True, highlight=False)


class _TableConsole(Console):
    """Prints tables whole: fitted to a terminal, and as plain columns of any width into a pipe or file."""

    def print(self, *objects: Any, **options: Any) -> None:
        for each in objects:
            if isinstance(each, Table) and not self.is_terminal:
                self._print_lines(plain_lines(each))
            elif isinstance(each, Table) and not fit_columns(each, self):
                self._print_lines(record_lines(each))
            else:
                is_text = isinstance(each, str) and not self.is_terminal
                super().print(each, **({"soft_wrap": True} if is_text else {}) | options)
        if not objects:
            super().print(**options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command, as for what is written without a console."""
        raise BrokenPipeError

    def _print_lines(self, lines: Iterator[str]) -> None:
        for line in lines:
            super().print(line, soft_wrap=True, highlight=False)


def plain_lines(table: Table) -> Iterator[str]:
    """A table as lines of columns two spaces apart, without lines, colours or a limit of width."""
    if table.title:
        yield _text(table.title)
    columns = [[_text(cell) for cell in column.cells] for column in table.columns]
    heads = [_text(column.header) for column in table.columns]
    if table.show_header and any(heads):
        columns = [[head, *column] for head, column in zip(heads, columns, strict=True)]
    widths = [max(map(cell_len, column), default=0) for column in columns]
    on_the_right = [column.justify == "right" for column in table.columns]
    for row in zip(*columns, strict=True):
        padded = [
            " " * (width - cell_len(cell)) + cell if right else cell + " " * (width - cell_len(cell))
            for cell, width, right in zip(row, widths, on_the_right, strict=True)
        ]
        yield "  ".join(padded).rstrip()


def record_lines(table: Table) -> Iterator[str]:
    """A table as its rows one after the other, a line for each column that is not empty."""
    if table.title:
        yield _text(table.title)
    heads = [_text(column.header) for column in table.columns]
    for row in zip_longest(*(column.cells for column in table.columns), fillvalue=""):
        first, *rest = ((head, _text(cell)) for head, cell in zip(heads, row, strict=True))
        yield ": ".join(filter(None, first))
        for head, cell in rest:
            if cell:
                yield "    " + ": ".join(filter(None, (head, cell)))


def fit_columns(table: Table, console: Console) -> bool:
    """Give each column its share of a terminal, none less than its longest word.

    Args:
        table: Its columns get their widths.
        console: Of the terminal.

    Returns:
        Whether the words have room.
    """
    options = console.options.update(max_width=_ANY_WIDTH)
    bounds = [_bounds(column.header, *column.cells) for column in table.columns]
    most = sum(most for _, most in bounds)
    room = console.width - (Measurement.get(console, options, table).maximum - most)
    least = sum(least for least, _ in bounds)
    if least > room:
        return False
    if most > room:
        share = (room - least) / (most - least)
        for column, (low, high) in zip(table.columns, bounds, strict=True):
            column.width = low + int((high - low) * share)
    return True


def _bounds(*cells: Any) -> tuple[int, int]:
    """Widths of the longest word and of the longest line."""
    texts = [_text(cell) for cell in cells]
    words = (cell_len(word) for text in texts for word in text.split())
    lines = (cell_len(line) for text in texts for line in text.splitlines())
    return max(words, default=0), max(lines, default=0)


def _text(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
