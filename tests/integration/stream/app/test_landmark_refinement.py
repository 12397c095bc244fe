from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.models.catalogue import load_model
from stream.app.settings import DetectionSettings, ModelSettings
from stream.app.wiring import open_models, open_stills
from stream.gallery.records import GalleryModel

EXACT = ModelSettings(engine="openvino", precision="fp32")


def embedded(portrait: np.ndarray, settings: DetectionSettings) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the face where it was found, and where rough landmarks say that it is."""
    with open_models(EXACT, settings) as (detector, embedder):
        (faces,) = detector.detect([portrait])
        found = faces.landmarks_xy[:1]
        rough = found + np.float32([6, -5])
        return tuple(embedder.embed(embedder.align(portrait, each))[0] for each in (found, rough))


@pytest.mark.parametrize("enlarge", [None, 1.2])
def test_cameras_take_a_second_look_where_the_settings_say_so(
    portrait: np.ndarray, enlarge: float | None
) -> None:
    plain, rough = embedded(portrait, DetectionSettings(enlarge=enlarge))
    again, mended = embedded(portrait, DetectionSettings(enlarge=enlarge, second_look=True))
    assert plain @ rough < 0.95
    assert again @ mended > 0.97
    assert plain @ again > 0.9


def test_photographs_are_read_with_a_second_look(portrait: np.ndarray) -> None:
    again, _ = embedded(portrait, DetectionSettings(second_look=True))
    plain, _ = embedded(portrait, DetectionSettings())
    photo = cv2.imencode(".png", portrait)[1].tobytes()
    with open_stills(GalleryModel.of(load_model("sface"), mirror=False), detector="yunet") as reader:
        still = reader.read(photo).embedding  # in the processor's own precision
    assert still @ again > 0.99
    assert still @ plain < 0.98
