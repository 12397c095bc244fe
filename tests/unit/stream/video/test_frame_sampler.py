import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.video.frame_sampler import FrameGate, LiveClock

MS = 1_000_000


def admitted(gate: FrameGate, times_ms: list[float]) -> list[int]:
    return [i for i, time_ms in enumerate(times_ms) if gate.admit(round(time_ms * MS), None)]


def test_every_frame_passes_without_a_limit():
    assert admitted(FrameGate(None), [0, 33, 67, 100]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fps", "limit", "expected"), [(30, 15, 150), (25, 15, 150), (60, 15, 150), (10, 15, 100)]
)
def test_ten_seconds_pass_at_the_asked_rate(fps, limit, expected):
    passed = admitted(FrameGate(limit), [i * 1000 / fps for i in range(10 * fps)])
    assert len(passed) == pytest.approx(expected, abs=1)


def test_half_the_rate_is_every_second_frame_also_with_rounded_timestamps():
    assert admitted(FrameGate(15), [0, 33, 67, 100, 133, 167, 200]) == [0, 2, 4, 6]


def test_nothing_is_caught_up_after_a_gap():
    passed = admitted(FrameGate(10), [0, 100, 200, 5000, 5033, 5067, 5100])
    assert passed == [0, 1, 2, 3, 6]


@given(st.lists(st.floats(0.1, 500), min_size=1, max_size=200), st.floats(1, 60))
def test_never_more_than_the_asked_rate(gaps_ms, limit):
    times_ms = [sum(gaps_ms[:i]) for i in range(len(gaps_ms) + 1)]
    gate = FrameGate(limit)
    passed = admitted(gate, times_ms)
    assert len(passed) <= times_ms[-1] / 1000 * limit + 2.1
    stats = gate.stats()
    assert stats.decoded == len(times_ms)
    assert stats.skipped == len(times_ms) - len(passed)


@given(st.lists(st.one_of(st.none(), st.integers(0, 10_000 * MS)), min_size=2, max_size=50))
def test_times_rise_whatever_the_timestamps_do(timestamps):
    gate = FrameGate(None)
    for pts_ns in timestamps:
        gate.admit(pts_ns, 40 * MS)
    times = [ticket.media_s for ticket in gate._tickets]
    assert times[0] == 0.0
    assert all(a < b for a, b in pairwise(times))


def test_timestamps_that_stand_still_are_replaced_by_durations():
    gate = FrameGate(None)
    for _ in range(3):
        gate.admit(0, 80 * MS)
    assert [gate.take(0).media_s for _ in range(3)] == pytest.approx([0, 0.08, 0.16])
    assert gate.end_s == pytest.approx(0.24)


def test_numbers_count_the_frames_that_do_not_pass():
    gate = FrameGate(10)
    admitted(gate, [0, 50, 100, 150])
    assert [gate.take(0).number, gate.take(100 * MS).number] == [0, 2]


def test_overwritten_frames_are_dropped_frames():
    gate = FrameGate(None)
    admitted(gate, [0, 40, 80])
    ticket = gate.take(80 * MS)
    assert (ticket.number, ticket.media_s) == (2, 0.08)
    assert gate.stats().dropped == 2
    assert gate.in_flight == 0


def test_damaged_frames_pass_and_count_as_dropped():
    gate = FrameGate(10)
    for time_ms, is_damaged in ((0, False), (50, True), (100, True), (200, False)):
        gate.admit(time_ms * MS, None, is_damaged)
    assert [gate.take(time_ms * MS).is_damaged for time_ms in (0, 100, 200)] == [False, True, False]
    stats = gate.stats()
    assert (stats.dropped, stats.damaged, stats.skipped) == (1, 1, 1)


def test_a_damaged_timestamp_moves_time_by_a_frame():
    gate = FrameGate(None)
    for time_ms, is_damaged in ((0, False), (40, True), (95_000_000, True), (120, True), (30_000, False)):
        gate.admit(time_ms * MS, 40 * MS, is_damaged)
    times = [ticket.media_s for ticket in gate._tickets]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 30])


def test_the_gate_forgets_rather_than_grows():
    gate = FrameGate(None, capacity=4)
    admitted(gate, [40 * i for i in range(100)])
    assert gate.in_flight == 4
    assert gate.take(99 * 40 * MS).number == 99
    assert gate.stats().dropped == 99


def test_a_new_pipeline_begins_at_zero_with_the_next_number():
    gate = FrameGate(10)
    admitted(gate, [5000, 5100])
    gate.take(5000 * MS)
    gate.restart()
    assert gate.admit(7 * MS, None)
    ticket = gate.take(7 * MS)
    assert (ticket.number, ticket.media_s) == (2, 0.0)
    assert gate.stats().dropped == 1


def test_a_frame_from_nowhere_is_an_error():
    with pytest.raises(LookupError):
        FrameGate(None).take(0)


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_senseless_rate_is_refused(limit):
    with pytest.raises(ValueError, match="analysis_fps"):
        FrameGate(limit)


def test_every_frame_is_accounted_for_between_two_threads():
    gate = FrameGate(None, capacity=8)
    decoder = threading.Thread(target=lambda: [gate.admit(i, None) for i in range(2000)])
    decoder.start()
    taken = []
    while decoder.is_alive() or gate.in_flight:
        if gate.in_flight:
            taken.append(gate.take(None).number)
    decoder.join()
    assert taken == sorted(set(taken))
    assert len(taken) + gate.stats().dropped == 2000


def test_live_time_follows_the_camera_within_a_connection():
    clock = LiveClock()
    assert clock.time_s(media_s=0.0, elapsed_s=1.5) == 1.5
    assert clock.time_s(media_s=0.04, elapsed_s=1.9) == pytest.approx(1.54)


def test_live_time_goes_on_after_a_reconnection():
    clock = LiveClock()
    clock.time_s(media_s=0.0, elapsed_s=1.0)
    clock.time_s(media_s=5.0, elapsed_s=6.0)
    clock.restart()
    assert clock.time_s(media_s=0.0, elapsed_s=9.0) == 9.0


def test_live_time_does_not_believe_a_camera_that_jumps():
    clock = LiveClock(tolerance_s=2.0)
    clock.time_s(media_s=0.0, elapsed_s=0.0)
    assert clock.time_s(media_s=95443.7, elapsed_s=0.04) == pytest.approx(0.04)
    assert clock.time_s(media_s=95443.74, elapsed_s=0.2) == pytest.approx(0.08)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.booleans()), min_size=2))
def test_live_time_never_goes_back(arrivals):
    clock = LiveClock()
    previous = -1.0
    for media_s, elapsed_s, reconnected in arrivals:
        if reconnected:
            clock.restart()
        time_s = clock.time_s(media_s=media_s, elapsed_s=elapsed_s)
        assert time_s > previous
        previous = time_s
