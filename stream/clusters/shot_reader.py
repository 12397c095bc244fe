"""The best shots of tracks, read again from the videos that they were seen in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from engine.errors import SourceError
from engine.faces import Image
from stream.events.event_types import FaceEvent
from stream.tracking.track_state import cut_shot
from stream.video.sources import open_source

Progress = Callable[[int, int], None]
"""Is told how many frames are done, and of how many."""


def read_shots(
    tracks: Iterable[FaceEvent], sources: Mapping[str, str], *, on_progress: Progress | None = None
) -> dict[str, Image]:
    """Cut the best face of each track out of its frame.

    A frame whose size is not the one that the track was seen in is of another video, and gives no shot.

    Args:
        tracks: The newest event of each.
        sources: File or folder of each camera; cameras without one give no shots.
        on_progress: Called now and then.

    Returns:
        uint8 (h, w, 3) BGR by track id, of the tracks whose frames could be read.

    Raises:
        SourceError: A source cannot be read, or is none that ends.
    """
    wanted: defaultdict[str, defaultdict[int, list[FaceEvent]]] = defaultdict(lambda: defaultdict(list))
    for track in tracks:
        if track.camera_id in sources:
            wanted[track.camera_id][track.frame_number].append(track)
    total, done = sum(max(frames) + 1 for frames in wanted.values()), 0
    shots: dict[str, Image] = {}
    for camera_id, frames in wanted.items():
        for number in _cut(camera_id, sources[camera_id], frames, shots):
            if on_progress is not None:
                on_progress(done + number, total)
        done += max(frames) + 1
    return shots


def _cut(
    camera_id: str, uri: str, wanted: Mapping[int, list[FaceEvent]], shots: dict[str, Image]
) -> Iterable[int]:
    """Take the shots of one source; yields the numbers of the frames that were passed."""
    source = open_source(camera_id=camera_id, uri=uri, analysis_fps=None)
    if source.is_live:
        raise SourceError(f"{camera_id}: only a file or a folder can be read again; give --video of one")
    last = max(wanted)
    with closing(source):
        for frame in source.frames():
            for track in wanted.get(frame.number, ()):
                if frame.size_wh == tuple(track.image_size_wh):
                    shots[track.track_id] = cut_shot(frame.image, track.box_xyxy)
            yield frame.number
            if frame.number >= last:
                break
