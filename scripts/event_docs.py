"""Generate docs/events.md from the schemas and scripts/events.md.in.

Run: `.venv/bin/python scripts/event_docs.py`.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stream.events.cloudevents import to_cloudevent  # noqa: E402 - from the folder above
from stream.events.codecs import bundled_ids, encoder  # noqa: E402
from stream.events.event_types import FaceEvent, IdentityChange, IdentityEvent, TrackChange  # noqa: E402
from stream.events.fields import NOUNS, Noun  # noqa: E402
from stream.events.schema_files import schema_text  # noqa: E402

MEANINGS = {
    "facestream.track.appeared.v1": "A person's stay at a camera begins.",
    "facestream.track.updated.v1": "The embedding has improved; at most every five seconds "
    "(`tracking.update_every_s`), or every second if it is much better.",
    "facestream.track.left.v1": "The person was not seen for five seconds, or the run ended.",
    "facestream.camera.up.v1": "The camera delivers frames.",
    "facestream.camera.down.v1": "The camera stopped delivering frames, or is still down but for "
    "another reason; `reason` says why, `planned` whether that was intended.",
    "facestream.identity.decided.v1": "A track was identified as a person of a gallery, or as nobody in it.",
    "facestream.identity.corrected.v1": "The identification has changed.",
}
TYPES = {"id": "string", "fraction": "0..1", "timestamp": "time", "box": "4 numbers", "pixels": "number"}
AT = datetime(2026, 3, 1, 12, 30, 15, 250000, tzinfo=UTC)


def page() -> str:
    """The text of docs/events.md."""
    parts = {
        "types": "\n".join(f"| `{name}` | {meaning} |" for name, meaning in checked_meanings().items()),
        "dataschemas": ", ".join(f"`urn:facestream:schema:{noun}.v1`" for noun in NOUNS),
        "embedding": table(schema("track")["$defs"]["embedding"], numbers("track", "Embedding")),
        "example_identity": json.dumps(to_cloudevent(example_identity()), indent=2),
        "sizes": "\n".join(sizes()),
        "ids": "\n".join(
            f"| {noun}.v1 | {bundled_ids('avro')[noun]} | {bundled_ids('protobuf')[noun]} |" for noun in NOUNS
        ),
    } | {noun: table(schema(noun), numbers(noun, noun.capitalize())) for noun in NOUNS}
    template = (ROOT / "scripts" / "events.md.in").read_text("utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def schema(noun: Any) -> dict[str, Any]:
    """The JSON Schema of a noun."""
    tree: dict[str, Any] = json.loads(schema_text(noun, "json"))
    return tree


def checked_meanings() -> dict[str, str]:
    """The types with what they mean, in the schema's order.

    Raises:
        SystemExit: A type of the schema has no meaning here.
    """
    names = [name for each in schema("event")["oneOf"] for name in each["properties"]["type"]["enum"]]
    if set(names) != set(MEANINGS):
        raise SystemExit(f"expected a meaning of each type, got {sorted(set(names) ^ set(MEANINGS))} without")
    return {name: MEANINGS[name] for name in names}


def table(tree: dict[str, Any], protobuf: dict[str, int]) -> str:
    """The fields of an object of a JSON Schema, a line each."""
    lines = ["| field | JSON | Protobuf number | meaning |", "|---|---|---|---|"]
    for name, spec in tree["properties"].items():
        lines.append(f"| `{name}` | {kind(spec)} | {protobuf[name]} | {spec['description']} |")
    return "\n".join(lines)


def kind(spec: dict[str, Any]) -> str:  # noqa: PLR0911 - one for each sort
    """What a value is, for people."""
    if "oneOf" in spec:
        return f"{kind(spec['oneOf'][0])} or null"
    if "$ref" in spec:
        name = spec["$ref"].rpartition("/")[2]
        return TYPES.get(name, "see below" if name == "embedding" else name)
    if "enum" in spec:
        return ", ".join(f"`{each}`" for each in spec["enum"])
    if spec["type"] == "array":
        return f"{spec['minItems']} of: {kind(spec['items'])}" if "minItems" in spec else "list"
    if "contentEncoding" in spec:
        return spec["contentEncoding"]
    least, most = spec.get("minimum"), spec.get("maximum")
    if spec["type"] == "integer":
        return f"integer from {least}" if most == 2**63 - 1 else f"integer, {least}..{most}"
    return spec["type"] if least is None else f"{least}..{most}"


def numbers(noun: Noun, message: str) -> dict[str, int]:
    """The numbers of a Protobuf message's fields."""
    text = re.sub(r"  enum \w+ \{.*?\n  \}\n", "", schema_text(noun, "protobuf"), flags=re.DOTALL)
    body = text.split(f"message {message} {{", 1)[1].split("\n}", 1)[0]
    return {name: int(number) for name, number in re.findall(r" (\w+) = (\d+);", body)}


def sizes() -> list[str]:
    """How large an event of a track is in each format."""
    lines = []
    for name, content_type in (
        ("json", "application/json"),
        ("avro", "application/avro"),
        ("protobuf", "application/protobuf"),
    ):
        exact, small = (
            len(encoder(name, encoding)(example_track()).value) for encoding in ("float32-b64", "int8-b64")
        )
        lines.append(f"| `{name}` | `{content_type}` | {exact} bytes | {small} bytes |")
    return lines


def example_track() -> FaceEvent:
    """An event of usual size."""
    vector = np.cos(np.arange(128, dtype=np.float32))
    landmarks = np.array([[330, 170], [372, 171], [350, 196], [333, 221], [369, 222]], np.float32) + 0.25
    return FaceEvent(
        change=TrackChange.UPDATED,
        sequence=3,
        camera_id="door",
        run_id="6d661c1a30e2",
        track_id="6d661c1a30e2-1",
        at=AT,
        frame_number=4211,
        media_time_s=168.44,
        captured_at=AT,
        image_size_wh=(1280, 720),
        box_xyxy=(301.25, 120.53, 398.75, 249.09),
        landmarks_xy=landmarks,
        detection_score=0.9312,
        quality=0.7421,
        embedding=vector / np.linalg.norm(vector),
        embedding_model="sface",
        embedding_model_id="0123456789abcdef",
        embedding_mirrored=False,
        faces_seen=120,
        embeddings_made=4,
        first_seen=AT,
        last_seen=AT,
        last_box_xyxy=(305.01, 121.77, 402.5, 250.25),
    )


def example_identity() -> IdentityEvent:
    """An answer."""
    return IdentityEvent(
        change=IdentityChange.DECIDED,
        sequence=3,
        camera_id="door",
        run_id="6d661c1a30e2",
        track_id="6d661c1a30e2-1",
        at=AT,
        person_id="p-000017",
        person_name="Ann Lee",
        similarity=0.612,
        margin=0.251,
        threshold=0.47,
        false_accept_rate=0.01,
        gallery_id="g-5c1e",
        gallery_version=12,
        gallery_people=87,
        embedding_model="sface",
    )


if __name__ == "__main__":
    (ROOT / "docs" / "events.md").write_text(page(), "utf-8")
