"""Read events from Kafka: typed, without duplicates, and without skipping any.

The public names of ``stream.kafka.consuming.event_consumer``.
"""

from stream.kafka.consuming.event_consumer import (
    BadRecord,
    ConsumerStats,
    EventConsumer,
    Start,
    log_bad,
    raise_bad,
)

__all__ = [
    "BadRecord",
    "ConsumerStats",
    "EventConsumer",
    "Start",
    "log_bad",
    "raise_bad",
]
