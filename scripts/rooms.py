"""Draw the rooms into CONTRIBUTING.md, from the imports: `.venv/bin/python scripts/rooms.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- rooms: scripts/rooms.py -->\n", "<!-- end of rooms -->\n"
PACKAGES = ("stream", "engine", "training")
Graph = dict[str, set[str]]


def modules(package: str) -> Iterator[Path]:
    """The modules of a package, without those that protoc made."""
    yield from (path for path in sorted((ROOT / package).rglob("*.py")) if not path.stem.endswith("_pb2"))


def room_of(module: str) -> str | None:
    """``stream.kafka`` of ``stream.kafka.delivery.batches``; None for what stands at a package's root."""
    package, *rest = module.split(".")
    is_room = package in PACKAGES and rest and (ROOT / package / rest[0]).is_dir()
    return f"{package}.{rest[0]}" if is_room else None


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from stream import kafka` names the room only in what it imports.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms() -> Graph:
    """Each room, and the rooms that it imports."""
    found: Graph = {}
    for package in PACKAGES:
        for path in modules(package):
            if room := room_of(".".join(path.relative_to(ROOT).with_suffix("").parts)):
                others = {other for name in imported(path) if (other := room_of(name)) and other != room}
                found.setdefault(room, set()).update(others)
    return found


def reached(room: str, graph: Graph) -> set[str]:
    """All that a room imports, itself or by way of others."""
    return graph[room].union(*(reached(other, graph) for other in graph[room]))


def reduced(graph: Graph) -> Graph:
    """Without the arrows that others imply."""
    return {
        room: others - set().union(*(reached(other, graph) for other in others))
        for room, others in graph.items()
    }


def drawing() -> str:
    """The rooms as a Mermaid diagram: an arrow says "imports", and stands for all that is below its end."""
    graph = rooms()
    lines = ["```mermaid", "flowchart TD"]
    for package in PACKAGES:
        lines.append(f"  subgraph {package}")
        lines += [f"    {room}[{room.split('.')[1]}]" for room in graph if room.startswith(f"{package}.")]
        lines.append("  end")
    lines += [
        f"  {room} --> {other}" for room, others in sorted(reduced(graph).items()) for other in sorted(others)
    ]
    return "\n".join([*lines, "```", ""])


def page() -> str:
    """CONTRIBUTING.md with the drawing as it has to be."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{drawing()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
