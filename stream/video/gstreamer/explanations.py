"""What GStreamer's errors mean to the person who has to fix them."""

from __future__ import annotations

import os
import re
import socket
from urllib import request
from urllib.parse import urlsplit

from stream.common.uris import split_port
from stream.video.gstreamer.bindings import PipelineFailure
from stream.video.gstreamer.elements import APT_COMMAND

_DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "rtspu": 554, "http": 80, "https": 443}
_CONNECT_TIMEOUT_S = 1.0


def plain_words(failure: PipelineFailure) -> str:
    """Say in plain words why a pipeline failed.

    Args:
        failure: GStreamer's first error. Its numbers are those of GstResourceError, GstStreamError and
            GstCoreError.

    Returns:
        One line, which may still hold the URI.
    """
    cause = failure.message.rstrip(".")
    match failure.domain, failure.code:
        case ("video", _):  # of our own: what the source offers is not what is looked for
            words = cause
        case ("resource", 15):  # NOT_AUTHORIZED
            words = "the server refused the user name or password"
        case ("resource", 3):  # NOT_FOUND
            words = "there is no such stream or device; check the path"
        case ("resource", 5 | 6 | 7):  # OPEN_READ, OPEN_WRITE, OPEN_READ_WRITE
            words = f"cannot be opened ({cause})"
        case ("resource", _):
            words = f"reading failed ({cause})"
        case ("core", 12) if "setup_streams" in failure.details:  # rtspsrc was refused each transport
            words = "the server refuses this transport: rtsp:// uses TCP, rtspu:// UDP; use the other one"
        case ("core", 12) | ("stream", 6):  # MISSING_PLUGIN, CODEC_NOT_FOUND
            words = _missing_decoder(" ".join(failure.details.split()))
        case ("stream", 1) if "not-negotiated" in failure.details:  # FAILED
            words = "cannot be converted: its format is not known, or its frames are larger than 16384 pixels"
        case ("stream", 4 | 5):  # TYPE_NOT_FOUND, WRONG_TYPE
            words = "is not a video that GStreamer knows; expected MP4, MKV, AVI, WMV, GIF, TS or the like"
        case ("stream", 9) if "no playable" in failure.message:  # DEMUX
            words = "holds no stream that can be played: it is cut off or damaged; copy or record it again"
        case _:
            words = f"cannot be decoded ({cause})"
    return words


def connect_trouble(uri: str, failure: PipelineFailure) -> str | None:
    """Ask the operating system why a server cannot be reached, where GStreamer keeps that to itself.

    Args:
        uri: Of the stream, without credentials.
        failure: What GStreamer said before the first frame came.

    Returns:
        One line; None where the failure says enough.
    """
    # OPEN_READ_WRITE, READ, FAILED
    if (failure.domain, failure.code) not in {("resource", 7), ("resource", 9), ("stream", 1)}:
        return None
    if (proxy := proxy_for(uri)) is not None:
        return _proxy_trouble(*proxy)
    scheme, host, port = _endpoint(uri)
    return _reach_trouble(host, port) or (
        f"{host} port {port} takes the connection, but does not speak {scheme} as expected, or says nothing; "
        "check scheme, port and certificate, and whether the camera hangs"
    )


def silence_trouble(uri: str) -> str:
    """Why no frame ever came from a server, and nothing failed, as far as the operating system knows.

    Args:
        uri: Of the stream, without credentials.
    """
    if (proxy := proxy_for(uri)) is not None:
        return _proxy_trouble(*proxy) or "the proxy takes the connection, and nothing comes through it"
    _, host, port = _endpoint(uri)
    return _reach_trouble(host, port) or (
        f"{host} port {port} takes the connection, but sends no video; "
        "check scheme, port and path, and whether the camera hangs"
    )


def _reach_trouble(host: str, port: int) -> str | None:
    """Why a server cannot be reached; None where it takes the connection."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except (socket.gaierror, UnicodeError):  # the latter: no name that a name server could be asked for
        return f"the host name {host} is not known; check it and the name server"
    except TimeoutError:
        return f"{host} does not answer on port {port}; check address, network and firewall"
    except OSError as exc:
        return f"cannot connect to {host} port {port} ({exc.strerror}); check host, port and network"
    return None


def proxy_for(uri: str) -> tuple[str, int] | None:
    """Host and port of the proxy through which an address is asked; None where it is asked directly.

    ``http_proxy`` names it, for ``https`` too, as GStreamer has it; ``no_proxy`` lists hosts to ask directly.
    """
    scheme, host, port = _endpoint(uri)
    named = os.environ.get("http_proxy")
    if not named or scheme not in {"http", "https"} or request.proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(named if "://" in named else f"http://{named}")
    try:
        return parts.hostname or "", parts.port or _DEFAULT_PORTS["http"]
    except ValueError:  # no number of a port
        return parts.hostname or "", 0


def _proxy_trouble(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "no answer"
        return (
            f"cannot connect to the proxy {host} port {port} ({why}); correct http_proxy, or list the "
            "source's host in no_proxy"
        )
    return None


def _endpoint(uri: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address, the host as the operating system takes it."""
    scheme, _, rest = uri.partition("://")
    host, port = split_port(re.split(r"[/?#]", rest, maxsplit=1)[0])
    scheme = scheme.lower()
    return scheme, host.strip("[]").replace("%25", "%"), port or _DEFAULT_PORTS[scheme]


def _missing_decoder(details: str) -> str:
    wanted = re.findall(
        r"Missing decoder: (.*?) \(((?:video|image|audio|application|text)/[\w.+-]*)", details
    )
    pictures = [name for name, kind in wanted if kind.startswith(("video/", "image/"))]
    if pictures or not wanted:
        name = pictures[0] if pictures else "this format"
        return f"no decoder for {name} is installed; install all of them: {APT_COMMAND}"
    return f"holds no video, only {wanted[0][0]}; expected a video stream"
