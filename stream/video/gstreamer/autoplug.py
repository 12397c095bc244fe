"""Settings of the elements that GStreamer plugs by itself, so that the first pictures come soon."""

from __future__ import annotations

from typing import Any

from stream.video.gstreamer.bindings import load_gst

_NAMES_OF_JPEG = ("image/jpg", "image/pjpeg", "image/x-jpeg", "image/x-jpg")
"""What cameras write for ``image/jpeg``."""


def hasten(element: Any) -> None:
    """Let a demuxer of a live stream give its video out when it is there, not when it knows that this is all.

    decodebin shows nothing before its demuxer says that there are no more streams, or before megabytes have
    come. multipartdemux never says so unless it is told, flvdemux only after six seconds without sound.

    Args:
        element: Any, as it is added.
    """
    match element.get_factory().get_name():
        case "multipartdemux":
            element.set_property("single-stream", True)
        case "flvdemux":
            element.connect_after("pad-added", _say_that_this_is_all)


def call_jpeg_by_its_name(element: Any) -> None:
    """Let pictures of a multipart stream be decoded that the camera calls ``image/jpg`` or the like.

    multipartdemux takes the camera's word for caps, and no decoder is for those.

    Args:
        element: Any, as it is added.
    """
    if element.get_factory().get_name() == "multipartdemux":
        element.connect("pad-added", _call_jpeg_by_its_name)


def keep_unwanted_sound_flowing(element: Any) -> None:
    """Let flvdemux go on when its sound comes before its video.

    Nobody takes the sound; as long as it is the only stream, flvdemux takes that for an error.

    Args:
        element: Any, as it is added.
    """
    if element.get_factory().get_name() == "flvdemux":
        element.connect("pad-added", _drop_sound)


def _say_that_this_is_all(demuxer: Any, pad: Any) -> None:
    if pad.get_name() == "video":
        demuxer.no_more_pads()


def _call_jpeg_by_its_name(_demuxer: Any, pad: Any) -> None:
    caps = pad.get_current_caps()
    if caps is not None and caps.get_structure(0).get_name().lower() in _NAMES_OF_JPEG:
        gst = load_gst()
        pad.push_event(gst.Event.new_caps(gst.Caps.new_empty_simple("image/jpeg")))


def _drop_sound(_demuxer: Any, pad: Any) -> None:
    gst = load_gst()
    if pad.get_name() == "audio":
        pad.add_probe(gst.PadProbeType.BUFFER, lambda _pad, _info: gst.PadProbeReturn.DROP)


def leave_transparency_out(element: Any) -> None:
    """Let VP8 and VP9 with an alpha channel be decoded as if they had none.

    The decoders for both parts say of themselves that they may give anything, which decodebin does not take
    for video.

    Args:
        element: Any, as it is added.
    """
    if element.get_factory().get_name() == "matroskademux":
        element.connect("pad-added", _forget_alpha)


class VideoChoice:
    """Takes one of the videos that a source offers, always the same one, and knows what was offered.

    Args:
        number: Which, from 1, in the order of the source.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._offered: list[str] = []
        self._in_this_set = 0
        self._taken = False

    def takes(self, media: str) -> bool:
        """Whether a stream that is offered is the one to watch.

        Args:
            media: ``video``, ``audio``, ``application``, …
        """
        self._offered.append(media)
        if media != "video":
            return False
        self._in_this_set += 1
        is_it = self._in_this_set == self._number
        self._taken |= is_it
        return is_it

    def begin_set(self) -> None:
        """The source has offered all; what it offers later takes their place."""
        self._in_this_set = 0

    def trouble(self) -> str | None:
        """Why there is nothing to watch, in words; None where that is not for lack of an offer."""
        if self._taken or not self._offered:
            return None
        videos = self._offered.count("video")
        if not videos:
            return f"holds no video, only {' and '.join(sorted(set(self._offered)))}; expected a video stream"
        some = "1" if videos == 1 else f"1 to {videos}"
        return f"has no video {self._number}, only {videos}; set video: {some}"


def is_encoded_video_of_a_demuxer(pad: Any, caps: Any) -> bool:
    """Whether a pad is one of the videos in a container, and not a container in another one.

    Args:
        pad: That decodebin asks about, a ghost of the element's.
        caps: Its caps.
    """
    target = pad.get_target()
    element = None if target is None else target.get_parent_element()
    if element is None or not caps.get_size():
        return False
    kind, name = element.get_factory().get_metadata("klass"), caps.get_structure(0).get_name()
    is_nested = "Adaptive" in kind or name in ("video/mpegts", "video/quicktime", "video/x-matroska")
    return "Demuxer" in kind and not is_nested and name.startswith(("video/", "image/"))


def _forget_alpha(_demuxer: Any, pad: Any) -> None:
    caps = pad.get_current_caps()
    if caps is not None and caps.get_structure(0).has_field("codec-alpha"):
        plain = caps.get_structure(0).copy()
        plain.remove_field("codec-alpha")
        opaque = load_gst().Caps.new_empty()
        opaque.append_structure(plain)
        pad.push_event(load_gst().Event.new_caps(opaque))
