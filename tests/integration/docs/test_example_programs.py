from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
from event_checks import AT, camera_event, identity_event
from event_topics import WAIT_S, WholeTopic, by_track, make_topic, stays, write_events
from postgres_server import PostgresServer

from stream.events.cloudevents import from_json

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py"))


class Example:
    """An example in a process of its own, as a user runs it."""

    def __init__(self, name: str, *arguments: str, errors: IO[str] | int = subprocess.PIPE) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "examples" / name, *arguments],
            env=environment,
            stderr=errors,
            text=True,
        )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"it did not come to that: {self._process.communicate()[1]}")
            time.sleep(0.05)

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> str:
        """What it said meanwhile."""
        self._process.send_signal(sign)
        _, errors = self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == (-sign if sign == signal.SIGKILL else 0), errors
        return errors


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fs-pg-") as folder:  # short, and anybody may enter it
        server = PostgresServer(Path(folder))
        server.start()
        yield server.url
        server.stop()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_short_and_explained(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 45
    assert f"python examples/{path.name} kafka://" in text
    assert path.name in (ROOT / "examples" / "README.md").read_text("utf-8")


@pytest.mark.kafka
def test_postgres_holds_the_newest_state_of_each_track_once_whatever_comes_again(
    kafka_broker: str, topic: str, postgres: str
) -> None:
    import psycopg

    source = make_topic(kafka_broker, topic)
    events = stays(cameras=3, tracks=5)
    write_events(kafka_broker, topic, events[:40])
    query = "SELECT track_id, sequence, state, last_seen FROM tracks WHERE track_id LIKE 'run-%'"

    def stored() -> dict[str, tuple[int, str]]:
        with closing(psycopg.connect(postgres)) as database:
            try:
                rows = database.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:
                return {}
        return {track: (sequence, state) for track, sequence, state, _ in rows}

    def newest(until: int) -> dict[str, tuple[int, str]]:
        tracks = by_track(events[:until])
        return {name: (each[-1].sequence, each[-1].change.value) for name, each in tracks.items()}

    example = Example("to_postgres.py", source, postgres)
    example.wait_for(lambda: stored() == newest(40))
    example.stop(signal.SIGKILL)
    write_events(kafka_broker, topic, [*events[30:], *events[:40]])
    example = Example("to_postgres.py", source, postgres)
    example.wait_for(lambda: stored() == newest(len(events)))
    example.stop()


class Hook(ThreadingHTTPServer):
    """Takes events; refuses some as it is told."""

    def __init__(self, *refusals: int) -> None:
        super().__init__(("127.0.0.1", 0), _HookHandler)
        self.refusals, self.bodies, self.types = list(refusals), list[bytes](), set[str]()


class _HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.refusals.pop(0) if self.server.refusals else 204
        if status == 204:
            self.server.bodies.append(body)
            self.server.types.add(self.headers["Content-Type"])
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.kafka
def test_a_webhook_gets_every_event_in_order_although_it_fails_at_times(
    kafka_broker: str, topic: str
) -> None:
    source = make_topic(kafka_broker, topic)
    events = stays(cameras=2, tracks=2)
    write_events(kafka_broker, topic, events)
    with Hook(503, 429, 500) as hook:
        threading.Thread(target=hook.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        url = f"http://127.0.0.1:{hook.server_port}/hook"
        example = Example("to_webhook.py", source, f"{url}?token=geheim")
        example.wait_for(lambda: len(hook.bodies) >= len(events))
        errors = example.stop()
        hook.shutdown()
    assert f"{url}?token=***: HTTP Error 503" in errors
    assert "geheim" not in errors
    assert hook.types == {"application/cloudevents+json"}
    found = by_track(from_json(body) for body in hook.bodies)
    expected = by_track(events)
    assert {name: [each.event_id for each in of] for name, of in found.items()} == {
        name: [each.event_id for each in of] for name, of in expected.items()
    }
    assert json.loads(hook.bodies[0])["specversion"] == "1.0"


@pytest.mark.kafka
def test_a_webhook_that_nobody_answers_ends_at_a_signal_and_its_event_comes_again(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    source = make_topic(kafka_broker, topic)
    events = stays(cameras=1, tracks=1)
    write_events(kafka_broker, topic, events)
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        example = Example("to_webhook.py", source, "http://127.0.0.1:9/hook", errors=file)
    example.wait_for(lambda: errors.read_text("utf-8").count("refused") >= 2)
    example.stop(signal.SIGINT)
    assert "Traceback" not in errors.read_text("utf-8")
    with WholeTopic(source, group="to-webhook") as again:
        assert [each.event_id for each in again] == [each.event_id for each in events]


@pytest.mark.kafka
def test_the_log_tells_who_came_and_went_once_also_when_it_was_killed(
    kafka_broker: str, topic: str, tmp_path: Path
) -> None:
    source = f"{make_topic(kafka_broker, topic)}?identities={topic}.identities"
    make_topic(kafka_broker, f"{topic}.identities")
    events = stays(cameras=1, tracks=2)
    who = {"camera_id": "cam-0", "run_id": "run-0", "track_id": "run-0-0", "at": AT + timedelta(seconds=1)}
    path = tmp_path / f"{uuid.uuid4().hex}.csv"

    def rows() -> list[list[str]]:
        return list(csv.reader(path.read_text("utf-8").splitlines())) if path.exists() else []

    write_events(kafka_broker, topic, events[:4])
    example = Example("entry_exit_log.py", source, str(path))
    example.wait_for(lambda: len(rows()) == 1)
    write_events(kafka_broker, f"{topic}.identities", [identity_event(**who)])
    example.wait_for(lambda: len(rows()) == 2)
    example.stop(signal.SIGKILL)
    write_events(kafka_broker, topic, events)
    example = Example("entry_exit_log.py", source, str(path))
    example.wait_for(lambda: len(rows()) == 5)
    example.stop()
    assert {tuple(row[2:]) for row in rows()} == {
        ("cam-0", "run-0-0", "enters", ""),
        ("cam-0", "run-0-0", "is", "Ann Example"),
        ("cam-0", "run-0-0", "leaves", "Ann Example"),
        ("cam-0", "run-0-1", "enters", ""),
        ("cam-0", "run-0-1", "leaves", ""),
    }


@pytest.mark.kafka
@pytest.mark.parametrize("number", [0, 1], ids=["loop", "asyncio"])
def test_the_snippets_of_the_documentation_read_events(
    kafka_broker: str, topic: str, tmp_path: Path, number: int
) -> None:
    text = (ROOT / "docs" / "consumers.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number]
    source = make_topic(kafka_broker, topic)
    write_events(kafka_broker, topic, [*stays(cameras=1), camera_event(), identity_event()])
    path = tmp_path / "snippet.py"
    path.write_text(code.replace("kafka://localhost:9092/faces", source), "utf-8")
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", path], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=out
        )
    try:
        deadline = time.monotonic() + WAIT_S
        while len((tmp_path / "out").read_text("utf-8").splitlines()) < 22:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(WAIT_S)
