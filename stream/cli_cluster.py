"""The command ``facestream cluster``: who is who in the tracks that were seen, without knowing anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from engine.errors import ConfigError, ModelError
from stream.cli_errors import Debug, one_line_errors

if TYPE_CHECKING:
    from stream.clusters import Cluster, Edit
    from stream.events import Event, FaceEvent


def cluster_tracks(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Events: a JSON Lines or SQLite file, or kafka://…/TOPIC."),
    ],
    cut: Annotated[
        float | None,
        typer.Option(
            min=-1.0, max=1.0, help="Similarity from which on tracks are one person; else the model's preset."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Look at the tracks of this embedder only, where there are several.")
    ] = None,
    min_quality: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out tracks whose best face is worse.")
    ] = 0.0,
    report: Annotated[
        Path | None, typer.Option(help="Write a page of best shots, times and cameras to this .html file.")
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CAMERA=]PATH", help="Video or folder to take the best shots from; one a camera."
        ),
    ] = None,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="N,N,...", help="These clusters are one person.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="TRACK", help="This track is not of its cluster.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the last merge or split.")] = False,
    edits: Annotated[
        Path | None,
        typer.Option(help="Where merges and splits are kept.  [default: SOURCE.clusters.json]"),
    ] = None,
    show: Annotated[
        int | None, typer.Option(metavar="N", help="Print the tracks of one cluster instead of all clusters.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Clusters to print, those of the most tracks.")] = 40,
    debug: Debug = False,
) -> None:
    """Group the tracks of a file or topic by person, and correct the groups by hand."""
    with one_line_errors(debug=debug):
        from stream.clusters import find_cluster, group_tracks
        from stream.event_files import newest_tracks

        edits_path = _edits_path(source, edits)
        tracks = _chosen(newest_tracks(_read(source)), model, min_quality)
        level = _preset_cut(tracks) if cut is None else cut
        kept = _edited(tracks, level, edits_path, merge or [], split or [], undo=undo)
        clusters = group_tracks(tracks, level, kept)
        if show is None:
            _show(clusters, source, level, most)
        else:
            _show_tracks(find_cluster(clusters, show))
        if report is not None:
            _report(clusters, report, video or [], source, level)
        elif video:
            raise ConfigError("--video: is for the page; give --report FILE.html too")


def _read(source: str) -> Iterator[Event]:
    from stream.event_files import read_event_file

    yield from read_event_file(Path(source))


def _edits_path(source: str, edits: Path | None) -> Path:
    if edits is not None:
        return edits
    path = Path(source)
    return path.with_name(f"{path.name}.clusters.json")


def _chosen(tracks: Sequence[FaceEvent], model: str | None, min_quality: float) -> list[FaceEvent]:
    kept = [
        track for track in tracks if track.quality >= min_quality and model in {None, track.embedding_model}
    ]
    if tracks and not kept:
        models = ", ".join(sorted({track.embedding_model for track in tracks}))
        raise ConfigError(
            f"none of the {len(tracks):,} tracks is left; lower --min-quality, or choose --model of {models}"
        )
    return kept


def _preset_cut(tracks: Sequence[FaceEvent]) -> float:
    from engine.clustering import cluster_cut
    from engine.package import Likeness
    from engine.zoo import load_model

    if not tracks:
        return cluster_cut("", Likeness())
    name = tracks[0].embedding_model
    try:
        return cluster_cut(name, Likeness.of(load_model(name).thresholds))
    except ModelError as exc:
        raise ConfigError(f"no preset similarity is known for {name} ({exc}); give --cut") from exc


def _edited(
    tracks: Sequence[FaceEvent],
    cut: float,
    path: Path,
    merge: Sequence[str],
    split: Sequence[str],
    *,
    undo: bool,
) -> list[Edit]:
    """The edits with those that are asked for now, which are kept."""
    from stream.clusters import group_tracks, load_edits, merge_numbers, save_edits, split_track

    kept = load_edits(path)
    before = list(kept)
    if undo:
        if not kept:
            raise ConfigError(f"--undo: nothing was merged or split yet, in {path}")
        kept.pop()
    clusters = group_tracks(tracks, cut, kept) if merge or split else []
    for text in merge:
        kept += merge_numbers(clusters, _numbers(text))
    kept += [split_track(clusters, track) for track in split]
    if kept != before:
        save_edits(kept, path)
    return kept


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--merge: expected numbers of clusters such as 3,7, got {text!r}") from None


def _show_tracks(cluster: Cluster) -> None:
    """The tracks of one cluster, with the ids that --split takes."""
    from stream.clusters import span

    for track in cluster.tracks:
        seen = span(track.first_seen, track.last_seen)
        typer.echo(f"{track.track_id}  {track.camera_id}  {seen}  quality {track.quality:.2f}")


def _show(clusters: Sequence[Cluster], source: str, cut: float, most: int) -> None:
    from stream.clusters import span
    from stream.uris import redact_uri

    table = Table("cluster", "tracks", "seen, s", "first and last seen", "cameras")
    largest = sorted(clusters, key=lambda each: (-len(each.tracks), each.number))[:most]
    for each in sorted(largest, key=lambda each: each.number):
        table.add_row(
            str(each.number),
            f"{len(each.tracks):,}",
            f"{each.seen_s:,.0f}",
            span(each.first_seen, each.last_seen),
            ", ".join(each.cameras),
        )
    console = Console()
    console.print(table)
    tracks = sum(len(each.tracks) for each in clusters)
    more = f", {len(clusters) - len(largest):,} of them not shown" if len(clusters) > len(largest) else ""
    console.print(
        f"{len(clusters):,} people in {tracks:,} tracks of {redact_uri(source)}, from a similarity of "
        f"{cut:.3f} on{more}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _report(clusters: Sequence[Cluster], path: Path, video: Sequence[str], source: str, cut: float) -> None:
    from rich.progress import Progress

    from stream.cluster_report import write_report
    from stream.shot_reader import read_shots
    from stream.uris import redact_uri

    tracks = [track for each in clusters for track in each.tracks]
    sources = _sources(video, {track.camera_id for track in tracks})
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading best shots", total=None, visible=bool(sources))
        shots = read_shots(
            tracks,
            sources,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    write_report(clusters, shots, path, source=redact_uri(source), cut=cut)
    without = len(tracks) - len(shots)
    typer.echo(f"{path}: {len(shots):,} best shots" + (f", {without:,} boxes without one" if without else ""))


def _sources(video: Sequence[str], cameras: set[str]) -> dict[str, str]:
    """Where each camera's frames are: ``CAMERA=PATH``, or a path alone for the only camera."""
    sources: dict[str, str] = {}
    for text in video:
        camera, equals, path = text.partition("=")
        if not equals or camera not in cameras:
            if len(cameras) != 1:
                raise ConfigError(
                    f"--video: expected CAMERA=PATH with one of {', '.join(sorted(cameras))}, got {text!r}"
                )
            (camera,), path = cameras, text
        sources[camera] = path
    return sources
