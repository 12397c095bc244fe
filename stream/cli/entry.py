"""Where the ``facestream`` command begins: ready for Ctrl-C before anything that takes time is loaded."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final, NoReturn

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT


def main() -> None:
    """Load the command line and run it; Ctrl-C while it loads ends it without a trace."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, _leave)
    from stream.cli.root import main as run

    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, usual)
    try:
        run()
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: an exception within an import may be kept by it, and nothing is open yet."""
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
