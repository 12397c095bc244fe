"""Read events from Kafka with asyncio.

The public names of ``stream.kafka.consuming.asyncio_consumer``.
"""

from stream.kafka.consuming.asyncio_consumer import AsyncEventConsumer

__all__ = [
    "AsyncEventConsumer",
]
