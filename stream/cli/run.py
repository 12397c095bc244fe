"""The command ``facestream run``."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.errors import ConfigError, SinkError
from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors, say_error
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from stream.app.settings import RunSettings
    from stream.console.signals import Stopping
    from stream.pipeline.pipeline import Pipeline


LogFormat = Annotated[Literal["text", "json"], typer.Option(help="How log lines look.")]


def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="File, folder of frames, file://, rtsp(s)://, rtspu://, http(s)://, v4l2:///dev/video0, "
            "test://ball. ${NAME} is taken from the environment.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/stream/.")] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="kafka://HOST:PORT/TOPIC, jsonl:PATH, jsonl:- or sqlite:PATH; may be given several times. "
            "Without one, events are shown on a terminal and written as jsonl:- elsewhere.",
        ),
    ] = None,
    detector: Annotated[str | None, typer.Option(help="A model of `facestream models list`.")] = None,
    embedder: Annotated[
        str | None, typer.Option(help="The same: sface, dlib, fused, or one that you imported.")
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"] | None,
        typer.Option(help="What computes the models."),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "fp16", "bf16", "int8"] | None, typer.Option(help="What it computes in.")
    ] = None,
    analysis_fps: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Most frames looked at in a second of video; 0 looks at all.  [default: 10]"
        ),
    ] = None,
    realtime: Annotated[
        bool | None,
        typer.Option("--realtime/--no-realtime", help="Play files at their own pace, or as fast as it goes."),
    ] = None,
    ends: Annotated[
        bool | None,
        typer.Option(
            "--ends/--no-ends",
            help="Sources on the network are recordings, read once to their ends, or cameras, tried again "
            "for ever. By default only http addresses of video files are recordings.",
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Stop in order after so many seconds of the clock.")
    ] = None,
    render: Annotated[
        Path | None, typer.Option(help="Write the annotated video to this .mp4; one a camera if several.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Serve Prometheus metrics at /metrics.")
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Name the people of this gallery; see `facestream gallery`.")
    ] = None,
    false_accepts: Annotated[
        float | None, typer.Option(help="Share of strangers who may be named anybody.  [default: 0.01]")
    ] = None,
    event_format: Annotated[
        Literal["json", "avro", "protobuf"] | None,
        typer.Option(help="How Kafka's records are written; files always hold JSON.  [default: json]"),
    ] = None,
    log_format: LogFormat = "text",
    debug: Debug = False,
) -> None:
    """Watch sources and emit identity events until they end or Ctrl-C."""
    with one_line_errors(debug=debug, log_format=log_format):
        from stream.app.settings import load_settings, override_settings
        from stream.common.open_files import check_limit
        from stream.console.signals import stop_on_signals

        with stop_on_signals() as stopping:
            with stopping.getting_ready():
                settings = override_settings(
                    load_settings(config) if config else None,
                    sources=sources or [],
                    sinks=sink or [],
                    environment=os.environ,
                    detector=detector,
                    embedder=embedder,
                    engine=engine,
                    precision=precision,
                    analysis_fps=analysis_fps,
                    realtime=realtime,
                    ends=ends,
                    metrics=metrics,
                    event_format=event_format,
                    gallery=gallery,
                    false_accepts=false_accepts,
                )
                if not settings.cameras:
                    raise ConfigError(
                        "nothing to watch: give a SOURCE, or a --config with cameras; see --help"
                    )
                check_limit([camera.uri for camera in settings.cameras])
                _check(settings, render, config)
            failed = _run(settings, render=render, max_s=max_seconds, stopping=stopping)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _check(settings: RunSettings, render: Path | None, config: Path | None) -> None:
    """See that a run has something to watch, can write what it will, and reads none of that."""
    from stream.app import preflight
    from stream.app.settings import parse_address
    from stream.common.uris import LocalPath, parse_source
    from stream.pipeline.annotated_video import video_paths
    from stream.sinks.event_sink import file_of_sink

    preflight.check_sources([camera.uri for camera in settings.cameras])
    preflight.check_output(render, "--render", room_mib=10.0, makes_folder=False)
    if render is not None and render.suffix.lower() != ".mp4":
        raise SinkError(f"--render {render}: expected a path that ends in .mp4")
    sources = (parse_source(camera.uri) for camera in settings.cameras)
    names = [camera.id for camera in settings.cameras]
    drawn = [] if render is None else video_paths(render, names).values()
    preflight.check_apart(
        [
            *(("--sink", file_of_sink(address.get_secret_value())) for address in settings.sinks),
            *(("--render", path) for path in drawn),
        ],
        [
            *(("SOURCE", source.path) for source in sources if isinstance(source, LocalPath)),
            ("--config", config),
            ("--gallery", settings.identity.gallery),
        ],
    )
    preflight.check_output_folder(settings.best_shots.dir, "best_shots.dir")
    preflight.check_output_folder(settings.spool.dir, "spool.dir")
    if settings.metrics is not None:
        preflight.check_listen(parse_address(settings.metrics), "metrics")


def _run(settings: RunSettings, *, render: Path | None, max_s: float | None, stopping: Stopping) -> bool:
    """Run; True when a camera ended with an error, which has been said."""
    from stream.common.logs import get_logger

    get_logger(__name__).info(
        "loading models", detector=settings.models.detector, embedder=settings.models.embedder
    )
    from stream.app import main_loop
    from stream.app.metrics import serve_metrics
    from stream.app.settings import parse_address
    from stream.app.wiring import open_best_shots, open_identifier, open_pipeline, open_sinks
    from stream.console.live_table import EventPrinter, LiveTable
    from stream.gallery.identification.attendance import Attendance
    from stream.gallery.identification.identifier import IdentifyingSink
    from stream.pipeline.annotated_video import VideoRenderer
    from stream.sinks.event_sink import EventSink

    screen = open_console(stderr=True)
    addresses = [address.get_secret_value() for address in settings.sinks]
    with ExitStack() as stack:
        watchers: list[main_loop.Watcher] = []
        if not addresses and not sys.stdout.isatty():
            addresses = ["jsonl:-"]
        outputs = open_sinks(
            addresses,
            events=settings.events,
            spool=settings.spool,
        )
        stack.callback(outputs.close, 0.0)
        identifier = stack.enter_context(open_identifier(settings, environment=os.environ))
        if render is not None:
            names = [camera.id for camera in settings.cameras]
            watchers.append(stack.enter_context(VideoRenderer(render, names, identifier=identifier)))
        sink: EventSink = outputs if addresses else EventPrinter()
        attendance = None if identifier is None else Attendance(sink)
        if identifier is not None and attendance is not None:
            sink = IdentifyingSink(attendance, identifier)
        shots = open_best_shots(settings, environment=os.environ)
        with stopping.getting_ready():
            pipeline = stack.enter_context(open_pipeline(settings, on_left=shots))
        if settings.metrics is not None:
            host, port = parse_address(settings.metrics)
            stack.enter_context(serve_metrics(pipeline.reports, host=host, port=port, sinks=outputs.spooled))
        # What reads the pipe may write to the same terminal, where the table would be drawn over it.
        if screen.is_terminal and "jsonl:-" not in addresses:
            stack.enter_context(LiveTable(screen, pipeline.reports))
        main_loop.run(pipeline, sink, stopping=stopping, watchers=watchers, max_s=max_s)
    if attendance is not None and screen.is_terminal:  # names of people are kept out of logs
        with suppress(OSError):
            screen.print(attendance.told(), soft_wrap=True, highlight=False)
    _say_written(settings, render)
    return _report_failures(pipeline)


def _say_written(settings: RunSettings, render: Path | None) -> None:
    """Log the files that a run has left, each with what is in it."""
    from stream.common.logs import get_logger
    from stream.pipeline.annotated_video import video_paths
    from stream.sinks.event_sink import file_of_sink

    log = get_logger(__name__)
    events = [file_of_sink(address.get_secret_value()) for address in settings.sinks]
    names = [camera.id for camera in settings.cameras]
    videos = [] if render is None else video_paths(render, names).values()
    for what, paths in (("events", events), ("video", videos), ("best_shots", [settings.best_shots.dir])):
        for path in paths:
            if path is not None and (path.is_file() or path.is_dir()):  # and no pipe or device
                log.info("written", **{what: str(path)})


def _report_failures(pipeline: Pipeline) -> bool:
    errors = [report.error for report in pipeline.reports.values() if report.error is not None]
    for error in errors:
        say_error(error)
    return bool(errors)
