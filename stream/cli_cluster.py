"""The command ``facestream cluster``: who is who in the tracks that were seen, without knowing anybody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from engine.errors import ConfigError, ModelError
from stream.cli_errors import Debug, one_line_errors
from stream.printable import local_time, printable
from stream.terminal import open_console

if TYPE_CHECKING:
    from engine.faces import Image
    from stream.clusters import Cluster, Edit
    from stream.events import FaceEvent
    from stream.live_clusters import Finding

_MOST_TEMPLATES: Final = 5
"""So many tracks of a cluster are enrolled, the best ones."""


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
    shots: Annotated[
        Path | None, typer.Option(help="Folder of best shots that the cameras kept, for the page.")
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CAMERA=]PATH", help="Video or folder to take the best shots from; one a camera."
        ),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(metavar="N,N,...", help="These are one person: numbers, or tracks of theirs."),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="TRACK", help="This track is not of its cluster.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the last merge or split.")] = False,
    enrol: Annotated[
        list[str] | None, typer.Option(metavar="N=NAME", help="Enrol this cluster's best tracks as a person.")
    ] = None,
    gallery: Annotated[Path | None, typer.Option(help="For --enrol: the gallery's file.")] = None,
    edits: Annotated[
        Path | None,
        typer.Option(help="Where merges and splits are kept.  [default: SOURCE.clusters.json]"),
    ] = None,
    show: Annotated[
        int | None, typer.Option(metavar="N", help="Print the tracks of one cluster instead of all clusters.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Clusters to print, those of the most tracks.")] = 40,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Say of each track that leaves from now on who it is, until Ctrl-C."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Group the tracks of a file or topic by person, and correct the groups by hand."""
    with one_line_errors(debug=debug):
        if follow:
            if report or shots or video or merge or split or undo or enrol or edits or show is not None:
                raise ConfigError("--follow: groups as they come; it goes with --cut, --model, --min-quality")
            _follow(source, cut, model, min_quality)
            return
        if enrol and (merge or split or undo):
            raise ConfigError("--enrol: correct first, since numbers change, then enrol by the new ones")
        from stream.clusters import find_cluster, group_tracks
        from stream.progress import Progress
        from stream.seen_tracks import read_tracks

        with Progress("reading events"):
            seen = read_tracks(source)
        tracks = _chosen(seen, model, min_quality)
        level = _preset(tracks[0].embedding_model)[0] if cut is None else cut
        kept: list[Edit] = []
        if edits is not None or merge or split or undo or "://" not in source:
            kept = _edited(tracks, level, _edits_path(source, edits), merge or [], split or [], undo=undo)
        with Progress(f"grouping {len(tracks):,} tracks"):
            clusters = group_tracks(tracks, level, kept)
        if show is None:
            _show(clusters, source, level, most)
        else:
            _show_tracks(find_cluster(clusters, show))
        if report is not None:
            options = _options(
                cut=cut, model=model, min_quality=min_quality or None, edits=edits, shots=shots, video=video
            )
            _report(clusters, report, video or [], shots, source, level, options)
        elif video or shots is not None:
            raise ConfigError("--video and --shots: are for the page; give --report FILE.html too")
        if enrol:
            _enrol(clusters, enrol, gallery)


def _follow(source: str, cut: float | None, model: str | None, min_quality: float) -> None:
    """Group tracks as they leave, a line each, and say at the end how many people there were."""
    from stream.config_tree import expand_environment
    from stream.event_log import read_log
    from stream.events import FaceEvent, TrackChange
    from stream.live_clusters import LiveClusters
    from stream.runner import stop_on_signals

    live: LiveClusters | None = None
    others = 0
    with stop_on_signals() as stopping:
        for entry in read_log(
            expand_environment(source, os.environ, "SOURCE"), follow=True, stopping=stopping
        ):
            event = entry.event
            if not isinstance(event, FaceEvent) or event.quality < min_quality:
                continue
            if live is None:
                if model not in _names(event):
                    others += event.change is TrackChange.LEFT
                    continue
                level, caution = _preset(event.embedding_model) if cut is None else (cut, 0.0)
                live = LiveClusters(event.embedder, level, caution=caution)
            _tell(live.add(event))
    if live is None:
        typer.echo("nobody has left meanwhile")
        return
    _tell(live.settle())
    others += live.passed_over
    of_others = f"; {others:,} tracks of other embedders" if others else ""
    people = "1 person" if live.people == 1 else f"{live.people:,} people"
    typer.echo(f"{people} in {live.tracks:,} tracks{of_others}")


