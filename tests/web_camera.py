"""A web server for tests, on loopback: what it sends is up to the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def serve(send: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve while the context lasts.

    Args:
        send: Answers a GET request, in a thread of its own; may go on for as long as the client stays.

    Yields:
        ``127.0.0.1:PORT``.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):  # the client went
                send(self)

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
