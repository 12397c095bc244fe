"""Notice that a consumer's brokers are unreachable: kafka-python retries silently, however long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from stream.common.logs import get_logger

log = get_logger(__name__)

_PATIENCE_S: Final = 4.0


class BrokerWatch:
    """Says when no broker has let a consumer in for 4 s, and when one does again.

    Args:
        consumer: kafka-python's, as ``stream.kafka.clients.connect_consumer`` makes it.
        topics: What it reads, to be named.
    """

    def __init__(self, consumer: Any, topics: Sequence[str]) -> None:
        self._consumer, self._topics = consumer, tuple(topics)
        self._since_s: float | None = None
        self.are_away = False
        """Whether it was said that they are away, and not yet that they are back."""

    def look(self, now_s: float) -> None:
        """Look at the connections; asks no broker.

        Args:
            now_s: Seconds of a clock that does not go back.
        """
        reason = self._trouble()
        if reason is None:
            if self.are_away:
                log.info("brokers are back", topics=self._topics)
            self._since_s, self.are_away = None, False
            return
        if self._since_s is None:
            self._since_s = now_s
        if not self.are_away and now_s - self._since_s >= _PATIENCE_S:
            self.are_away = True
            log.warning(
                "brokers are unreachable; reading continues when they are back",
                topics=self._topics,
                reason=reason,
            )

    def _trouble(self) -> str | None:
        """Why none of the brokers can be reached, for people; None where one may be."""
        failures = self._consumer._manager.failures  # noqa: SLF001 - our own (stream/kafka/kafka_python.py)
        brokers = self._consumer._cluster.brokers()  # noqa: SLF001 - there is no public way
        known = [f"{each.host}:{each.port}" for each in brokers]
        found = {name: failures.get(name) for name in known}  # another thread changes it
        if not found or None in found.values():
            return None
        return "; ".join(f"{name}: {failure}" for name, failure in found.items())
