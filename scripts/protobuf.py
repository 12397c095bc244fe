"""Write stream/events/schemas/*_pb2.py anew from the .proto files: `.venv/bin/python scripts/protobuf.py`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SCHEMAS = Path(__file__).resolve().parent.parent / "stream" / "events" / "schemas"


def generate(out: Path) -> list[Path]:
    """Run protoc on every schema.

    Dots in a file's name would become folders of the Python module, so ``track.v1.proto`` is compiled as
    ``facestream_track_v1.proto``.

    Args:
        out: Existing folder for the modules.

    Returns:
        The modules.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for schema in SCHEMAS.glob("*.proto"):
            name = schema.stem.replace(".", "_")
            shutil.copy(schema, Path(scratch) / f"facestream_{name}.proto")
        sources = sorted(str(path) for path in Path(scratch).glob("*.proto"))
        well_known = str(files("grpc_tools") / "_proto")
        failed = protoc.main(["protoc", f"-I{scratch}", f"-I{well_known}", f"--python_out={out}", *sources])
    if failed:
        raise SystemExit(f"protoc failed with {failed}")
    return sorted(out.glob("facestream_*_pb2.py"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SCHEMAS)
