"""The seam to GStreamer: the one module that imports ``gi``.

What crosses it are URIs, timestamps in nanoseconds and arrays. GStreamer is loaded when it is first needed.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import cv2
import numpy as np

from engine.errors import FacestreamError, SinkError, SourceError
from engine.faces import Image

_NS = 1_000_000_000
_CLOSE_TIMEOUT_NS = _NS
APT_COMMAND = (
    "apt install python3-gst-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav"
)
"""What installs GStreamer with all that is needed on Debian and Ubuntu."""

HARDWARE_DECODERS = (
    *(f"nv{codec}dec" for codec in ("h264", "h265", "av1", "vp9", "jpeg")),
    *(f"va{codec}dec" for codec in ("h264", "h265", "av1", "vp9", "jpeg")),
    *(f"vaapi{codec}dec" for codec in ("h264", "h265", "av1", "vp9", "jpeg")),
    *(f"v4l2{codec}dec" for codec in ("h264", "h265", "vp9")),
    *(f"v4l2sl{codec}dec" for codec in ("h264", "h265", "vp9")),
    *(f"qsv{codec}dec" for codec in ("h264", "h265", "vp9")),
    "nvv4l2decoder",
)
"""Decoders on graphics and video hardware. They register only where the hardware and its driver are."""

DECODERS = {
    "H.264": ("avdec_h264", "openh264dec"),
    "H.265": ("avdec_h265", "libde265dec"),
    "VP8, VP9": ("vp9dec", "avdec_vp9"),
    "AV1": ("av1dec", "dav1ddec"),
    "Motion JPEG": ("jpegdec", "avdec_mjpeg"),
}
"""Software decoders by format; one of each is enough."""

NEEDED_ELEMENTS = (
    *("uridecodebin", "decodebin", "videoconvert", "videoflip", "deinterlace", "appsink", "appsrc"),
    *("rtspsrc", "souphttpsrc", "v4l2src", "videotestsrc", "filesink", "qtdemux", "mp4mux"),
    *("h264parse", "avdec_h264", "jpegdec", "pngdec", "hlsdemux", "x264enc"),
)
"""Elements that sources and the video writer are built of; each comes with a package of ``APT_COMMAND``."""

# To four bytes a pixel GStreamer converts in one fast step; OpenCV drops the fourth while it copies.
# Deinterlace and flip pass on untouched what needs neither.
_TAIL = (
    "deinterlace name=entry fields=top ! videoconvert ! video/x-raw,format=BGRx "
    "! videoflip video-direction=auto ! appsink name=exit emit-signals=false enable-last-sample=false"
)


_LOADING = threading.Lock()


def _gst() -> Any:
    with _LOADING:  # cameras begin side by side
        return _load()


@cache
def _load() -> Any:
    _keep_exceptions_working()
    try:
        import gi

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        with warnings.catch_warnings():
            # PyGObject's importer is of an older kind than Python likes.
            warnings.simplefilter("ignore", ImportWarning)
            from gi.repository import Gst, GstApp, GstVideo  # noqa: F401 - adds methods to Gst's classes
    except (ImportError, ValueError) as exc:
        raise FacestreamError(
            f"GStreamer's Python bindings cannot be loaded ({exc}); install them: {APT_COMMAND}"
        ) from exc
    Gst.init(None)
    _prefer_hardware(Gst)
    return Gst


def _keep_exceptions_working() -> None:
    """Let C++ exceptions of other libraries unwind as they were built to.

    GStreamer brings libunwind into the global scope, whose ``_Unwind_Resume`` then stands in for that of
    GCC in every library loaded later: the first exception that OpenVINO throws and catches aborts the
    process. The first in the scope wins, so GCC's is put there before.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a system without it has no such trouble
            ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)


def _prefer_hardware(gst: Any) -> None:
    if "GST_PLUGIN_FEATURE_RANK" in os.environ:  # the user has chosen
        return
    for name in HARDWARE_DECODERS:
        if (factory := gst.ElementFactory.find(name)) is not None:
            factory.set_rank(max(factory.get_rank(), gst.Rank.PRIMARY + 64))


