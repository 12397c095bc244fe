"""What a source string on the command line means, and how to show it without its secrets.

Nothing here touches a file, a network or GStreamer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, unquote

from engine.errors import SourceError

HIDDEN = "***"
"""What stands where a secret stood."""

KNOWN_SOURCES = (
    "a path, file://, rtsp://, rtsps://, rtspu://, http://, https://, v4l2:///dev/videoN, "
    "test://PATTERN?frames=N&size=WxH&fps=N"
)

TEST_PATTERNS = (
    *("smpte", "snow", "black", "white", "red", "green", "blue", "checkers-1", "checkers-2", "checkers-4"),
    *(
        "checkers-8",
        "circular",
        "blink",
        "smpte75",
        "zone-plate",
        "gamut",
        "chroma-zone-plate",
        "solid-color",
    ),
    *("ball", "smpte100", "bar", "pinwheel", "spokes", "gradient", "colors", "smpte-rp-219"),
)
"""Patterns of GStreamer's videotestsrc."""

_REFERENCE = re.compile(r"\$\{[^}]*\}")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)(?:%[\w.~%-]+)?\]|[\w.-]+)(?::([0-9]{0,5}))?")
_LARGEST_PORT = 65535
_ENCODED = "write /, ?, #, @, : and % within a user name or password as %2F, %3F, %23, %40, %3A and %25"
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# "admin:secret@192.0.2.10/stream1", "rtsp:/admin:secret@host": no path, unless it begins like one.
_LOGIN_WITHOUT_SCHEME = re.compile(r"(?![.~]|/(?!/))[^@]*:[^@]*@")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SECRET_KEY = re.compile(
    r"pass|pwd|token|secret|sig|auth|cred|session|key|^(pw|sid|hmac|jwt|code|login|user(name)?|usr)$",
    re.IGNORECASE,
)
_SHORTEST_SECRET_IN_TEXT = 3


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file or a folder of frames on this machine; which of the two is seen when it is opened."""

    path: Path


@dataclass(frozen=True, slots=True)
class NetworkStream:
    """A stream behind ``rtsp``, ``rtsps``, ``rtspu``, ``http`` or ``https``.

    Attributes:
        scheme: One of these five.
        uri: Without user name and password.
        username: Of the URI, decoded; None where there was none.
        password: Of the URI, decoded; None where there was none.
    """

    scheme: str
    uri: str = field(repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CaptureDevice:
    """A camera of this machine, through Video4Linux."""

    path: Path


@dataclass(frozen=True, slots=True)
class TestPattern:
    """A synthetic picture.

    Attributes:
        pattern: One of ``TEST_PATTERNS``.
        frames: How many, after which it ends; None makes it a live camera that never ends.
        size_wh: Width and height in pixels.
        fps: Frames a second.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    pattern: str = "smpte"
    frames: int | None = None
    size_wh: tuple[int, int] = (640, 360)
    fps: int = 25


SourceAddress: TypeAlias = LocalPath | NetworkStream | CaptureDevice | TestPattern


def parse_source(source: str) -> SourceAddress:
    """Tell what kind of source a string of the command line names.

    Args:
        source: A path, or a URI of a known scheme.

    Returns:
        The typed address; credentials are taken out of it.

    Raises:
        SourceError: The scheme is unknown, or a part does not make sense.
    """
    if not source.strip():
        raise SourceError(f"source: got an empty string, expected {KNOWN_SOURCES}")
    if "\0" in source:
        raise SourceError(f"source: got a text with a zero byte, expected {KNOWN_SOURCES}")
    match = _SCHEME.match(source)
    if match is None and _LOGIN_WITHOUT_SCHEME.match(source):
        raise SourceError(
            f"{redact_uri(source)}: has a login, but does not begin with rtsp:// or http://, expected "
            "rtsp://USER:PASSWORD@HOST/PATH; for a file of that name write ./ before it"
        )
    if match is None:
        return LocalPath(_expanded(source))
    scheme, rest = match[1].lower(), source[match.end() :]
    match scheme:
        case "file":
            return _parse_file(source, rest)
        case "rtsp" | "rtsps" | "rtspu" | "http" | "https":
            return _parse_network(scheme, source)
        case "v4l2":
            return _parse_device(source, rest)
        case "test":
            return _parse_pattern(rest)
        case _:
            raise SourceError(
                f"{redact_uri(source)}: got the unknown scheme {scheme}://, expected {KNOWN_SOURCES}"
            )


