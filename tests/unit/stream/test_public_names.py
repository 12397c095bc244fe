from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("public", "module", "name"),
    [
        ("stream.consumer", "stream.kafka.consuming.event_consumer", "EventConsumer"),
        ("stream.async_consumer", "stream.kafka.consuming.asyncio_consumer", "AsyncEventConsumer"),
        ("stream.events", "stream.events.event_types", "FaceEvent"),
    ],
)
def test_public_names_are_the_things_themselves(public: str, module: str, name: str) -> None:
    shown = importlib.import_module(public)
    assert name in shown.__all__
    for one in shown.__all__:
        assert getattr(shown, one) is getattr(importlib.import_module(module), one)