def version() -> str:
    """GStreamer's version, ``1.22.0`` say.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    return ".".join(str(part) for part in _gst().version()[:3])


def missing_elements(names: Iterable[str] = NEEDED_ELEMENTS) -> list[str]:
    """Those of the named elements that this machine does not have.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    gst = _gst()
    return [name for name in names if gst.ElementFactory.find(name) is None]


def hardware_decoders() -> list[str]:
    """Hardware decoders that this machine has; they are preferred to software.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    return [name for name in HARDWARE_DECODERS if name not in missing_elements(HARDWARE_DECODERS)]


class PipelineFailure(Exception):  # noqa: N818 - a fact, which callers translate into one of our errors
    """What a pipeline said before it stopped. May hold the URI: not to be shown without redaction.

    Attributes:
        domain: ``core``, ``library``, ``resource`` or ``stream``.
        code: Number within the domain (GstCoreError, GstResourceError, …).
        message: For people.
        details: For developers.
    """

    def __init__(self, domain: str, code: int, message: str, details: str = "") -> None:
        super().__init__(f"{message} ({domain} {code})")
        self.domain, self.code, self.message, self.details = domain, code, message, details

    @classmethod
    def of(cls, error: Any, details: str | None) -> PipelineFailure:
        """Take over a GError."""
        domain = str(error.domain).removeprefix("gst-").removesuffix("-error-quark")
        return cls(domain, error.code, error.message, details or "")


class DecodePipeline:
    """Decodes the video of one URI, or of a test pattern, into BGR images.

    ``start`` and ``pull`` belong to one thread; ``close`` may be called by any, at any time.

    Args:
        uri: What to decode, without credentials; or None with ``launch``.
        launch: Instead of a URI, a source in gst-launch's notation that gives raw video.
        gate: Called in the decoder's thread with timestamp and duration (nanoseconds, None where unknown)
            of each decoded frame; those for which it says False are not converted and not given out.
        username: For the server.
        password: For the server.
        latest_only: Keep one frame and overwrite it when a newer one comes; else wait for the consumer.
        at_clock_pace: Give frames out when they are due, else as soon as they are decoded.
        latency_s: Buffer against network jitter (RTSP).
        network_timeout_s: How long a server may be silent.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        launch: str | None = None,
        gate: Callable[[int | None, int | None], bool] = lambda _pts, _duration: True,
        username: str | None = None,
        password: str | None = None,
        latest_only: bool = False,
        at_clock_pace: bool = False,
        latency_s: float = 0.15,
        network_timeout_s: float = 10.0,
    ) -> None:
        if (uri is None) == (launch is None):
            raise ValueError("expected either uri or launch")
        self._uri, self._launch, self._gate = uri, launch, gate
        self._username, self._password = username, password
        self._latest_only, self._at_clock_pace = latest_only, at_clock_pace
        self._latency_s, self._network_timeout_s = latency_s, network_timeout_s
        self._lock = threading.Lock()
        self._closed = False
        self._pipeline: Any = None
        self._appsink: Any = None
        self._signals: list[tuple[Any, int]] = []
        self._failure: PipelineFailure | None = None
        self._warning: PipelineFailure | None = None

    @property
    def warning(self) -> PipelineFailure | None:
        """The last warning; where a stream just ends, it often says why."""
        return self._warning

    def start(self) -> None:
        """Build the pipeline and set it going. What fails later is raised by ``pull``.

        Raises:
            FacestreamError: GStreamer or an element is missing.
        """
        gst = _gst()
        pipeline = gst.Pipeline.new(None)
        tail = _parse_bin(gst, _TAIL)
        pipeline.add(tail)
        entry = tail.get_static_pad("sink")
        entry.add_probe(gst.PadProbeType.BUFFER, self._on_buffer, gst)
        appsink = tail.get_by_name("exit")
        appsink.set_property("sync", self._at_clock_pace)
        appsink.set_property("qos", False)
        appsink.set_property("drop", self._latest_only)
        appsink.set_property("max-buffers", 1 if self._latest_only else 4)
        if self._launch is None:
            pipeline.add(self._decoder(gst, entry))
        else:
            source = _parse_bin(gst, self._launch)
            pipeline.add(source)
            source.link(tail)
        with self._lock:
            if self._closed:
                return
            self._pipeline, self._appsink = pipeline, appsink
            pipeline.set_state(gst.State.PLAYING)

    def pull(self, timeout_s: float) -> tuple[int | None, Image] | None:
        """Wait for the next frame.

        Args:
            timeout_s: How long.

        Returns:
            Timestamp in nanoseconds (None where unknown) and uint8 (H, W, 3) BGR image, which is the
            caller's own; None when no frame came in time, or at the end (``at_end``).

        Raises:
            PipelineFailure: The pipeline has failed and all frames before that are taken.
        """
        gst, appsink = _gst(), self._appsink
        if self._closed or appsink is None:
            return None
        self._read_bus()
        sample = appsink.try_pull_sample(0 if self._failure else round(timeout_s * _NS))
        if sample is not None:
            buffer = sample.get_buffer()
            return (None if buffer.pts == gst.CLOCK_TIME_NONE else buffer.pts), _image(gst, sample, buffer)
        self._read_bus()
        if self._failure is not None and not self._closed:
            raise self._failure
        return None

    @property
    def at_end(self) -> bool:
        """True when all frames are taken and no more will come, or after ``close``."""
        appsink = self._appsink
        return self._closed or (appsink is not None and bool(appsink.is_eos()))

    def duration_s(self) -> float | None:
        """Length of the media, where it is known and can be sought in; None for what is live."""
        gst, pipeline = _gst(), self._pipeline
        if pipeline is None:
            return None
        query = gst.Query.new_seeking(gst.Format.TIME)
        seekable = pipeline.query(query) and query.parse_seeking()[1]
        known, duration_ns = pipeline.query_duration(gst.Format.TIME)
        return duration_ns / _NS if seekable and known and duration_ns > 0 else None

    def close(self) -> None:
        """Stop and free everything. May be called twice, and while another thread waits in ``pull``."""
        with self._lock:
            self._closed = True
            pipeline, self._pipeline, self._appsink = self._pipeline, None, None
        if pipeline is None:
            return
        gst = _gst()
        pipeline.set_state(gst.State.NULL)
        pipeline.get_state(_CLOSE_TIMEOUT_NS)
        for emitter, handler in self._signals:
            emitter.disconnect(handler)
        self._signals.clear()

    def _decoder(self, gst: Any, entry: Any) -> Any:
        decoder = _make(gst, "uridecodebin")
        decoder.set_property("uri", self._uri)
        # Only video is decoded: streams of other kinds are not even exposed.
        decoder.set_property("caps", gst.Caps.from_string("video/x-raw(ANY)"))
        decoder.set_property("expose-all-streams", False)

        def link(_decoder: Any, pad: Any) -> None:
            if not entry.is_linked():
                pad.link(entry)

        self._signals.append((decoder, decoder.connect("pad-added", link)))
        self._signals.append((decoder, decoder.connect("source-setup", self._on_source)))
        return decoder

    def _on_source(self, _decoder: Any, source: Any) -> None:
        match source.get_factory().get_name():
            case "rtspsrc":
                source.set_property("protocols", 4)  # GST_RTSP_LOWER_TRANS_TCP
                source.set_property("latency", round(self._latency_s * 1000))
                source.set_property("tcp-timeout", round(self._network_timeout_s * 1_000_000))
                self._signals.append((source, source.connect("select-stream", _is_video)))
            case "souphttpsrc":
                source.set_property("timeout", max(1, round(self._network_timeout_s)))
            case _:
                return
        if self._username is not None:
            source.set_property("user-id", self._username)
        if self._password is not None:
            source.set_property("user-pw", self._password)

    def _on_buffer(self, _pad: Any, info: Any, gst: Any) -> Any:
        buffer = info.get_buffer()
        pts, duration, unknown = buffer.pts, buffer.duration, gst.CLOCK_TIME_NONE
        keep = self._gate(None if pts == unknown else pts, None if duration == unknown else duration)
        return gst.PadProbeReturn.OK if keep else gst.PadProbeReturn.DROP

    def _read_bus(self) -> None:
        # Reading also empties the bus, which would grow for ever otherwise.
        gst, pipeline = _gst(), self._pipeline
        if pipeline is None:
            return
        bus = pipeline.get_bus()
        while message := bus.pop_filtered(gst.MessageType.ERROR | gst.MessageType.WARNING):
            if message.type == gst.MessageType.WARNING:
                self._warning = PipelineFailure.of(*message.parse_warning())
            elif self._failure is None:  # the first error is the cause, later ones follow from it
                self._failure = PipelineFailure.of(*message.parse_error())


