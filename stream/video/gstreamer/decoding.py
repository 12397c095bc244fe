"""Video becomes arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engine.errors import SourceError
from engine.faces import Image
from stream.video.gstreamer.autoplug import (
    VideoChoice,
    call_jpeg_by_its_name,
    hasten,
    is_encoded_video_of_a_demuxer,
    keep_unwanted_sound_flowing,
    leave_transparency_out,
)
from stream.video.gstreamer.bindings import (
    PipelineFailure,
    hear_complaints,
    ignore_complaints,
    image_of,
    load_gst,
    make_element,
    parse_bin,
    start_pipeline,
    stop_pipeline,
)
from stream.video.gstreamer.damaged_frames import DamageWatch
from stream.video.gstreamer.display_size import MAX_SIDE
from stream.video.gstreamer.explanations import proxy_for

_NS = 1_000_000_000
_START_TIMEOUT_S = 10.0

_SKIP = 2  # GstAutoplugSelectResult
_RTSP_UDP, _RTSP_TCP = 1 | 2, 4  # GstRTSPLowerTrans; UDP to this machine, or to a group
_MOST_READS_AT_END = 100

# To four bytes a pixel GStreamer converts in one fast step; OpenCV drops the fourth while it copies.
# Deinterlace and flip pass on untouched what needs neither.
_TAIL = (
    f"capsfilter name=entry caps=video/x-raw(ANY),width=[1,{MAX_SIDE}],height=[1,{MAX_SIDE}] "
    "! deinterlace fields=top ! videoconvert ! video/x-raw,format=BGRx "
    "! videoflip video-direction=auto ! appsink name=exit emit-signals=false enable-last-sample=false"
)


class DecodePipeline:
    """Decodes the video of one URI, or of a test pattern, into BGR images.

    ``start`` and ``pull`` belong to one thread; ``close`` may be called by any, at any time.

    Args:
        uri: What to decode, without credentials; or None with ``launch``.
        launch: Instead of a URI, a source in gst-launch's notation that gives raw video.
        gate: Called in the decoder's thread with timestamp and duration (nanoseconds, None where unknown)
            of each decoded frame, and whether it is damaged; those for which it says False are not converted
            and not given out.
        username: For the server.
        password: For the server.
        latest_only: Keep one frame and overwrite it when a newer one comes; else wait for the consumer.
        at_clock_pace: Give frames out when they are due, else as soon as they are decoded; None does the
            first with what comes in advance (segments of HLS, a file from a web server), else the second.
        latency_s: Buffer against network jitter (RTSP).
        network_timeout_s: How long a server may be silent.
        playlists: Follow HLS, DASH and the like, which name other addresses; else such a file is no video.
        video: Which of several videos, from 1.
        on_abandoned: Called when the pipeline did not stop in time and was abandoned.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        launch: str | None = None,
        gate: Callable[[int | None, int | None, bool], bool] = lambda _pts, _duration, _is_damaged: True,
        username: str | None = None,
        password: str | None = None,
        latest_only: bool = False,
        at_clock_pace: bool | None = False,
        latency_s: float = 0.15,
        network_timeout_s: float = 10.0,
        playlists: bool = True,
        video: int = 1,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        if (uri is None) == (launch is None):
            raise ValueError("expected either uri or launch")
        self._uri, self._launch, self._gate = uri, launch, gate
        self._username, self._password = username, password
        self._latest_only, self._at_clock_pace = latest_only, at_clock_pace
        self._latency_s, self._network_timeout_s = latency_s, network_timeout_s
        self._playlists, self._on_abandoned = playlists, on_abandoned
        self._choice = VideoChoice(video)
        self._lock = threading.Lock()
        self._closed = False
        self._pipeline: Any = None
        self._source: Any = None
        self._in_segments = self._has_still_picture = self._has_container = False
        self._appsink: Any = None
        self._signals: list[tuple[Any, int]] = []
        self._damage = DamageWatch()
        self._failure: PipelineFailure | None = None
        self._warning: PipelineFailure | None = None

    @property
    def warning(self) -> PipelineFailure | None:
        """The last warning; where a stream just ends, it often says why."""
        return self._warning

    def start(self, *, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Build the pipeline and set it going. What fails later is raised by ``pull``.

        Args:
            timeout_s: How long opening the device or file may take.

        Raises:
            FacestreamError: GStreamer or an element is missing.
            PipelineFailure: It does not open in time.
        """
        gst = load_gst()
        pipeline = gst.Pipeline.new(None)
        tail = parse_bin(_TAIL)
        pipeline.add(tail)
        entry = tail.get_static_pad("sink")
        entry.add_probe(gst.PadProbeType.BUFFER, self._on_buffer, gst)
        appsink = tail.get_by_name("exit")
        appsink.set_property("sync", bool(self._at_clock_pace))
        appsink.set_property("qos", False)
        appsink.set_property("drop", self._latest_only)
        appsink.set_property("max-buffers", 1 if self._latest_only else 4)
        if self._launch is None:
            pipeline.add(self._decoder(gst, entry, appsink))
        else:
            source = parse_bin(self._launch)
            pipeline.add(source)
            source.link(tail)

        def is_closed() -> bool:
            return self._closed

        with self._lock:
            if is_closed():
                return
            self._pipeline, self._appsink = pipeline, appsink
        if start_pipeline(pipeline, timeout_s=timeout_s, give_up=is_closed) and is_closed():
            stop_pipeline(pipeline)

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
        gst, appsink = load_gst(), self._appsink
        if self._closed or appsink is None:
            return None
        self._read_bus()
        sample = appsink.try_pull_sample(0 if self._failure else round(timeout_s * _NS))
        if sample is not None:
            buffer = sample.get_buffer()
            return (None if buffer.pts == gst.CLOCK_TIME_NONE else buffer.pts), image_of(sample)
        self._read_bus()
        if self._failure is not None and not self._closed:
            if (trouble := self._choice.trouble()) is not None:
                raise PipelineFailure("video", 0, trouble) from self._failure
            raise self._failure
        return None

    @property
    def at_end(self) -> bool:
        """True when all frames are taken and no more will come, or after ``close``."""
        appsink = self._appsink
        return self._closed or (appsink is not None and bool(appsink.is_eos()))

    def duration_s(self) -> float | None:
        """Length of the media, where it is known and can be sought in; None for what is live."""
        gst, pipeline = load_gst(), self._pipeline
        if pipeline is None:
            return None
        query = gst.Query.new_seeking(gst.Format.TIME)
        return self.announced_s() if pipeline.query(query) and query.parse_seeking()[1] else None

    @property
    def paces(self) -> bool:
        """Whether frames wait until they are due."""
        appsink = self._appsink
        return appsink is not None and bool(appsink.get_property("sync"))

    @property
    def has_still_picture(self) -> bool:
        """Whether what is decoded are JPEG, PNG and the like; Motion JPEG is that as well."""
        return self._has_still_picture

    def is_bounded(self) -> bool:
        """Whether the source knows how many bytes will come; a live one does not."""
        gst, source = load_gst(), self._source
        if source is None:
            return False
        known, size = source.query_duration(gst.Format.BYTES)
        return bool(known) and size > 0

    def announced_s(self) -> float | None:
        """Length of the media, where it is known."""
        gst, pipeline = load_gst(), self._pipeline
        if pipeline is None:
            return None
        known, duration_ns = pipeline.query_duration(gst.Format.TIME)
        return duration_ns / _NS if known and duration_ns > 0 else None

    def close(self) -> None:
        """Stop and free everything. May be called twice, and while another thread waits in ``pull``.

        A pipeline that does not stop within about 1.5 seconds is abandoned.
        """
        with self._lock:
            self._closed = True
            pipeline, self._pipeline, self._appsink = self._pipeline, None, None
            self._source = None
        if pipeline is None:
            return
        if not stop_pipeline(pipeline):
            self._on_abandoned()
        for emitter, handler in self._signals:
            emitter.disconnect(handler)
        self._signals.clear()
        ignore_complaints(self._damage.complain)

    def _decoder(self, gst: Any, entry: Any, appsink: Any) -> Any:
        decoder = make_element("uridecodebin")
        decoder.set_property("uri", self._uri)
        # Only video is decoded: streams of other kinds are not even exposed.
        decoder.set_property("caps", gst.Caps.from_string("video/x-raw(ANY)"))
        decoder.set_property("expose-all-streams", False)

        def link(_decoder: Any, pad: Any) -> None:
            caps = pad.get_current_caps()
            is_encoded = caps is not None and caps.get_structure(0).get_name() != "video/x-raw"
            if entry.is_linked() or is_encoded:  # the latter: another video than the one that is watched
                return
            if self._at_clock_pace is None:
                appsink.set_property("sync", self._in_segments or self.is_bounded())
            pad.link(entry)

        def look_back(_decoder: Any) -> None:  # with nothing linked, whether an error follows is chance
            if not entry.is_linked() and (trouble := self._choice.trouble()) is not None:
                self._failure = self._failure or PipelineFailure("video", 0, trouble)

        self._signals.append((decoder, decoder.connect("pad-added", link)))
        self._signals.append((decoder, decoder.connect("no-more-pads", look_back)))
        self._signals.append((decoder, decoder.connect("source-setup", self._on_source)))
        self._signals.append((decoder, decoder.connect("autoplug-continue", self._is_wanted)))
        self._signals.append((decoder, decoder.connect("deep-element-added", _end_with_the_file)))
        self._signals.append((decoder, decoder.connect("deep-element-added", self._on_element, gst)))
        self._signals.append((decoder, decoder.connect("deep-element-added", self._on_plugged)))
        if not self._playlists:
            self._signals.append((decoder, decoder.connect("autoplug-select", _no_playlist)))
        return decoder

    def _on_source(self, _decoder: Any, source: Any) -> None:
        self._source = source
        match source.get_factory().get_name():
            case "rtspsrc":
                is_over_udp = (self._uri or "").lower().startswith("rtspu:")
                source.set_property("protocols", _RTSP_UDP if is_over_udp else _RTSP_TCP)
                source.set_property("latency", round(self._latency_s * 1000))
                source.set_property("tcp-timeout", round(self._network_timeout_s * 1_000_000))
                self._signals.append((source, source.connect("select-stream", self._is_chosen)))
            case "souphttpsrc":
                source.set_property("timeout", max(1, round(self._network_timeout_s)))
                if (
                    self._uri and proxy_for(self._uri) is None
                ):  # the element knows http_proxy alone, not no_proxy
                    source.set_property("proxy", "")
            case _:
                return
        if self._username is not None:
            source.set_property("user-id", self._username)
        if self._password is not None:
            source.set_property("user-pw", self._password)

    def _on_element(self, _decoder: Any, _bin: Any, element: Any, gst: Any) -> None:
        kinds = element.get_factory().get_metadata("klass").split("/")
        if not {"Decoder", "Video"} <= set(kinds) or (sink := element.get_static_pad("sink")) is None:
            return
        if element.get_name().startswith("avdec_") and element.find_property("max-threads"):
            # One thread, that of the stream: only so is it known whose picture a complaint is about.
            element.set_property("max-threads", 1)
        sink.add_probe(gst.PadProbeType.BUFFER, self._on_encoded, gst)

    def _on_encoded(self, _pad: Any, info: Any, gst: Any) -> Any:
        buffer, flag = info.get_buffer(), gst.BufferFlags
        self._damage.enter(
            _known(buffer.pts, gst),
            is_key=not buffer.has_flags(flag.DELTA_UNIT),
            is_after_loss=buffer.has_flags(flag.DISCONT),
            is_corrupt=buffer.has_flags(flag.CORRUPTED),
        )
        hear_complaints(self._damage.complain)
        return gst.PadProbeReturn.OK

    def _is_chosen(self, _source: Any, _number: int, caps: Any) -> bool:
        """Whether a stream of an RTSP server is to be set up."""
        return self._choice.takes(caps.get_structure(0).get_string("media") or "video")

    def _is_wanted(self, _decoder: Any, pad: Any, caps: Any) -> bool:
        """Whether a stream is to be decoded."""
        return not is_encoded_video_of_a_demuxer(pad, caps) or self._choice.takes("video")

    def _on_plugged(self, _decoder: Any, _bin: Any, element: Any) -> None:
        if (factory := element.get_factory()) is None:
            return
        kind = factory.get_metadata("klass")
        self._in_segments |= "Adaptive" in kind
        self._has_still_picture |= kind.endswith("Decoder/Image")
        self._has_container |= "Demuxer" in kind and factory.get_name() != "multipartdemux"
        call_jpeg_by_its_name(element)
        keep_unwanted_sound_flowing(element)
        leave_transparency_out(element)
        if "Demuxer" in kind:
            handler = element.connect("no-more-pads", lambda _element: self._choice.begin_set())
            self._signals.append((element, handler))
        if self._latest_only:
            hasten(element)
        if self._has_still_picture and not self._has_container and self._at_clock_pace is None:
            self._source.set_property("do-timestamp", True)  # Motion JPEG alone has no times of its own

    def _on_buffer(self, _pad: Any, info: Any, gst: Any) -> Any:
        buffer = info.get_buffer()
        pts_ns = _known(buffer.pts, gst)
        is_corrupt = buffer.has_flags(gst.BufferFlags.CORRUPTED)
        is_damaged = self._damage.is_damaged(pts_ns, is_corrupt=is_corrupt)
        keep = self._gate(pts_ns, _known(buffer.duration, gst), is_damaged)
        return gst.PadProbeReturn.OK if keep else gst.PadProbeReturn.DROP

    def _read_bus(self) -> None:
        # Reading also empties the bus, which would grow forever otherwise.
        gst, pipeline = load_gst(), self._pipeline
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
    gst = load_gst()
    pipeline = gst.parse_launch(
        "uridecodebin name=decoder caps=video/x-raw(ANY) expose-all-streams=false "
        "! fakesink name=exit sync=false"
    )
    decoder = pipeline.get_by_name("decoder")
    decoder.set_property("uri", uri)
    handler = decoder.connect("deep-element-added", _end_with_the_file)
    try:
        start_pipeline(pipeline, timeout_s=timeout_s)
        kinds = gst.MessageType.ERROR | gst.MessageType.EOS
        message = pipeline.get_bus().timed_pop_filtered(round(timeout_s * _NS), kinds)
        if message is None:
            raise SourceError(f"{uri}: not decoded within {timeout_s:g} s")
        if message.type == gst.MessageType.ERROR:
            raise SourceError(f"{uri}: cannot be decoded ({message.parse_error()[0].message})")
        known, frames = pipeline.get_by_name("exit").get_property("stats").get_uint64("rendered")
        return int(frames) if known else 0
    finally:
        stop_pipeline(pipeline)
        decoder.disconnect(handler)


def _known(time_ns: int, gst: Any) -> int | None:
    return None if time_ns == gst.CLOCK_TIME_NONE else int(time_ns)


def _end_with_the_file(_decoder: Any, _bin: Any, element: Any) -> None:
    """Let a demuxer of libav's end where its file ends.

    gst-libav tells libavformat "0 bytes" at the end of a file, which some demuxers (GIF) do not take for the
    end: they read there forever. When they do so, they get an error, which they handle.
    """
    if not element.get_name().startswith("avdemux_") or (sink := element.get_static_pad("sink")) is None:
        return
    gst = load_gst()
    reads_at_end = 0

    def on_read(pad: Any, info: Any) -> Any:
        nonlocal reads_at_end
        known, size = pad.peer_query_duration(gst.Format.BYTES)
        if known and info.offset >= size:
            reads_at_end += 1
            if reads_at_end == _MOST_READS_AT_END:
                pad.get_peer().send_event(gst.Event.new_flush_start())  # what is read from now on is an error
        elif reads_at_end >= _MOST_READS_AT_END:  # it has only scanned the file, and starts again
            pad.get_peer().send_event(gst.Event.new_flush_stop(reset_time=False))
            reads_at_end = 0
        return gst.PadProbeReturn.PASS

    # "Block" means that it is asked before each read, not that it blocks.
    sink.add_probe(gst.PadProbeType.BLOCK | gst.PadProbeType.PULL, on_read)


def _no_playlist(_decoder: Any, _pad: Any, _caps: Any, factory: Any) -> int:
    return _SKIP if "Adaptive" in factory.get_metadata("klass") else 0
