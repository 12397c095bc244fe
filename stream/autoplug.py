"""What elements that GStreamer plugs by itself have to be told, so that pictures of a stream come soon."""

from __future__ import annotations

from typing import Any

from stream.gstreamer import load_gst


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


def _drop_sound(_demuxer: Any, pad: Any) -> None:
    gst = load_gst()
    if pad.get_name() == "audio":
        pad.add_probe(gst.PadProbeType.BUFFER, lambda _pad, _info: gst.PadProbeReturn.DROP)