def count_frames(uri: str, *, timeout_s: float = 600.0) -> int:
    """Decode a finite video into nothing as fast as it goes, without any Python on the way.

    Args:
        uri: ``file://…``.
        timeout_s: How long that may take.

    Returns:
        Frames that were decoded.

    Raises:
        SourceError: The video cannot be decoded, or not in time.
    """
    gst = _gst()
    pipeline = gst.parse_launch(
        "uridecodebin name=decoder caps=video/x-raw(ANY) expose-all-streams=false "
        "! fakesink name=exit sync=false"
    )
    pipeline.get_by_name("decoder").set_property("uri", uri)
    try:
        pipeline.set_state(gst.State.PLAYING)
        kinds = gst.MessageType.ERROR | gst.MessageType.EOS
        message = pipeline.get_bus().timed_pop_filtered(round(timeout_s * _NS), kinds)
        if message is None:
            raise SourceError(f"{uri}: not decoded within {timeout_s:g} s")
        if message.type == gst.MessageType.ERROR:
            raise SourceError(f"{uri}: cannot be decoded ({message.parse_error()[0].message})")
        known, frames = pipeline.get_by_name("exit").get_property("stats").get_uint64("rendered")
        return int(frames) if known else 0
    finally:
        pipeline.set_state(gst.State.NULL)


