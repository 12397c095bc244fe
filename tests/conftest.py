from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from engine.backends import telemetry

if TYPE_CHECKING:
    from kafka_server import KafkaServer

# The machine may be busy: no example has a deadline, and drawing one may take its time. Every run draws the
# same examples; HYPOTHESIS_PROFILE=explore looks for new ones, where somebody can mend what they find.
PATIENT = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("default", PATIENT, derandomize=True)
settings.register_profile("explore", PATIENT)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

telemetry.switch_off()  # some tests import the libraries themselves

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def face_data() -> Path:
    """Folder of real faces and clips, which the project does not ship."""
    folder = Path(os.environ.get("FACESTREAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real faces at {folder}; set FACESTREAM_TEST_DATA to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The public-domain portrait of Eileen Collins, uint8 BGR (512, 512, 3)."""
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


@pytest.fixture(scope="session")
def portrait_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s of 720p in which one person comes, goes and comes back."""
    from stream.bench.portrait_clip import make_clip

    path = tmp_path_factory.mktemp("clip") / "portrait.mp4"
    make_clip(path)
    return path


@pytest.fixture(scope="session")
def short_clip(portrait_clip: Path) -> Path:
    """The first 4 s of it: the person comes and is there."""
    path = portrait_clip.parent / "short" / portrait_clip.name
    path.parent.mkdir()
    cut = f"filesrc location={portrait_clip} ! qtdemux ! h264parse ! identity eos-after=120 ! mp4mux"
    subprocess.run(f"gst-launch-1.0 -q {cut} ! filesink location={path}".split(), check=True, timeout=300)
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that ``facestream demo`` has made, and what it has said."""
    from typer.testing import CliRunner

    from stream.cli.root import app

    out = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(app, ["demo", "--out", str(out)], env={"COLUMNS": "40"})
    assert done.exit_code == 0, done.output
    return out, done.stdout


@pytest.fixture(scope="session")
def short_demo(demo: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the first 8 s of its clip, in which all three people come."""
    out = tmp_path_factory.mktemp("short-demo")
    shutil.copytree(demo[0] / "enrolled", out / "enrolled")
    cut = f"filesrc location={demo[0] / 'clip.mp4'} ! qtdemux ! h264parse ! identity eos-after=160 ! mp4mux"
    subprocess.run(
        ["gst-launch-1.0", "-q", *cut.split(), "!", "filesink", f"location={out / 'clip.mp4'}"],
        check=True,
        timeout=300,
    )
    return out


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """Folder of the command ``kafka``, with which tests start brokers that they may kill."""
    if os.environ.get("FACESTREAM_TEST_KAFKA"):
        pytest.skip("the broker of FACESTREAM_TEST_KAFKA is not to be killed; leave that unset to start one")
    folder = REPOSITORY / "scripts" / "kafka"
    if shutil.which("java") is None:
        pytest.skip("Kafka needs Java 17: apt-get install openjdk-17-jre-headless")
    found = subprocess.run([folder / "kafka", "jars"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return folder


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    """HOST:PORT of a real broker: the one of FACESTREAM_TEST_KAFKA, or one started for the tests."""
    if address := os.environ.get("FACESTREAM_TEST_KAFKA"):
        yield address
        return
    from kafka_server import KafkaServer

    server = KafkaServer(request.getfixturevalue("kafka_home"), tmp_path_factory.mktemp("kafka"))
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def mortal_server(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker that tests start, where it does not run, and may kill; its topics may be gone."""
    from kafka_server import KafkaServer

    server = KafkaServer(kafka_home, tmp_path_factory.mktemp("mortal"))
    yield server
    server.stop()


@pytest.fixture
def own_server(kafka_home: Path, tmp_path: Path) -> Iterator[KafkaServer]:
    """Brokers of one test, which it starts, and may kill."""
    from kafka_server import KafkaServer

    server = KafkaServer(kafka_home, tmp_path)
    yield server
    server.stop()
