"""Where frames come from: ``open_source`` turns an address into a ``FrameSource``."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.errors import PictureError, SourceError
from engine.faces import Image
from engine.vision.image_decoding import decode_picture
from stream.common.logs import get_logger
from stream.common.uris import LocalPath, NetworkStream, SourceAddress, TestPattern, parse_source
from stream.video.camera_status import StatusListener, StatusReporter
from stream.video.container_check import missing_bytes
from stream.video.frame_sampler import FrameGate, Ticket
from stream.video.frames import CameraState, Frame, FrameSource, SourceStats
from stream.video.live_camera import LiveSource
from stream.video.media_files import VIDEO_SUFFIXES, check_media_file, list_pictures
from stream.video.playback import Credentials, Playback, show_address

log = get_logger(__name__)

_NS = 1_000_000_000

# A video may end that much before the sound, which is part of the length that its header announces.
_LEAST_PLAYED = 0.9
_NEAR_END_S = 1.0
_SAY_WHICH = "set ends: false (--no-ends) for a camera, ends: true (--ends) for a recording"


def open_source(
    *,
    camera_id: str,
    uri: str,
    analysis_fps: float | None = 10.0,
    realtime: bool = False,
    loop: bool = False,
    start_at: datetime | None = None,
    ends: bool | None = None,
    username: str | None = None,
    password: str | None = None,
    open_timeout_s: float = 10.0,
    stall_timeout_s: float = 3.0,
    max_backoff_s: float = 30.0,
    folder_fps: float = 25.0,
    video: int = 1,
    on_status: StatusListener | None = None,
    clock: Callable[[], float] = time.monotonic,
    draw: Callable[[], float] = random.random,
) -> FrameSource:
    """Create the source for an address. Nothing is opened before ``frames()`` is iterated.

    Live, tried again forever: ``rtsp(s)``, ``v4l2``, ``test`` without ``frames=N``, and ``http(s)``
    whose path does not end like a video file (HLS). Finite, with errors raised: files, folders, ``test``
    with ``frames=N``, and ``http(s)`` whose path ends like a video file. ``ends`` overrides this for
    network addresses.

    Args:
        camera_id: Name in frames and reports.
        uri: As ``stream.common.uris.parse_source`` takes it.
        analysis_fps: Maximum frames returned per second of media time; None for all. A folder of less than a
            second is returned completely.
        realtime: Play a finite source in real time and drop frames if the consumer is late.
        loop: Play a finite source repeatedly; numbers and times keep rising.
        start_at: Wall-clock time of a finite source's first frame; the moment of opening when not given.
        ends: Whether an address on the network is a recording that ends, or a camera; None goes by its name.
        username: For the server; takes precedence over the one in the URI.
        password: For the server; takes precedence over the one in the URI.
        open_timeout_s: How long the first frame may take.
        stall_timeout_s: How long each later frame of a live source may take.
        max_backoff_s: Longest wait between two attempts at a live source.
        folder_fps: Pace of a folder of pictures.
        video: Which of several videos, from 1.
        on_status: Told about changes of state, in the thread that iterates over ``frames()``.
        clock: Monotonic seconds.
        draw: Random numbers, 0..1, for the spread of the waits.

    Returns:
        The source.

    Raises:
        SourceError: The address is invalid.
        ValueError: A number is not above 0, or ``start_at`` has no time zone.
    """
    address = parse_source(uri)
    credentials = Credentials(username, password)
    if isinstance(address, NetworkStream):
        credentials = Credentials(username or address.username, password or address.password)
    if _is_live(address, ends):
        return LiveSource(
            address,
            camera_id=camera_id,
            analysis_fps=analysis_fps,
            credentials=credentials,
            open_timeout_s=open_timeout_s,
            stall_timeout_s=stall_timeout_s,
            max_backoff_s=max_backoff_s,
            video=video,
            on_status=on_status,
            clock=clock,
            draw=draw,
        )
    return FileSource(
        address,
        camera_id=camera_id,
        analysis_fps=analysis_fps,
        # A server of RTSP sets the pace: who is late loses frames.
        realtime=realtime or (isinstance(address, NetworkStream) and address.scheme.startswith("rtsp")),
        loop=loop,
        start_at=start_at,
        ends=bool(ends),
        credentials=credentials,
        open_timeout_s=open_timeout_s,
        folder_fps=folder_fps,
        video=video,
        on_status=on_status,
        clock=clock,
    )


def _is_live(address: SourceAddress, ends: bool | None) -> bool:
    match address:
        case NetworkStream() if ends is not None:
            return not ends
        case LocalPath():
            return False
        case TestPattern(frames=frames):
            return frames is None
        case NetworkStream(scheme="http" | "https", uri=uri):
            path = re.sub(r"^[^:]*://[^/?#]*|[?#].*$", "", uri, flags=re.DOTALL)
            return not path.lower().endswith(VIDEO_SUFFIXES)
        case _:
            return True


class FileSource:
    """A source that ends: a file, a folder of pictures, a counted test pattern, a video on a web server.

    Every frame that the gate passes is returned, at the consumer's pace, unless ``realtime``.

    Args:
        address: What to read.
        camera_id: Name in frames and reports.
        analysis_fps: Maximum frames per second of media time; None for all.
        realtime: Play in real time and drop frames if the consumer is late.
        loop: Begin again at the end.
        start_at: Wall-clock time of the first frame; the moment of opening when not given.
        ends: Whether the user said that it ends. Otherwise a network address counts as a file by its name,
            and must end as the server or the header announced.
        credentials: For a server.
        open_timeout_s: How long any frame may take.
        folder_fps: Pace of a folder of pictures.
        video: Which of several videos, from 1.
        on_status: Told about changes of state.
        clock: Monotonic seconds.

    Raises:
        ValueError: A number is not above 0, or ``start_at`` has no time zone.
    """

    def __init__(
        self,
        address: SourceAddress,
        *,
        camera_id: str,
        analysis_fps: float | None,
        realtime: bool,
        loop: bool,
        start_at: datetime | None,
        ends: bool,
        credentials: Credentials,
        open_timeout_s: float,
        folder_fps: float,
        video: int = 1,
        on_status: StatusListener | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not min(open_timeout_s, folder_fps) > 0:
            raise ValueError("open_timeout_s, folder_fps: expected numbers above 0")
        if start_at is not None and start_at.tzinfo is None:
            raise ValueError("start_at: expected a time with a time zone")
        self._address, self._camera_id, self._credentials = address, camera_id, credentials
        self._realtime, self._loop, self._start_at = realtime, loop, start_at
        self._open_timeout_s, self._folder_fps = open_timeout_s, folder_fps
        self._ends, self._clock, self._video = ends, clock, video
        self._gate = FrameGate(analysis_fps)
        self._unreadable = self._late = 0
        self._status = StatusReporter(camera_id, on_status)
        self._closing = threading.Event()
        self._playback: Playback | None = None
        self._begun = False

    @property
    def camera_id(self) -> str:
        """Which camera this is."""
        return self._camera_id

    @property
    def is_live(self) -> bool:
        """True when played at the clock's pace."""
        return self._realtime

    def frames(self) -> Iterator[Frame]:
        """Yield the frames to analyse, in order.

        Raises:
            SourceError: It cannot be read, or not to its end. What could be read came before.
            ValueError: It was called before.
        """
        if self._begun:
            raise ValueError("frames() may be called once; make another source")
        self._begun = True
        return self._frames()

    def stats(self) -> SourceStats:
        """Counts so far; may be read from any thread."""
        return self._gate.stats(
            unreadable=self._unreadable, late=self._late, abandoned=self._status.abandoned
        )

    def close(self) -> None:
        """Stop and free everything; may be called from any thread, and twice."""
        self._closing.set()
        if (playback := self._playback) is not None:
            playback.close()

    def _frames(self) -> Iterator[Frame]:
        self._status.tell(CameraState.CONNECTING)
        start_at = self._start_at or datetime.now(UTC)
        offset_s = 0.0
        try:
            while not self._closing.is_set():
                for ticket, image in self._play():
                    self._status.tell(CameraState.UP)
                    time_s = offset_s + ticket.media_s
                    captured_at = start_at + timedelta(seconds=time_s)
                    yield Frame(self._camera_id, ticket.number, time_s, captured_at, image, ticket.is_damaged)
                offset_s += self._gate.end_s
                if not self._loop:
                    break
        except SourceError as exc:
            self._status.tell(CameraState.DOWN, reason=str(exc))
            raise
        finally:
            self.close()
        self._status.tell(CameraState.ENDED)

    def _play(self) -> Iterator[tuple[Ticket, Image]]:
        """Once from the beginning to the end."""
        path = self._address.path if isinstance(self._address, LocalPath) else None
        if path is not None and path.is_dir():
            yield from self._play_folder(path)
            return
        if path is not None:
            check_media_file(path)
        try:
            yield from self._play_media()
        except SourceError:
            if path is not None:
                _check_whole(path)  # which says more, where it is so
            raise
        if path is not None and not self._closing.is_set():
            _check_whole(path)

    def _play_media(self) -> Iterator[tuple[Ticket, Image]]:
        playback = Playback(
            self._address,
            credentials=self._credentials,
            gate=self._gate,
            latest_only=self._realtime,
            at_clock_pace=self._realtime,
            video=self._video,
            on_abandoned=self._status.tell_abandoned,
            clock=self._clock,
        )
        self._playback = playback
        if self._closing.is_set():
            return
        count, announced_s, is_bounded = 0, None, True
        timeout_s = self._open_timeout_s
        with closing(playback.frames(open_timeout_s=timeout_s, stall_timeout_s=timeout_s)) as frames:
            for ticket, image in frames:
                if count == 0 and isinstance(self._address, NetworkStream):
                    announced_s, is_bounded = playback.announced_s(), playback.is_bounded()
                    self._warn_of_a_camera(announced_s, is_bounded=is_bounded)
                count += 1
                yield ticket, image
        if self._closing.is_set():
            return
        if count == 0:
            raise SourceError(f"{show_address(self._address)}: ended without a frame, expected a video")
        if announced_s is not None and self._gate.end_s < _LEAST_PLAYED * announced_s - _NEAR_END_S:
            raise SourceError(
                f"{show_address(self._address)}: ended after {self._gate.end_s:.1f} of {announced_s:.1f} s: "
                "the video is cut off; what was left has been played, see that the server has it whole"
            )
        if announced_s is None and not is_bounded and (playback.was_cut_off() or not self._ends):
            advice = "play it again" if self._ends else _SAY_WHICH
            raise SourceError(f"{playback.why_it_ended()}, and the server had not said when: {advice}")

    def _warn_of_a_camera(self, announced_s: float | None, *, is_bounded: bool) -> None:
        if announced_s is None and not is_bounded and not self._ends:
            log.warning(
                f"taken for a video file, but the server does not say how long it is: {_SAY_WHICH}",
                camera=self._camera_id,
            )

    def _play_folder(self, folder: Path) -> Iterator[tuple[Ticket, Image]]:
        pictures = list_pictures(folder)
        self._gate.restart()
        begun_at_s, count = self._clock(), 0
        # Of less than a second, nothing is left out: these are photographs, or somebody is seen once.
        is_short = len(pictures) < self._folder_fps and not self._realtime and not self._loop
        step_ns = round(_NS / self._folder_fps)
        for position, path in enumerate(pictures):
            pts_ns = round(position / self._folder_fps * _NS)
            if self._closing.is_set() or not self._gate.admit(pts_ns, step_ns, whenever=is_short):
                continue
            ticket = self._gate.take(pts_ns)
            if self._realtime and self._is_past(begun_at_s + ticket.media_s):
                self._late += 1
                continue
            try:
                image = decode_picture(path.read_bytes())
            except (OSError, PictureError) as exc:
                self._unreadable += 1
                log.warning("picture skipped", camera=self._camera_id, path=str(path), reason=str(exc))
                continue
            count += 1
            yield ticket, image
        if count == 0 and not self._closing.is_set():
            raise SourceError(f"{folder}: none of {len(pictures)} pictures could be decoded; copy them again")

    def _is_past(self, due_s: float) -> bool:
        """Wait until a picture is due; True when its time is over already."""
        early_s = due_s - self._clock()
        if early_s > 0:
            self._closing.wait(early_s)
        return early_s < -1.0 / self._folder_fps


def _check_whole(path: Path) -> None:
    """Check that a file that has been played is all there.

    Raises:
        SourceError: It is cut off.
    """
    try:
        missing, size = missing_bytes(path), path.stat().st_size
    except OSError:  # it went while it was played
        return
    if missing:
        raise SourceError(
            f"{path}: the file is cut off after {size:,} bytes, {missing:,} or more are missing; what was "
            "left has been played, copy or record it again for the rest"
        )
