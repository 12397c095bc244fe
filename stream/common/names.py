"""Names from outside: of people, cameras and files, in any script, brought to one form or refused.

Two names that look the same are the same: text is normalised to NFC (Unicode Standard Annex 15), and what
cannot be seen is refused, apart from the joiners that Persian and the scripts of India need (RFC 5892).
"""

from __future__ import annotations

import unicodedata
from typing import Final

from engine.errors import TextError

MAX_NAME: Final = 200
"""Characters of the longest name."""

_NON_JOINER: Final = "\u200c"
_JOINER: Final = "\u200d"
_VIRAMA: Final = 9
"""Combining class of the signs after which a joiner chooses between two forms of a letter."""
_UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""What Unicode counts as letters, marks or symbols, and no font draws: fillers and variation selectors."""
_DRAWN_LIKE: Final = {
    "аαеεіιоοуυ": "aaeeiioouu",
    "вβԁһнηјкκмμиνѕсрρԛтτѵԝхχζ": "bbdhhhjkkmmunscppqttvwxxz",
    "01l|\u0131\u04cf": "oiiiii",
    "_-\u2010\u2011\u2013\u2019\u02bc`\u00b4": "     ''''",
}
"""Small letters and signs, and what a reader takes them for."""
_LOOKS_LIKE: Final = str.maketrans("".join(_DRAWN_LIKE), "".join(_DRAWN_LIKE.values()))


def clean_name(text: str, *, what: str = "name", longest: int = MAX_NAME) -> str:
    """A name in the one form in which it is kept and compared.

    Args:
        text: From anywhere: the command line, a folder, a file. Undecodable bytes stand in it as surrogates.
        what: What it names, for the error message.
        longest: Characters that it may have.

    Returns:
        The name in NFC, with every kind of space as a plain one.

    Raises:
        TextError: It is empty or too long, has spaces at its ends, begins with a combining mark, or has
            characters that cannot be seen.
    """
    name = "".join(" " if unicodedata.category(char) == "Zs" else char for char in canonical(text))
    if complaint := _complaint(name, longest):
        raise TextError(f"{what}: {complaint}; got {quoted(text)}")
    return name


def check_text(text: str, *, what: str) -> None:
    """Check that a text of any length and kind can be kept.

    Raises:
        TextError: It has bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TextError(f"{what}: is not valid UTF-8; got {quoted(text)}") from None


def fitting_name(text: str, *, longest: int = MAX_NAME) -> str:
    """The name that is nearest to a text: a question mark for each character that cannot be seen.

    Args:
        text: From anywhere.
        longest: Characters after which it is cut.

    Returns:
        What ``clean_name`` takes, or nothing where that takes nothing like it.
    """
    name = canonical(text)
    seen = "".join(char if _is_seen(name, place) else "?" for place, char in enumerate(name))
    try:
        return clean_name(seen[:longest].strip(), longest=longest)
    except TextError:
        return ""


def canonical(text: str) -> str:
    """Text in NFC, the form in which names are compared; is not checked."""
    return unicodedata.normalize("NFC", text)


def _complaint(name: str, longest: int) -> str:
    """What is wrong with a name in NFC; empty where nothing is."""
    if not 1 <= len(name) <= longest:
        return f"has {len(name)} characters, expected 1 to {longest}" if name else "is empty"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "is not valid UTF-8"
    for place, char in enumerate(name):
        if not _is_seen(name, place):
            return f"has {_code_point(char)}, which cannot be seen"
    bare = [word[0] for word in name.split() if unicodedata.category(word[0]).startswith("M")]
    if bare:
        return f"has the combining mark {_code_point(bare[0])} without a letter before it"
    return "has spaces at its ends" if name != name.strip() else ""


def _is_seen(name: str, place: int) -> bool:
    char = name[place]
    if char not in {_NON_JOINER, _JOINER}:
        return char.isprintable() and char not in _UNSEEN
    before, after = name[place - 1 : place], name[place + 1 : place + 2]
    if not before or not after:
        return False
    arabic = all(unicodedata.bidirectional(each) == "AL" for each in (before, after))
    return unicodedata.combining(before) == _VIRAMA or (char == _NON_JOINER and arabic)


def _code_point(char: str) -> str:
    name = unicodedata.name(char, "").lower()
    return f"U+{ord(char):04X}" + (f" ({name})" if name else "")


def quoted(text: str, *, longest: int = 60) -> str:
    """Text in quotes, with escapes for what cannot be shown; letters of any script stay.

    Args:
        text: From anywhere.
        longest: Characters after which it is cut.
    """
    shown = repr(text[:longest])
    return shown + ("…" if len(text) > longest else "")


def look_alike(name: str) -> str:
    """What names have in common that a reader would take for one another.

    Case, width, spaces, underscores, hyphens and joiners make no difference, and neither do Cyrillic and
    Greek letters that are drawn like Latin ones. Accents do: ``Renée`` and ``Renee`` may be two people.

    Args:
        name: As ``clean_name`` returns it.

    Returns:
        To be compared, not to be shown.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    bare = folded.replace(_NON_JOINER, "").replace(_JOINER, "")
    return " ".join(bare.translate(_LOOKS_LIKE).split())
