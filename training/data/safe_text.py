"""Text fit for pages and terminals."""

from __future__ import annotations

import re
from typing import Final

_ODD: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
"""What HTML or UTF-8 cannot hold, what moves a terminal's cursor, and what turns the direction of text."""


def clean(value: object) -> str:
    """Text of one value, with what cannot be shown replaced: control characters and the like."""
    return _ODD.sub("\ufffd", str(value))
