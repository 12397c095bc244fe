"""What every command has in common: one clear line and an exit code when something is wrong."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Final, Literal

import typer

from engine.errors import ConfigError, FacestreamError, TextError
from stream.common import standard_output

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_PARTLY: Final = 3
"""Done for some, and somebody was left out."""
EXIT_READER_LEFT: Final = 128 + signal.SIGPIPE
"""As a shell has it of a program that nobody reads any more."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of an error and log in detail.")]


@contextmanager
def one_line_errors(*, debug: bool, log_format: Literal["text", "json"] = "text") -> Iterator[None]:
    """Set up logging; turn what the world does wrong into one line and an exit code."""
    from stream.common.logs import configure_logging, get_logger
    from stream.console.signals import Stopped

    configure_logging(fmt=log_format, level="debug" if debug else "info")
    try:
        yield
    except Stopped:
        get_logger(__name__).info("stopped before anything was watched")
        raise typer.Exit from None
    except OSError as exc:
        if debug and not isinstance(exc, BrokenPipeError):
            raise
        raise typer.Exit(say_os_error(exc)) from None
    except FacestreamError as exc:
        if debug:
            raise
        say_error(exc)
        raise typer.Exit(EXIT_USAGE if isinstance(exc, (ConfigError, TextError)) else EXIT_FAILED) from None
    except ImportError as exc:
        if debug:
            raise
        from engine.optional_libraries import describe

        say_error(FacestreamError(describe(exc)))
        raise typer.Exit(EXIT_FAILED) from None
    except ValueError as exc:  # UnicodeError, too: text that nothing has checked
        if debug:
            raise
        say_error(exc)
        raise typer.Exit(EXIT_FAILED) from None


def say_os_error(error: OSError) -> int:
    """Print what the system refused as one line, and return the exit code for it."""
    if isinstance(error, BrokenPipeError):  # the reader has left, as in "… | head"
        standard_output.write_to_nobody()
        return EXIT_READER_LEFT
    if error.errno == errno.EBADF and error.filename is None and not standard_output.is_open():
        standard_output.write_to_nobody()
        say_error(FacestreamError(standard_output.CLOSED))
        return EXIT_FAILED
    what = error.filename or "facestream"
    advice = "" if error.errno in (errno.EMFILE, errno.ENFILE) else "; --debug shows where"
    say_error(FacestreamError(f"{what}: {error.strerror or error}{advice}"))
    return EXIT_FAILED


def say_error(error: Exception) -> None:
    """Print what is wrong as one line, without secrets."""
    from stream.common.open_files import ran_out, too_many
    from stream.common.printable import printable
    from stream.common.uris import redact_text

    advice = "" if isinstance(error, FacestreamError) else "; --debug shows where"
    text = " ".join(str(error).split())
    if ran_out(error):
        text = f"{text.partition(': ')[0]}: {too_many()}"
    with suppress(OSError):  # a terminal that was closed
        typer.echo(printable(f"error: {redact_text(text)}{advice}"), err=True)
