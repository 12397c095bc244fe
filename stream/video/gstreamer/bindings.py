"""The seam to GStreamer: the one module that imports ``gi``.

What crosses it are timestamps in nanoseconds and arrays. GStreamer is loaded when it is first needed.
"""

from __future__ import annotations

import ctypes
import os
import platform
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

from engine import home_folders
from engine.errors import FacestreamError
from engine.faces import Image
from engine.optional_libraries import why_unusable
from stream.video.gstreamer.display_size import square_pixels
from stream.video.gstreamer.elements import APT_COMMAND, HARDWARE_DECODERS, NEEDED_ELEMENTS

_LOADING = threading.Lock()
_STOP_TIMEOUT_S = 1.5
_LOOK_AROUND_S = 0.05


def load_gst() -> Any:
    """GStreamer's namespace, ``gi.repository.Gst``, set going.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    with _LOADING:  # cameras begin side by side
        return _load()


@cache
def _load() -> Any:
    _keep_exceptions_working()
    _keep_caches_with_ours()
    # For HTTP, GLib would open the desktop's settings and, if these say so, ask the network for a proxy.
    os.environ.setdefault("GIO_USE_PROXY_RESOLVER", "dummy")
    try:
        import gi

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        with warnings.catch_warnings():
            # PyGObject's importer is of an older kind than Python likes.
            warnings.simplefilter("ignore", ImportWarning)
            from gi.repository import Gst, GstApp, GstVideo  # noqa: F401 - adds methods to Gst's classes
    except ImportError as exc:
        title = "GStreamer's Python binding (gi)"
        raise FacestreamError(why_unusable("gi", exc, title=title, install=APT_COMMAND)) from exc
    except ValueError as exc:  # what the binding is for is not there
        raise FacestreamError(f"GStreamer is not installed ({exc}); run: {APT_COMMAND}") from exc
    Gst.init(None)
    _prefer_hardware(Gst)
    _listen_to_decoders(Gst)
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


def _keep_caches_with_ours() -> None:
    """Leave nothing in the user's home but what is in our folders, and work where there is no home.

    GStreamer lists its plugins in a registry; its compiler of inner loops, ORC, maps machine code from a file
    that it unlinks at once, and puts it into the home where no runtime folder is named.
    """
    home_folders.lend("GST_REGISTRY", "gstreamer", file=f"registry.{platform.machine()}.bin")
    home_folders.lend("XDG_RUNTIME_DIR", "gstreamer")
    if not home_folders.has_home():
        home_folders.lend("HOME", "gstreamer")  # or GLib complains


def _prefer_hardware(gst: Any) -> None:
    if "GST_PLUGIN_FEATURE_RANK" in os.environ:  # the user has chosen
        return
    for name in HARDWARE_DECODERS:
        if (factory := gst.ElementFactory.find(name)) is not None:
            factory.set_rank(max(factory.get_rank(), gst.Rank.PRIMARY + 64))


# Decoders tell of damaged pictures only in GStreamer's log: in the thread that decodes, with no other sign of
# whose picture it was. So whoever is to hear of it is kept by thread.
_HEARERS: dict[int, Callable[[], None]] = {}


def _listen_to_decoders(gst: Any) -> None:
    """Have the complaints of decoders passed on, whatever the user has GStreamer log."""
    if not os.environ.get("GST_DEBUG"):
        gst.debug_remove_log_function(None)  # what is let through below is not for the terminal
    for category, level in (("libav", gst.DebugLevel.INFO), ("videodecoder", gst.DebugLevel.WARNING)):
        if gst.debug_get_default_threshold() < level:
            gst.debug_set_threshold_for_name(category, level)
    gst.debug_add_log_function(_on_log)


def _on_log(category: Any, level: Any, *rest: Any) -> None:
    hearer = _HEARERS.get(threading.get_ident())
    if hearer is None or level > 4:  # GST_LEVEL_INFO
        return
    text = rest[4].get() or ""
    match category.get_name():
        case "libav" if level == 1 or text.startswith("concealing"):  # GST_LEVEL_ERROR
            hearer()
        case "videodecoder" if level <= 2 and text.startswith("error"):  # GST_LEVEL_WARNING
            hearer()


def hear_complaints(hearer: Callable[[], None]) -> None:
    """Have what decoders say about damaged pictures in the current thread told to somebody.

    Args:
        hearer: Called in this thread at each complaint, until ``ignore_complaints``; may be named often.
    """
    _HEARERS[threading.get_ident()] = hearer


def ignore_complaints(hearer: Callable[[], None]) -> None:
    """Undo ``hear_complaints``, for all threads."""
    for thread, each in list(_HEARERS.items()):
        if each == hearer:
            _HEARERS.pop(thread, None)


def version() -> str:
    """GStreamer's version, ``1.22.0`` say.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    return ".".join(str(part) for part in load_gst().version()[:3])