def _tell(findings: Sequence[Finding]) -> None:
    from stream.live_clusters import Merged

    for each in findings:
        if isinstance(each, Merged):
            typer.echo(f"person {each.gone} is person {each.kept}")
            continue
        clock = local_time(each.track.last_seen, "%H:%M:%S")
        again = "somebody new" if each.is_new else "seen before"
        where = printable(f"{each.track.camera_id}  track {each.track.track_id}")
        typer.echo(f"{clock}  {where}  person {each.person}, {again}")


def _edits_path(source: str, edits: Path | None) -> Path:
    if edits is not None:
        return edits
    if "://" in source:
        raise ConfigError("a topic has no file beside it: give --edits FILE.json, where corrections are kept")
    path = Path(source.removeprefix("jsonl:").removeprefix("sqlite:"))
    return path.with_name(f"{path.name}.clusters.json")


def _chosen(tracks: Sequence[FaceEvent], model: str | None, min_quality: float) -> list[FaceEvent]:
    kept = [track for track in tracks if track.quality >= min_quality and model in _names(track)]
    if not kept:
        models = "; ".join(sorted({str(track.embedder) for track in tracks}))
        raise ConfigError(
            f"none of the {len(tracks):,} tracks is left; lower --min-quality, or choose --model of {models}"
        )
    return kept


def _names(track: FaceEvent) -> set[str | None]:
    """What --model may say to mean a track's embedder."""
    return {None, track.embedding_model, str(track.embedder)}


def _preset(name: str) -> tuple[float, float]:
    """Cut and caution of an embedder."""
    from engine.clustering import cluster_cut, stream_caution
    from engine.package import Likeness
    from engine.zoo import is_known, load_model

    if not is_known(name):  # what an event says is never taken for a path
        raise ConfigError(
            f"no preset similarity is known for {name[:100]}, which is no model here; give --cut"
        )
    try:
        likeness = Likeness.of(load_model(name).thresholds)
        return cluster_cut(name, likeness), stream_caution(likeness)
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
    from stream.clusters import group_tracks, load_edits, merge_clusters, save_edits, split_track

    kept = load_edits(path)
    before = list(kept)
    if undo:
        if not kept:
            raise ConfigError(f"--undo: nothing was merged or split yet, in {path}")
        kept.pop()
    clusters = group_tracks(tracks, cut, kept) if merge or split else []
    for text in merge:
        kept += merge_clusters(clusters, [name.strip() for name in text.split(",")])
    kept += [split_track(clusters, track) for track in split]
    if kept != before:
        save_edits(kept, path)
    return kept


def _show_tracks(cluster: Cluster) -> None:
    """The tracks of one cluster, with the ids that --split takes."""
    from stream.clusters import span

    for track in cluster.tracks:
        seen = span(track.first_seen, track.last_seen)
        typer.echo(printable(f"{track.track_id}  {track.camera_id}  {seen} UTC  quality {track.quality:.2f}"))


