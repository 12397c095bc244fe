"""Which of GStreamer's elements facestream builds pipelines of, and what installs them."""

from __future__ import annotations

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
