"""Schema ids from a Confluent schema registry, or one that speaks like it, over HTTP.

Source: Confluent's Schema Registry API, ``POST /subjects/SUBJECT/versions`` and ``GET /schemas/ids/ID``.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib import request
from urllib.parse import quote, urlsplit

from engine.errors import SinkError
from stream.common.http_client import RefusedError, UnreachableError, ask
from stream.common.uris import redact_uri
from stream.events.codecs import Encoder, EventFormat, encoder
from stream.events.fields import NOUNS, Noun
from stream.events.parsing import EmbeddingEncoding
from stream.events.schema_files import schema_text
from stream.kafka.address import is_safe_url

USER_VARIABLE: Final = "FACESTREAM_REGISTRY_USER"
PASSWORD_VARIABLE: Final = "FACESTREAM_REGISTRY_PASSWORD"  # noqa: S105 - a name, not a password

_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_LONGEST_ANSWER: Final = 2_000_000
_MOST_SCHEMAS: Final = 1000
_MOST_FAILURES: Final = 100
_SCHEMA_TYPES: Final = {"avro": "AVRO", "protobuf": "PROTOBUF"}


class SchemaRegistry:
    """A schema registry. What it has answered once is kept, so that it is asked once a schema.

    Args:
        url: ``http(s)://HOST[:PORT][/PATH]``.
        username: For basic authentication; None for none.
        password: For basic authentication; None for none. It is sent only over https or to this machine.
        timeout_s: How long each step of an exchange may take.

    Raises:
        SinkError: The URL is none, or a password would go over the network in the clear.
    """

    def __init__(
        self, url: str, *, username: str | None = None, password: str | None = None, timeout_s: float = 5.0
    ) -> None:
        self._url, self._shown = _checked(url, has_password=password is not None), redact_uri(url)
        self._headers = {"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE}
        if username is not None:
            login = base64.b64encode(f"{username}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        self._timeout_s = timeout_s
        self._schemas: dict[int, str] = {}
        self._unknown: set[int] = set()

    @classmethod
    def from_environment(
        cls, url: str, environment: Mapping[str, str], *, timeout_s: float = 5.0
    ) -> SchemaRegistry:
        """A registry whose login, if any, stands in the environment.

        Args:
            url: ``http(s)://HOST[:PORT][/PATH]``.
            environment: Such as ``os.environ``.
            timeout_s: How long each step of an exchange may take.

        Raises:
            SinkError: As the constructor does.
        """
        return cls(
            url,
            username=environment.get(USER_VARIABLE) or None,
            password=environment.get(PASSWORD_VARIABLE) or None,
            timeout_s=timeout_s,
        )

    def register(self, subject: str, schema: str, kind: Literal["avro", "protobuf"]) -> int:
        """Register a schema, or find it where it is registered already.

        Args:
            subject: Under which name.
            schema: Its text.
            kind: Its language.

        Returns:
            Its id.

        Raises:
            SinkError: The registry cannot be reached, refuses us or the schema, or answers with no id.
        """
        tree = {"schema": schema} | ({} if kind == "avro" else {"schemaType": _SCHEMA_TYPES[kind]})
        answer = self._ask(f"/subjects/{quote(subject, safe='')}/versions", json.dumps(tree).encode())
        match answer:
            case {"id": int(number)} if not isinstance(number, bool) and 0 <= number < 1 << 32:
                return number
        raise SinkError(f"registry {self._shown}: expected an id for {subject}, got something else")

    def schema(self, number: int) -> str:
        """The Avro schema of an id: what ``stream.events.codecs.decode`` takes as ``lookup``.

        Args:
            number: The id.

        Returns:
            Its text, JSON.

        Raises:
            ValueError: The registry has no Avro schema of this id.
            SinkError: The registry cannot be reached or refuses us.
        """
        if number in self._unknown:
            raise ValueError(f"the registry has no schema {number}")
        if number not in self._schemas:
            text = self._fetch(number)
            if len(self._schemas) >= _MOST_SCHEMAS:  # ids come from outside: memory has a bound
                self._schemas.clear()
            self._schemas[number] = text
        return self._schemas[number]

    def _fetch(self, number: int) -> str:
        try:
            answer = self._ask(f"/schemas/ids/{number}")
        except _NotFoundError:
            if len(self._unknown) >= _MOST_FAILURES:
                self._unknown.clear()
            self._unknown.add(number)
            raise ValueError(f"the registry has no schema {number}") from None
        match answer:
            case {"schema": str(text)} if answer.get("schemaType", "AVRO") == "AVRO":
                return text
        raise ValueError(f"schema {number} of the registry is not Avro")

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        asked = request.Request(self._url + path, data=body, headers=self._headers)  # noqa: S310 - checked
        try:
            return json.loads(ask(asked, timeout_s=self._timeout_s, most_bytes=_LONGEST_ANSWER))
        except RefusedError as exc:
            raise self._refusal(exc.status, path, exc.body) from None
        except UnreachableError as exc:
            raise SinkError(f"registry {self._shown}: {exc}") from None
        except (ValueError, RecursionError):
            raise SinkError(f"registry {self._shown}: expected JSON, got something else") from None

    def _refusal(self, status: int, path: str, body: bytes) -> SinkError:
        where = f"registry {self._shown}: "
        match status:
            case http.client.UNAUTHORIZED | http.client.FORBIDDEN:
                return SinkError(f"{where}it refuses the login; set {USER_VARIABLE} and {PASSWORD_VARIABLE}")
            case http.client.NOT_FOUND:
                return _NotFoundError(f"{where}it has no {path}; correct its address")
            case http.client.CONFLICT:
                return SinkError(
                    f"{where}the schema is not compatible with what is registered at {path}; "
                    "name another topic, or delete that subject"
                )
        return SinkError(f"{where}it answers HTTP {status}{_code(body)}; check its log")


def subject_of(topic: str, noun: Noun) -> str:
    """The name under which a schema is registered: Confluent's TopicRecordNameStrategy.

    A topic carries records of several nouns. Under one name for the topic (``TOPIC-value``) the registry
    would take the second for an incompatible version of the first.

    Args:
        topic: Of Kafka.
        noun: What the events are about.
    """
    return f"{topic}-facestream.v1.{noun.capitalize()}"


def topic_encoder(
    topic: str,
    event_format: EventFormat,
    encoding: EmbeddingEncoding,
    registry: SchemaRegistry | None = None,
) -> Encoder:
    """What writes the events of a topic; registers the schemas where there is a registry.

    Args:
        topic: Of Kafka.
        event_format: How the data is written.
        encoding: How embeddings are written.
        registry: Where the schemas' ids come from; JSON asks none.

    Raises:
        SinkError: The registry gives no ids; says why.
    """
    if registry is None or event_format == "json":
        return encoder(event_format, encoding)
    ids = {
        noun: registry.register(subject_of(topic, noun), schema_text(noun, event_format), event_format)
        for noun in NOUNS
    }
    return encoder(event_format, encoding, schema_ids=ids)


class _NotFoundError(SinkError):
    pass


def _checked(url: str, *, has_password: bool) -> str:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or parts.username is not None or parts.query or parts.fragment or not url.isprintable():
        raise SinkError(
            f"registry {redact_uri(url)}: expected http(s)://HOST:PORT without a login; "
            f"the login goes into {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        )
    if has_password and not is_safe_url(url):
        raise SinkError(f"registry {redact_uri(url)}: expected https://, since a password goes there")
    return url.rstrip("/")


def _code(body: bytes) -> str:
    """The registry's own error code, and nothing else of what it says."""
    try:
        code = json.loads(body)["error_code"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return f" (error_code {code})" if isinstance(code, int) else ""
