"""Clusters of tracks as one self-contained HTML page: best shots, times, cameras, corrections."""

from __future__ import annotations

import base64
import hashlib
import html
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import cv2

from engine.atomic_files import write_atomically
from engine.errors import ConfigError, ModelError
from engine.faces import Image
from engine.html_pages import MARK
from stream.clusters.track_groups import Cluster, span, told
from stream.common.names import MAX_NAME
from stream.common.printable import counted, printable
from stream.events.event_types import FaceEvent

_MOST_TILES: Final = 24
"""So many tracks of a cluster have a tile, the best ones; the others are listed."""
_JPEG_QUALITY: Final = 80
_UNNAMED: Final = "people.db"
"""Stands for a gallery in commands where none is known."""


def write_report(
    clusters: Sequence[Cluster],
    shots: Mapping[str, Image],
    path: Path,
    *,
    source: str,
    cut: float,
    options: Sequence[str] = (),
    names: Mapping[int, str] | None = None,
    gallery: str = "",
) -> None:
    """Write the page, readable by its owner only if it is a new file.

    Args:
        clusters: In order.
        shots: Pictures by track id; where there is none, the face's box is drawn in an empty frame.
        path: HTML file.
        source: Where the events come from, without secrets.
        cut: Similarity that the tracks were grouped at.
        options: Of the command that makes this page again; corrections are put before them.
        names: Of people who are enrolled, by number of the cluster.
        gallery: Their file, which ``options`` name as well; empty where none is known.

    Raises:
        ConfigError: The file cannot be written.
    """
    begin, end = shlex.join(["facestream", "cluster", source]), shlex.join(options)
    named = names or {}
    people = "\n".join(_section(each, len(clusters), shots, named.get(each.number, "")) for each in clusters)
    advice = "" if gallery else f"If there is no gallery yet: facestream gallery create {_UNNAMED}"
    options_of_names = "" if gallery else shlex.join(["--gallery", _UNNAMED])
    script = _file("html_report.js")
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head>{_head(told(clusters), script)}</head>\n<body>'
        f"<header>{_header(clusters, source, cut, len(shots))}</header>\n<main>\n{people}\n</main>\n"
        '<aside hidden aria-live="polite"><p>Run this, then load the page again: '
        '<button type="button">copy</button></p>'
        f'<pre tabindex="0"><code data-begin="{_text(begin)}" data-end="{_text(end)}" '
        f'data-gallery="{_text(options_of_names)}"></code></pre>'
        f'<p class="advice" hidden>{_text(advice)}</p></aside>\n'
        f"<script>{script}</script>\n</body></html>\n"
    )
    try:
        write_atomically(path, page.encode(), private=True)
    except ModelError as exc:
        raise ConfigError(f"{path}: the report cannot be written; choose another file") from exc