def fill_references(text: str, fill: Callable[[str], str]) -> str:
    """An address with values in place of ``${NAME}``.

    One rule for addresses of all kinds: within the login and behind the question mark a value may hold any
    character, and is percent-encoded. Elsewhere it stands as it is, so that it may be several hosts, a path
    of several folders, or the whole address.

    Args:
        text: An address, or any other text.
        fill: As a text with values in place of its references; is given one reference at a time.
    """

    def quoted(part: str) -> str:
        return _REFERENCE.sub(lambda found: quote(fill(found[0]), safe=""), part)

    def plain(part: str) -> str:
        return _REFERENCE.sub(lambda found: fill(found[0]), part)

    scheme = _SCHEME.match(text)
    if scheme is None:
        return plain(text)
    location, mark, query = text[scheme.end() :].partition("?")
    authority, path = _split_authority(location)
    login, at, host = authority.rpartition("@")
    return scheme[0] + quoted(login) + at + plain(host) + plain(path) + mark + quoted(query)


def is_host_and_port(authority: str) -> bool:
    """Whether this is a host name or address, with or without a port: ``HOST[:PORT]``.

    An address of IPv6 stands in brackets and may have a zone, written ``%eth0`` or ``%25eth0`` (RFC 6874).
    """
    found = _HOST_AND_PORT.fullmatch(authority)
    if found is None or not 0 < int(found[2] or 1) <= _LARGEST_PORT:
        return False
    try:
        return found[1] is None or bool(ipaddress.IPv6Address(found[1]))
    except ValueError:
        return False


def split_port(authority: str) -> tuple[str, int | None]:
    """Host and port of what ``is_host_and_port`` admits; None where there is no port."""
    host, _, port = authority.rpartition(":")
    return (host, int(port)) if port.isdecimal() and host else (authority.removesuffix(":"), None)


def split_credentials(uri: str) -> tuple[str, str | None, str | None]:
    """Take user name and password out of a URI, as RFC 3986 places them (section 3.2.1).

    Args:
        uri: Any URI.

    Returns:
        The URI without them, the user name and the password, both percent-decoded, None where not given.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return uri, None, None
    authority, rest = _split_authority(uri[match.end() :])
    userinfo, at, host = authority.rpartition("@")
    if not at:
        return uri, None, None
    username, colon, password = userinfo.partition(":")
    return match[0] + host + rest, unquote(username) or None, unquote(password) if colon else None


def redact_uri(uri: str) -> str:
    """A URI that can be shown: without user name and password, and with the secrets of its query hidden.

    Where the authority is not valid because a password holds an unescaped ``/``, ``?`` or ``#``, and where
    there is no scheme before what looks like a login, all up to the last ``@`` is taken for credentials.

    Args:
        uri: Any URI or path.

    Returns:
        The same, without secrets.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return uri.rpartition("@")[2] if _LOGIN_WITHOUT_SCHEME.match(uri) else uri
    rest = uri[match.end() :]
    authority, _ = _split_authority(rest)
    if "@" in rest and not is_host_and_port(authority.rpartition("@")[2]):
        rest = rest.rpartition("@")[2]
    bare, _, _ = split_credentials(match[0] + rest)
    head, mark, query = bare.partition("?")
    return head + mark + _redact_query(query)


