"""Speed of the whole job on this machine, as ratios within one run."""

from __future__ import annotations

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

from engine.errors import SinkError, SourceError
from engine.models.catalogue import load_model
from engine.models.package import ModelPackage
from stream.app import main_loop
from stream.app.settings import override_settings
from stream.app.wiring import open_pipeline, open_sinks
from stream.bench.portrait_clip import make_clip
from stream.console.progress import Progress
from stream.video.gstreamer.decoding import count_frames

WHOLE_JOB = "facestream, the whole job"
EVERY_FRAME = "facestream, analysing every frame"
DECODE_ONLY = "GStreamer, decoding alone"
OPENCV_LOOP = "plain OpenCV loop"

CAMERA_KBPS = 4000
"""What IP cameras commonly send for 720p."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What one way of working did with the clip.

    Attributes:
        name: Which way.
        frames: Frames of the clip.
        seconds: Of each round.
    """

    name: str
    frames: int
    seconds: tuple[float, ...]

    @property
    def frames_per_s(self) -> float:
        """Frames a second in the median round."""
        return self.frames / statistics.median(self.seconds)


def bench_stream(
    source: Path | None, *, rounds: int, console: Console, json_out: Path | None = None
) -> dict[str, Speed]:
    """Run all ways of working over one clip in turn, several rounds, and print the table.

    Args:
        source: Video file; when not given, a made clip of one face, encoded as an IP camera does.
        rounds: 1 or more.
        console: For the table.
        json_out: File to write the figures to.

    Returns:
        By name.

    Raises:
        FacestreamError: The clip cannot be read, or the file not be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        clip = source or Path(folder) / "clip.mp4"
        if source is None:
            with Progress("making a clip"):
                make_clip(clip, bitrate_kbps=CAMERA_KBPS)
        seconds = _rounds(clip, Path(folder), rounds)
        frames = count_frames(clip.resolve().as_uri())
    speeds = {name: Speed(name, frames, tuple(times)) for name, times in seconds.items()}
    _show(speeds, console)
    if json_out is not None:
        _write(speeds, json_out)
    return speeds


def _rounds(clip: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    detector, embedder = load_model("yunet"), load_model("sface")
    ways: dict[str, Callable[[], float]] = {
        WHOLE_JOB: lambda: time_whole_job(clip, folder, analysis_fps=None),
        EVERY_FRAME: lambda: time_whole_job(clip, folder, analysis_fps=0.0),
        DECODE_ONLY: lambda: time_decoding(clip),
        OPENCV_LOOP: lambda: time_opencv_loop(clip, detector, embedder),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with Progress("measuring", total=rounds * len(ways)) as progress:
        for _ in range(rounds):
            for name, measure in ways.items():
                progress.update(what=name)
                seconds[name].append(measure())
                progress.advance()
    return seconds


def time_whole_job(clip: Path, folder: Path, *, analysis_fps: float | None) -> float:
    """Seconds from the first step to the last event on disk; loading the models is not counted.

    Args:
        clip: Video file.
        folder: For the events.
        analysis_fps: Most frames looked at in a second of video; None for the default, 0 for all.
    """
    settings = override_settings(
        None, sources=[str(clip)], sinks=[], environment={}, analysis_fps=analysis_fps
    )
    sink = open_sinks([f"jsonl:{folder / 'events.jsonl'}"])
    with open_pipeline(settings) as pipeline:
        begun = time.perf_counter()
        main_loop.run(pipeline, sink, stopping=threading.Event())
        seconds = time.perf_counter() - begun
        for report in pipeline.reports.values():
            if report.error is not None:
                raise report.error
    return seconds


def time_decoding(clip: Path) -> float:
    """Seconds that GStreamer takes to decode the clip into nothing, without any conversion."""
    begun = time.perf_counter()
    count_frames(clip.resolve().as_uri())
    return time.perf_counter() - begun


def time_opencv_loop(clip: Path, detector: ModelPackage, embedder: ModelPackage) -> float:
    """Seconds of the loop that tutorials show, with the same two models: all faces of every frame.

    Args:
        clip: Video file.
        detector: YuNet.
        embedder: SFace.

    Raises:
        SourceError: OpenCV cannot read the clip.
    """
    video = cv2.VideoCapture(str(clip))
    size_wh = (int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    find = cv2.FaceDetectorYN.create(str(detector.onnx_path), "", size_wh, 0.6, 0.3)
    recognise = cv2.FaceRecognizerSF.create(str(embedder.onnx_path), "")
    begun, frames = time.perf_counter(), 0
    while True:
        ok, image = video.read()
        if not ok:
            break
        frames += 1
        _, faces = find.detect(image)
        for face in () if faces is None else faces:
            recognise.feature(recognise.alignCrop(image, face))
    seconds = time.perf_counter() - begun
    video.release()
    if not frames:
        raise SourceError(f"{clip}: OpenCV cannot read a frame of it; choose another clip")
    return seconds


def _show(speeds: dict[str, Speed], console: Console) -> None:
    table = Table(title="frames of the clip a second; median of the rounds", title_justify="left")
    table.add_column("")
    for heading in ("frames/s", "of decoding alone", "of the OpenCV loop"):
        table.add_column(heading, justify="right")
    decode, loop = speeds[DECODE_ONLY].frames_per_s, speeds[OPENCV_LOOP].frames_per_s
    for speed in speeds.values():
        rate = speed.frames_per_s
        table.add_row(speed.name, f"{rate:.0f}", f"{rate / decode:.2f} x", f"{rate / loop:.1f} x")
    console.print(table)
    job = speeds[WHOLE_JOB].frames_per_s
    console.print(
        f"aims: 5 times the OpenCV loop ({_verdict(job / loop, 5.0)}), "
        f"half of decoding alone ({_verdict(job / decode, 0.5)})"
    )


def _verdict(ratio: float, aim: float) -> str:
    return f"{ratio:.2f}, {'met' if ratio >= aim else 'not met'}"


def _write(speeds: dict[str, Speed], path: Path) -> None:
    tree = {
        name: {"frames": speed.frames, "seconds": speed.seconds, "frames_per_s": speed.frames_per_s}
        for name, speed in speeds.items()
    }
    try:
        path.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")
    except OSError as exc:
        raise SinkError(f"{path}: cannot write the figures: {exc.strerror}; choose another place") from exc
