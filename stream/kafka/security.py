"""What opens a Kafka cluster's door: TLS, logins, tokens, and how much time there is.

Nothing here imports kafka-python; its settings are made ready for it.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from stream.kafka.address import KafkaAddress
from stream.kafka.connection_check import check_listeners
from stream.kafka.oauth import BearerToken, TokenSource, fetch_token
from stream.kafka.tls import tls_context


@dataclass(frozen=True, slots=True)
class Entry:
    """What opens the door: made once, for all clients of one attempt.

    Attributes:
        address: Where to.
        deadline_s: When it must be done, on the monotonic clock.
        options: kafka-python's.
        tokens: Where it logs in with tokens; there is one that holds.
    """

    address: KafkaAddress
    deadline_s: float
    options: dict[str, Any] = field(repr=False)
    tokens: TokenSource | None = None

    @property
    def left_s(self) -> float:
        """Seconds that are left; a little always is, to say why."""
        return max(0.2, self.deadline_s - time.monotonic())


def enter(address: KafkaAddress, timeout_s: float) -> Entry:
    """Check that a broker is reachable and accepts the connection, and fetch what it requires.

    Args:
        address: Where to.
        timeout_s: How long all may take until the client has met its brokers.

    Raises:
        SinkError: Nobody is, or it is not ready.
    """
    deadline_s = time.monotonic() + 0.9 * timeout_s  # the rest is for saying why
    tls = tls_context(address)
    check_listeners(address, tls, timeout_s / 2)
    tokens: TokenSource | None = None
    options: dict[str, Any] = {
        "bootstrap_servers": list(address.brokers),
        "client_id": "facestream",
        "security_protocol": address.security,
        "ssl_context": tls,
        "reconnect_backoff_max_ms": 1000,
    }
    if address.uses_sasl:
        _keep_logins_out_of_logs()
        options["sasl_mechanism"] = address.mechanism
    if address.mechanism == "OAUTHBEARER":
        tokens = _token_source(address, timeout_s)
        tokens.token()
    elif address.username is not None and address.password is not None:
        options["sasl_plain_username"] = address.username
        options["sasl_plain_password"] = _Secret(address.password)
    return Entry(address, deadline_s, options, tokens)


class _Secret(str):
    """A password that does not show when kafka-python prints its settings."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _keep_logins_out_of_logs() -> None:
    """Two loggers of kafka-python print whole requests at DEBUG, passwords and tokens among them."""
    for name in ("kafka.protocol.parser", "kafka.net.connection"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))


def _token_source(address: KafkaAddress, timeout_s: float) -> TokenSource:
    if address.token is not None:
        token = BearerToken(address.token, math.inf)
        return TokenSource(lambda: token)
    assert address.token_url is not None
    return TokenSource(
        partial(
            fetch_token,
            address.token_url,
            client_id=address.username or "",
            client_secret=address.password or "",
            scope=address.scope,
            timeout_s=timeout_s,
        )
    )
