from __future__ import annotations

import pytest
from event_checks import camera_event, face_event, identity_event
from hypothesis import given
from hypothesis import strategies as st

from stream.events.dedup import RepeatFilter
from stream.events.event_types import Event


def new(seen: RepeatFilter, *events: Event) -> list[bool]:
    return [seen.is_new(event) for event in events]


def test_an_event_is_new_once() -> None:
    events = [face_event(), camera_event(), identity_event()]
    seen = RepeatFilter()
    assert new(seen, *events) == [True, True, True]
    assert new(seen, *events) == [False, False, False]


def test_tracks_cameras_and_galleries_do_not_disturb_each_other() -> None:
    seen = RepeatFilter()
    assert all(
        new(
            seen,
            face_event(track_id="a", sequence=5),
            face_event(track_id="b", sequence=0),
            camera_event(run_id="a", sequence=0),
            camera_event(run_id="b", sequence=0),
            identity_event(track_id="a", gallery_id="g", sequence=5),
            identity_event(track_id="a", gallery_id="h", sequence=0),
        )
    )


def test_the_same_evidence_against_a_changed_gallery_is_a_new_answer() -> None:
    seen = RepeatFilter()
    first, second = (identity_event(sequence=3, gallery_version=version) for version in (7, 8))
    assert new(seen, first, second, first, second) == [True, True, False, False]


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    seen = RepeatFilter(most_streams=2)
    a, b, c = (face_event(track_id=name) for name in "abc")
    assert new(seen, a, b, c) == [True, True, True]
    assert new(seen, c, b) == [False, False]
    assert new(seen, a) == [True], "it was forgotten"
    assert new(seen, face_event(track_id="c", sequence=1), b, c) == [True, True, False], "c was heard of"
    with pytest.raises(ValueError, match="most_streams"):
        RepeatFilter(most_streams=0)


@given(
    tracks=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    again=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=4),
)
def test_whatever_is_sent_again_from_somewhere_on_each_event_passes_once(
    tracks: list[int], again: list[tuple[int, int]]
) -> None:
    sent, counts = list[Event](), dict[int, int]()
    for track in tracks:
        sent.append(face_event(track_id=f"t-{track}", sequence=counts.get(track, 0)))
        counts[track] = counts.get(track, 0) + 1
    arrived, done = list[Event](), 0
    for last, back in sorted(again):  # the sender ends there, and begins again some events before
        until = min(last + 1, len(sent))
        arrived += sent[done:until]
        done = max(done, until)
        arrived += sent[max(0, done - back) : done]
    arrived += sent[done:]
    seen = RepeatFilter()
    assert [event.event_id for event in arrived if seen.is_new(event)] == [event.event_id for event in sent]