def _head(title: str, script: str) -> str:
    """What a browser must know; of scripts it runs the page's own and no other."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<meta charset="utf-8">{MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>{_file('html_report.css')}</style>"
    )


def _file(name: str) -> str:
    return files("stream.clusters").joinpath(name).read_text("utf-8")


def _header(clusters: Sequence[Cluster], source: str, cut: float, shots: int) -> str:
    warning = (
        f"This page holds {counted(shots, 'picture')} of faces, not encrypted. "
        "Protect it as you protect the video, and delete it when you need it no more."
    )
    about = f"Made from <bdi>{_text(source)}</bdi>, grouped at a similarity of {cut:.3f}. Times are UTC."
    seen = ""
    if clusters:
        last = max(each.last_seen for each in clusters)
        seen = f" Seen from {_text(span(clusters[0].first_seen, last))}."
    return (
        f'<h1>{told(clusters)}</h1><p class="about">{about}{seen}</p>'
        + (f'<p class="warning">{warning}</p>' if shots else "")
        + '<p class="how" hidden>To make two of them one person, type the number of one beside the other. To '
        "take tracks of somebody else out, tick them. To enrol a person, type the name. The command for it "
        "appears at the bottom of the window.</p>"
    )


def _text(value: object) -> str:
    """Text as HTML; what cannot be shown, or turns its direction, is replaced."""
    return html.escape(printable(str(value)))


def _section(cluster: Cluster, people: int, shots: Mapping[str, Image], name: str) -> str:
    count, number = len(cluster.tracks), cluster.number
    about = ""
    if count > 1:
        cameras = ", ".join(f"<bdi>{_text(each)}</bdi>" for each in cluster.cameras)
        about = f'<p class="about">{count:,} tracks, {cluster.seen_s:,.0f} s, at {cameras}</p>'
    best = sorted(cluster.tracks, key=lambda track: -track.quality)[:_MOST_TILES]
    shown = {track.track_id for track in best}
    tiles = "".join(
        f"<li>{_drawn(track, shots.get(track.track_id))}<p>{_lines(track)}</p>{_split(track, count)}</li>"
        for track in cluster.tracks
        if track.track_id in shown
    )
    others = [track for track in cluster.tracks if track.track_id not in shown]
    more = ""
    if others:
        lines = "".join(f"<p>{_lines(track)}</p>{_split(track, count)}" for track in others)
        more = f"<details><summary>{len(others):,} more</summary>{lines}</details>"
    first, who = _text(cluster.tracks[0].track_id), _text(name) or f"Person {number}"
    same = (
        f'<label hidden>same as <input type="number" min="1" max="{people}" data-number="{number}" '
        f'data-track="{first}" autocomplete="off" aria-label="{who} is the same as person"></label>'
    )
    naming = (
        f'<label hidden>name <input type="text" maxlength="{MAX_NAME}" data-track="{first}" '
        f'autocomplete="off" spellcheck="false" aria-label="Name of {who}, to enrol"></label>'
    )
    heading = f'<bdi>{who}</bdi> <span class="about">{number}</span>' if name else who
    return (
        f'<section id="c{number}" aria-labelledby="p{number}"><h2 id="p{number}">{heading}</h2>{about}'
        f"{naming}{same if people > 1 else ''}<ul>{tiles}</ul>{more}</section>"
    )


def _lines(track: FaceEvent) -> str:
    """Where and when a track was seen."""
    date, _, times = span(track.first_seen, track.last_seen).partition(" ")
    return (
        f"<bdi>{_breakable(track.camera_id)}</bdi><br>{date}<br>{times}<br>quality {track.quality:.2f}<br>"
        f"<code>{_text(track.track_id)}</code>"
    )


def _breakable(name: str) -> str:
    """A name that may be broken where its words end."""
    return "".join(f"{_text(char)}<wbr>" if char in "_-./ " else _text(char) for char in name)


def _split(track: FaceEvent, count: int) -> str:
    """The box to tick where the track is of somebody else; a person of one track needs none."""
    if count == 1:
        return ""
    name = _text(track.track_id)
    return (
        f'<label hidden><input type="checkbox" data-track="{name}" autocomplete="off" '
        f'aria-label="Track {name} is of somebody else"> somebody else</label>'
    )


def _drawn(track: FaceEvent, shot: Image | None) -> str:
    alternative = f"best face of track {track.track_id}"
    return _box(track) if shot is None else _picture(shot, alternative)


def _picture(shot: Image, alternative: str) -> str:
    _, data = cv2.imencode(".jpg", shot, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    uri = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    return f'<img src="{uri}" alt="{_text(alternative)}">'


def _box(track: FaceEvent) -> str:
    """The frame with the face's box in it, where the picture itself is not at hand."""
    width, height = (max(int(side), 1) for side in track.image_size_wh)
    left, top, right, bottom = track.box_xyxy
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="no picture; where the face was">'
        f'<rect width="{width}" height="{height}" fill="currentColor" fill-opacity="0.15"/>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" '
        f'height="{max(bottom - top, 0):.1f}" fill="none" stroke="currentColor" '
        f'stroke-width="{max(width, height) / 60:.1f}"/></svg>'
    )