def _show(clusters: Sequence[Cluster], source: str, cut: float, most: int) -> None:
    from stream.clusters import span, told
    from stream.uris import redact_uri

    table = Table()
    for heading in ("person", "tracks", "seen, s"):
        table.add_column(heading, justify="right")
    table.add_column("first and last seen, UTC", no_wrap=True)
    table.add_column("cameras", overflow="fold")
    largest = sorted(clusters, key=lambda each: (-len(each.tracks), each.number))[:most]
    for each in sorted(largest, key=lambda each: each.number):
        table.add_row(
            str(each.number),
            f"{len(each.tracks):,}",
            f"{each.seen_s:,.0f}",
            span(each.first_seen, each.last_seen),
            printable(", ".join(each.cameras)),
        )
    console = open_console()
    console.print(table)
    more = f", {len(clusters) - len(largest):,} of them not shown" if len(clusters) > len(largest) else ""
    console.print(
        f"{told(clusters)} of {redact_uri(source)}, from a similarity of {cut:.3f} on{more}",
        highlight=False,
        soft_wrap=True,
    )


def _report(
    clusters: Sequence[Cluster],
    path: Path,
    video: Sequence[str],
    folder: Path | None,
    source: str,
    cut: float,
    options: Sequence[str],
) -> None:
    from stream.cluster_report import write_report
    from stream.progress import Progress
    from stream.shot_reader import read_shots
    from stream.uris import redact_uri

    tracks = [track for each in clusters for track in each.tracks]
    sources = _sources(video, {track.camera_id for track in tracks})
    shots = {} if folder is None else _kept_shots(folder, tracks)
    with Progress("reading best shots") as progress:
        shots |= read_shots(
            [track for track in tracks if track.track_id not in shots],
            sources,
            on_progress=lambda done, total: progress.update(done=done, total=total),
        )
    again = [*options, "--report", str(path)]
    write_report(clusters, shots, path, source=redact_uri(source), cut=cut, options=again)
    without = len(tracks) - len(shots)
    typer.echo(
        f"{path}: best shots: {len(shots):,}" + (f"; tracks without one: {without:,}" if without else "")
    )


def _options(**given: object) -> list[str]:
    """Options as they are typed, of those that were given."""
    words = []
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                words += [f"--{name.replace('_', '-')}", str(each)]
    return words


def _kept_shots(folder: Path, tracks: Sequence[FaceEvent]) -> dict[str, Image]:
    from stream.best_shots import BestShots
    from stream.sealing import Sealer

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that the cameras keep best shots in")
    kept = BestShots(folder, sealer=Sealer.from_environment(os.environ), keep_days=None)
    found = {track.track_id: kept.read(track.track_id) for track in tracks}
    return {track_id: shot for track_id, shot in found.items() if shot is not None}


def _enrol(clusters: Sequence[Cluster], wanted: Sequence[str], path: Path | None) -> None:
    """Take the best tracks of clusters into a gallery as people."""
    from stream.clusters import find_cluster
    from stream.enrolment import Enroller
    from stream.gallery import Gallery
    from stream.names import clean_name
    from stream.sealing import Sealer

    if path is None:
        raise ConfigError("--enrol: give --gallery FILE too")
    people = []
    for text in wanted:
        number, equals, name = text.partition("=")
        if not equals or not number.strip().isdecimal() or not name.strip():
            raise ConfigError(f"--enrol: expected a cluster and a name such as 3=Ann, got {text!r}")
        name = clean_name(name.strip(), what="--enrol")
        people.append((name, find_cluster(clusters, int(number))))
    with Gallery.open(path, sealer=Sealer.from_environment(os.environ)) as gallery:
        enroller = Enroller(gallery)
        for name, each in people:
            best = sorted(each.tracks, key=lambda track: -track.quality)[:_MOST_TEMPLATES]
            verdicts = [enroller.enrol_track(name, track) for track in best]
            taken = sum(verdict.is_taken for verdict in verdicts)
            typer.echo(f"{name}: {taken} of {len(each.tracks)} tracks enrolled")
            for verdict in verdicts:
                if not verdict.is_taken:
                    typer.echo(f"refused: {verdict.what}: {verdict.refusal}", err=True)


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