def decode_image(data: bytes, *, timeout_s: float = 10.0) -> Image:
    """Decode one picture: JPEG, PNG, BMP, WebP or whatever else GStreamer knows.

    Args:
        data: The file's content.
        timeout_s: How long it may take.

    Returns:
        uint8 (H, W, 3) BGR, turned upright as the file says.

    Raises:
        SourceError: It is not a picture, or it is broken.
    """
    if not data:
        raise SourceError("picture: got 0 bytes, expected a JPEG, PNG, BMP or WebP file")
    gst = _gst()
    pipeline = gst.parse_launch(f"appsrc name=data ! decodebin ! {_TAIL} sync=false")
    appsink, bus = pipeline.get_by_name("exit"), pipeline.get_bus()
    try:
        pipeline.set_state(gst.State.PLAYING)
        source = pipeline.get_by_name("data")
        source.emit("push-buffer", gst.Buffer.new_wrapped(data))
        source.emit("end-of-stream")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (sample := appsink.try_pull_sample(_NS // 50)) is not None:
                return _image(gst, sample, sample.get_buffer())
            if message := bus.pop_filtered(gst.MessageType.ERROR):
                failure = PipelineFailure.of(*message.parse_error())
                raise SourceError(f"picture: cannot be decoded ({failure.message.rstrip('.')})") from failure
            if appsink.is_eos():
                break
    finally:
        pipeline.set_state(gst.State.NULL)
    raise SourceError("picture: nothing could be decoded, expected a JPEG, PNG, BMP or WebP file")


class EncodePipeline:
    """Encodes BGR images into an H.264 MP4 file that browsers play.

    Args:
        location: Path of the file; overwritten.
        size_wh: Width and height of every image, both even.
        fps: Nominal frames a second.
        bitrate_kbps: Encode as an IP camera does, at this rate; None encodes fast at constant quality.
    """

    def __init__(
        self, location: str, *, size_wh: tuple[int, int], fps: float, bitrate_kbps: int | None = None
    ) -> None:
        gst = _gst()
        width, height = size_wh
        self._pipeline = gst.parse_launch(
            "appsrc name=entry format=time ! videoconvert n-threads=2 ! video/x-raw,format=I420 "
            f"! {_encoder(bitrate_kbps)} ! h264parse ! mp4mux ! filesink name=exit async=false"
        )
        self._pipeline.get_by_name("exit").set_property("location", location)
        self._entry = self._pipeline.get_by_name("entry")
        rate = gst.util_double_to_fraction(fps)
        caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={rate[0]}/{rate[1]}"
        self._entry.set_property("caps", gst.Caps.from_string(caps))
        self._duration_ns = round(_NS / fps)
        self._width = width
        self._failed = False
        self._pipeline.set_state(gst.State.PLAYING)

    def push(self, image: Image, pts_ns: int, *, timeout_s: float = 10.0) -> None:
        """Encode one image, waiting while the encoder is busy.

        Args:
            image: uint8 (H, W, 3) BGR.
            pts_ns: When it is shown; above those before.
            timeout_s: How long to wait for the encoder.

        Raises:
            PipelineFailure: The encoder or the file failed, or it is stuck.
        """
        gst = _gst()
        deadline = time.monotonic() + timeout_s
        most = 4 * image.nbytes
        while self._entry.get_property("current-level-bytes") > most:
            if time.monotonic() > deadline:
                raise PipelineFailure("stream", 1, f"the encoder took no frame for {timeout_s:g} s")
            self._check(_NS // 100)
        self._check(0)
        padding = -3 * self._width % 4  # GStreamer's rows begin at multiples of four bytes
        rows = np.pad(image.reshape(len(image), -1), ((0, 0), (0, padding))) if padding else image
        buffer = gst.Buffer.new_wrapped(rows.tobytes())
        buffer.pts, buffer.duration = pts_ns, self._duration_ns
        self._entry.emit("push-buffer", buffer)

    def finish(self, *, timeout_s: float = 30.0) -> None:
        """Write what is left and close the file. After a failure there is nothing left to do.

        Raises:
            PipelineFailure: The encoder or the file failed, or did not end in time.
        """
        gst = _gst()
        if self._failed:
            return
        try:
            self._entry.emit("end-of-stream")
            if not self._check(round(timeout_s * _NS)):
                raise PipelineFailure("stream", 1, f"the file was not finished within {timeout_s:g} s")
        finally:
            self._pipeline.set_state(gst.State.NULL)

    def _check(self, timeout_ns: int) -> bool:
        gst = _gst()
        kinds = gst.MessageType.ERROR | gst.MessageType.EOS
        message = self._pipeline.get_bus().timed_pop_filtered(timeout_ns, kinds)
        if message is not None and message.type == gst.MessageType.ERROR:
            self._failed = True
            self._pipeline.set_state(gst.State.NULL)
            raise PipelineFailure.of(*message.parse_error())
        return message is not None


def _encoder(bitrate_kbps: int | None) -> str:
    if not missing_elements(["x264enc"]):
        if bitrate_kbps is not None:
            return f"x264enc speed-preset=veryfast bframes=0 bitrate={bitrate_kbps} key-int-max=60"
        return "x264enc speed-preset=ultrafast pass=qual quantizer=23 key-int-max=60"
    if not missing_elements(["openh264enc"]):
        return f"openh264enc complexity=low bitrate={1000 * (bitrate_kbps or 4000)}"
    raise SinkError(f"video: no H.264 encoder (x264enc, openh264enc) is installed; install it: {APT_COMMAND}")


def _make(gst: Any, name: str) -> Any:
    element = gst.ElementFactory.make(name)
    if element is None:
        raise FacestreamError(f"GStreamer has no element {name}; install it: {APT_COMMAND}")
    return element


def _parse_bin(gst: Any, description: str) -> Any:
    try:
        return gst.parse_bin_from_description(description, True)
    except Exception as exc:
        raise FacestreamError(f"GStreamer lacks an element ({exc}); install it: {APT_COMMAND}") from exc


def _is_video(_source: Any, _number: int, caps: Any) -> bool:
    return caps.get_structure(0).get_string("media") in (None, "video")


def _image(gst: Any, sample: Any, buffer: Any) -> Image:
    from gi.repository import GstVideo

    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    meta = GstVideo.buffer_get_video_meta(buffer)
    stride, offset = (meta.stride[0], meta.offset[0]) if meta else (info.stride[0], info.offset[0])
    mapped, mapping = buffer.map(gst.MapFlags.READ)
    if not mapped:
        raise PipelineFailure("resource", 9, "a frame's memory could not be read")
    try:
        # The view dangles once the buffer is unmapped: cvtColor copies it.
        pixels = np.ndarray((info.height, info.width, 4), np.uint8, mapping.data, offset, (stride, 4, 1))
        image = np.empty((info.height, info.width, 3), np.uint8)
        cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR, dst=image)
        return image
    finally:
        buffer.unmap(mapping)
