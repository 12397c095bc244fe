from __future__ import annotations

import pytest
from event_checks import camera_event, face_event, identity_event
from hypothesis import given
from hypothesis import strategies as st

from stream.events.event_types import Event
from stream.sinks.completeness import MOST_FINDINGS, LogCheck
from stream.sinks.event_log import Entry


def entry(event: Event | None, *, partition: int = 0, problem: str = "") -> Entry:
    return Entry(event, problem, "line 1", partition, None)


def checked(events: list[Event], *, whole: bool = True) -> LogCheck:
    check = LogCheck(whole=whole)
    for event in events:
        check.add(entry(event))
    return check


def track(*numbers: int, track_id: str = "run-1") -> list[Event]:
    return [face_event(sequence=number, track_id=track_id) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "gaps", "late", "repeats"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([0, 1, 1, 2, 0, 3], 0, 0, 2),
        ([0, 2, 3], 1, 0, 0),
        ([0, 2, 1, 3], 0, 1, 0),
        ([2, 3], 2, 0, 0),
        ([0, 5, 5, 3], 3, 1, 1),
        ([1, 0, 0], 0, 1, 1),
    ],
)
def test_gaps_disorder_and_repeats_of_a_track(numbers: list[int], gaps: int, late: int, repeats: int):
    check = checked(track(*numbers))
    assert (check.gaps, check.late, check.repeats) == (gaps, late, repeats)
    assert check.is_whole == (not gaps and not late)


@given(st.lists(st.integers(0, 12), max_size=30))
def test_the_counts_agree_with_a_slow_count(numbers: list[int]):
    check = checked(track(*numbers))
    distinct = set(numbers)
    assert check.gaps == (max(numbers) + 1 - len(distinct) if numbers else 0)
    assert check.repeats == len(numbers) - len(distinct)
    firsts = list(dict.fromkeys(numbers))
    assert check.late == sum(number < max(firsts[: at + 1]) for at, number in enumerate(firsts))


def test_tracks_and_runs_are_counted_each_for_itself():
    cameras = [camera_event(sequence=0), camera_event(sequence=2), camera_event(sequence=0, run_id="other")]
    check = checked([*track(0, 1), *track(0, 1, track_id="run-2"), *cameras])
    assert check.events == {"track": 4, "camera": 3, "identity": 0}
    assert check.gaps == 1
    assert list(check.findings()) == ["camera door, run door-7f3a: missing 1"]


def test_in_a_part_of_a_log_tracks_may_have_begun_before():
    check = checked(track(7, 8, 6), whole=False)
    assert (check.gaps, check.begun_before, check.late) == (0, 1, 1)
    assert checked(track(7, 9), whole=False).gaps == 1


def test_an_answer_that_came_before_is_a_repeat_and_no_gap():
    check = checked([identity_event(sequence=4), identity_event(sequence=9), identity_event(sequence=4)])
    assert (check.gaps, check.repeats) == (0, 1)
    assert check.is_whole


def test_a_camera_in_two_partitions_has_no_order():
    check = LogCheck()
    for partition, event in enumerate(track(0, 1)):
        check.add(entry(event, partition=partition))
    assert not check.is_whole
    assert list(check.findings()) == [
        "camera door: its events are in several partitions, where they have no order"
    ]


def test_what_cannot_be_read_is_counted_and_what_was_erased_is_no_fault():
    check = LogCheck()
    check.add(entry(None))
    assert check.erased == 1
    assert check.is_whole
    for _ in range(2 * MOST_FINDINGS):
        check.add(entry(None, problem="not an event"))
    assert check.unreadable == 2 * MOST_FINDINGS
    assert list(check.findings()) == ["line 1: not an event"] * MOST_FINDINGS


def test_a_number_out_of_all_proportion_does_not_fill_the_memory():
    assert checked(track(0, 2**62)).gaps == 100_000
