from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from one_face import OneFace, small_embedder

from engine.faces import Image
from stream.events.event_types import FaceEvent
from stream.pipeline.recognizer import Recognizer
from stream.video.frames import Frame

AT = datetime(2025, 1, 1, tzinfo=UTC)


def last_event(images: Sequence[Image]) -> FaceEvent:
    """Of the one track in some pictures, ten a second."""
    recognizer = Recognizer(OneFace(), small_embedder())
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
