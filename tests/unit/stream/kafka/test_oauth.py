from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Authority
from hypothesis import given
from hypothesis import strategies as st
from token_endpoint import Endpoint

from engine.errors import SinkError
from stream.kafka.oauth import BearerToken, TokenSource, fetch_token, parse_token

GOOD = {"access_token": "abc.def", "token_type": "Bearer", "expires_in": 60}


def fetch(url: str, scope: str | None = None) -> BearerToken:
    return fetch_token(url, client_id="me:too", client_secret="ge heim%", scope=scope, timeout_s=30.0)


def test_the_client_says_who_it_is_and_gets_a_token() -> None:
    endpoint = Endpoint(lambda: (200, json.dumps(GOOD).encode()))
    with endpoint.serving() as url:
        assert fetch(url, "faces write") == BearerToken("abc.def", 60.0)
    ((login, form),) = endpoint.asked
    assert base64.b64decode(login.removeprefix("Basic ")) == b"me%3Atoo:ge+heim%25", "RFC 6749, section 2.3.1"
    assert form == {"grant_type": ["client_credentials"], "scope": ["faces write"]}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            401,
            b'{"error": "invalid_client", "error_description": "geheim"}',
            r"refuses the client's id or secret",
        ),
        (401, b"<html>", r"refuses the client's id or secret \(HTTP 401\)"),
        (400, b'{"error": "invalid_scope"}', r"unknown scope .*correct scope"),
        (404, b"no such page", r"returned no token \(HTTP 404\)"),
        (500, b'{"error": ["<script>"]}', r"returned no token \(HTTP 500\)"),
        (200, b"<html>", "expected a token in JSON"),
        (200, b'{"access_token": "geheim"}', "expected access_token, and token_type Bearer"),
        (200, b'{"access_token": "ge\\nheim", "token_type": "bearer"}', "expected a bearer token"),
        (302, b"", r"returned no token \(HTTP 302\)"),
    ],
)
def test_answers_that_are_no_token(status: int, body: bytes, words: str) -> None:
    with (
        Endpoint(lambda: (status, body)).serving() as url,
        pytest.raises(SinkError, match=words) as caught,
    ):
        fetch(url)
    assert "heim" not in str(caught.value)
    assert "tenant" not in str(caught.value)


def test_an_endpoint_that_is_not_there_or_not_trusted(tmp_path: Path) -> None:
    endpoint = Endpoint(lambda: (200, json.dumps(GOOD).encode()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).issue("login", hosts=("127.0.0.1",)))
    with endpoint.serving(context) as url, pytest.raises(SinkError, match="certificate is not trusted here"):
        fetch(url)
    assert not endpoint.asked, "nothing was told to it"
    with pytest.raises(SinkError, match=r"cannot be reached \(Connection refused\)"):
        fetch(url)


class Fetches:
    """Gives one token after the other; None stands for trouble."""

    def __init__(self, *tokens: BearerToken | None) -> None:
        self._tokens = list(tokens)

    def __call__(self) -> BearerToken:
        if (token := self._tokens.pop(0)) is None:
            raise SinkError("no token today")
        return token


def source(clock: Callable[[], float], *tokens: BearerToken | None) -> TokenSource:
    return TokenSource(Fetches(*tokens), clock=clock)


def test_a_token_is_kept_and_renewed_before_it_ends() -> None:
    now_s = [1000.0]
    tokens = source(lambda: now_s[0], BearerToken("first", 100.0), BearerToken("second", 100.0))
    assert tokens.token() == "first"
    now_s[0] += 79.0
    assert tokens.token() == "first"
    now_s[0] += 2.0
    assert tokens.token() == "second"


def test_a_token_that_holds_outlives_trouble_at_the_endpoint() -> None:
    now_s = [0.0]
    tokens = source(lambda: now_s[0], BearerToken("first", 100.0), None, None, BearerToken("second", 100.0))
    tokens.token()
    now_s[0] = 90.0
    assert tokens.token() == "first"
    now_s[0] = 100.0
    with pytest.raises(SinkError, match="no token today"):
        tokens.token()
    assert tokens.token() == "second"


def test_a_token_does_not_show() -> None:
    assert "geheim" not in repr(BearerToken("geheim", 1.0))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(
    st.binary()
    | st.fixed_dictionaries(
        {},
        optional={
            "access_token": st.text() | json_values,
            "token_type": st.just("Bearer") | json_values,
            "expires_in": json_values,
        },
    ).map(lambda answer: json.dumps(answer).encode())
)
def test_any_answer_is_a_token_or_refused(body: bytes) -> None:
    try:
        token = parse_token(body)
    except ValueError:
        return
    assert token.life_s > 0


def test_a_life_that_is_no_number_of_this_machine() -> None:
    assert parse_token(json.dumps(GOOD | {"expires_in": 10**400}).encode()).life_s == 1e9
