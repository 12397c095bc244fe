from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np

from engine.faces import Faces, Image
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import Patch
from engine.protocol import Arrays, Done, TensorSpec
from engine.vision.embedder import FaceEmbedder
from stream.events.event_types import FaceEvent
from stream.pipeline.recognizer import Recognizer
from stream.video.frames import Frame

AT = datetime(2025, 1, 1, tzinfo=UTC)
SIDE = 24


class OneFace:
    """Finds the face of the portrait in every image."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        box = np.array([[165, 55, 285, 205]], np.float32)
        points = np.array([[[202, 104], [245, 104], [226, 130], [206, 150], [242, 150]]], np.float32)
        return [Faces(box, np.array([0.9], np.float32), points) for _ in images]


class Small:
    """Embeds a face as itself, small and without its mean."""

    name, precision, max_batch = "numpy", "fp32", None
    inputs = (TensorSpec("pixels", (None, 112, 112, 3), np.dtype(np.uint8)),)
    outputs = (TensorSpec("embedding", (None, SIDE * SIDE), np.dtype(np.float32)),)

    def infer(self, inputs: Arrays) -> Arrays:
        small = [cv2.resize(crop[..., 1], (SIDE, SIDE)).ravel() for crop in inputs["pixels"]]
        rows = np.array(small, np.float32)
        return {"embedding": rows - rows.mean(axis=1, keepdims=True)}

    def submit(self, inputs: Arrays) -> Done:
        return Done(self.infer(inputs))

    def close(self) -> None:
        pass


def last_event(images: Sequence[Image]) -> FaceEvent:
    """Of the one track in some pictures, ten a second."""
    embedder = FaceEmbedder(Small(), model="small", patches=[Patch(112, ARCFACE_TEMPLATE_XY)])
    recognizer = Recognizer(OneFace(), embedder)
    recognizer.open_camera("door", "run")
    for number, image in enumerate(images):
        captured_at = AT + timedelta(seconds=number / 10)
        recognizer.process([Frame("door", number, number / 10, captured_at, image)])
    (event,) = recognizer.close_camera("door")
    assert isinstance(event, FaceEvent)
    return event


def broken(portrait: np.ndarray) -> np.ndarray:
    """A chessboard of blocks that come from elsewhere in the picture."""
    board = (np.indices(portrait.shape[:2]) // 8).sum(axis=0) % 2 == 1
    return np.where(board[..., None], np.roll(portrait, (40, 56), axis=(0, 1)), portrait)


def test_faces_that_are_evidently_damaged_stay_out_of_templates(portrait: np.ndarray) -> None:
    whole = last_event([portrait] * 30)
    assert whole.quality > 0.7
    mixed = last_event([*[broken(portrait)] * 15, *[portrait] * 15])
    assert mixed.quality == whole.quality
    assert mixed.embedding @ whole.embedding > 0.99
    spoilt = last_event([*[portrait] * 15, *[broken(portrait)] * 30])
    assert spoilt.embedding @ whole.embedding > 0.99
    assert last_event([broken(portrait)] * 15).quality < 0.1, "there is nothing better"
