"""What failures of kafka-python mean, and how to fix them. Knows its errors by their names alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.errors import FacestreamError
from stream.kafka.address import KafkaAddress, show_kafka
from stream.kafka.tls import explain_tls

GRANT = "grant it with kafka-acls.sh"

_LONGEST_CHAIN = 20


def explain_failure(error: BaseException, address: KafkaAddress) -> str:
    """What a failure means, and how to fix it; holds no secret.

    Args:
        error: What kafka-python raised, or what a future of it holds.
        address: What we were about to reach.

    Returns:
        Words, or the error's name where it tells nothing.
    """
    return _meaning(error, address) or f"{type(error).__name__}; the brokers' log may tell more"


def explain_all(error: BaseException, failures: Mapping[str, BaseException], address: KafkaAddress) -> str:
    """What kept us out: the failures of single connections tell more than what was raised in the end.

    Args:
        error: What was raised.
        failures: Of connections, by the broker's ``HOST:PORT``.
        address: What we were about to reach.
    """
    where = show_kafka(address)
    if told := _meaning(error, address):
        return f"{where}: {told}"
    for broker, failure in failures.items():
        if told := _meaning(failure, address):
            return f"{where}: {broker}: {told}"
    if strangers := ", ".join(sorted(set(failures) - set(address.brokers))):
        return (
            f"{where}: the brokers advertise {strangers}, which cannot be reached; "
            "set their advertised.listeners to an address that this machine reaches"
        )
    return f"{where}: something is listening there but does not answer like Kafka; check the address, or wait"


def _meaning(error: BaseException, address: KafkaAddress) -> str | None:
    """What a failure means; None where it tells nothing."""
    who = "this user" if address.username is None else f"the user {address.username}"
    login = f"the user name or the password ({address.mechanism}); correct them"
    if address.mechanism == "OAUTHBEARER":
        login = "the token; check its issuer, audience, scope and expiry"
    meanings = {
        "SaslAuthenticationFailedError": f"the brokers refuse {login}",
        "UnsupportedSaslMechanismError": f"the brokers do not support mechanism={address.mechanism}",
        "IllegalSaslStateError": "the brokers do not require a login; leave out USER:PASSWORD@",
        "TopicAuthorizationFailedError": f"{who} lacks permission for the topic {address.topic}; {GRANT}",
        "GroupAuthorizationFailedError": f"{who} lacks permission for this consumer group; {GRANT}",
        "ClusterAuthorizationFailedError": f"{who} lacks permission for this on the cluster; {GRANT}",
        "UnknownTopicOrPartitionError": f"the topic {address.topic} no longer exists",
        "NotEnoughReplicasError": "too few in-sync replicas of the topic (min.insync.replicas)",
        "CommitFailedError": "the group has reassigned the partitions to another consumer, which gets the "
        "events; reading can continue. This one was silent for 45 s, or an event took over five minutes",
        "MessageSizeTooLargeError": "a record is larger than the brokers accept (max.message.bytes)",
    }
    for each in _causes(error):
        if isinstance(each, FacestreamError):
            return str(each)
        if told := meanings.get(type(each).__name__):
            return told
        if isinstance(each, OSError) and (told := explain_tls(each, address)):
            return told
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of; kafka-python keeps that in the arguments or in the context."""
    pending, seen = [error], 0
    while pending and seen < _LONGEST_CHAIN:
        each = pending.pop(0)
        seen += 1
        yield each
        found = (*each.args, each.__cause__, each.__context__)
        pending += [one for one in found if isinstance(one, BaseException)]
