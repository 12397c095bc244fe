"""Configuration: YAML to checked, frozen settings; unknown keys refused, ``${NAME}`` from the environment.

Nothing below ``stream/app/wiring.py`` sees these classes: there they are unfolded into plain arguments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from engine.errors import ConfigError
from stream.app.config_errors import describe_validation_error
from stream.app.yaml_reader import expand_environment, find_lines, parse_tree
from stream.common.logs import get_logger
from stream.common.uris import redact_uri
from stream.video.camera_ids import clean_camera_id, name_sources

log = get_logger(__name__)

MAX_CONFIG_BYTES = 1_000_000

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]


class Settings(BaseModel):
    """Base of all settings: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CameraSettings(Settings):
    """One camera, file or folder.

    Attributes:
        id: Name in events; letters and digits of any script, dot, dash and underscore.
        uri: File, folder, ``file://``, ``rtsp(s)://``, ``rtspu://``, ``http(s)://``, ``v4l2://`` or ``test://``.
        username: For the camera, better than in the URI.
        password: For the camera; write ``${NAME}`` and keep it in the environment.
        analysis_fps: Look at no more than so many frames a second of video; null looks at all.
        realtime: Play a file at its own pace and drop frames when late, as a camera would.
        loop: Start a file again at its end, forever.
        start_at: When a file was recorded, with a time zone; times of its events count from here.
        ends: An address on the network is a recording, read once to its end, or a camera, tried again for
            ever; null takes ``http(s)`` addresses of video files for recordings and all others for cameras.
        video: Which of several videos of a stream or file, from 1, in its own order.
        stall_timeout_s: A live camera that sends no frame for this long is down.
    """

    id: Annotated[str, AfterValidator(clean_camera_id)]
    uri: Annotated[str, Field(min_length=1)]
    username: str | None = None
    password: SecretStr | None = None
    analysis_fps: Annotated[float, Field(gt=0.0, le=1000.0)] | None = 10.0
    realtime: bool = False
    loop: bool = False
    start_at: datetime | None = None
    ends: bool | None = None
    video: Annotated[int, Field(ge=1, le=64)] = 1
    stall_timeout_s: Seconds = 3.0

    @field_validator("start_at")
    @classmethod
    def _has_time_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a time zone, for instance 2026-01-31T08:00:00+01:00")
        return value


class ModelSettings(Settings):
    """Which models, and where they run.

    Attributes:
        detector: ``yunet``, ``mtcnn``, or an ONNX file of YuNet's family.
        embedder: ``sface``, ``dlib``, ``fused``, the name of an imported model, or a file.
        mirror: Add the embedding of the mirrored face: twice the embedder's work, slightly more accurate.
        engine: ``auto`` takes the fastest on this machine that passes the parity gate.
        precision: ``auto`` takes the lowest that passes the parity gate.
        engines_dir: Where ``facestream compile`` put engines; null for the user's cache.
        threads: Threads of each engine; null takes half of the cores, since decoding needs the others.
    """

    detector: str = "yunet"
    embedder: str = "sface"
    mirror: bool = False
    engine: Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"] = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    engines_dir: Path | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None


class DetectionSettings(Settings):
    """How faces are found.

    Attributes:
        long_side_px: Frames are scaled down to this before detection. The smallest face found is about
            one sixtieth of the picture's long side at 640.
        enlarge: Factor by which the detector's input is enlarged if it then still fits within
            ``long_side_px``, for more accurate landmarks; null never enlarges.
        second_look: Detect landmarks again in the upright face at full resolution before it is cropped.
        min_score: Detections with a lower score are dropped; those between this and ``tracking.high_score``
            only keep tracks alive.
    """

    long_side_px: Annotated[int, Field(ge=64, le=4096)] = 640
    enlarge: Annotated[float, Field(gt=1, le=8)] | None = None
    second_look: bool = False
    min_score: Fraction = 0.3


