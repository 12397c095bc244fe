"""The command ``facestream identify``: recognition as a consumer of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.errors import Debug, one_line_errors
from stream.common.printable import counted
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from stream.gallery.identification.worker import IdentifyStats
    from stream.kafka.consuming.event_consumer import Start


def identify_tracks(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Events of tracks: kafka://HOST:PORT/TOPIC[?identities=TOPIC]. "
            "${NAME} is taken from the environment.",
        ),
    ],
    gallery: Annotated[
        Path, typer.Option(help="Who is enrolled; changes reach this without a restart. See `gallery`.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            help="Where answers go to: kafka://HOST:PORT/TOPIC, of as many partitions; made where it is "
            "missing.  [default: the topic of SOURCE, or that of its identities=]"
        ),
    ] = None,
    group: Annotated[
        str,
        typer.Option(help="Processes of one group share the work; start as many as there are partitions."),
    ] = "facestream-identify",
    since: Annotated[
        str,
        typer.Option(
            metavar="earliest|latest|TIME",
            help="Where a group begins that has read nothing yet; TIME as 2h, 7d ago or an ISO time.",
        ),
    ] = "earliest",
    old_since: Annotated[str | None, typer.Option("--from", hidden=True)] = None,
    false_accepts: Annotated[float, typer.Option(help="Share of strangers who may be named anybody.")] = 0.01,
    min_quality: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A track is not named while its best face is worth less.")
    ] = 0.2,
    event_format: Annotated[
        Literal["json", "avro", "protobuf"], typer.Option(help="How answers are written.")
    ] = "json",
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Schema registry of what is read, and written, in Avro or Protobuf."
        ),
    ] = None,
    idle: Annotated[
        float | None, typer.Option(min=0.0, help="End when no event came for so many seconds.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve Prometheus metrics at /metrics.")
    ] = None,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="How log lines look.")] = "text",
    debug: Debug = False,
) -> None:
    """Read tracks from Kafka and write who they are, until Ctrl-C; restartable, and scales by group."""
    with one_line_errors(debug=debug, log_format=log_format):
        from stream.console.progress import Progress

        with Progress("loading"):
            from stream.app.metrics import serve_collectors
            from stream.app.yaml_reader import expand_address
            from stream.common.encryption import Sealer
            from stream.console.signals import stop_on_signals
            from stream.gallery.identification.identifier import Identifier
            from stream.gallery.identification.metrics import IdentifyMetrics, search_histogram
            from stream.gallery.identification.worker import open_service, run_service
            from stream.gallery.people import Gallery
            from stream.kafka.address import identities_of, parse_kafka
            from stream.kafka.schema_registry import SchemaRegistry, topic_encoder

        start = parse_start(old_since or since)
        address = parse_kafka(source, environment=os.environ)
        target = identities_of(address if to is None else parse_kafka(to, environment=os.environ))
        known = (
            None
            if registry is None
            else SchemaRegistry.from_environment(expand_address(registry, os.environ), os.environ)
        )
        listen = None if metrics is None else parse_listen(metrics)
        preflight.check_listen(listen, "--metrics")
        screen, searches = open_console(stderr=True), search_histogram()
        with (
            Gallery.open(gallery, sealer=Sealer.from_environment(os.environ)) as opened,
            stop_on_signals() as stopping,
        ):
            try:
                identifier = Identifier(opened, false_accept_rate=false_accepts, min_quality=min_quality)
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
            with (
                open_service(
                    address,
                    target,
                    gallery=opened,
                    identifier=identifier,
                    group=group,
                    encode=topic_encoder(target.topic, event_format, "float32-b64", known),
                    stopping=stopping,
                    from_=start,
                    lookup=None if known is None else known.schema,
                    idle_s=idle,
                    on_search=searches.observe,
                ) as (events, service),
                ExitStack() as stack,
                screen.status("waiting for tracks") as status,
            ):
                if listen is not None:
                    told = (IdentifyMetrics(service), searches)
                    stack.enter_context(serve_collectors(told, host=listen[0], port=listen[1]))
                run_service(
                    events,
                    service,
                    stopping=stopping,
                    on_progress=lambda stats: status.update(describe(stats)),
                )
        screen.print(describe(service.stats), soft_wrap=True)


def parse_listen(text: str) -> tuple[str, int]:
    """Where metrics are served.

    Raises:
        ConfigError: It is not ``HOST:PORT``.
    """
    from stream.app.settings import parse_address

    try:
        return parse_address(text)
    except ValueError as exc:
        raise ConfigError(f"--metrics: {exc}") from exc


def parse_start(text: str) -> Start:
    """Where reading begins: ``earliest``, ``latest``, or a time, local where it has no zone.

    Args:
        text: One of these two words, ``2h`` ago and the like, or a time of ISO 8601.

    Raises:
        ConfigError: It is none of these.
    """
    match text:
        case "earliest" | "latest":
            return text
    from stream.sinks.event_log import parse_time

    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return parse_time(text, datetime.now().astimezone())
    except ConfigError as exc:
        raise ConfigError(f"--since: expected earliest or latest; or {exc}") from exc


def describe(stats: IdentifyStats) -> str:
    """What was done, in one line for people."""
    passed_over = f", {stats.passed_over} of another model skipped" if stats.passed_over else ""
    events, answers = counted(stats.events, "event"), counted(stats.answers, "answer")
    return f"{events} of tracks, {answers}{passed_over}"
