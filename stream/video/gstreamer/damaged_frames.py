"""Which decoded pictures are damaged: from what transport and decoder tell, no video here."""

from __future__ import annotations

import threading

_NS = 1_000_000_000
_USUAL_STEP_NS = _NS // 25
_MOST_REMEMBERED = 256


class DamageWatch:
    """Follows the pictures of one stream through its decoder.

    A picture is damaged if the decoder complained about it, if it is flagged as corrupt, or if something
    before it was lost. So are those that follow, since they build on it, until the next intact key frame;
    but for no longer than ``most_wait_s``, since some streams have none and repair themselves piece by
    piece (intra refresh). Then, until an intact key frame comes, only the pictures that are hit
    themselves count as damaged.

    May be called from several threads.

    Args:
        most_wait_s: Longest wait for a whole key frame, in seconds of the stream.
    """

    def __init__(self, *, most_wait_s: float = 30.0) -> None:
        self._most_wait_ns = round(most_wait_s * _NS)
        self._lock = threading.Lock()
        self._now_ns: int | None = None
        self._since_ns: int | None = None
        self._before_key_ns: int | None = None
        self._gave_up = False
        self._is_key = False
        self._leads_to_ns: int | None = None
        self._pts_ns: int | None = None
        self._is_damaged = False
        self._in_decoder: dict[int, bool] = {}

    def enter(self, pts_ns: int | None, *, is_key: bool, is_after_loss: bool, is_corrupt: bool) -> None:
        """The next encoded picture, in the order of decoding, goes into the decoder.

        Args:
            pts_ns: Its timestamp, where it has one.
            is_key: Whether it builds on no other.
            is_after_loss: Whether something is missing before it. Means nothing at the first picture, and at
                a key frame: what that lacks itself, the decoder tells.
            is_corrupt: Whether it is known to be damaged itself.
        """
        with self._lock:
            is_first = self._now_ns is None
            if self._is_key and self._since_ns is None:  # the key frame before was whole
                self._gave_up = False
            self._now_ns = (self._now_ns or 0) + self._step_ns(pts_ns)
            self._pts_ns, self._is_key = pts_ns, is_key
            if is_key:
                self._before_key_ns, self._since_ns = self._since_ns, None
                self._leads_to_ns = None if self._before_key_ns is None else pts_ns
            leads = self._leads_to_ns is not None and pts_ns is not None and pts_ns < self._leads_to_ns
            self._mark(is_damaged=False)
            if is_corrupt or (is_after_loss and not is_key and not is_first):
                self._hit()
            elif leads or self._waits():
                self._mark(is_damaged=True)

    def complain(self) -> None:
        """The decoder has found something wrong with the picture that it works on."""
        with self._lock:
            if self._now_ns is not None and not self._is_damaged:
                self._hit()

    def is_damaged(self, pts_ns: int | None, *, is_corrupt: bool = False) -> bool:
        """Whether a picture that has come out of the decoder is damaged.

        Args:
            pts_ns: Its timestamp, where it has one.
            is_corrupt: Whether the decoder has flagged it.
        """
        with self._lock:
            if is_corrupt and not self._is_damaged:
                self._hit()
            # A decoder may give a picture another timestamp where the stream's do not make sense.
            was_damaged = (
                self._is_damaged if pts_ns is None else self._in_decoder.pop(pts_ns, self._is_damaged)
            )
            return is_corrupt or was_damaged

    def _step_ns(self, pts_ns: int | None) -> int:
        """Time since the picture before; timestamps may be damaged as well."""
        step_ns = 0 if pts_ns is None or self._pts_ns is None else pts_ns - self._pts_ns
        return step_ns if 0 < step_ns <= _NS else _USUAL_STEP_NS

    def _hit(self) -> None:
        self._mark(is_damaged=True)
        if self._is_key:
            self._since_ns = self._before_key_ns
        if self._gave_up:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = self._now_ns

    def _mark(self, *, is_damaged: bool) -> None:
        self._is_damaged = is_damaged
        if self._pts_ns is not None:
            self._in_decoder[self._pts_ns] = is_damaged
        if len(self._in_decoder) > _MOST_REMEMBERED:
            del self._in_decoder[next(iter(self._in_decoder))]

    def _waits(self) -> bool:
        if self._since_ns is None or self._now_ns is None:
            return False
        if self._now_ns - self._since_ns > self._most_wait_ns:
            self._gave_up, self._since_ns = True, None
        return self._since_ns is not None