class TrackingSettings(Settings):
    """How faces become tracks, and which face of a track is embedded.

    Attributes:
        high_score: Minimum score of a detection that starts a track.
        leave_after_s: A track that is not seen for this long has left; until then its person can rejoin it.
        rejoin_similarity: Minimum cosine, on SFace's scale, at which a new face rejoins a lost track.
        refresh_s: After this long, another face is added to a track's embedding even if it is not better.
        update_every_s: Shortest time between two ``updated`` events of a track; a much better face is
            told after a second.
        min_quality: Faces of lower quality are left out of a track's embedding unless it has none.
    """

    high_score: Fraction = 0.6
    leave_after_s: Seconds = 5.0
    rejoin_similarity: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.4
    refresh_s: Seconds = 2.0
    update_every_s: Seconds = 5.0
    min_quality: Fraction = 0.2


class EventSettings(Settings):
    """How events are written.

    Attributes:
        format: How Kafka's records are written; files always hold JSON.
        embedding_encoding: ``float32-b64`` (512 bytes) or ``int8-b64`` (128 bytes); Avro and Protobuf
            hold the bytes without base64.
        registry: URL of the schema registry that gives the ids of Avro's and Protobuf's schemas; null takes
            ids of the schemas' content.
        track_states: The latest state of each track goes to the compacted topic ``TOPIC.tracks`` as well.
    """

    format: Literal["json", "avro", "protobuf"] = "json"
    embedding_encoding: Literal["float32-b64", "int8-b64"] = "float32-b64"
    registry: str | None = None
    track_states: bool = True


class SpoolSettings(Settings):
    """Where events wait until Kafka has acknowledged them; encrypted if ``FACESTREAM_KEY`` is set.

    Attributes:
        dir: Folder of the spools, one for each topic; null for the user's state folder.
        max_mib: Size of each, in MiB.
        when_full: ``drop-oldest`` drops the oldest events, logs and counts them; ``block`` waits for
            ten seconds and then ends the run.
        sync_every_s: Interval of syncing to disk; 0 syncs every write. A power cut loses the events since the
            last sync, the end of the process none.
    """

    dir: Path | None = None
    max_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    when_full: Literal["drop-oldest", "block"] = "drop-oldest"
    sync_every_s: Annotated[float, Field(ge=0.0, le=60.0)] = 0.5


class IdentitySettings(Settings):
    """Who is named.

    Attributes:
        gallery: File of ``facestream gallery create``; null names nobody.
        false_accept_rate: Share of strangers who may be named anybody; the threshold follows from it and from
            the number of people enrolled.
        min_quality: A track is not identified while the quality of its best face is lower.
    """

    gallery: Path | None = None
    false_accept_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    min_quality: Fraction = 0.2


class BestShotSettings(Settings):
    """Whether a picture of each person who was seen is kept; encrypted if ``FACESTREAM_KEY`` is set.

    Attributes:
        dir: Folder for one picture a track; null keeps none.
        keep_days: Pictures are deleted after this many days; null keeps them.
    """

    dir: Path | None = None
    keep_days: Annotated[float, Field(gt=0.0)] | None = 30.0


class RunSettings(Settings):
    """All settings of ``facestream run``.

    Attributes:
        cameras: What to watch.
        sinks: Where events go: ``kafka://…``, ``jsonl:…`` or ``sqlite:…``.
        models: Which models, and where they run.
        detection: How faces are found.
        tracking: How faces become tracks.
        events: How events are written.
        spool: Where events wait until Kafka has them.
        identity: Who is named.
        best_shots: Whether pictures are kept.
        metrics: ``HOST:PORT`` to serve Prometheus metrics at; null serves none.
    """

    cameras: tuple[CameraSettings, ...] = ()
    sinks: tuple[SecretStr, ...] = ()
    models: ModelSettings = ModelSettings()
    detection: DetectionSettings = DetectionSettings()
    tracking: TrackingSettings = TrackingSettings()
    events: EventSettings = EventSettings()
    spool: SpoolSettings = SpoolSettings()
    identity: IdentitySettings = IdentitySettings()
    best_shots: BestShotSettings = BestShotSettings()
    metrics: str | None = None

    @field_validator("metrics")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @model_validator(mode="after")
    def _ids_differ(self) -> RunSettings:
        ids = [camera.id for camera in self.cameras]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"camera ids must differ; used twice: {', '.join(twice)}")
        return self


