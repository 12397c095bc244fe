from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from event_checks import AT, camera_event, face_event, identity_event
from hypothesis import example, given
from hypothesis import strategies as st

from stream.events.event_types import FaceEvent, TrackChange
from stream.events.json_encoder import quick_binary
from stream.events.kafka_record import to_binary

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
pixels = st.one_of(
    st.floats(-20_000, 20_000),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(float),
    st.integers(-500_000, 500_000).map(lambda hundredths: hundredths / 200),
    st.sampled_from([0.0, -0.0, -0.001, 0.005, 0.015, 2.675, 1e12, -1e12, 1e22, 5e-324]),
)
times = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn beside it
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
)
boxes = st.tuples(pixels, pixels, pixels, pixels)
fractions = st.floats(0, 1)
counts = st.integers(0, 2**40)
encodings = st.sampled_from(["float32-b64", "int8-b64"])


@st.composite
def face_events(draw: st.DrawFn) -> FaceEvent:
    vector = np.random.default_rng(draw(counts)).normal(size=draw(st.sampled_from([1, 128])))
    with np.errstate(over="ignore"):
        landmarks = np.array(draw(st.lists(pixels, min_size=10, max_size=10)), np.float64)
    return face_event(
        change=draw(st.sampled_from(TrackChange)),
        sequence=draw(counts),
        camera_id=draw(text),
        run_id=draw(text),
        track_id=draw(text),
        at=draw(times),
        frame_number=draw(counts),
        media_time_s=draw(st.floats(-1e-3, 1e6)),
        captured_at=draw(times),
        box_xyxy=draw(boxes),
        landmarks_xy=landmarks.reshape(5, 2),
        detection_score=draw(fractions),
        quality=draw(fractions),
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        embedding_model=draw(text),
        first_seen=draw(times),
        last_seen=draw(times),
        last_box_xyxy=draw(boxes),
        embedding_model_id=draw(st.none() | text),
        embedding_mirrored=draw(st.none() | st.booleans()),
    )


@given(face_events(), encodings)
@example(face_event(), "int8-b64")
@example(face_event(box_xyxy=tuple(np.float32([0.125, -0.004, 100, 99.995]))), "float32-b64")
def test_the_quick_way_writes_the_same_bytes(event: FaceEvent, encoding: Any) -> None:
    assert quick_binary(event, encoding=encoding) == to_binary(event, encoding=encoding)


def test_other_events_go_the_plain_way() -> None:
    for event in (camera_event(), identity_event()):
        assert quick_binary(event) == to_binary(event)


NAN = float("nan")


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": NAN},
        {"media_time_s": float("inf")},
        {"box_xyxy": (0.0, NAN, 1.0, 1.0)},
        {"last_box_xyxy": (0.0, 0.0, float("-inf"), float("inf"))},
        {"landmarks_xy": np.full((5, 2), np.nan, np.float32)},
        {"embedding": np.full(128, np.nan, np.float32)},
        {"embedding": np.zeros((2, 64), np.float32)},
        {"at": AT.replace(tzinfo=None)},
        {"first_seen": AT.replace(tzinfo=None)},
        {"camera_id": "\ud800"},
        {"track_id": "\ud800"},
    ],
)
@pytest.mark.parametrize("encoding", ["float32-b64", "int8-b64"])
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], encoding: Any) -> None:
    event = replace(face_event(), **changes)
    for write in (to_binary, quick_binary):
        with pytest.raises(ValueError, match=r"."):
            write(event, encoding=encoding)


def test_huge_but_finite_numbers_are_written_as_ever() -> None:
    event = face_event(box_xyxy=(1e308, 1e308, -1e308, 0.0))
    assert quick_binary(event) == to_binary(event)
