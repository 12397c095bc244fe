"""Nobody hears of facestream but the sources and sinks that its user named: traced, in a fresh home."""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import pytest
from traced import trace

from engine import home_folders
from engine.compilation.sample_faces import load_portrait, portrait_views
from engine.models.catalogue import load_model
from stream.gallery.people import Gallery
from stream.gallery.records import GalleryModel


@pytest.fixture(scope="module")
def caches() -> dict[str, str]:
    """Those of the user who tests, with models made and engines chosen, but for the libraries' own."""
    return {"FACESTREAM_CACHE_DIR": str(home_folders.writable("cache"))}


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def test_the_trace_sees_what_it_is_to_see(home: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, socket\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 53))\n"
        "pathlib.Path.home().joinpath('id').write_text('somebody')"
    )
    traced = trace(sys.executable, "-c", code, home=home, scratch=tmp_path)
    assert len(traced.spoke) == 1
    assert "htons(53)" in traced.spoke[0]
    assert traced.wrote_outside(tmp_path) == [str(home / "id")]


def lfw_of_two(root: Path) -> Path:
    """A data set of two people in LFW's form; its list of pairs."""
    views = portrait_views(load_portrait())
    for name, shots in {"Ann": views[:2], "Bob": views[2:4]}.items():
        (root / name).mkdir(parents=True)
        for number, image in enumerate(shots, start=1):
            cv2.imwrite(str(root / name / f"{name}_{number:04d}.jpg"), image)
    rows = ["2\t1", "Ann\t1\t2", "Ann\t1\tBob\t1", "Bob\t1\t2", "Ann\t2\tBob\t2"]
    (root / "pairs.txt").write_text("\n".join(rows) + "\n")
    return root / "pairs.txt"


COMMANDS: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "--source", "{clip}", "--out", "{out}/demo"),
    "run": (
        *("run", "{clip}", "--engine", "onnxruntime", "--render", "{out}/seen.mp4"),
        *("--sink", "jsonl:{out}/events.jsonl", "--gallery", "{gallery}"),
    ),
    "bench": (
        *("bench", "lfw", "--root", "{lfw}", "--pairs", "{lfw}/pairs.txt", "--no-cache"),
        *("--engine", "onnxruntime", "--report", "{out}/lfw.html", "--json", "{out}/lfw.json"),
    ),
    "compile": ("compile", "yunet", "--engine", "onnxruntime", "--precision", "fp16", "--out", "{out}"),
    "gallery": ("gallery", "enrol", "{gallery}", "{lfw}/Ann/Ann_0001.jpg", "--name", "Ann"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_is_told(
    name: str, tmp_path_factory: pytest.TempPathFactory, short_clip: Path, caches: dict[str, str]
) -> None:
    home, own, scratch = (tmp_path_factory.mktemp(each) for each in ("home", "own", "scratch"))
    lfw_of_two(own / "lfw")
    Gallery.create(own / "people.db", GalleryModel.of(load_model("sface"), mirror=False), sealer=None).close()
    places = {"clip": short_clip, "out": own, "lfw": own / "lfw", "gallery": own / "people.db"}
    words = [word.format(**places) for word in COMMANDS[name]]
    traced = trace("facestream", *words, home=home, scratch=scratch, environment=caches)
    assert traced.done.returncode == 0, traced.done.stderr
    assert traced.spoke == []
    assert traced.wrote_outside(own, scratch, *map(Path, caches.values())) == []


def test_a_source_is_all_that_is_asked(home: Path, tmp_path: Path, caches: dict[str, str]) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        code = (
            "from stream.video.sources import open_source\n"
            f"next(open_source(camera_id='a', uri='http://127.0.0.1:{port}/none.mp4').frames())"
        )
        traced = trace(
            *(sys.executable, "-c", code),
            home=home,
            scratch=tmp_path,
            environment=caches | {"XDG_RUNTIME_DIR": str(tmp_path)},
        )
        server.shutdown()
    assert "SourceError" in traced.done.stderr, "there is no such file"
    assert [line for line in traced.spoke if f"htons({port})" not in line] == []
    assert len(traced.spoke) >= 1
    assert [path for path in traced.wrote if "dconf" in path] == []
    assert traced.wrote_outside(tmp_path, *map(Path, caches.values())) == []


def test_a_program_of_ones_own_tells_nobody(home: Path, tmp_path: Path) -> None:
    code = "import engine.backends.quantizers, engine.backends.onnxruntime, engine.backends.openvino"
    traced = trace(sys.executable, "-c", code, home=home, scratch=tmp_path)
    assert traced.done.returncode == 0, traced.done.stderr
    assert traced.spoke == []
    assert traced.wrote_outside(tmp_path) == []


def test_who_imported_onnxruntime_before_is_told(home: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = sys; "
        "from engine.backends import telemetry; telemetry.switch_off()"
    )
    for name, words in (("FACESTREAM", "with its telemetry on"), ("ORT_DISABLE_TELEMETRY", "")):
        done = trace(sys.executable, "-c", code, home=home, scratch=tmp_path, environment={name: "1"}).done
        assert words in done.stderr
        assert bool(words) == ("onnxruntime was imported" in done.stderr)