def redact_text(text: str, secrets: Iterable[str | None] = ()) -> str:
    """A message that can be shown: known secrets are hidden, and every URI in it is redacted.

    Args:
        text: A message of a library, say.
        secrets: User names, passwords, tokens; None and very short ones are skipped, since hiding
            them would make the text unreadable without hiding anything.

    Returns:
        The text without them, also in their percent-encoded form.
    """
    known = [secret for secret in secrets if secret and len(secret) >= _SHORTEST_SECRET_IN_TEXT]
    forms = {form for secret in known for form in (secret, *(_quoted(secret, safe) for safe in ("/", "")))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return _URI_IN_TEXT.sub(lambda match: redact_uri(match[0]), text)


def _quoted(secret: str, safe: str) -> str:
    return quote(secret, safe=safe, errors="surrogatepass")


def _split_authority(rest: str) -> tuple[str, str]:
    end = re.search(r"[/?#]", rest)
    return (rest, "") if end is None else (rest[: end.start()], rest[end.start() :])


def _redact_query(query: str) -> str:
    def redact(part: str) -> str:
        key, equals, _ = part.partition("=")
        return key + equals + HIDDEN if equals and _SECRET_KEY.search(unquote(key)) else part

    return "".join(part if part in "&;#" else redact(part) for part in re.split(r"([&;#])", query))


def _expanded(path: str) -> Path:
    """With ``~`` and ``~name`` as a shell reads them; a name that nobody has stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _parse_file(source: str, rest: str) -> LocalPath:
    host, path = _split_authority(rest)
    if host not in ("", "localhost") or not path:
        raise SourceError(f"{redact_uri(source)}: expected file:///absolute/path (three slashes)")
    if "\0" in unquote(path):
        raise SourceError(f"{redact_uri(source)}: expected a path without a zero byte (%00)")
    return LocalPath(Path(unquote(path)))


def _parse_network(scheme: str, source: str) -> NetworkStream:
    uri, username, password = split_credentials(source)
    host, rest = _split_authority(uri[uri.index("://") + 3 :])
    if not is_host_and_port(host):
        raise SourceError(
            f"{redact_uri(source)}: expected {scheme}://HOST[:PORT]/PATH, a login before HOST as "
            f"USER:PASSWORD@, PORT a number up to {_LARGEST_PORT}, an IPv6 address in brackets; {_ENCODED}"
        )
    return NetworkStream(
        scheme=scheme,
        uri=uri[: uri.index("://") + 3] + _with_zone(host) + rest,
        username=username,
        password=password,
    )


def _with_zone(host: str) -> str:
    """A host with its IPv6 zone as GStreamer and RFC 6874 have it."""
    return re.sub(r"%(?:25(?=[^]]))?", "%25", host, count=1)


def _parse_device(source: str, rest: str) -> CaptureDevice:
    path = unquote(rest)
    if not path.startswith("/dev/"):
        raise SourceError(f"{redact_uri(source)}: expected v4l2:///dev/videoN (three slashes)")
    return CaptureDevice(Path(path))


def _parse_pattern(rest: str) -> TestPattern:
    pattern, _, query = rest.partition("?")
    pattern = pattern.rstrip("/") or "smpte"
    if pattern not in TEST_PATTERNS:
        shown = pattern if re.fullmatch(r"[\w-]{1,40}", pattern) else "(not shown)"
        raise SourceError(
            f"test://: got the unknown pattern {shown}, expected one of {' '.join(TEST_PATTERNS)}"
        )
    values = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(values) - {"frames", "size", "fps"}:
        shown = ", ".join(sorted(unknown)) if re.fullmatch(r"\w{1,20}", "".join(unknown)) else "(not shown)"
        raise SourceError(f"test://{pattern}: got {shown}, expected frames=N, size=WxH or fps=N")
    frames, fps = values.get("frames"), values.get("fps", "25")
    width, _, height = values.get("size", "640x360").partition("x")
    numbers = (fps, width, height) if frames is None else (fps, width, height, frames)
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", number) for number in numbers):
        raise SourceError(f"test://{pattern}: expected whole numbers above 0 in frames=N, size=WxH and fps=N")
    return TestPattern(pattern, None if frames is None else int(frames), (int(width), int(height)), int(fps))
