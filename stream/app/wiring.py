"""From settings to running parts: the one place where configuration becomes plain arguments."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from engine.errors import ConfigError, GalleryError, ModelError
from engine.models.catalogue import is_known, load_detector, load_model
from engine.models.package import ModelPackage
from engine.opening.face_models import ModelChoice, open_face_models
from engine.vision.detection import Detector
from engine.vision.embedder import FaceEmbedder
from engine.vision.face_finder import FaceFinder, Pick
from stream.app.settings import (
    CameraSettings,
    DetectionSettings,
    EventSettings,
    ModelSettings,
    RunSettings,
    SpoolSettings,
)
from stream.common.encryption import Sealer
from stream.common.printable import valid_text
from stream.common.uris import LocalPath, TestPattern, parse_source, redact_uri
from stream.gallery.best_shots import BestShots
from stream.gallery.enrolment.photos import StillReader
from stream.gallery.identification.identifier import Identifier
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel
from stream.kafka.address import KafkaAddress, show_kafka
from stream.pipeline.pipeline import Camera, Pipeline
from stream.pipeline.recognizer import Recognizer
from stream.sinks.event_sink import EventSink, FanOut, open_sink
from stream.spool.cursor_and_lock import spool_folder
from stream.spool.spool import Spool
from stream.tracking.track_lifecycle import LeftListener
from stream.video.sources import open_source

log = logging.getLogger(f"facestream.{__name__}")

# A file's frames go to the detector in batches: an engine's threads then wait for each other less often.
_FRAMES_PER_STEP = 4

_SAMPLE_BYTES = 1 << 20

_OF_PHOTOGRAPHS = DetectionSettings(second_look=True)


@contextmanager
def open_pipeline(
    settings: RunSettings, *, on_left: LeftListener | None = None, started_at: datetime | None = None
) -> Iterator[Pipeline]:
    """Load the models, start the engines and make the pipeline; frees the engines at the end.

    Args:
        settings: With at least one camera.
        on_left: Told of each track that leaves, with its best shot.
        started_at: When the run began, UTC; now when not given.

    Raises:
        ConfigError: A model does not do what it is meant for.
        ModelError: A model is damaged or no engine can run it.
        SourceError: An address does not make sense.
    """
    models = settings.models
    detector_packages, embedder_package = load_packages(models)
    cameras = make_cameras(settings, (*detector_packages, embedder_package), started_at or datetime.now(UTC))
    with open_models(models, settings.detection, level=logging.INFO) as (detector, embedder):
        embedder.warm_up()
        detection, tracking = settings.detection, settings.tracking
        recognizer = Recognizer(
            detector,
            embedder,
            high_score=max(tracking.high_score, detection.min_score),
            low_score=detection.min_score,
            leave_after_s=tracking.leave_after_s,
            rejoin_similarity=tracking.rejoin_similarity,
            refresh_s=tracking.refresh_s,
            update_every_s=tracking.update_every_s,
            min_quality=tracking.min_quality,
            on_left=on_left,
        )
        yield Pipeline(cameras, recognizer, frames_per_step=_FRAMES_PER_STEP)


def load_packages(models: ModelSettings) -> tuple[tuple[ModelPackage, ...], ModelPackage]:
    """The packages of the detector and of the embedder.

    Raises:
        ConfigError: A model does not do what it is meant for.
        ModelError: A model is missing or damaged.
    """
    detector, embedder = load_detector(models.detector), load_model(models.embedder)
    _check_tasks(models, detector, embedder)
    return detector, embedder


@contextmanager
def open_models(
    models: ModelSettings,
    detection: DetectionSettings,
    *,
    larger_look: bool = False,
    level: int = logging.DEBUG,
) -> Iterator[tuple[Detector, FaceEmbedder]]:
    """A detector and an embedder on their engines, which are closed at the end.

    Args:
        models: Which, and where they run.
        detection: How faces are found.
        larger_look: Look at large images a second time, as photographs deserve it.
        level: At which the engine and precision of each network are logged.

    Raises:
        ConfigError: A model does not do what it is meant for.
        ModelError: A model is damaged or no engine can run it.
    """
    detector_packages, embedder_package = load_packages(models)
    choice = ModelChoice(
        detector=detector_packages,
        embedder=embedder_package,
        kind=models.engine,
        precision=models.precision,
        engines_dir=models.engines_dir,
        threads=models.threads or max(1, (os.cpu_count() or 1) // 2),
        mirror=models.mirror,
        min_score=detection.min_score,
        long_side_px=detection.long_side_px,
        enlarge=detection.enlarge,
        second_look=detection.second_look,
        larger_look=larger_look,
    )
    with open_face_models(choice) as opened:
        for package, engine in (*opened.detector_networks, opened.embedder_network):
            log.log(level, "%s runs on %s in %s", package.name, engine.name, engine.precision)
        yield opened.detector, opened.embedder


def open_best_shots(settings: RunSettings, *, environment: Mapping[str, str]) -> BestShots | None:
    """Where pictures of the people seen are kept; None where they are not.

    Args:
        settings: Of the run.
        environment: Where the key to seal them with may stand.

    Raises:
        ConfigError: The folder cannot be made, or the key is none.
    """
    shots = settings.best_shots
    if shots.dir is None:
        return None
    sealer = Sealer.from_environment(environment)
    return BestShots(shots.dir, sealer=sealer, keep_days=shots.keep_days)


def _check_tasks(models: ModelSettings, detector: Sequence[ModelPackage], embedder: ModelPackage) -> None:
    if embedder.task != "embedder":
        raise ConfigError(
            f"models.embedder: {models.embedder} is a {embedder.task}; give sface, dlib or fused"
        )
    if [package.task for package in detector] not in (["detector"], ["detector-stage"] * 3):
        raise ConfigError(f"models.detector: {models.detector} is not a detector; give yunet or mtcnn")


def make_cameras(
    settings: RunSettings, packages: Sequence[ModelPackage], started_at: datetime
) -> list[Camera]:
    """What the pipeline must know of each camera.

    Raises:
        SourceError: An address does not make sense.
    """
    recognition = "|".join(
        [
            settings.detection.model_dump_json(),
            settings.tracking.model_dump_json(),
            str(settings.models.mirror),
        ]
        + [package.sha256 for package in packages]
    )
    return [_camera(each, recognition, started_at) for each in settings.cameras]


def open_sinks(
    addresses: Sequence[str],
    *,
    events: EventSettings | None = None,
    spool: SpoolSettings | None = None,
) -> FanOut:
    """Open sinks, all or none.

    Args:
        addresses: As ``stream.sinks.event_sink.parse_sink`` takes them; one or more.
        events: How events are written.
        spool: Where events wait until Kafka has them.

    Raises:
        ConfigError: ``FACESTREAM_KEY`` holds no key, or not the one of what waits in the spool.
        SinkError: One cannot be opened.
    """
    settings, events = spool or SpoolSettings(), events or EventSettings()

    def spool_of(address: KafkaAddress) -> Spool:
        return Spool(
            spool_folder(show_kafka(address), within=settings.dir),
            sealer=Sealer.from_environment(os.environ),
            max_bytes=settings.max_mib << 20,
            when_full=settings.when_full,
        )

    opened: list[EventSink] = []
    try:
        for address in addresses:
            sink = open_sink(
                address,
                encoding=events.embedding_encoding,
                event_format=events.format,
                registry=events.registry,
                spool_of=spool_of,
                sync_every_s=settings.sync_every_s,
                track_states=events.track_states,
            )
            opened.append(sink)
    except BaseException:
        for sink in opened:
            sink.close(1.0)
        raise
    return FanOut(opened)


@contextmanager
def open_identifier(settings: RunSettings, *, environment: Mapping[str, str]) -> Iterator[Identifier | None]:
    """Who names people; None where no gallery is set.

    Args:
        settings: The gallery must be of its embedder, with the same mirroring.
        environment: Where the gallery's key is.

    Raises:
        GalleryError: The gallery cannot be opened, or is of another model.
        ConfigError: The key is none.
        ModelError: The embedder is missing or damaged.
    """
    identity, models = settings.identity, settings.models
    if identity.gallery is None:
        yield None
        return
    with Gallery.open(identity.gallery, sealer=Sealer.from_environment(environment)) as gallery:
        gallery.check_model(GalleryModel.of(load_model(models.embedder), mirror=models.mirror))
        identifier = Identifier(
            gallery, false_accept_rate=identity.false_accept_rate, min_quality=identity.min_quality
        )
        identifier.identify((), time.monotonic())  # the gallery is read before the first frame comes
        yield identifier


@contextmanager
def open_stills(
    model: GalleryModel,
    *,
    detector: str,
    embedder: str | None = None,
    pick: Pick | None = None,
    force: bool = False,
) -> Iterator[StillReader]:
    """A reader of photographs for a gallery, with the parts that cameras are looked at with.

    It takes a second look, whether cameras do or not: embeddings compare, and a photograph is read once.

    Args:
        model: The gallery's.
        detector: Name of a model, or a file.
        embedder: File of the gallery's model; None finds it by its name.
        pick: Which of several faces is meant: ``largest`` or ``centre``; None refuses unclear photographs.
        force: Take a face however small, blurred or turned away it is.

    Raises:
        GalleryError: The embedder is not the gallery's.
        ConfigError: A model does not do what it is meant for.
        ModelError: A model is missing or damaged, or no engine can run it.
    """
    models = _models_of(model, detector=detector, embedder=embedder)
    with open_models(models, _OF_PHOTOGRAPHS, larger_look=True) as (found, embeds):
        yield StillReader(found, embeds, pick=pick, force=force)


@contextmanager
def open_finder(
    model: GalleryModel | None = None, *, detector: str = "yunet", embedder: str | None = None
) -> Iterator[FaceFinder]:
    """Finds faces in photographs and compares them, with the parts that photographs are enrolled with.

    Args:
        model: Of the gallery that its faces are to compare with; None takes the embedder without mirroring.
        detector: Name of a model, or a file.
        embedder: Name of a model, or a file; None takes the gallery's, or ``sface``.

    Raises:
        GalleryError: The embedder is not the gallery's.
        ConfigError: A model does not do what it is meant for.
        ModelError: A model is missing or damaged, or no engine can run it.
    """
    if model is None:
        models = ModelSettings(detector=detector, embedder=embedder or "sface")
    else:
        models = _models_of(model, detector=detector, embedder=embedder)
    thresholds = load_packages(models)[1].thresholds
    with open_models(models, _OF_PHOTOGRAPHS, larger_look=True) as (found, embeds):
        yield FaceFinder(found, embeds, thresholds=thresholds)


def _models_of(model: GalleryModel, *, detector: str, embedder: str | None) -> ModelSettings:
    """The models for a gallery; see ``open_stills``."""
    if embedder is None and not is_known(model.name):  # what a gallery says is never taken for a path
        raise ModelError(
            f"{model.name}: no such model here; give --embedder, the file of the gallery's model"
        )
    models = ModelSettings(detector=detector, embedder=embedder or model.name, mirror=model.mirror)
    _, package = load_packages(models)
    if (got := GalleryModel.of(package, mirror=model.mirror)) != model:
        raise GalleryError(
            f"--embedder: the gallery is of {model}, got {got}; give the file of the gallery's model, or "
            "move the gallery: facestream gallery upgrade"
        )
    return models


def _camera(camera: CameraSettings, recognition: str, started_at: datetime) -> Camera:
    password = None if camera.password is None else camera.password.get_secret_value()
    looks = str(camera.analysis_fps) + (f" video {camera.video}" if camera.video != 1 else "")
    identity = "|".join([camera.id, _fingerprint(camera, started_at), looks, recognition])
    return Camera(
        camera_id=camera.id,
        run_id=hashlib.sha256(valid_text(identity).encode()).hexdigest()[:12],
        uri=redact_uri(camera.uri),
        looks_apart_s=1 / camera.analysis_fps if camera.analysis_fps else 0.0,
        open_source=lambda on_status: open_source(
            camera_id=camera.id,
            uri=camera.uri,
            analysis_fps=camera.analysis_fps,
            realtime=camera.realtime,
            loop=camera.loop,
            start_at=camera.start_at,
            ends=camera.ends,
            video=camera.video,
            username=camera.username,
            password=password,
            stall_timeout_s=camera.stall_timeout_s,
            on_status=on_status,
        ),
    )


def _fingerprint(camera: CameraSettings, started_at: datetime) -> str:
    """The same for two runs that see the same frames: then their events are the same and have the same ids.

    A file is known by its size, beginning and end. All else, and a file that is played in real time and
    may lose frames, is another run each time.
    """
    address = parse_source(camera.uri)
    unique = f"{redact_uri(camera.uri)}|{started_at.isoformat()}"
    if camera.realtime:
        return unique
    if isinstance(address, TestPattern) and address.frames is not None:
        return camera.uri
    if not isinstance(address, LocalPath):
        return unique
    try:
        return _folder_digest(address.path) if address.path.is_dir() else _file_digest(address.path)
    except OSError:
        return unique  # it cannot be read; its source will say so


def _file_digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(valid_text(f"{path.name}|{path.stat().st_size}\n").encode())
    return digest.hexdigest()
