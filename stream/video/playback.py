"""One life of a decoding pipeline: from its start to its end or failure, and that failure in plain words."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import SourceError
from engine.faces import Image
from stream.common.open_files import FILES_OF_A_CAMERA, files_left, too_many
from stream.common.uris import (
    CaptureDevice,
    LocalPath,
    NetworkStream,
    SourceAddress,
    TestPattern,
    redact_text,
    redact_uri,
)
from stream.video.frame_sampler import FrameGate, Ticket
from stream.video.gstreamer.bindings import PipelineFailure
from stream.video.gstreamer.decoding import DecodePipeline
from stream.video.gstreamer.explanations import connect_trouble, plain_words, silence_trouble
from stream.video.media_files import PLAYLIST_SUFFIXES

_POLL_S = 0.1


class StalledError(SourceError):
    """Frames came, or should have come, and do not."""


class AccessRefusedError(SourceError):
    """The server refused the user name or password: trying again at once would only lock the account."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password for a server; never shown."""

    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return "Credentials(***)"


class Playback:
    """Plays an address once.

    Args:
        address: What to play.
        credentials: For the server.
        gate: Chooses the frames; told when its timestamps start again.
        latest_only: Overwrite what the consumer does not take in time.
        at_clock_pace: Give frames out when they are due; None does so with what comes in advance.
        video: Which of several videos, from 1.
        on_abandoned: Called when the pipeline did not stop in time and was abandoned.
        clock: Monotonic seconds.

    Raises:
        SourceError: Too many files are open for one more.
        FacestreamError: GStreamer or a part of it is missing (from ``start``).
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        credentials: Credentials,
        gate: FrameGate,
        latest_only: bool,
        at_clock_pace: bool | None,
        video: int = 1,
        on_abandoned: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address, self._credentials = address, credentials
        self._gate, self._clock = gate, clock
        self._closed = self._delivered = False
        if (left := files_left()) is not None and left < FILES_OF_A_CAMERA:
            raise SourceError(f"{show_address(address)}: {too_many()}")
        self._decoded_before = gate.decoded
        uri, launch = _locate(address)
        self._pipeline = DecodePipeline(
            uri,
            launch=launch,
            gate=gate.admit,
            username=credentials.username,
            password=credentials.password,
            latest_only=latest_only,
            at_clock_pace=at_clock_pace,
            playlists=_may_name_others(address),
            video=video,
            on_abandoned=on_abandoned,
        )

    def frames(self, *, open_timeout_s: float, stall_timeout_s: float) -> Generator[tuple[Ticket, Image]]:
        """Start, and yield until the end or ``close``.

        Args:
            open_timeout_s: How long the first frame may take.
            stall_timeout_s: How long each later one may take. Frames that the gate turns away count as
                signs of life.

        Raises:
            SourceError: It cannot be played, or not any longer.
        """
        self._gate.restart()
        timeout_s = open_timeout_s
        try:
            self._pipeline.start(timeout_s=open_timeout_s)
            while not self._closed:
                pulled = self._wait(timeout_s)
                if pulled is None:
                    return
                pts_ns, image = pulled
                self._delivered = True
                yield self._gate.take(pts_ns), image
                timeout_s = stall_timeout_s
        except PipelineFailure as exc:
            raise self._error(exc) from exc
        finally:
            self.close()

    def duration_s(self) -> float | None:
        """Length of the media where it has one; None for what is live, and before the first frame."""
        return self._pipeline.duration_s()

    def announced_s(self) -> float | None:
        """Length of the media as its header states it; None where it does not, and before the first frame."""
        return self._pipeline.announced_s()

    def was_still_picture(self) -> bool:
        """Whether all that came was one JPEG, PNG or the like."""
        pipeline, decoded = self._pipeline, self._gate.decoded - self._decoded_before
        return decoded == 1 and pipeline.has_still_picture and pipeline.warning is None

    def is_bounded(self) -> bool:
        """Whether it is known how many bytes will come, as of a file on a web server."""
        return self._pipeline.is_bounded()

    def was_cut_off(self) -> bool:
        """Whether the connection broke before the stream ended."""
        warning = self._pipeline.warning
        return warning is not None and warning.domain == "resource"

    def why_it_ended(self) -> str:
        """For a stream that should not end: what is known about why it did."""
        warning = self._pipeline.warning
        why = "" if warning is None else f" ({self._hide(warning.message)})"
        return f"{show_address(self._address)}: the stream ended{why}"

    def close(self) -> None:
        """Stop and free everything; any thread, any time, also twice."""
        self._closed = True
        self._pipeline.close()

    def _wait(self, timeout_s: float) -> tuple[int | None, Image] | None:
        decoded, since = self._gate.decoded, self._clock()
        while not self._closed:
            pulled = self._pipeline.pull(_POLL_S)
            if pulled is not None:
                return pulled
            if self._pipeline.at_end:
                return None
            # A frame on its way may wait for its time to come, which is no stall. Where frames do not wait,
            # it is stuck, or was overwritten by one with the same timestamp.
            if self._gate.decoded != decoded or (self._pipeline.paces and self._gate.in_flight):
                decoded, since = self._gate.decoded, self._clock()
            elif self._clock() - since > timeout_s:
                raise StalledError(f"{show_address(self._address)}: {self._why_silent(timeout_s)}")
        return None

    def _why_silent(self, timeout_s: float) -> str:
        words = f"no frame for {timeout_s:g} s"
        if self._delivered or not isinstance(self._address, NetworkStream):
            return words
        return f"{words}: {self._hide(silence_trouble(self._address.uri))}"

    def _error(self, failure: PipelineFailure) -> SourceError:
        words = plain_words(failure)
        if isinstance(self._address, NetworkStream) and not self._delivered:
            words = connect_trouble(self._address.uri, failure) or words
        text = f"{show_address(self._address)}: {self._hide(words)}"
        refused = (failure.domain, failure.code) == ("resource", 15)
        return AccessRefusedError(text) if refused else SourceError(text)

    def _hide(self, text: str) -> str:
        return redact_text(text, (self._credentials.username, self._credentials.password)).strip().rstrip(".")


def show_address(address: SourceAddress) -> str:
    """An address for people, without secrets."""
    match address:
        case LocalPath(path):
            return str(path)
        case CaptureDevice(path):
            return f"v4l2://{path}"
        case TestPattern(pattern=pattern):
            return f"test://{pattern}"
        case NetworkStream(uri=uri):
            return redact_uri(uri)


def _may_name_others(address: SourceAddress) -> bool:
    """Whether a playlist is expected there, and not a video that somebody handed in."""
    return not isinstance(address, LocalPath) or address.path.suffix.lower() in PLAYLIST_SUFFIXES


def _locate(address: SourceAddress) -> tuple[str | None, str | None]:
    match address:
        case LocalPath(path):
            return Path(path).absolute().as_uri(), None
        case CaptureDevice(path):
            return f"v4l2://{path}", None
        case NetworkStream(uri=uri):
            return uri, None
        case TestPattern(pattern, frames, (width, height), fps):
            source = f"videotestsrc pattern={pattern} is-live={str(frames is None).lower()}"
            count = "" if frames is None else f" num-buffers={frames}"
            caps = f"video/x-raw,width={width},height={height},framerate={fps}/1"
            return None, f"{source}{count} ! capsfilter caps={caps}"
