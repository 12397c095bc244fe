"""The command ``facestream cluster``: who is who in the tracks that were seen, without knowing anybody."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from engine.errors import ConfigError, GalleryError, ModelError, SourceError
from stream.app import preflight
from stream.cli.errors import Debug, one_line_errors
from stream.cli.gallery.opening import open_gallery
from stream.common.printable import counted, local_time, printable
from stream.console.terminal import open_console

if TYPE_CHECKING:
    from engine.faces import Image
    from stream.clusters.incremental import Finding
    from stream.clusters.track_groups import Cluster, Edit, Places
    from stream.events.event_types import FaceEvent

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
        list[str] | None,
        typer.Option(
            metavar="N=NAME",
            help="Enrol this cluster's best tracks as a person: its number, or a track of it, and the name.",
        ),
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="The people's file: whom --enrol adds to, and who is called by name.")
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="Leave pictures out of the page, also those of before.")
    ] = False,
    edits: Annotated[
        Path | None,
        typer.Option(
            help="Where merges, splits, --gallery, --shots and --video are kept for the next time.  "
            "[default: SOURCE.clusters.json]"
        ),
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
        if (merge or split or undo) and any(
            text.partition("=")[0].strip().isdecimal() for text in enrol or []
        ):
            raise ConfigError(
                "--enrol: correct first, since numbers change, then enrol by the new ones; or name a track"
            )
        if (video or shots is not None) and report is None:
            raise ConfigError("--video and --shots: are for the page; give --report FILE.html too")
        _check(report, shots, enrol or [], gallery)
        if edits is not None or merge or split or undo:
            preflight.check_output(_edits_path(source, edits), "--edits")
        _check_apart(source, report, edits, gallery, video or [])
        preflight.check_page(report, "--report")
        from stream.console.progress import Progress

        with Progress("reading events"):
            from stream.app.yaml_reader import expand_address
            from stream.clusters.track_groups import Places, find_cluster, group_tracks, load_places
            from stream.sinks.track_history import read_tracks

            seen = read_tracks(expand_address(source, os.environ))
        tracks = _chosen(seen, model, min_quality)
        level = _preset(tracks[0].embedding_model)[0] if cut is None else cut
        kept: list[Edit] = []
        path: Path | None = None
        if edits is not None or merge or split or undo or "://" not in source:
            path = _edits_path(source, edits)
            kept = _edited(tracks, level, path, merge or [], split or [], undo=undo)
        before = Places() if path is None else load_places(path)
        places = _places(before, gallery=gallery, shots=shots, video=video or [])
        with Progress(f"grouping {counted(len(tracks), 'track')}"):
            clusters = group_tracks(tracks, level, kept)
        if enrol:
            _enrol(clusters, enrol, places.gallery)
        names = _names_of(clusters, places.gallery, is_given=gallery is not None)
        if show is None:
            _show(clusters, names, source, level, most)
        else:
            _show_tracks(find_cluster(clusters, show))
        if report is not None:
            options = _options(
                cut=cut,
                model=model,
                min_quality=min_quality or None,
                edits=edits,
                shots=shots,
                video=video,
                gallery=gallery,
            )
            found = {} if no_pictures else _shots(clusters, places, are_given=bool(video or shots))
            again = [*options, *(["--no-pictures"] if no_pictures else []), "--report", str(report)]
            _report(clusters, report, found, source, level, again, names, places.gallery)
        if path is not None:
            _remember(path, kept, places, before)


def _check(report: Path | None, shots: Path | None, enrol: Sequence[str], gallery: Path | None) -> None:
    """See that what will be read and written can be, before the events are read."""
    from stream.common.encryption import Sealer
    from stream.common.names import clean_name

    preflight.check_output(report, "--report", room_mib=5.0)
    preflight.check_input_folder(shots, "--shots")
    Sealer.from_environment(os.environ)  # a key that is none is said now
    for text in enrol:
        _, equals, name = text.partition("=")
        if not equals:
            return  # said with the clusters that there are
        clean_name(name.strip(), what="--enrol")
    if gallery is not None and enrol:
        with open_gallery(gallery, to_change=True):
            pass


def _check_apart(
    source: str, report: Path | None, edits: Path | None, gallery: Path | None, video: Sequence[str]
) -> None:
    """See that neither the page nor the corrections overwrite what they are made of."""
    is_file = "://" not in source
    videos = (Path(part) for text in video for part in {text, text.partition("=")[2]} if part)
    preflight.check_apart(
        [
            ("--report", report),
            ("--edits", _edits_path(source, edits) if is_file or edits is not None else None),
        ],
        [
            ("SOURCE", _path_of(source) if is_file else None),
            ("--gallery", gallery),
            *(("--video", path) for path in videos),
        ],
    )


def _follow(source: str, cut: float | None, model: str | None, min_quality: float) -> None:
    """Group tracks as they leave, a line each, and say at the end how many people there were."""
    from stream.app.yaml_reader import expand_address
    from stream.clusters.incremental import LiveClusters
    from stream.console.signals import stop_on_signals
    from stream.events.event_types import FaceEvent, TrackChange
    from stream.sinks.event_log import read_log

    live: LiveClusters | None = None
    others = 0
    with stop_on_signals() as stopping:
        for entry in read_log(expand_address(source, os.environ), follow=True, stopping=stopping):
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
    of_others = f"; {counted(others, 'track')} of other embedders" if others else ""
    people, tracks = counted(live.people, "person", "people"), counted(live.tracks, "track")
    typer.echo(f"{people} in {tracks}{of_others}")


def _tell(findings: Sequence[Finding]) -> None:
    from stream.clusters.incremental import Merged

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
    path = _path_of(source)
    return path.with_name(f"{path.name}.clusters.json")


def _path_of(source: str) -> Path:
    return Path(source.removeprefix("jsonl:").removeprefix("sqlite:"))


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
    from engine.models.catalogue import is_known, load_model
    from engine.models.package import Likeness
    from engine.search.clustering import cluster_cut, stream_caution

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
    from stream.clusters.track_groups import group_tracks, load_edits, merge_clusters, save_edits, split_track

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


def _places(before: Places, *, gallery: Path | None, shots: Path | None, video: Sequence[str]) -> Places:
    """Where names and pictures come from: what is given now, else what was given before."""
    return replace(
        before,
        gallery=before.gallery if gallery is None else str(gallery.absolute()),
        shots=before.shots if shots is None else str(shots.absolute()),
        video=tuple(map(_absolute, video)) or before.video,
    )


def _remember(path: Path, kept: Sequence[Edit], places: Places, before: Places) -> None:
    """Keep in the file where names and pictures come from, but for addresses, which may hold secrets."""
    from stream.clusters.track_groups import save_edits

    to_keep = replace(places, video=tuple(each for each in places.video if "://" not in each))
    if to_keep == before:
        return
    try:
        save_edits(kept, path, to_keep)
    except ConfigError as exc:
        typer.echo(
            printable(f"note: give --gallery, --shots and --video the next time, too: {exc}"), err=True
        )


def _absolute(video: str) -> str:
    """``[CAMERA=]PATH`` with a path that leads there from anywhere."""
    if Path(video).exists():
        return str(Path(video).absolute())
    camera, equals, path = video.partition("=")
    return f"{camera}={Path(path).absolute()}" if equals and Path(path).exists() else video


def _names_of(clusters: Sequence[Cluster], gallery: str, *, is_given: bool) -> dict[int, str]:
    """Names of those clusters of which tracks are enrolled, by number."""
    from stream.common.encryption import Sealer
    from stream.gallery.people import Gallery

    if not gallery:
        return {}
    try:
        with Gallery.open(Path(gallery), sealer=Sealer.from_environment(os.environ)) as opened:
            owners = {face.origin: face.name for face in opened.faces_after(0)}
    except GalleryError as exc:
        if is_given:
            raise
        typer.echo(printable(f"note: nobody is called by name: {exc}"), err=True)
        return {}
    found = {
        each.number: Counter(owners[track.track_id] for track in each.tracks if track.track_id in owners)
        for each in clusters
    }
    return {
        number: ", ".join(name for name, _ in names.most_common()) for number, names in found.items() if names
    }


def _show_tracks(cluster: Cluster) -> None:
    """The tracks of one cluster, with the ids that --split takes."""
    from stream.clusters.track_groups import span

    for track in cluster.tracks:
        seen = span(track.first_seen, track.last_seen)
        typer.echo(printable(f"{track.track_id}  {track.camera_id}  {seen} UTC  quality {track.quality:.2f}"))


def _show(clusters: Sequence[Cluster], names: Mapping[int, str], source: str, cut: float, most: int) -> None:
    from stream.clusters.track_groups import span, told
    from stream.common.uris import redact_uri

    table = Table()
    table.add_column("person", justify="right")
    if names:
        table.add_column("name", overflow="fold")
    for heading in ("tracks", "seen, s"):
        table.add_column(heading, justify="right")
    table.add_column("first and last seen, UTC", no_wrap=True)
    table.add_column("cameras", overflow="fold")
    largest = sorted(clusters, key=lambda each: (-len(each.tracks), each.number))[:most]
    for each in sorted(largest, key=lambda each: each.number):
        table.add_row(
            str(each.number),
            *([printable(names.get(each.number, ""))] if names else []),
            f"{len(each.tracks):,}",
            f"{each.seen_s:,.0f}",
            span(each.first_seen, each.last_seen),
            printable(", ".join(each.cameras)),
        )
    console = open_console()
    console.print(table)
    more = f", {len(clusters) - len(largest):,} of them not shown" if len(clusters) > len(largest) else ""
    console.print(
        f"{told(clusters)} of {redact_uri(source)}, grouped at a similarity of {cut:.3f} or more{more}",
        highlight=False,
        soft_wrap=True,
    )


def _shots(clusters: Sequence[Cluster], places: Places, *, are_given: bool) -> dict[str, Image]:
    """Pictures by track: those that cameras kept, and others from the video."""
    from stream.clusters.shot_reader import read_shots
    from stream.console.progress import Progress

    tracks = [track for each in clusters for track in each.tracks]
    shots: dict[str, Image] = {}
    try:
        sources = _sources(places.video, {track.camera_id for track in tracks})
        shots = _kept_shots(Path(places.shots), tracks) if places.shots else {}
        with Progress("reading best shots") as progress:
            shots |= read_shots(
                [track for track in tracks if track.track_id not in shots],
                sources,
                on_progress=lambda done, total: progress.update(done=done, total=total),
            )
    except (ConfigError, SourceError) as exc:
        if are_given:
            raise
        typer.echo(
            printable(f"note: pictures of before are missing: {exc}; give --video or --shots"), err=True
        )
    return shots


def _report(
    clusters: Sequence[Cluster],
    path: Path,
    shots: Mapping[str, Image],
    source: str,
    cut: float,
    options: Sequence[str],
    names: Mapping[int, str],
    gallery: str,
) -> None:
    from stream.clusters.html_report import write_report
    from stream.common.uris import redact_uri

    write_report(
        clusters,
        shots,
        path,
        source=redact_uri(source),
        cut=cut,
        options=options,
        names=names,
        gallery=gallery,
    )
    without = sum(len(each.tracks) for each in clusters) - len(shots)
    advice = f"; tracks without one: {without:,} (--video and --shots say where pictures are)"
    typer.echo(f"{path}: best shots: {len(shots):,}" + (advice if without else ""))


def _options(**given: object) -> list[str]:
    """Options as they are typed, of those that were given."""
    words = []
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                words += [f"--{name.replace('_', '-')}", str(each)]
    return words


def _kept_shots(folder: Path, tracks: Sequence[FaceEvent]) -> dict[str, Image]:
    from stream.common.encryption import Sealer
    from stream.gallery.best_shots import BestShots

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that the cameras keep best shots in")
    kept = BestShots(folder, sealer=Sealer.from_environment(os.environ), keep_days=None)
    found = {track.track_id: kept.read(track.track_id) for track in tracks}
    return {track_id: shot for track_id, shot in found.items() if shot is not None}


def _enrol(clusters: Sequence[Cluster], wanted: Sequence[str], gallery: str) -> None:
    """Take the best tracks of clusters into a gallery as people."""
    from stream.cli.gallery.enrol import warn_of_look_alikes
    from stream.clusters.track_groups import parse_naming
    from stream.common.encryption import Sealer
    from stream.gallery.enrolment.enroller import Enroller
    from stream.gallery.people import Gallery

    if not gallery:
        raise ConfigError("--enrol: give --gallery FILE too")
    people = [parse_naming(clusters, text) for text in wanted]
    with Gallery.open(Path(gallery), sealer=Sealer.from_environment(os.environ)) as opened:
        enroller = Enroller(opened)
        for name, each in people:
            best = sorted(each.tracks, key=lambda track: -track.quality)[:_MOST_TEMPLATES]
            verdicts = [enroller.enrol_track(name, track) for track in best]
            taken = sum(verdict.is_taken for verdict in verdicts)
            typer.echo(f"{name}: {taken} of {counted(len(each.tracks), 'track')} enrolled")
            for verdict in verdicts:
                if not verdict.is_taken:
                    typer.echo(printable(f"refused: {verdict.what}: {verdict.refusal}"), err=True)
        warn_of_look_alikes(enroller.look_alikes, Path(gallery))


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
