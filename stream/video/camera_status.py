"""Report the state of a camera to listeners."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from stream.common.logs import get_logger
from stream.common.open_files import explained
from stream.video.frames import CameraState, CameraStatus

log = get_logger(__name__)

StatusListener: TypeAlias = Callable[[CameraStatus], None]


class StatusReporter:
    """Tells a listener and the log when a camera's state, or the reason for it, changes.

    A camera that is down may fail for one reason and another by turns, at every attempt. Each reason is told
    once in an outage; one that comes back is told again when it has stood for two attempts in a row.

    Args:
        camera_id: Which camera.
        listener: Told in the thread that iterates over the camera's frames; None for nobody.
    """

    def __init__(self, camera_id: str, listener: StatusListener | None) -> None:
        self._camera_id = camera_id
        self._listener = listener
        self._abandoned = 0
        self._last: tuple[CameraState, str] | None = None
        self._told_in_outage: set[str] = set()
        self._returned: str | None = None

    @property
    def abandoned(self) -> int:
        """Abandoned pipelines of this camera."""
        return self._abandoned

    def tell_abandoned(self) -> None:
        """Count, and log, that a pipeline did not stop in time and was abandoned."""
        self._abandoned += 1
        log.warning(
            "a pipeline did not stop and was abandoned; its threads and memory stay until the process ends",
            camera=self._camera_id,
            left_behind=self._abandoned,
        )

    def tell(self, state: CameraState, *, reason: str = "", attempt: int = 0) -> None:
        """Report a state; an unchanged one is ignored.

        Args:
            state: The new state.
            reason: Why, without secrets.
            attempt: Connection attempts since the camera was last up.
        """
        reason = explained(reason)
        is_new = (state, reason) != self._last
        if not is_new or not self._is_settled(state, reason):
            self._returned = reason if is_new else None
            return
        self._last, self._returned = (state, reason), None
        log.debug("source", camera=self._camera_id, state=state.value, reason=reason or None, attempt=attempt)
        if self._listener is not None:
            self._listener(CameraStatus(self._camera_id, state, datetime.now(UTC), reason, attempt))

    def _is_settled(self, state: CameraState, reason: str) -> bool:
        """Whether a state is to be told, and not waited for, as reasons that take turns are."""
        if state is not CameraState.DOWN:
            self._told_in_outage.clear()
            return True
        is_settled = reason not in self._told_in_outage or reason == self._returned
        self._told_in_outage.add(reason)
        return is_settled
