"""Probe a Kafka listener before a client connects: does it answer, with TLS, does it require a login?

kafka-python tries again until its time is up whatever the reason is, and then tells none. So a connection of
our own goes first. It sends a SaslHandshake request (KIP-43), which every listener answers before anybody has
logged in, and which holds no secret.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import SinkError
from stream.kafka.address import KafkaAddress, show_kafka
from stream.kafka.error_types import BrokersAwayError
from stream.kafka.tls import explain_tls, load_identity

_SASL_HANDSHAKE, _VERSION, _CORRELATION = 17, 1, 0x66616365
_OK, _UNSUPPORTED_MECHANISM, _NO_SASL_HERE = 0, 33, 34
_LONGEST_ANSWER = 4096


class UnreachableError(OSError):
    """No connection to a listener. Waiting may help."""


class UnknownHostError(UnreachableError):
    """Nobody knows the listener's name. Waiting seldom helps."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a listener answered.

    Attributes:
        asks_login: Whether it wants SASL.
        mechanisms: Those that it takes, where it does.
    """

    asks_login: bool
    mechanisms: tuple[str, ...] = ()


def check_listeners(address: KafkaAddress, tls: ssl.SSLContext | None, timeout_s: float) -> None:
    """Check that at least one broker is reachable with the protocol of the address.

    A listener that takes the connection and says nothing, or ends it, is skipped: it may be busy.

    Args:
        address: The brokers.
        tls: Where the address uses TLS.
        timeout_s: How long it may take altogether.

    Raises:
        BrokersAwayError: No connection came about, with names that are known.
        SinkError: None is; says for each what the trouble is.
    """
    share_s = timeout_s / len(address.brokers)
    reasons, silent, unknown = [], 0, 0
    for broker in address.brokers:
        try:
            reason = _trouble(broker, address, tls, share_s)
        except UnreachableError as exc:
            reason = f"it cannot be reached ({exc}); start it or correct the address"
            silent += 1
            unknown += isinstance(exc, UnknownHostError)
        if reason is None:
            return
        reasons.append(f"{broker}: {reason}")
    error = BrokersAwayError if unknown < silent == len(reasons) else SinkError
    raise error(f"{show_kafka(address)}: no broker accepts the connection ({'; '.join(reasons)})")


def greet(broker: str, tls: ssl.SSLContext | None, timeout_s: float, *, mechanism: str = "") -> Greeting:
    """Ask a listener whether it wants a login.

    Args:
        broker: ``HOST:PORT``.
        tls: None speaks without TLS.
        timeout_s: How long each step may take.
        mechanism: Of SASL, that we would use.

    Raises:
        UnreachableError: There is no connection to it, or its name is unknown.
        OSError: It refuses TLS, or ends the connection.
        TimeoutError: It is silent.
        ValueError: What it says is not Kafka.
    """
    host, _, port = broker.rpartition(":")
    host = host.strip("[]")
    try:
        plain = socket.create_connection((host, int(port)), timeout=timeout_s)
    except (socket.gaierror, UnicodeError) as exc:
        raise UnknownHostError(getattr(exc, "strerror", None) or str(exc)) from exc
    except (OSError, OverflowError) as exc:
        raise UnreachableError(getattr(exc, "strerror", None) or str(exc)) from exc
    with plain:
        if tls is None:
            return _ask(plain, mechanism)
        with tls.wrap_socket(plain, server_hostname=host.rstrip(".")) as encrypted:
            return _ask(encrypted, mechanism)


def parse_answer(answer: bytes) -> Greeting:
    """Read the answer to a SaslHandshake request, without its length in front.

    Raises:
        ValueError: It is none.
    """
    try:
        correlation, error, count = struct.unpack_from(">ihi", answer)
        if correlation != _CORRELATION or error not in (_OK, _UNSUPPORTED_MECHANISM, _NO_SASL_HERE):
            raise ValueError(f"expected an answer to our request, got error {error}")
        mechanisms, place = [], 10
        for _ in range(count):
            (length,) = struct.unpack_from(">h", answer, place)
            mechanisms.append(answer[place + 2 : place + 2 + length].decode("ascii"))
            place += 2 + max(0, length)
    except (struct.error, UnicodeDecodeError) as exc:
        raise ValueError("expected an answer of Kafka, got other bytes") from exc
    return Greeting(error != _NO_SASL_HERE, tuple(mechanisms) if error != _NO_SASL_HERE else ())


def _ask(connection: socket.socket, mechanism: str) -> Greeting:
    name = mechanism.encode("ascii")
    client = b"facestream"
    request = struct.pack(">hhih", _SASL_HANDSHAKE, _VERSION, _CORRELATION, len(client)) + client
    request += struct.pack(">h", len(name)) + name
    try:
        connection.sendall(struct.pack(">i", len(request)) + request)
    except OSError:
        connection.recv(1)  # raises the alert, where the other side said why before it left
        raise
    (length,) = struct.unpack(">i", _read(connection, 4))
    if not 10 <= length <= _LONGEST_ANSWER:
        raise ValueError(f"expected an answer of Kafka, got one of {length} bytes")
    return parse_answer(_read(connection, length))


def _read(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        if not piece:
            raise ConnectionResetError("the connection was closed")
        found += piece
    return found


def _trouble(broker: str, address: KafkaAddress, tls: ssl.SSLContext | None, timeout_s: float) -> str | None:
    """Why a broker is not to be spoken to as the address says; None where it is, or where nobody can tell.

    Raises:
        UnreachableError: There is no connection to it.
    """
    mechanism = address.mechanism if address.uses_sasl else ""
    try:
        greeting = greet(broker, tls, timeout_s, mechanism=mechanism)
    except UnreachableError:
        raise
    except TimeoutError:
        return None
    except (OSError, ValueError) as exc:
        return _explain(exc, broker, address, timeout_s)
    return _mismatch(greeting, address)


def _explain(error: Exception, broker: str, address: KafkaAddress, timeout_s: float) -> str | None:
    """What an odd answer means: try the other way of speaking, which tells more."""
    if address.uses_tls:
        return _explain_encrypted(error, broker, address, timeout_s)
    if _answers(lambda: greet(broker, _unchecked_tls(address), timeout_s)):
        return f"it uses TLS; use security={address.security.replace('PLAINTEXT', 'SSL')} there"
    return (
        f"its answer is not Kafka's ({error}); check the address" if isinstance(error, ValueError) else None
    )


def _explain_encrypted(error: Exception, broker: str, address: KafkaAddress, timeout_s: float) -> str | None:
    """The same, where we spoke TLS."""
    if isinstance(error, OSError) and (told := explain_tls(error, address)):
        return told
    if _answers(lambda: greet(broker, None, timeout_s)):
        return f"it does not use TLS; use security={address.security.replace('SSL', 'PLAINTEXT')} there"
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return None  # it may be about to start, or to stop
    return f"it refuses TLS ({type(error).__name__}); check that it is Kafka and uses TLS there"


def _answers(ask: Callable[[], Greeting]) -> bool:
    """Whether a listener speaks that way, or at least knows what is spoken."""
    try:
        ask()
    except ssl.SSLError as exc:
        return "ALERT" in (exc.reason or "")
    except (OSError, ValueError):
        return False
    return True


def _unchecked_tls(address: KafkaAddress) -> ssl.SSLContext:
    """A context that takes any certificate, to find out whether TLS is spoken; no secret goes over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    load_identity(context, address)
    return context


def _mismatch(greeting: Greeting, address: KafkaAddress) -> str | None:
    offered = ", ".join(greeting.mechanisms) or "none"
    if greeting.asks_login and not address.uses_sasl:
        security = "SASL_SSL" if address.uses_tls else "SASL_PLAINTEXT"
        return f"it requires a login ({offered}); use USER:PASSWORD@ before it and security={security}"
    if not greeting.asks_login and address.uses_sasl:
        security = "SSL" if address.uses_tls else "PLAINTEXT"
        return (
            f"it does not require a login; leave out USER:PASSWORD@, with security={security}, "
            "or use another port"
        )
    if address.uses_sasl and address.mechanism not in greeting.mechanisms:
        return f"it does not support mechanism={address.mechanism}; it offers {offered}"
    return None
