from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka_listener import answer_of, listening

from engine.errors import SinkError
from stream.kafka.address import KafkaAddress
from stream.kafka.connection_check import Greeting, check_listeners, parse_answer

WAIT_S = 30.0
PLAIN = KafkaAddress((), "t")
LOGIN = KafkaAddress((), "t", username="me", password="geheim", security="SASL_PLAINTEXT")
NO_LOGIN_HERE, UNSUPPORTED = answer_of(34), answer_of(33, ("PLAIN", "OAUTHBEARER"))


def check(broker: str, address: KafkaAddress, *, timeout_s: float = WAIT_S) -> None:
    check_listeners(replace(address, brokers=tuple(broker.split(","))), None, timeout_s)


def test_a_listener_that_is_to_be_spoken_to_like_that() -> None:
    with listening(NO_LOGIN_HERE) as broker:
        check(broker, PLAIN)
    with listening(answer_of(0, ("SCRAM-SHA-512",))) as broker:
        check(broker, LOGIN)


@pytest.mark.parametrize(
    ("answer", "address", "words"),
    [
        (
            NO_LOGIN_HERE,
            LOGIN,
            "it does not require a login; leave out USER:PASSWORD@, with security=PLAINTEXT",
        ),
        (UNSUPPORTED, PLAIN, r"it requires a login \(PLAIN, OAUTHBEARER\); use USER:PASSWORD@"),
        (UNSUPPORTED, LOGIN, "it does not support mechanism=SCRAM-SHA-512; it offers PLAIN, OAUTHBEARER"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", PLAIN, "its answer is not Kafka's"),
        (answer_of(34, correlation=1), PLAIN, "its answer is not Kafka's"),
    ],
)
def test_one_that_is_to_be_spoken_to_otherwise(answer: bytes, address: KafkaAddress, words: str) -> None:
    with listening(answer) as broker, pytest.raises(SinkError, match=words):
        check(broker, address)


@pytest.mark.parametrize("answer", [None, b""])
def test_one_that_says_nothing_may_be_busy(answer: bytes | None) -> None:
    begun = time.monotonic()
    with listening(answer) as broker:
        check(broker, PLAIN, timeout_s=0.3)
        assert time.monotonic() - begun < WAIT_S


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SinkError, match=r"cannot be reached \(Connection refused\); start it"):
        check(f"127.0.0.1:{port}", PLAIN)
    for odd in ("127.0.0.1:99999", "127.0.0.1:0", f"{'x' * 70}.example:1"):
        with pytest.raises(SinkError, match="cannot be reached"):
            check(odd, PLAIN)


def test_one_broker_of_several_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with listening(NO_LOGIN_HERE) as broker:
        check(f"127.0.0.1:{port},{broker}", PLAIN)


@given(st.binary(max_size=60))
def test_any_answer_is_read_or_refused(answer: bytes) -> None:
    try:
        found = parse_answer(answer)
    except ValueError:
        return
    assert isinstance(found, Greeting)


@given(
    st.lists(st.sampled_from(("PLAIN", "SCRAM-SHA-256", "GSSAPI")), max_size=4), st.sampled_from((0, 33, 34))
)
def test_answers_of_brokers(mechanisms: list[str], error: int) -> None:
    found = parse_answer(answer_of(error, tuple(mechanisms))[4:])
    assert found == Greeting(error != 34, tuple(mechanisms) if error != 34 else ())
