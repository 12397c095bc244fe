"""``kafka_record.to_binary``, quickly: the same bytes from a template, for events that come in masses.

Tests hold every byte against the plain form. Only events of tracks are worth it; others go the plain way.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring as _quote  # what ensure_ascii=False takes
from typing import Final
from urllib.parse import quote

import numpy as np

from engine.embeddings import quantise_int8
from stream.events.event_types import Event, FaceEvent, TrackChange
from stream.events.kafka_record import BinaryMessage, to_binary
from stream.events.parsing import EmbeddingEncoding

_CACHED_NAMES: Final = 4096
_TYPES: Final = {change: f"facestream.track.{change.value}.v1".encode() for change in TrackChange}
_JSON_STRING: Final[Callable[[str], str]] = lru_cache(_CACHED_NAMES)(_quote)
_SPEC, _SCHEMA = ("ce_specversion", b"1.0"), ("ce_dataschema", b"urn:facestream:schema:track.v1")
_CONTENT_TYPE: Final = ("content-type", b"application/json")
_PIXELS: Final = (
    '"box_xyxy":[%.2f,%.2f,%.2f,%.2f],"landmarks_xy":[[%.2f,%.2f],[%.2f,%.2f],[%.2f,%.2f],[%.2f,%.2f],'
    '[%.2f,%.2f]]|"last_box_xyxy":[%.2f,%.2f,%.2f,%.2f]'
)
_MOST_PIXELS: Final = 1e12


def quick_binary(event: Event, *, encoding: EmbeddingEncoding = "float32-b64") -> BinaryMessage:
    """An event as a Kafka record, byte for byte as ``to_binary`` writes it.

    Args:
        event: Of a track, a camera or an identity.
        encoding: How the embedding is written: ``float32-b64`` or ``int8-b64``.

    Raises:
        ValueError: The event holds a number that is not finite, or a time without a time zone.
    """
    if not isinstance(event, FaceEvent):
        return to_binary(event, encoding=encoding)
    at = _timestamp(event.at)
    subject = event.track_id.encode()
    headers = [
        _SPEC,
        ("ce_id", b"%b.%d" % (subject, event.sequence)),
        ("ce_source", _source(event.camera_id)),
        ("ce_type", _TYPES[event.change]),
        ("ce_subject", subject),
        ("ce_time", at.encode()),
        _SCHEMA,
        _CONTENT_TYPE,
    ]
    return BinaryMessage(event.camera_id.encode(), _data(event, encoding, at).encode(), headers)


def _data(event: FaceEvent, encoding: EmbeddingEncoding, at: str) -> str:
    media_time_s, score, quality = event.media_time_s, event.detection_score, event.quality
    _check_finite(media_time_s, score, quality)
    places, last_box = _pixels(event).split("|")
    width, height = event.image_size_wh
    captured_at = at if event.captured_at is event.at else _old_timestamp(event.captured_at)
    last_seen = at if event.last_seen is event.at else _timestamp(event.last_seen)
    return (
        f'{{"camera_id":{_JSON_STRING(event.camera_id)},"run_id":{_JSON_STRING(event.run_id)},'
        f'"track_id":{_JSON_STRING(event.track_id)},"sequence":{event.sequence},'
        f'"frame_number":{event.frame_number},"media_time_s":{_rounded(media_time_s, 6)},'
        f'"captured_at":"{captured_at}","image_size_wh":[{int(width)},{int(height)}],{places},'
        f'"detection_score":{_rounded(score, 4)},"quality":{_rounded(quality, 4)},'
        f'"embedding":{_embedding(event, encoding)},"faces_seen":{event.faces_seen},'
        f'"embeddings_made":{event.embeddings_made},"first_seen":"{_old_timestamp(event.first_seen)}",'
        f'"last_seen":"{last_seen}",{last_box}}}'
    )


def _pixels(event: FaceEvent) -> str:
    """Boxes and landmarks, the last box behind a bar.

    Two decimals and the last zero away is what ``repr(round(value, 2))`` is, as long as a double has more
    digits than that.
    """
    x0, y0, x1, y1 = event.box_xyxy
    u0, v0, u1, v1 = event.last_box_xyxy
    pixels = (x0, y0, x1, y1, *event.landmarks_xy.ravel().tolist(), u0, v0, u1, v1)
    _check_finite(*pixels)
    if max(pixels) < _MOST_PIXELS and min(pixels) > -_MOST_PIXELS:
        text = (_PIXELS % pixels).replace("0,", ",").replace("0]", "]")
        return text.replace("-0.0,", "0.0,").replace("-0.0]", "0.0]") if "-0.0" in text else text
    return _PIXELS.replace("%.2f", "%r") % tuple(_rounded(value, 2) for value in pixels)


def _embedding(event: FaceEvent, encoding: EmbeddingEncoding) -> str:
    embedding = event.embedding
    if encoding == "int8-b64":
        values, exact_scale = quantise_int8(embedding)
        raw, scale = values.tobytes(), float(f"{exact_scale:.9g}")
    elif embedding.ndim != 1 or not np.isfinite(embedding).all():
        raise ValueError(f"embedding: expected a finite vector, got one of shape {embedding.shape}")
    else:
        raw, scale = embedding.astype("<f4").tobytes(), 1.0
    model = _model(event.embedding_model, event.embedding_model_id, event.embedding_mirrored)
    return (
        f'{model},"dim":{len(embedding)},"encoding":"{encoding}",'
        f'"scale":{scale},"data":"{base64.b64encode(raw).decode("ascii")}"}}'
    )


@lru_cache(maxsize=_CACHED_NAMES)
def _model(name: str, model_id: str | None, mirrored: bool | None) -> str:
    tree = {"model": name, "model_id": model_id, "mirrored": mirrored}
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))[:-1]


def _check_finite(*values: float) -> None:
    if not math.isfinite(sum(values)):
        _say_which(values)


def _say_which(values: Iterable[float]) -> None:
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")


def _rounded(value: float, digits: int) -> float:
    return round(float(value), digits) + 0.0  # no -0.0


def _timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and Z."""
    if at.tzinfo is not UTC:
        if at.tzinfo is None:
            raise ValueError(f"expected a time with a time zone, got {at}")
        at = at.astimezone(UTC)
    return at.isoformat(timespec="microseconds")[:-6] + "Z"


_old_timestamp = lru_cache(maxsize=_CACHED_NAMES)(_timestamp)
"""Of times that several events of a track share."""


@lru_cache(maxsize=_CACHED_NAMES)
def _source(camera_id: str) -> bytes:
    return f"/facestream/cameras/{quote(camera_id, safe='')}".encode()
