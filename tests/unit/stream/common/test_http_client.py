from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request

import pytest

from stream.common.http_client import RefusedError, UnreachableError, ask


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """A server that says this to the first who asks, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            visitor, _ = server.accept()
            with visitor:
                visitor.recv(10_000)
                visitor.sendall(raw)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(60)


def body_of(raw: bytes, most_bytes: int = 100) -> bytes:
    with answering(raw) as url:
        return ask(Request(url), timeout_s=60.0, most_bytes=most_bytes)


def test_no_more_of_a_body_is_read_than_is_wanted() -> None:
    assert body_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", most_bytes=4) == b"hell"


def test_a_redirection_is_an_error() -> None:
    with pytest.raises(RefusedError, match="HTTP 302") as caught:
        body_of(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\n\r\nno")
    assert (caught.value.status, caught.value.body) == (302, b"no")


@pytest.mark.parametrize("status", [b"200 OK", b"500 Broken"])
def test_a_server_that_breaks_off_is_as_good_as_none(status: bytes) -> None:
    with pytest.raises(UnreachableError, match=r"cannot be reached \(IncompleteRead\)"):
        body_of(b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")


@pytest.mark.parametrize("raw", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 999999 \r\n\r\n"])
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        body_of(raw)