def missing_elements(names: Iterable[str] = NEEDED_ELEMENTS) -> list[str]:
    """Those of the named elements that this machine does not have.

    Raises:
        FacestreamError: GStreamer or its bindings are not installed.
    """
    gst = load_gst()
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


def make_element(name: str) -> Any:
    """One element.

    Args:
        name: Of its factory, such as ``uridecodebin``.

    Raises:
        FacestreamError: This machine does not have it.
    """
    element = load_gst().ElementFactory.make(name)
    if element is None:
        raise FacestreamError(f"GStreamer has no element {name}; install it: {APT_COMMAND}")
    return element


def parse_bin(description: str) -> Any:
    """Elements in a row, with the pads at both ends made the bin's own.

    Args:
        description: In gst-launch's notation.

    Raises:
        FacestreamError: This machine lacks one of them, or the description means nothing.
    """
    try:
        return load_gst().parse_bin_from_description(description, True)
    except Exception as exc:
        raise FacestreamError(f"GStreamer lacks an element ({exc}); install it: {APT_COMMAND}") from exc


def start_pipeline(pipeline: Any, *, timeout_s: float, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Set a pipeline going, and wait no longer than is given for a device or file that does not open.

    Args:
        pipeline: What fails while it starts is told on its bus.
        timeout_s: How long that may take.
        give_up: Asked twenty times a second; True ends the wait without an error.

    Returns:
        Whether it started; False when it was abandoned.

    Raises:
        PipelineFailure: It did not start in time. It may be stuck for good; stop it anyway.
    """
    done = _change_state(pipeline, load_gst().State.PLAYING, timeout_s=timeout_s, give_up=give_up)
    if not done and not give_up():
        raise PipelineFailure("resource", 5, f"no answer within {timeout_s:g} s")
    return done


def stop_pipeline(pipeline: Any, *, timeout_s: float = _STOP_TIMEOUT_S) -> bool:
    """Stop a pipeline and free what it holds, within a time.

    Args:
        pipeline: In any state, also stuck.
        timeout_s: How long that may take. What takes longer is left to itself, with the thread that waits.

    Returns:
        Whether it is stopped; False when it was abandoned.
    """
    gst = load_gst()
    # On its way to PAUSED, rtspsrc waits for its receiving thread. That thread may wait for room in the
    # jitter buffer, which waits for the sink, which is paused already. Flushing lets all of them go.
    buffers: list[Any] = []
    pipeline.iterate_all_by_element_factory_name("rtpjitterbuffer").foreach(buffers.append)
    for each in buffers:
        each.get_static_pad("sink").send_event(gst.Event.new_flush_start())
    return _change_state(pipeline, gst.State.NULL, timeout_s=timeout_s)


def _change_state(
    pipeline: Any, state: Any, *, timeout_s: float, give_up: Callable[[], bool] = lambda: False
) -> bool:
    """Ask for a state in a thread of its own, since elements may wait forever; True when that returned."""
    thread = threading.Thread(target=pipeline.set_state, args=(state,), name="gst-state", daemon=True)
    thread.start()
    deadline = time.monotonic() + timeout_s
    while thread.is_alive() and not give_up() and (left_s := deadline - time.monotonic()) > 0:
        thread.join(min(left_s, _LOOK_AROUND_S))
    return not thread.is_alive()


def image_of(sample: Any) -> Image:
    """The picture in a sample of an appsink that takes BGRx, with square pixels.

    Args:
        sample: A ``Gst.Sample`` of raw video, four bytes a pixel.

    Returns:
        uint8 (H, W, 3) BGR, which is the caller's own. Pixels that are not square (anamorphic video, cameras'
        sub-streams) are stretched until they are.

    Raises:
        PipelineFailure: The memory cannot be read.
    """
    from gi.repository import GstVideo

    gst, buffer = load_gst(), sample.get_buffer()
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
    finally:
        buffer.unmap(mapping)
    size_wh = square_pixels((info.width, info.height), (info.par_n, info.par_d))
    if size_wh == (info.width, info.height):
        return image
    is_larger = size_wh[0] * size_wh[1] > info.width * info.height
    square = np.empty((size_wh[1], size_wh[0], 3), np.uint8)
    cv2.resize(image, size_wh, square, interpolation=cv2.INTER_CUBIC if is_larger else cv2.INTER_AREA)
    return square
