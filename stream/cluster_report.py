"""Clusters of tracks as one HTML page that needs nothing else: best shots, times, cameras, ids."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2

from engine.errors import ConfigError, ModelError
from engine.faces import Image
from engine.files import write_atomically
from stream.clusters import Cluster, span, told
from stream.events import FaceEvent
from stream.pictures import track_colour

_MOST_TILES: Final = 24
"""So many tracks of a cluster have a tile, the best ones; the others are listed."""
_JPEG_QUALITY: Final = 80
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 0 0 .25rem }
section { border-top: 1px solid #8886; padding: 1rem 0 }
.about, li p, details { color: #777; font-size: .85rem; margin: .2rem 0 }
ul { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0 }
li { width: 132px; overflow-wrap: anywhere }
img, svg { display: block; width: 132px; height: 132px; object-fit: contain; background: #8882 }
code { font-size: .75rem }
"""


def write_report(
    clusters: Sequence[Cluster], shots: Mapping[str, Image], path: Path, *, source: str, cut: float
) -> None:
    """Write the page.

    Args:
        clusters: In order.
        shots: Pictures by track id; where there is none, the face's box is drawn in an empty frame.
        path: HTML file.
        source: Where the events come from, without secrets.
        cut: Similarity that the tracks were grouped at.

    Raises:
        ConfigError: The file cannot be written.
    """
    title = told(clusters)
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    about = f"{source}, grouped by average linkage at a similarity of {cut:.3f}. It holds faces: treat it so."
    body = "\n".join(_section(each, shots) for each in clusters)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><h1>{title}</h1>'
        f'<p class="about">{_text(about)}</p>\n{body}\n</body></html>\n'
    )
    try:
        write_atomically(path, page.encode(), private=True)
    except ModelError as exc:
        raise ConfigError(f"{path}: the report cannot be written; choose another file") from exc


def _text(value: object) -> str:
    """Text as HTML; what cannot be shown, or turns its direction, is replaced."""
    shown = "".join(each if each.isprintable() else "\ufffd" for each in str(value))
    return html.escape(shown)


def _section(cluster: Cluster, shots: Mapping[str, Image]) -> str:
    count = len(cluster.tracks)
    about = (
        f"{count:,} {'track' if count == 1 else 'tracks'}, {cluster.seen_s:,.0f} s, "
        f"{span(cluster.first_seen, cluster.last_seen)}, at {', '.join(cluster.cameras)}"
    )
    best = sorted(cluster.tracks, key=lambda track: -track.quality)[:_MOST_TILES]
    shown = {track.track_id for track in best}
    tiles = "".join(
        _tile(track, shots.get(track.track_id)) for track in cluster.tracks if track.track_id in shown
    )
    others = [track for track in cluster.tracks if track.track_id not in shown]
    more = ""
    if others:
        lines = "".join(f"<p>{_line(track)}</p>" for track in others)
        more = f"<details><summary>{len(others):,} more</summary>{lines}</details>"
    return (
        f'<section id="c{cluster.number}"><h2>{cluster.number}</h2><p class="about">{_text(about)}</p>'
        f"<ul>{tiles}</ul>{more}</section>"
    )


def _tile(track: FaceEvent, shot: Image | None) -> str:
    drawn = _box(track) if shot is None else _picture(shot, f"track {track.track_id}")
    return f"<li>{drawn}<p>{_line(track)}</p></li>"


def _line(track: FaceEvent) -> str:
    told = f"{track.camera_id}, {span(track.first_seen, track.last_seen)}, quality {track.quality:.2f}"
    return f"{_text(told)}<br><code>{_text(track.track_id)}</code>"


def _picture(shot: Image, alternative: str) -> str:
    _, data = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    uri = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    return f'<img src="{uri}" alt="{_text(alternative)}">'


def _box(track: FaceEvent) -> str:
    """The frame with the face's box in it, where the picture itself is not at hand."""
    width, height = (max(int(side), 1) for side in track.image_size_wh)
    left, top, right, bottom = track.box_xyxy
    blue, green, red = track_colour(0)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="no picture; where the face was">'
        f'<rect width="{width}" height="{height}" fill="#8884"/>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" '
        f'height="{max(bottom - top, 0):.1f}" fill="none" stroke="rgb({red},{green},{blue})" '
        f'stroke-width="{max(width, height) / 80:.1f}"/></svg>'
    )
