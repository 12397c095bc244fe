from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from captured import capture_logs

from stream.kafka.consuming.broker_watch import BrokerWatch


def consumer(*ports: int) -> Any:
    brokers = [SimpleNamespace(host="k", port=port) for port in ports]
    return SimpleNamespace(
        _manager=SimpleNamespace(failures={}), _cluster=SimpleNamespace(brokers=lambda: brokers)
    )


def test_brokers_that_are_all_away_for_a_while_are_told_of_once_and_so_is_their_return() -> None:
    kafka = consumer(1, 2)
    watch = BrokerWatch(kafka, ["faces"])
    with capture_logs() as told:
        watch.look(0.0)
        kafka._manager.failures["k:1"] = ConnectionRefusedError("refused")
        watch.look(1.0)
        watch.look(100.0)
        assert not watch.are_away, "the other one may be there"
        kafka._manager.failures["k:2"] = TimeoutError("no answer")
        for now_s in (101.0, 104.9, 105.0, 200.0):
            watch.look(now_s)
        assert watch.are_away
        del kafka._manager.failures["k:1"]
        watch.look(201.0)
        watch.look(300.0)
    assert [each["event"] for each in told] == [
        "brokers are unreachable; reading continues when they are back",
        "brokers are back",
    ]
    assert told[0]["reason"] == "k:1: refused; k:2: no answer"
    assert not watch.are_away


def test_a_short_pause_is_not_told_of() -> None:
    kafka = consumer(1)
    watch = BrokerWatch(kafka, ["faces"])
    with capture_logs() as told:
        for now_s in (0.0, 10.0):
            kafka._manager.failures["k:1"] = ConnectionRefusedError("refused")
            watch.look(now_s)
            watch.look(now_s + 3.9)
            kafka._manager.failures.clear()
            watch.look(now_s + 4.0)
        BrokerWatch(consumer(), ["faces"]).look(0.0)
    assert told == []
