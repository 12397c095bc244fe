"""facestream's public interface.

    from facestream import EventConsumer, watch

Everything here keeps its name and meaning between releases, or is announced in the changelog; modules of
``stream``, ``engine`` and ``training`` may move. Names are loaded when they are first used, so that a program
that only reads events loads no engine. ``facestream.testing`` has a source and a sink made of lists.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.embeddings import similarity
    from engine.errors import (
        ConfigError,
        DatasetError,
        FacestreamError,
        GalleryError,
        ModelError,
        PictureError,
        SinkError,
        SourceError,
    )
    from engine.faces import Faces
    from engine.opening.face_models import ModelChoice, OpenModels, open_face_models
    from engine.vision.detection import Detector
    from engine.vision.embedder import FaceEmbedder
    from engine.vision.face_finder import Comparison, FaceFinder, FoundFaces
    from engine.vision.image_decoding import read_picture
    from stream.app.settings import RunSettings
    from stream.app.wiring import open_finder
    from stream.async_consumer import AsyncEventConsumer
    from stream.consumer import BadRecord, ConsumerStats, EventConsumer, log_bad, raise_bad
    from stream.events import (
        CameraChange,
        CameraEvent,
        EmbeddingModel,
        Event,
        FaceEvent,
        IdentityChange,
        IdentityEvent,
        TrackChange,
    )
    from stream.gallery.people import Gallery
    from stream.watch import watch

__all__ = [
    "AsyncEventConsumer",
    "BadRecord",
    "CameraChange",
    "CameraEvent",
    "Comparison",
    "ConfigError",
    "ConsumerStats",
    "DatasetError",
    "Detector",
    "EmbeddingModel",
    "Event",
    "EventConsumer",
    "FaceEmbedder",
    "FaceEvent",
    "FaceFinder",
    "Faces",
    "FacestreamError",
    "FoundFaces",
    "Gallery",
    "GalleryError",
    "IdentityChange",
    "IdentityEvent",
    "ModelChoice",
    "ModelError",
    "OpenModels",
    "PictureError",
    "RunSettings",
    "SinkError",
    "SourceError",
    "TrackChange",
    "log_bad",
    "open_face_models",
    "open_finder",
    "raise_bad",
    "read_picture",
    "similarity",
    "watch",
]

_MODULES: Final = {
    "engine.embeddings": ("similarity",),
    "engine.errors": (
        "ConfigError",
        "DatasetError",
        "FacestreamError",
        "GalleryError",
        "ModelError",
        "PictureError",
        "SinkError",
        "SourceError",
    ),
    "engine.faces": ("Faces",),
    "engine.opening.face_models": ("ModelChoice", "OpenModels", "open_face_models"),
    "engine.vision.detection": ("Detector",),
    "engine.vision.embedder": ("FaceEmbedder",),
    "engine.vision.face_finder": ("Comparison", "FaceFinder", "FoundFaces"),
    "engine.vision.image_decoding": ("read_picture",),
    "stream.app.settings": ("RunSettings",),
    "stream.app.wiring": ("open_finder",),
    "stream.async_consumer": ("AsyncEventConsumer",),
    "stream.consumer": ("BadRecord", "ConsumerStats", "EventConsumer", "log_bad", "raise_bad"),
    "stream.events": (
        "CameraChange",
        "CameraEvent",
        "EmbeddingModel",
        "Event",
        "FaceEvent",
        "IdentityChange",
        "IdentityEvent",
        "TrackChange",
    ),
    "stream.gallery.people": ("Gallery",),
    "stream.watch": ("watch",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module, once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
