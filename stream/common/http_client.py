"""HTTP requests to servers that are not trusted."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from urllib import error, request


class RefusedError(Exception):
    """The server answers with an error.

    Attributes:
        status: Of HTTP.
        body: What it says, cut where it is too long.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.body = status, body


class UnreachableError(Exception):
    """The server cannot be reached, is not who it should be, or breaks off; says which in a few words."""


def ask(asked: request.Request, *, timeout_s: float, most_bytes: int) -> bytes:
    """The body of an answer. Redirections are not followed: what is sent along is for this server alone.

    Args:
        asked: The request.
        timeout_s: How long each step may take.
        most_bytes: Of the body; what is longer is cut.

    Raises:
        RefusedError: It answers with an error.
        UnreachableError: It does not answer.
    """
    try:
        return _answer(asked, timeout_s, most_bytes)
    except error.URLError as exc:
        raise UnreachableError(_words(exc.reason)) from None
    except (OSError, http.client.HTTPException) as exc:
        raise UnreachableError(_words(exc)) from None


def _answer(asked: request.Request, timeout_s: float, most_bytes: int) -> bytes:
    try:
        with request.build_opener(_NoRedirect).open(asked, timeout=timeout_s) as answer:
            return bytes(answer.read(most_bytes))
    except error.HTTPError as exc:
        with exc:
            raise RefusedError(exc.code, exc.read(most_bytes)) from None


class _NoRedirect(request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_settings: Any) -> None:
        """Let the redirection be the error that it is."""


def _words(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted here ({reason.verify_message}); SSL_CERT_FILE=… adds a CA"
    cause = getattr(reason, "strerror", None) or type(reason).__name__
    return f"it cannot be reached ({cause}); start it or correct its address"
