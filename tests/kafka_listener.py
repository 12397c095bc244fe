"""Something that listens where a Kafka broker is expected."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

_PATIENCE_S = 60.0


def answer_of(error: int, mechanisms: tuple[str, ...] = (), *, correlation: int = 0x66616365) -> bytes:
    """What a broker answers to a SaslHandshake request, with its length in front."""
    body = struct.pack(">ihi", correlation, error, len(mechanisms))
    for name in mechanisms:
        body += struct.pack(">h", len(name)) + name.encode()
    return struct.pack(">i", len(body)) + body


@contextlib.contextmanager
def listening(
    answer: bytes | None, tls: ssl.SSLContext | None = None, *, greedy: bool = False
) -> Iterator[str]:
    """Its HOST:PORT.

    Args:
        answer: To whatever is asked; None ends the connection, and an empty one keeps it and says nothing.
        tls: How TLS is spoken; None for not at all.
        greedy: Answers what is no request of Kafka as well; a broker ends the connection.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = server.accept()
                    connection.settimeout(_PATIENCE_S)
                    with connection, contextlib.suppress(OSError):
                        _serve_one(connection, answer, tls, over, 2**31 if greedy else 100_000_000)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join(_PATIENCE_S)


def _serve_one(
    connection: socket.socket,
    answer: bytes | None,
    tls: ssl.SSLContext | None,
    over: threading.Event,
    longest: int,
) -> None:
    with tls.wrap_socket(connection, server_side=True) if tls else contextlib.nullcontext(connection) as talk:
        length = talk.recv(4)
        if len(length) < 4 or struct.unpack(">i", length)[0] > longest:
            return
        talk.recv(1000)
        if answer == b"":
            over.wait(_PATIENCE_S)
        elif answer is not None:
            talk.sendall(answer)
            talk.recv(1)
