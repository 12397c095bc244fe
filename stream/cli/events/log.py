"""The commands about events that were written: ``facestream events …``."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from engine.errors import ConfigError
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.cli.events import topics
from stream.common.printable import counted, printable
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from stream.console.progress import Progress
    from stream.events.codecs import SchemaLookup
    from stream.sinks.completeness import LogCheck
    from stream.sinks.event_log import Entry

events_app = typer.Typer(
    help="Events that were written: tail, replay, verify, schema, topics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
topics.register(events_app)


def _in_one_form(names: list[str] | None) -> list[str] | None:
    """Names as events have them: é may be typed as one character or as two."""
    return names and [unicodedata.normalize("NFC", name) for name in names]


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="kafka://HOST:PORT/TOPIC, jsonl:PATH or sqlite:PATH. ${NAME} is taken from the environment.",
    ),
]
Registry = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Schema registry; its login is FACESTREAM_REGISTRY_USER and _PASSWORD."),
]
Cameras = Annotated[
    list[str] | None,
    typer.Option(
        "--camera", metavar="ID", help="Only of this camera; may be repeated.", callback=_in_one_form
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--type", metavar="TYPE", help="Only such: track, camera.down, identity, …; may be repeated."
    ),
]
Tracks = Annotated[
    list[str] | None, typer.Option("--track", metavar="ID", help="Only of this track; may be repeated.")
]
People = Annotated[
    list[str] | None,
    typer.Option(
        "--person",
        metavar="WHO",
        help="Only answers that name this id or name; may be repeated.",
        callback=_in_one_form,
    ),
]


@events_app.command()
def tail(
    source: Source,
    camera: Cameras = None,
    kind: Kinds = None,
    track: Tracks = None,
    person: People = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From 10m, 2h, 7d ago on, or from an ISO time on.")
    ] = None,
    follow: Annotated[
        bool | None,
        typer.Option("--follow/--no-follow", help="Wait for more at the end.  [default: for Kafka]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A CloudEvent a line, to standard output.")] = False,
    registry: Registry = None,
    debug: Debug = False,
) -> None:
    """Show events as they come, a line each."""
    with one_line_errors(debug=debug):
        from stream.cli.events.replay import EventFilter, chosen, show_event
        from stream.console.signals import stop_on_signals
        from stream.events.cloudevents import to_json
        from stream.sinks.event_log import parse_time, read_log

        source, begin = _expand(source), parse_time(since, datetime.now(UTC)) if since else None
        wanted = EventFilter(camera or (), kind or (), track or (), person or (), since=begin)
        goes_on = source.startswith("kafka://") if follow is None else follow
        console = open_console(soft_wrap=True)
        with stop_on_signals() as stopping:
            entries = read_log(
                source,
                since=begin,
                follow=goes_on,
                lookup=_lookup(registry),
                stopping=stopping,
                on_end=lambda: _say_waiting(source, is_all=begin is not None),
            )
            events = (event for event, _ in chosen(entries, wanted, on_problem=_say_problem))
            is_silent = True
            with _reader_may_leave():
                for event in islice(events, limit):
                    is_silent = False
                    if as_json:
                        sys.stdout.buffer.write(to_json(event) + b"\n")
                        sys.stdout.buffer.flush()
                    else:
                        console.print(show_event(event))
            if is_silent and not goes_on and not stopping.is_set():
                _say_nothing(source, is_all=wanted == EventFilter())


@events_app.command()
def replay(
    source: Source,
    sink: Annotated[
        str, typer.Option(help="Where to: kafka://HOST:PORT/TOPIC, jsonl:PATH, jsonl:- or sqlite:PATH.")
    ],
    begin: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="From 10m, 2h, 7d ago on, or from an ISO time on."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Up to here, itself excluded.")
    ] = None,
    old_begin: Annotated[str | None, typer.Option("--from", hidden=True)] = None,
    old_end: Annotated[str | None, typer.Option("--to", hidden=True)] = None,
    camera: Cameras = None,
    kind: Kinds = None,
    track: Tracks = None,
    person: People = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most so many events a second.")
    ] = None,
    event_format: Annotated[
        Literal["json", "avro", "protobuf"], typer.Option(help="How Kafka's records are written.")
    ] = "json",
    embedding_encoding: Annotated[
        Literal["float32-b64", "int8-b64"], typer.Option(help="How embeddings are written.")
    ] = "float32-b64",
    registry: Registry = None,
    debug: Debug = False,
) -> None:
    """Write events of a time range again, into another topic or file: in order, with the same ids."""
    with one_line_errors(debug=debug):
        from stream.cli.events.replay import EventFilter, chosen, open_target
        from stream.cli.events.replay import replay as replay_events
        from stream.console.signals import stop_on_signals
        from stream.sinks.event_log import parse_time, read_log

        source, now = _expand(source), datetime.now(UTC)
        since, until = (
            parse_time(text, now) if text else None for text in (begin or old_begin, end or old_end)
        )
        if since and until and since >= until:
            raise ConfigError("--since and --until: expected the first to be earlier; exchange them")
        wanted = EventFilter(camera or (), kind or (), track or (), person or (), since=since, until=until)
        with (
            stop_on_signals() as stopping,
            open_target(
                _expand(sink),
                source,
                event_format=event_format,
                encoding=embedding_encoding,
                registry=registry,
            ) as target,
            _progress("replaying") as advance,
        ):
            entries = read_log(source, since=since, lookup=_lookup(registry), stopping=stopping)
            events = chosen(entries, wanted, on_problem=_say_problem)
            count = replay_events(events, target, stopping=stopping, most_per_s=rate, on_progress=advance)
        typer.echo(f"{counted(count, 'event')} replayed", err=True)


@events_app.command()
def verify(
    source: Source,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was written to a topic since then.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="The beginning may be missing; tracks may begin before it.")
    ] = False,
    registry: Registry = None,
    debug: Debug = False,
) -> None:
    """Look for gaps, repeats and disorder.

    Ends with 1 where events are missing, late or unreadable, or where there is none at all.
    """
    with one_line_errors(debug=debug):
        from stream.console.signals import stop_on_signals
        from stream.sinks.completeness import LogCheck
        from stream.sinks.event_log import parse_time, read_log

        source, begin = _expand(source), parse_time(since, datetime.now(UTC)) if since else None
        check = LogCheck(whole=not partial and begin is None)
        with stop_on_signals() as stopping, _progress("verifying") as advance:
            entries = read_log(source, since=begin, lookup=_lookup(registry), stopping=stopping)
            for number, entry in enumerate(entries, 1):
                check.add(entry)
                if not number % 200:
                    advance(number, entry.done)
            is_cut_short = stopping.is_set()
        is_empty = not (sum(check.events.values()) or check.unreadable or check.erased)
        if is_empty:
            _say_nothing(source, is_all=begin is None)
        else:
            _show_check(check)
        if is_cut_short:
            typer.echo("stopped before the end", err=True)
    if is_cut_short or not check.is_whole or (is_empty and begin is None):
        raise typer.Exit(EXIT_FAILED)


@events_app.command()
def schema(
    noun: Annotated[Literal["track", "camera", "identity", "event"], typer.Argument(help="Of what.")],
    language: Annotated[
        Literal["json", "avro", "protobuf"], typer.Option("--format", help="In which language.")
    ] = "json",
    release: Annotated[str | None, typer.Option(help="As that release had it.")] = None,
    debug: Debug = False,
) -> None:
    """Print a schema. `event` is the envelope, which only JSON has."""
    with one_line_errors(debug=debug):
        from stream.events.schema_files import releases, schema_text

        if release is not None and release not in releases():
            raise ConfigError(f"--release {release[:40]}: expected one of {', '.join(releases())}")
        try:
            text = schema_text(noun, language, release=release)
        except ValueError as exc:
            raise ConfigError(f"{noun}: {exc}; --format json has it") from None
        typer.echo(text, nl=False)


def _show_check(check: LogCheck) -> None:
    table = Table("found")
    table.add_column("events", justify="right")
    rows = {f"{noun} events": count for noun, count in check.events.items()} | {
        "missing": check.gaps,
        "out of order": check.late,
        "repeats": check.repeats,
        "unreadable": check.unreadable,
        "erased": check.erased,
        "tracks and runs that began before": check.begun_before,
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    console = open_console(soft_wrap=True)
    console.print(table)
    for finding in check.findings():
        console.print(printable(finding))
    console.print("whole" if check.is_whole else "not whole")


def _say_waiting(source: str, *, is_all: bool) -> None:
    """That nothing more comes for now, which looks like nothing at all."""
    from stream.common.uris import redact_uri

    older = (
        "" if is_all or not source.startswith("kafka://") else "; older ones: --since 1h, all: --no-follow"
    )
    text = f"at the end of {redact_uri(source)}, waiting for more{older} (Ctrl-C ends)"
    typer.echo(printable(text), err=True)


def _say_nothing(source: str, *, is_all: bool) -> None:
    from stream.common.uris import redact_uri

    text = f"no event {'' if is_all else 'that was asked for '}in {redact_uri(source)}"
    typer.echo(printable(text), err=True)


def _say_problem(entry: Entry) -> None:
    text = printable(f"{entry.place}: {entry.problem}")
    typer.echo(text, err=True)


def _lookup(registry: str | None) -> SchemaLookup | None:
    if registry is None:
        return None
    from stream.kafka.schema_registry import SchemaRegistry

    return SchemaRegistry.from_environment(_expand(registry), os.environ).schema


def _expand(address: str) -> str:
    from stream.app.yaml_reader import expand_address

    return expand_address(address, os.environ)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Let ``… | head`` end us in silence."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Advance:
    """Tells how many events were read, and of what share of them."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar, self._what = bar, what

    def __call__(self, count: int, done: float | None) -> None:
        self._bar.update(what=f"{self._what}: {count:,} events", done=done or 0.0)


@contextmanager
def _progress(what: str) -> Iterator[_Advance]:
    """How far it is, on standard error."""
    from stream.console.progress import Progress

    with Progress(what, total=1.0) as bar:
        yield _Advance(bar, what)
