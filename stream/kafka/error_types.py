"""Errors of Kafka that a program treats differently from others."""

from __future__ import annotations

from engine.errors import SinkError


class BrokersAwayError(SinkError):
    """Nobody answers at the brokers' addresses. Waiting may help; a wrong password, it never does."""
