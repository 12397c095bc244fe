"""Brokers to break: each behind a proxy of its own, so that it can be cut off, killed and frozen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tcp_proxy import TcpProxy

_PATIENCE_S = 300


class KafkaCluster:
    """One broker or several, which clients and brokers reach through proxies only.

    Args:
        home: Folder with the start command.
        data: Empty folder.
        nodes: How many.
    """

    def __init__(self, home: Path, data: Path, *, nodes: int) -> None:
        self._command, self._data, self.nodes = home / "kafka", data / "cluster", nodes
        self._proxies: list[TcpProxy] = []

    def start(self) -> str:
        """Make it and wait until it answers; the proxies' addresses."""
        self._run("start", "--nodes", str(self.nodes))
        self._run("kill")
        ports = json.loads((self._data / "cluster.json").read_text())["ports"]
        self._proxies = [TcpProxy(port) for port in ports]
        for number, (port, proxy) in enumerate(zip(ports, self._proxies, strict=True), 1):
            path = self._data / f"node{number}" / "server.properties"
            before = f"advertised.listeners=CLIENT://127.0.0.1:{port}\n"
            text = path.read_text()
            assert before in text
            path.write_text(text.replace(before, before.replace(str(port), str(proxy.port))))
        self._run("start")
        return ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies)

    def kill(self, node: int) -> None:
        self._run("kill", "--node", str(node))

    def wipe(self, node: int) -> None:
        """Kill it and take its data away."""
        self._run("wipe", "--node", str(node))

    def revive(self, node: int) -> None:
        """Start it again, and wait until it listens."""
        self._run("start", "--node", str(node))

    def freeze(self, node: int) -> None:
        self._run("freeze", "--node", str(node))

    def thaw(self, node: int) -> None:
        self._run("thaw", "--node", str(node))

    def cut(self, node: int) -> None:
        """Nobody reaches it; it runs on."""
        self._proxies[node - 1].cut()

    def mend(self, node: int) -> None:
        self._proxies[node - 1].mend()

    def stop(self) -> None:
        for node in range(1, self.nodes + 1):
            subprocess.run(
                [self._command, "kill", self._data, "--node", str(node)],
                capture_output=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        for proxy in self._proxies:
            proxy.close()

    def _run(self, verb: str, *options: str) -> str:
        done = subprocess.run(
            [self._command, verb, self._data, *options],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"kafka {verb}: {done.stdout}{done.stderr}"
        return done.stdout
