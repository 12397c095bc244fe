"""What processor this is."""

from __future__ import annotations

import platform


def processor_key() -> str:
    """A short name of the processor and what it computes in."""
    return platform.machine()
