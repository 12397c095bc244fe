"""What a ``kafka://`` address means, and how to show it without its secrets.

Nothing here touches a file, a network or kafka-python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.errors import SinkError
from stream.common.uris import fill_references, is_host_and_port, split_port

FORM = "kafka://HOST[:PORT][,HOST[:PORT]…]/TOPIC[?OPTION=VALUE&…], a login before HOST as USER:PASSWORD@"
"""How an address is written."""

DEFAULT_PORT = 9092
"""Of Kafka's brokers."""

SECURITY = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
"""What ``security`` may be, as Kafka names them."""

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
"""What ``mechanism`` may be, as Kafka names them."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OPTIONS = (
    *("security", "mechanism", "ca", "cert", "key", "key_password"),
    *("token", "token_url", "scope", "create", "identities"),
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """A topic of a Kafka cluster, and how its brokers let us in.

    Attributes:
        brokers: ``HOST:PORT`` of one or more, port 9092 where the text has none.
        topic: Name.
        username: For SASL, or the client's id at the token endpoint; None for no login.
        password: For SASL, or the client's secret at the token endpoint; None for none.
        security: ``PLAINTEXT``, ``SSL``, ``SASL_PLAINTEXT`` or ``SASL_SSL``.
        mechanism: ``PLAIN``, ``SCRAM-SHA-256``, ``SCRAM-SHA-512`` or ``OAUTHBEARER``.
        ca_file: Certificates that sign the broker's; None takes the system's.
        cert_file: Certificate that says who we are (mutual TLS), with those that lead to the CA's.
        key_file: Its private key; None where the key stands in ``cert_file``.
        key_password: Opens an encrypted key.
        token: For OAUTHBEARER: a token that was had elsewhere.
        token_url: For OAUTHBEARER: the endpoint that gives tokens to a client's id and secret.
        scope: What the token shall be good for, as the endpoint names it.
        create: Whether topics that are missing are made.
        identities: Topic of the same brokers where identities are; None where they are in ``topic``.
    """

    brokers: tuple[str, ...]
    topic: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    security: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_url: str | None = None
    scope: str | None = None
    create: bool = True
    identities: str | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether there is a login."""
        return self.security.startswith("SASL")


def identities_of(address: KafkaAddress) -> KafkaAddress:
    """Where the identities of an address's tracks are: a topic of their own, or that of the tracks."""
    return replace(address, topic=address.identities or address.topic, identities=None)


def show_kafka(address: KafkaAddress) -> str:
    """An address without its secrets and options."""
    return f"kafka://{','.join(address.brokers)}/{address.topic}"


def is_topic(name: str) -> bool:
    """Whether Kafka takes this as the name of a topic."""
    return _TOPIC.fullmatch(name) is not None and name not in {".", ".."}


def parse_kafka(text: str, *, environment: Mapping[str, str] | None = None) -> KafkaAddress:
    """What a ``kafka://`` address means.

    Args:
        text: As ``FORM`` has it. Options are ``security``, ``mechanism``, ``ca``, ``cert``, ``key``,
            ``key_password``, ``token``, ``token_url``, ``scope``, ``create`` (``yes`` or ``no``) and
            ``identities`` (a topic).
        environment: Where ``${NAME}`` is looked up; None where that has been done.

    Raises:
        SinkError: It means nothing.
    """
    if environment is not None:
        text = fill_references(text, partial(_look_up, environment))
    location, _, query = text.removeprefix("kafka://").partition("?")
    authority, _, topic = location.rpartition("/")
    login, at, hosts = authority.rpartition("@")
    if not text.startswith("kafka://") or not all(map(is_host_and_port, hosts.split(","))):
        raise _refusal(
            f"expected {FORM}, PORT a number up to 65535 (default {DEFAULT_PORT}), "
            "an IPv6 address in brackets"
        )
    brokers = tuple(map(_with_port, hosts.split(",")))
    if not is_topic(topic):
        raise _refusal(f"expected {FORM}; a topic is of letters, digits, dots, dashes, underscores")
    username, colon, password = login.partition(":")
    if at and not (username and colon and password):
        raise _refusal(f"expected {FORM}, with @, :, / and % inside a password as %40, %3A, %2F and %25")
    address = _with_options(
        brokers,
        topic,
        _parse_options(query),
        login=(unquote(username), unquote(password)) if at else None,
    )
    _check(address)
    return address


