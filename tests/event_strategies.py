"""Events of all kinds for hypothesis to draw."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from hypothesis import strategies as st

from stream.events.event_types import (
    CameraChange,
    CameraEvent,
    FaceEvent,
    IdentityChange,
    IdentityEvent,
    TrackChange,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
pixels = st.floats(-20_000, 20_000, width=32)
fractions = st.floats(0, 1)
times = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone is drawn beside it
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))]),
)
boxes = st.tuples(pixels, pixels, pixels, pixels)
counts = st.integers(0, 2**40)


@st.composite
def unit_vectors(draw: st.DrawFn) -> np.ndarray:
    seed, dim = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([1, 2, 128, 512]))
    vector = np.random.default_rng(seed).standard_normal(dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


face_events = st.builds(
    FaceEvent,
    change=st.sampled_from(TrackChange),
    sequence=counts,
    camera_id=ids,
    run_id=ids,
    track_id=ids,
    at=times,
    frame_number=counts,
    media_time_s=st.floats(0, 1e9),
    captured_at=times,
    image_size_wh=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
    box_xyxy=boxes,
    landmarks_xy=st.lists(st.tuples(pixels, pixels), min_size=5, max_size=5).map(
        lambda points: np.array(points, np.float32)
    ),
    detection_score=fractions,
    quality=fractions,
    embedding=unit_vectors(),
    embedding_model=ids,
    faces_seen=st.integers(1, 2**40),
    embeddings_made=st.integers(1, 2**40),
    first_seen=times,
    last_seen=times,
    last_box_xyxy=boxes,
    embedding_model_id=st.none() | st.text("0123456789abcdef", min_size=16, max_size=16),
    embedding_mirrored=st.none() | st.booleans(),
)
camera_events = st.builds(
    CameraEvent,
    change=st.sampled_from(CameraChange),
    sequence=counts,
    camera_id=ids,
    run_id=ids,
    at=times,
    uri=text,
    reason=text,
    planned=st.none() | st.booleans(),
)

millionths = st.integers(-1_000_000, 1_000_000).map(lambda value: value / 1e6)


@st.composite
def identity_events(draw: st.DrawFn) -> IdentityEvent:
    person = draw(st.none() | st.tuples(ids, ids))
    return IdentityEvent(
        change=draw(st.sampled_from(IdentityChange)),
        sequence=draw(counts),
        camera_id=draw(ids),
        run_id=draw(ids),
        track_id=draw(ids),
        at=draw(times),
        person_id=person and person[0],
        person_name=person and person[1],
        similarity=draw(st.none() | millionths),
        margin=draw(st.none() | millionths.map(abs)),
        threshold=draw(millionths),
        false_accept_rate=draw(st.sampled_from([0.0, 1e-6, 0.01, 1.0])),
        gallery_id=draw(ids),
        gallery_version=draw(counts),
        gallery_people=draw(counts),
        embedding_model=draw(ids),
        previous_person_id=draw(st.none() | ids),
        reason=draw(text),
    )


any_events = st.one_of(face_events, camera_events, identity_events())
