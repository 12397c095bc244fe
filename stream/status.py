"""How a camera's state reaches those who want to know."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import structlog

from stream.frames import CameraState, CameraStatus

log = structlog.get_logger(__name__)

StatusListener: TypeAlias = Callable[[CameraStatus], None]


class StatusReporter:
    """Tells a listener and the log when a camera's state, or the reason for it, changes.

    Args:
        camera_id: Which camera.
        listener: Told in the thread that iterates over the camera's frames; None for nobody.
    """

    def __init__(self, camera_id: str, listener: StatusListener | None) -> None:
        self._camera_id = camera_id
        self._listener = listener
        self._last: tuple[CameraState, str] | None = None

    def tell(self, state: CameraState, *, reason: str = "", attempt: int = 0) -> None:
        """Report a state; one that is no news is passed over.

        Args:
            state: The new state.
            reason: Why, without secrets.
            attempt: Connection attempts since the camera was last up.
        """
        if (state, reason) == self._last:
            return
        self._last = (state, reason)
        log.debug("source", camera=self._camera_id, state=state.value, reason=reason or None, attempt=attempt)
        if self._listener is not None:
            self._listener(CameraStatus(self._camera_id, state, datetime.now(UTC), reason, attempt))
