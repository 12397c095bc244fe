"""The commands that measure: ``facestream bench …``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from engine.errors import ConfigError
from stream.app import preflight
from stream.cli.bench.accuracy import bench_compare, bench_fruits, bench_lfw, bench_ytf
from stream.cli.bench.clustering import bench_cluster
from stream.cli.bench.identification import bench_audit, bench_ident
from stream.cli.errors import Debug, one_line_errors
from stream.console.progress import Progress
from stream.console.terminal import open_console

_BROKER_TIMEOUT_S: Final = 10.0

bench_app = typer.Typer(help="Measure speed and accuracy.", no_args_is_help=True, rich_markup_mode=None)


bench_app.command("lfw")(bench_lfw)
bench_app.command("ytf")(bench_ytf)
bench_app.command("ident")(bench_ident)
bench_app.command("cluster")(bench_cluster)
bench_app.command("fruits")(bench_fruits)
bench_app.command("compare")(bench_compare)
bench_app.command("audit")(bench_audit)


@bench_app.command("engine")
def bench_engine(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Of `facestream models list`.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Images in one call.")] = "1,4,8",
    threads: Annotated[int, typer.Option(min=1, help="That compute.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.05, help="For each point of the table.")] = 0.8,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Of the images, for models that take any size.")
    ] = "640x384",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and throughput into this .png or .svg.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Latency and throughput of every engine, beside what the processor can compute at most."""
    with one_line_errors(debug=debug):
        preflight.check_output(json_out, "--json", makes_folder=False)
        preflight.check_output(plot, "--plot", endings=(".png", ".svg"), makes_folder=False)
        preflight.check_apart([("--json", json_out), ("--plot", plot)])
        with Progress("loading"):
            from stream.bench.engine_speed import bench_engine as bench

        width, *rest = _whole_numbers(size, "x", "--size")
        if len(rest) != 1:
            raise ConfigError(f"--size: expected width and height as 640x384, got {size!r}")
        try:
            bench(
                models or ("yunet", "sface"),
                console=open_console(),
                batches=_whole_numbers(batch, ",", "--batch"),
                seconds=seconds,
                threads=threads,
                size_wh=(width, rest[0]),
                json_out=json_out,
                plot_out=plot,
                command=("facestream", *sys.argv[1:]),
            )
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc


def _whole_numbers(text: str, separator: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise ConfigError(
            f"{option}: expected whole numbers with {separator!r} between, got {text!r}"
        ) from None


@bench_app.command("stream")
def bench_stream(
    source: Annotated[
        Path | None,
        typer.Argument(help="A video file; without it, a made clip of one face, as a camera would send it."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is run; the median counts.")] = 3,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Frames a second of the whole job, as ratios to decoding alone and to a plain OpenCV loop."""
    with one_line_errors(debug=debug):
        preflight.check_output(json_out, "--json", makes_folder=False)
        preflight.check_input(source, "SOURCE")
        preflight.check_apart([("--json", json_out)], [("SOURCE", source)])
        with Progress("loading"):
            from stream.bench.end_to_end import bench_stream as bench

        bench(source, rounds=rounds, console=open_console(), json_out=json_out)


@bench_app.command("gallery")
def bench_gallery(
    people: Annotated[int, typer.Option(min=1, help="Enrolled, one template each.")] = 1_000_000,
    searches: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 1000,
    adds: Annotated[int, typer.Option(min=0, help="Made while others search.")] = 10_000,
    size: Annotated[int, typer.Option(min=2, max=4096, help="Numbers of an embedding.")] = 128,
    store: Annotated[
        Literal["float32", "int8"], typer.Option(help="How templates are kept in memory.")
    ] = "float32",
    faces: Annotated[
        Path | None,
        typer.Option(help="Folder with a folder of photographs a person: also as these faces are spread."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Speed and recall of the gallery's index, on one core."""
    with one_line_errors(debug=debug):
        # One core is measured: the libraries read this when they are loaded, which is below.
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        preflight.check_output(json_out, "--json", makes_folder=False)
        preflight.check_input_folder(faces, "--faces")
        with Progress("loading"):
            from stream.bench.gallery_search import bench_gallery as bench

        bench(
            people,
            searches=searches,
            adds=adds,
            console=open_console(),
            size=size,
            store=store,
            faces=faces,
            json_out=json_out,
        )


@bench_app.command("events")
def bench_events(
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="FACESTREAM_TEST_KAFKA",
            help="Of a Kafka broker, or a kafka:// address; topics are made and removed again.",
        ),
    ] = None,
    events: Annotated[int, typer.Option(min=1000, help="In each round.")] = 60_000,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each way is run; the median counts.")] = 3,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Events a second to a Kafka broker on one core, and what one costs the processor."""
    with one_line_errors(debug=debug):
        preflight.check_output(json_out, "--json", makes_folder=False)
        with Progress("loading"):
            from stream.bench.event_throughput import bench_events as bench
            from stream.kafka.address import parse_kafka
            from stream.kafka.topic_admin import probe_broker

        if not broker:
            raise ConfigError("no broker: give --broker HOST:PORT or set FACESTREAM_TEST_KAFKA")
        address = broker if broker.startswith("kafka://") else f"kafka://{broker}/facestream-bench"
        probe_broker(address, timeout_s=_BROKER_TIMEOUT_S, environment=os.environ)
        bench(
            parse_kafka(address, environment=os.environ),
            console=open_console(),
            events=events,
            rounds=rounds,
            json_out=json_out,
        )
