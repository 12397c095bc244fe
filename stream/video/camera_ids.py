"""Camera ids: what they may be, and those of sources that were given without one.

An id is the key of every event of its camera, a label of metrics and a part of file names.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Final

from engine.errors import TextError
from stream.common.names import clean_name
from stream.common.uris import LocalPath, TestPattern, parse_source, redact_uri

MAX_ID: Final = 64
"""Characters of the longest id."""

_MAX_BYTES: Final = 180  # in UTF-8: file names have 255, and more than the id is in them
_LONGEST_STEM: Final = 56
_LONGEST_STEM_BYTES: Final = 150
_NO_NAME: Final = "camera"


def clean_camera_id(text: str) -> str:
    """An id in the one form in which it is kept and compared.

    Args:
        text: Letters and digits of any script, dots, dashes and underscores.

    Returns:
        The same in NFC.

    Raises:
        ValueError: It is none.
    """
    expected = f"expected 1 to {MAX_ID} letters, digits, dots, dashes or underscores"
    try:
        name = clean_name(text, what="id", longest=MAX_ID)
    except TextError as exc:
        raise ValueError(f"{expected} ({exc})") from None
    if not all(map(_belongs, name)):
        raise ValueError(expected)
    if len(name.encode()) > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES} bytes in UTF-8, got {len(name.encode())}")
    return name


def name_sources(uris: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Ids for sources that were given without one: from their files or hosts.

    Sources that would have one id get their folders' names behind it, or a hash of their addresses, so that
    the id of each is the same in whatever order they are given. One that is given twice gets a number.

    Args:
        uris: As ``stream.common.uris.parse_source`` takes them.
        taken: Ids that are in use.

    Returns:
        An id for each.

    Raises:
        SourceError: An address does not make sense.
    """
    forms = {_identity(uri): _forms(uri) for uri in uris}
    chosen = _choose(forms, taken)
    names: list[str] = []
    for uri in uris:
        names.append(_numbered(chosen[_identity(uri)], {*taken, *names}))
    return names


def _choose(forms: dict[str, tuple[str, ...]], taken: Collection[str]) -> dict[str, str]:
    """The shortest form of each source that no other source has."""
    level = dict.fromkeys(forms, 0)
    while True:
        chosen = {source: forms[source][level[source]] for source in forms}
        used = [*chosen.values(), *taken]
        longer = {source for source, name in chosen.items() if used.count(name) > 1}
        longer = {source for source in longer if level[source] + 1 < len(forms[source])}
        if not longer:
            return chosen
        for source in longer:
            level[source] += 1


def _numbered(name: str, taken: Collection[str]) -> str:
    return next(
        each for number in count(1) if (each := f"{name}-{number}" if number > 1 else name) not in taken
    )


def _forms(uri: str) -> tuple[str, ...]:
    """Ids that a source may have, from short to unique."""
    address = parse_source(uri)
    folder = ""
    match address:
        case LocalPath(path):
            text, folder = _resolved(path).stem, _resolved(path).parent.name
        case TestPattern(pattern):
            text = f"test-{pattern}"
        case _:
            text = re.sub(r"^[a-z0-9]+://|[?#].*$", "", redact_uri(uri), flags=re.DOTALL)
    digest = hashlib.sha256(_identity(uri).encode(errors="surrogatepass")).hexdigest()[:8]
    stem = _stem(text) or _NO_NAME
    apart = [_stem(f"{stem}-{folder}")] if _stem(folder) else []
    return (stem, *apart, f"{stem[: _LONGEST_STEM - 9]}-{digest}")


def _identity(uri: str) -> str:
    """The same for two ways to write one source; without its secrets."""
    address = parse_source(uri)
    return str(_resolved(address.path)) if isinstance(address, LocalPath) else redact_uri(uri)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()


def _stem(text: str) -> str:
    """What may stand in an id of a text, in NFC, at most 56 characters; empty where there is nothing."""
    known = "".join(char if _belongs(char) else "\0" for char in unicodedata.normalize("NFC", text))
    stem = re.sub("\0+", "-", known).strip("-.")
    while stem and unicodedata.category(stem[0]).startswith("M"):
        stem = stem[1:].lstrip("-.")
    return stem[:_LONGEST_STEM].encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore")


@lru_cache(maxsize=1024)
def _belongs(char: str) -> bool:
    """Whether a character may stand in an id: a letter, mark or digit that can be seen, or one of ``._-``."""
    if unicodedata.category(char)[0] not in "LMN":
        return char in "._-"
    try:
        clean_name(f"a{char}")
    except TextError:
        return False
    return True
