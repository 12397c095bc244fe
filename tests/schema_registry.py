"""A stand-in for a Confluent schema registry, on loopback: strict, and written to its API's description.

It is no registry: it keeps ids, and refuses what the real one refuses for another reason of compatibility
than names of records.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryStandIn:
    """What the stand-in knows and saw."""

    def __init__(self, login: str | None = None) -> None:
        self.login = login
        self.url = ""
        self.asked: list[str] = []
        self.subjects: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, subject: str, tree: dict[str, Any]) -> tuple[int, Any]:
        kind, text = tree.get("schemaType", "AVRO"), tree["schema"]
        if set(tree) - {"schema", "schemaType"} or kind not in {"AVRO", "PROTOBUF"}:
            return 422, {"error_code": 42201, "message": "Invalid schema"}
        name = json.loads(text)["name"] if kind == "AVRO" else text.partition("message ")[2].split()[0]
        earlier = self.subjects.setdefault(subject, [])
        if any((each["kind"], each["name"]) != (kind, name) for each in earlier):
            return 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
        number = self._ids.setdefault((kind, text), 100_001 + len(self._ids))
        if all(each["id"] != number for each in earlier):
            earlier.append({"id": number, "kind": kind, "name": name})
        return 200, {"id": number}

    def find(self, number: str) -> tuple[int, Any]:
        for (kind, text), known in self._ids.items():
            if str(known) == number:
                return 200, {"schema": text} | ({} if kind == "AVRO" else {"schemaType": kind})
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def put(self, schema: str) -> int:
        """An Avro schema that somebody else registered."""
        return self._ids.setdefault(("AVRO", schema), 100_001 + len(self._ids))


@contextmanager
def schema_registry(login: str | None = None) -> Iterator[RegistryStandIn]:
    """The stand-in, on a free port."""
    registry = RegistryStandIn(login)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = self.path.split("/")
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Type"] != CONTENT_TYPE:
                self._answer(415, {"error_code": 415})
            elif parts[1] == "subjects" and parts[3:] == ["versions"]:
                self._answer(*registry.register(unquote(parts[2]), json.loads(raw)))
            else:
                self._answer(404, {"error_code": 404})

        def do_GET(self) -> None:
            parts = self.path.split("/")
            self._answer(*registry.find(parts[3]) if parts[1:3] == ["schemas", "ids"] else (404, {}))

        def _answer(self, status: int, tree: Any) -> None:
            registry.asked.append(f"{self.command} {self.path}")
            body = json.dumps(tree).encode()
            if registry.login is not None:
                wanted = f"Basic {base64.b64encode(registry.login.encode()).decode()}"
                if self.headers.get("Authorization") != wanted:
                    status, body = 401, b'{"error_code":401,"message":"Unauthorized"}'
            if "*" in registry.answers:
                status, body = registry.answers["*"]
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", registry.url + "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield registry
        server.shutdown()
        thread.join(60)