def _with_port(broker: str) -> str:
    """A broker as ``HOST:PORT``, the zone of an IPv6 address written plainly."""
    host, port = split_port(broker)
    return f"{re.sub('%25(?=[^]])', '%', host, count=1)}:{port or DEFAULT_PORT}"


def _look_up(environment: Mapping[str, str], reference: str) -> str:
    name = reference[2:-1]
    if name not in environment:
        raise _refusal(f"environment variable {name} is not set; set it: export {name}=…")
    return environment[name]


def _parse_options(query: str) -> dict[str, str]:
    """The options by name. A plus sign is one: Base64 is full of them."""
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in _OPTIONS:
            shown = name if re.fullmatch(r"[a-z_]{1,20}", name) and equals else "(not shown)"
            raise _refusal(f"unknown option {shown}; known: {', '.join(_OPTIONS)}")
        if not value or name in options:
            raise _refusal(f"expected {name}=VALUE, and once")
        options[name] = unquote(value)
    return options


def _with_options(
    brokers: tuple[str, ...], topic: str, options: Mapping[str, str], login: tuple[str, str] | None
) -> KafkaAddress:
    has_token = bool({"token", "token_url"} & set(options))
    security = _default_security(
        has_login=login is not None or has_token, has_files=bool({"ca", "cert"} & set(options))
    )
    if options.get("create", "yes") not in {"yes", "no"}:
        raise _refusal("expected create=yes or create=no")
    identities = options.get("identities", topic)
    if not is_topic(identities):
        raise _refusal("expected identities=TOPIC, of letters, digits, dots, dashes, underscores")
    username, password = login or (None, None)
    return KafkaAddress(
        brokers,
        topic,
        username=username,
        password=password,
        security=options.get("security", security),
        mechanism=options.get("mechanism", "OAUTHBEARER" if has_token else "SCRAM-SHA-512"),
        ca_file=_path(options, "ca"),
        cert_file=_path(options, "cert"),
        key_file=_path(options, "key"),
        key_password=options.get("key_password"),
        token=options.get("token"),
        token_url=options.get("token_url"),
        scope=options.get("scope"),
        create=options.get("create", "yes") == "yes",
        identities=None if identities == topic else identities,
    )


def _check(address: KafkaAddress) -> None:
    """Refuse what does not go together.

    Raises:
        SinkError: It does not.
    """
    if address.security not in SECURITY or address.mechanism not in MECHANISMS:
        raise _refusal(
            f"expected security as one of {', '.join(SECURITY)} "
            f"and mechanism as one of {', '.join(MECHANISMS)}"
        )
    has_login = address.username is not None
    if address.mechanism == "OAUTHBEARER":
        _check_oauth(address)
    elif address.uses_sasl != has_login or address.token or address.token_url or address.scope:
        raise _refusal(
            "USER:PASSWORD@ and security=SASL_… go together; "
            "token, token_url and scope go with mechanism=OAUTHBEARER"
        )
    if not address.uses_tls and (address.ca_file or address.cert_file):
        raise _refusal("ca and cert go together with security=SSL or SASL_SSL")
    if (address.key_file or address.key_password) and not address.cert_file:
        raise _refusal("key and key_password go together with cert=FILE")


def _check_oauth(address: KafkaAddress) -> None:
    given = (bool(address.token), bool(address.token_url))
    if not address.uses_sasl or given not in {(True, False), (False, True)}:
        raise _refusal(
            "mechanism=OAUTHBEARER: expected security=SASL_SSL, and token=${NAME} or token_url=https://…"
        )
    if bool(address.token_url) != (address.username is not None):
        raise _refusal(
            "token_url and CLIENT_ID:CLIENT_SECRET@ before the brokers go together; a token needs no login"
        )
    if address.token_url is not None and not is_safe_url(address.token_url):
        raise _refusal(
            "token_url: expected https://…, since the client's secret goes there "
            "(http:// on this machine only)"
        )
    if address.token is not None and not re.fullmatch(r"[\w.~+/=-]+", address.token, re.ASCII):
        raise _refusal("token: expected a bearer token of RFC 6750, one word")


def is_safe_url(url: str) -> bool:
    """Whether a secret may go there: over TLS, or to this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    if not host or parts.username is not None or re.search(r"[\x00-\x20\x7f]", url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _default_security(*, has_login: bool, has_files: bool) -> str:
    """A login goes over TLS unless the user says otherwise."""
    if has_login:
        return "SASL_SSL"
    return "SSL" if has_files else "PLAINTEXT"


def _path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if name in options else None


def _refusal(why: str) -> SinkError:
    return SinkError(f"kafka address: {why}")