def parse_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``.

    Raises:
        ValueError: It is not of that form, or the port is not in 0..65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def load_settings(path: Path, *, environment: Mapping[str, str] | None = None) -> RunSettings:
    """Read a configuration file.

    Args:
        path: YAML file.
        environment: Where ``${NAME}`` is looked up; the process's environment when not given.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or says something that is not understood.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot read the configuration: {exc.strerror}") from exc
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; is this a configuration file?")
    return parse_settings(raw, where=str(path), environment=environment)


def override_settings(
    settings: RunSettings | None,
    *,
    sources: Sequence[str],
    sinks: Sequence[str],
    environment: Mapping[str, str],
    detector: str | None = None,
    embedder: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    analysis_fps: float | None = None,
    realtime: bool | None = None,
    ends: bool | None = None,
    metrics: str | None = None,
    gallery: Path | None = None,
    false_accepts: float | None = None,
    event_format: str | None = None,
) -> RunSettings:
    """Settings with what the command line says on top. None leaves a setting as it is.

    Args:
        settings: From a file; the defaults when not given.
        sources: Cameras to add, named after their files or hosts.
        sinks: Take the place of those in ``settings`` when there are any.
        environment: Where ``${NAME}`` in sources and sinks is looked up.
        detector: Name or file of a model.
        embedder: Name or file of a model.
        engine: For all models.
        precision: For all models.
        analysis_fps: For all cameras; 0 looks at every frame.
        realtime: For all cameras.
        ends: For all cameras: whether network addresses are recordings that end.
        metrics: ``HOST:PORT``.
        gallery: Whose people are named.
        false_accepts: Share of strangers who may be named, between 0 and 1.
        event_format: How Kafka's records are written.

    Raises:
        ConfigError: A value is out of range, or a name is not in the environment.
        SourceError: An address does not make sense.
    """
    base = settings or RunSettings()
    cameras = [camera.model_dump() for camera in base.cameras]
    uris = [expand_environment(source, environment, "SOURCE") for source in sources]
    names = name_sources(uris, [camera["id"] for camera in cameras])
    for name, uri in zip(names, uris, strict=True):
        cameras.append({"id": name, "uri": uri})
        if name != name_sources([uri])[0]:
            log.info("longer id, as another source has the short one", camera=name, source=redact_uri(uri))
    for camera in cameras:
        if analysis_fps is not None:
            camera["analysis_fps"] = analysis_fps or None
        if realtime is not None:
            camera["realtime"] = realtime
        if ends is not None:
            camera["ends"] = ends
    tree = base.model_dump() | {"cameras": cameras}
    if sinks:
        tree["sinks"] = [expand_environment(sink, environment, "--sink") for sink in sinks]
    models = {"detector": detector, "embedder": embedder, "engine": engine, "precision": precision}
    tree["models"] |= {key: value for key, value in models.items() if value is not None}
    if event_format is not None:
        tree["events"] |= {"format": event_format}
    if metrics is not None:
        tree["metrics"] = metrics
    identity = {"gallery": gallery, "false_accept_rate": false_accepts}
    tree["identity"] |= {key: value for key, value in identity.items() if value is not None}
    try:
        return RunSettings.model_validate(tree)
    except ValidationError as exc:
        raise ConfigError(describe_validation_error(exc, RunSettings)) from exc


def parse_settings(
    raw: bytes | str, *, where: str = "configuration", environment: Mapping[str, str] | None = None
) -> RunSettings:
    """Check the text of a configuration file.

    Args:
        raw: YAML text.
        where: Name used in errors.
        environment: Where ``${NAME}`` is looked up; the process's environment when not given.

    Raises:
        ConfigError: It is not YAML, or says something that is not understood.
    """
    tree = parse_tree(raw, where=where)
    env = os.environ if environment is None else environment
    try:
        return RunSettings.model_validate(expand_environment(tree, env, where))
    except ValidationError as exc:
        told = describe_validation_error(exc, RunSettings, lines=find_lines(raw))
        raise ConfigError(f"{where}: {told}") from exc
