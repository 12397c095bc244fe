from __future__ import annotations

from collections.abc import Sequence

from event_checks import face_event, identity_event

from stream.events.event_types import Event, TrackChange
from stream.gallery.identification.attendance import Attendance
from stream.sinks.event_sink import FanOut


def left(track_id: str) -> Event:
    return face_event(track_id=track_id, change=TrackChange.LEFT)


def told_of(*batches: Sequence[Event]) -> str:
    attendance = Attendance(FanOut([]))
    for batch in batches:
        attendance.emit(batch)
    return attendance.told()


def test_tracks_are_counted_by_whom_they_were_taken_for() -> None:
    ann, bob = {"person_id": "p1", "person_name": "Ann"}, {"person_id": "p2", "person_name": "Bob"}
    nobody = {"person_id": None, "person_name": None}
    told = told_of(
        [identity_event(track_id="1", **ann), identity_event(track_id="2", **nobody)],
        [left("1"), left("2"), identity_event(track_id="2", **ann)],
        [left("3"), left("4"), identity_event(track_id="3", **bob), identity_event(track_id="4", **nobody)],
        [identity_event(track_id="5", **bob)],  # still there
    )
    assert told == "recognised: Ann (2 tracks), Bob (1 track); nobody who is enrolled: 1 track"


def test_a_track_that_nobody_answered_for_is_not_counted() -> None:
    assert told_of([left("1")]) == "recognised: nobody; nobody who is enrolled: 0 tracks"


def test_a_crowd_does_not_fill_the_terminal() -> None:
    people = [str(number) for number in range(30)]
    told = told_of(*([identity_event(track_id=p, person_id=p, person_name=p), left(p)] for p in people))
    assert "and 10 more people;" in told
