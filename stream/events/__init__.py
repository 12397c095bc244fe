"""Events and their formats. ``stream.events`` itself gives the types of events.

    event_types     the events
    fields          their data as plain fields, the same in every format
    json_encoder, cloudevents, avro, protobuf   fields to bytes
    kafka_record        key, value and headers of a Kafka record
    schema_files    the schemas (``schemas/``), of this and of every released version
    codecs          Kafka records in any of the formats, both ways
    parsing         untrusted bytes to checked events
    dedup           events that came before

Imports only common.
"""

from stream.events.event_types import (
    MODEL_ID_DIGITS,
    CameraChange,
    CameraEvent,
    EmbeddingModel,
    Event,
    FaceEvent,
    IdentityChange,
    IdentityEvent,
    TrackChange,
)

__all__ = [
    "MODEL_ID_DIGITS",
    "CameraChange",
    "CameraEvent",
    "EmbeddingModel",
    "Event",
    "FaceEvent",
    "IdentityChange",
    "IdentityEvent",
    "TrackChange",
]
