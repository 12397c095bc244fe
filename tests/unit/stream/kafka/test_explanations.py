from __future__ import annotations

import ssl

import pytest
from kafka import errors

from engine.errors import SinkError
from stream.kafka.address import KafkaAddress
from stream.kafka.explanations import explain_all, explain_failure

ADDRESS = KafkaAddress(("h:1",), "faces", username="ann", password="geheim", security="SASL_SSL")


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            errors.SaslAuthenticationFailedError("geheim"),
            "refuse the user name or the password (SCRAM-SHA-512)",
        ),
        (errors.UnsupportedSaslMechanismError(), "do not support mechanism=SCRAM-SHA-512"),
        (errors.IllegalSaslStateError(), "do not require a login"),
        (
            errors.TopicAuthorizationFailedError({"faces"}),
            "the user ann lacks permission for the topic faces",
        ),
        (errors.GroupAuthorizationFailedError(), "the user ann lacks permission for this consumer group"),
        (errors.ClusterAuthorizationFailedError(), "the user ann lacks permission for this on the cluster"),
        (errors.UnknownTopicOrPartitionError(), "the topic faces no longer exists"),
        (errors.NotEnoughReplicasError(), "too few in-sync replicas"),
        (errors.CommitFailedError(errors.UnknownMemberIdError()), "reassigned the partitions to another"),
        (errors.MessageSizeTooLargeError(), "larger than the brokers accept"),
        (errors.KafkaTimeoutError(), "KafkaTimeoutError; the brokers' log may tell more"),
    ],
)
def test_failures_are_named(failure: Exception, words: str) -> None:
    told = explain_failure(failure, ADDRESS)
    assert words in told
    assert "geheim" not in told


def test_causes_are_found_where_kafka_python_leaves_them() -> None:
    ours = SinkError("no token today")
    assert explain_failure(errors.KafkaConnectionError(ours), ADDRESS) == "no token today"
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    handshake = errors.KafkaConnectionError("Handshake failed")
    handshake.__context__ = alert
    assert "requires a client certificate" in explain_failure(handshake, ADDRESS)


def test_a_circle_of_causes_ends() -> None:
    one, other = errors.KafkaConnectionError(), errors.KafkaConnectionError()
    one.__context__, other.__context__ = other, one
    assert explain_failure(one, ADDRESS).startswith("KafkaConnectionError")


def test_a_connections_failure_tells_more_than_the_end_of_the_time() -> None:
    late = errors.KafkaTimeoutError()
    failures = {"h:1": errors.KafkaConnectionError(), "k:2": errors.SaslAuthenticationFailedError()}
    assert explain_all(late, failures, ADDRESS).startswith(
        "kafka://h:1/faces: k:2: the brokers refuse the user"
    )
    strangers = {"inside:9": errors.KafkaConnectionError("DNS")}
    assert "advertise inside:9, which cannot be reached" in explain_all(late, strangers, ADDRESS)
    assert "does not answer like Kafka" in explain_all(late, {"h:1": errors.KafkaConnectionError()}, ADDRESS)
