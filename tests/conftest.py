from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The machine may be busy, so no example has a deadline. A continuous build repeats the same examples: a new
# one that fails is found by somebody who can mend it.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

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
    """The demo's clip: 20 s of 720p in which one person comes, goes and comes back."""
    from stream.demo_clip import make_clip

    path = tmp_path_factory.mktemp("clip") / "portrait.mp4"
    make_clip(path)
    return path


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """Folder of an Apache Kafka that tests may start, with its start command ``kafka``."""
    folder = Path(os.environ.get("FACESTREAM_KAFKA_HOME", REPOSITORY.parent / "shared" / "kafka"))
    if not (folder / "kafka").is_file():
        pytest.skip(f"no Apache Kafka at {folder}; set FACESTREAM_KAFKA_HOME (CONTRIBUTING.md)")
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
