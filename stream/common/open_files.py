"""The limit of open files of this process, and messages for when it is too low.

Sockets and pipes are files, too: a camera needs a dozen. What runs out of them fails in odd words of its own,
or in none, and GStreamer may hang; so there is a look at what is left before a camera is opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from engine.errors import ConfigError
from stream.common.uris import NetworkStream, parse_source

FILES_OF_A_CAMERA: Final = 16
"""What a camera needs at the most: an RTSP one was seen to take 10 to 15."""

_FILES_OF_A_FILE: Final = 8  # what one on this machine needs; 6 were seen
_FILES_OF_A_RUN: Final = 64
_ENOUGH: Final = 1 << 16
_FEW: Final = 8
_OPEN: Final = Path("/dev/fd")
_ERRNOS: Final = (errno.EMFILE, errno.ENFILE)
_WORDS: Final = tuple(map(os.strerror, _ERRNOS))


def raise_limit() -> None:
    """Raise the soft limit, which is for old programs, to the hard one, as far as it can be of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def files_left() -> int | None:
    """How many files can be opened yet; None where the system does not tell, or sets no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return None if soft == resource.RLIM_INFINITY else max(0, soft - len(list(_OPEN.iterdir())))
    except OSError as exc:
        return 0 if exc.errno in _ERRNOS else None


def check_limit(uris: Sequence[str]) -> None:
    """Check that a run may open what it will need.

    Args:
        uris: Of its cameras.

    Raises:
        ConfigError: It may not.
        SourceError: An address does not make sense.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_OF_A_RUN + sum(map(_files_of, uris))
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ConfigError(f"cameras: {len(uris)} need up to {needed} open files; {way_out(at_least=needed)}")


def _files_of(uri: str) -> int:
    return FILES_OF_A_CAMERA if isinstance(parse_source(uri), NetworkStream) else _FILES_OF_A_FILE


def way_out(*, at_least: int = 4096) -> str:
    """How the limit is raised.

    Args:
        at_least: What it should be.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(4096, 1 << (at_least - 1).bit_length())
    return (
        f"this process may have {soft} open at once; raise that: ulimit -n {wanted}, "
        f"LimitNOFILE={wanted} in a systemd unit, or --ulimit nofile={wanted} for a container"
    )


def too_many() -> str:
    """What is wrong, and how to fix it."""
    return f"too many open files; {way_out()}"


def explained(text: str) -> str:
    """A message that says how to fix it where there were too many open files, instead of what it advised.

    Args:
        text: ``what: why``. Any other message comes back as it is.
    """
    if not any(words in text for words in _WORDS):
        return text
    what, colon, _ = text.partition(": ")
    return f"{what}: {too_many()}" if colon else too_many()


def ran_out(error: BaseException) -> bool:
    """Whether an error comes of too many open files: it or a cause says so, or hardly any can be opened."""
    for each in _causes(error):
        is_one = isinstance(each, OSError) and each.errno in _ERRNOS
        if is_one or any(words in str(each) for words in _WORDS):
            return True
    left = files_left()
    return left is not None and left < _FEW


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
