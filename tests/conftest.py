from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

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
