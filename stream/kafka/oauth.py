"""Bearer tokens for Kafka's OAUTHBEARER: given, or fetched with the client credentials grant.

The grant is of RFC 6749, section 4.4; the client says who it is as section 2.3.1 has it (HTTP Basic).
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib import request
from urllib.parse import quote_plus, urlencode

from engine.errors import SinkError
from stream.common.http_client import RefusedError, UnreachableError, ask
from stream.common.logs import get_logger
from stream.common.uris import redact_uri

log = get_logger(__name__)

_LONGEST_ANSWER = 64 * 1024
_LIFE_S, _LONGEST_LIFE_S = 300.0, 1e9
_RENEW_AFTER = 0.8


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token and how long it holds.

    Attributes:
        text: What proves who we are.
        life_s: Seconds from when it was given; infinity where nobody knows.
    """

    text: str = field(repr=False)
    life_s: float

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.~+/=-]+", self.text, re.ASCII) or not self.life_s > 0:
            raise ValueError(f"expected a bearer token (RFC 6750) and life_s above 0, got {self.life_s}")


class TokenSource:
    """Keeps a token, and fetches the next when four fifths of its life are over. Any thread may ask.

    Args:
        fetch: Gives a token, or raises SinkError.
        clock: Seconds; any origin.
    """

    def __init__(
        self, fetch: Callable[[], BearerToken], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch, self._clock = fetch, clock
        self._lock = threading.Lock()
        self._token: BearerToken | None = None
        self._given_at_s = 0.0

    def token(self) -> str:
        """A token that holds.

        Raises:
            SinkError: There is none, and none was to be had.
        """
        with self._lock:
            age_s = self._clock() - self._given_at_s
            if self._token is None or age_s >= _RENEW_AFTER * self._token.life_s:
                self._renew(age_s)
            assert self._token is not None
            return self._token.text

    def _renew(self, age_s: float) -> None:
        asked_at_s = self._clock()
        try:
            self._token = self._fetch()
        except SinkError as exc:
            if self._token is None or age_s >= self._token.life_s:
                raise
            log.warning("cannot renew the token for kafka; the current one is still valid", reason=str(exc))
        else:
            self._given_at_s = asked_at_s


def fetch_token(
    url: str, *, client_id: str, client_secret: str, scope: str | None, timeout_s: float
) -> BearerToken:
    """Ask a token endpoint for a token.

    Args:
        url: Of the endpoint; secrets go there, so it is https, or http on this machine.
        client_id: Who we are.
        client_secret: Proves it.
        scope: What the token shall be good for; None leaves that to the endpoint.
        timeout_s: How long each step may take.

    Raises:
        SinkError: The endpoint cannot be reached, refuses us, or answers with no token.
    """
    shown = f"token_url {redact_uri(url).partition('?')[0]}"
    form = {"grant_type": "client_credentials"} | ({} if scope is None else {"scope": scope})
    login = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
    asked = request.Request(  # noqa: S310 - the address admits https, and http on this machine
        url,
        data=urlencode(form).encode(),
        headers={
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
            "Accept": "application/json",
        },
    )
    try:
        return parse_token(ask(asked, timeout_s=timeout_s, most_bytes=_LONGEST_ANSWER))
    except RefusedError as exc:
        raise SinkError(f"{shown}: {_refusal(exc.status, exc.body)}") from None
    except UnreachableError as exc:
        raise SinkError(f"{shown}: {exc}") from None
    except ValueError as exc:
        raise SinkError(f"{shown}: {exc}") from None


def parse_token(body: bytes) -> BearerToken:
    """Read an endpoint's answer (RFC 6749, section 5.1).

    Raises:
        ValueError: It holds no token; the message holds nothing of it.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("expected a token in JSON, got something else") from None
    match answer:
        case {"access_token": str(text), "token_type": str(kind)} if kind.lower() == "bearer":
            pass
        case _:
            raise ValueError("expected access_token, and token_type Bearer, in the answer; got others")
    life_s = answer.get("expires_in")
    known = isinstance(life_s, int | float) and not isinstance(life_s, bool)
    return BearerToken(text, float(min(life_s, _LONGEST_LIFE_S)) if known else _LIFE_S)


def _refusal(status: int, body: bytes) -> str:
    """What an error means (RFC 6749, section 5.2), with no more of the body than the error's name."""
    try:
        answer: Any = json.loads(body)
        name = str(answer["error"])
    except (ValueError, RecursionError, LookupError, TypeError):
        name = ""
    if not re.fullmatch(r"[a-z_]{1,40}", name):
        name = f"HTTP {status}"
    if status == http.client.UNAUTHORIZED or name in {"invalid_client", "unauthorized_client"}:
        return f"it refuses the client's id or secret ({name}); correct CLIENT_ID:CLIENT_SECRET@"
    if name == "invalid_scope":
        return "unknown scope for this client (invalid_scope); correct scope=…"
    return f"it returned no token ({name}); check that it is a token endpoint of OAuth 2.0"
