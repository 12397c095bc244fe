"""Arrays become video."""

from __future__ import annotations

import time

import numpy as np

from engine.errors import SinkError
from engine.faces import Image
from stream.video.gstreamer.bindings import (
    PipelineFailure,
    load_gst,
    missing_elements,
    start_pipeline,
    stop_pipeline,
)
from stream.video.gstreamer.elements import APT_COMMAND

_NS = 1_000_000_000


class EncodePipeline:
    """Encodes BGR images into an H.264 MP4 file that browsers play.

    Args:
        location: Path of the file; overwritten.
        size_wh: Width and height of every image, both even.
        fps: Nominal frames a second.
        bitrate_kbps: Encode as an IP camera does, at this rate; None encodes fast at constant quality.
        timeout_s: How long opening the file may take, and later closing it.

    Raises:
        PipelineFailure: The file does not open in time.
    """

    def __init__(
        self,
        location: str,
        *,
        size_wh: tuple[int, int],
        fps: float,
        bitrate_kbps: int | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        gst = load_gst()
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
        self._timeout_s = timeout_s
        try:
            start_pipeline(self._pipeline, timeout_s=timeout_s)
        except PipelineFailure:
            stop_pipeline(self._pipeline)
            raise

    def push(self, image: Image, pts_ns: int, *, timeout_s: float = 10.0) -> None:
        """Encode one image, waiting while the encoder is busy.

        Args:
            image: uint8 (H, W, 3) BGR.
            pts_ns: When it is shown; above those before.
            timeout_s: How long to wait for the encoder.

        Raises:
            PipelineFailure: The encoder or the file failed, or it is stuck.
        """
        gst = load_gst()
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
        if self._failed:
            return
        try:
            self._entry.emit("end-of-stream")
            if not self._check(round(timeout_s * _NS)):
                raise PipelineFailure("stream", 1, f"the file was not finished within {timeout_s:g} s")
        finally:
            stopped = stop_pipeline(self._pipeline, timeout_s=self._timeout_s)
        if not stopped:
            raise PipelineFailure("stream", 1, f"the file was not closed within {self._timeout_s:g} s")

    def _check(self, timeout_ns: int) -> bool:
        gst = load_gst()
        kinds = gst.MessageType.ERROR | gst.MessageType.EOS
        message = self._pipeline.get_bus().timed_pop_filtered(timeout_ns, kinds)
        if message is not None and message.type == gst.MessageType.ERROR:
            self._failed = True
            stop_pipeline(self._pipeline, timeout_s=self._timeout_s)
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
