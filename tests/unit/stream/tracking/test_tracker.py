from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.faces import Faces
from stream.tracking.tracker import NOBODY, FaceTracker
from stream.video.sampling_interval import Pace


def look(*boxes_xyxy, scores=None):
    count = len(boxes_xyxy)
    return Faces(
        np.array(boxes_xyxy, np.float32).reshape(count, 4),
        np.full(count, 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        np.zeros((count, 5, 2), np.float32),
    )


def square(x, y=100.0, side=50.0):
    return (x, y, x + side, y + side)


def test_a_still_face_keeps_its_id_and_is_confirmed_after_three_looks():
    tracker = FaceTracker(confirm_after=3)
    ids, confirmed = [], []
    for step in range(5):
        ids += tracker.update(look(square(100)), step / 15).tolist()
        confirmed.append(tracker.is_confirmed(ids[-1]))
    assert ids == [0] * 5
    assert confirmed == [False, False, True, True, True]


@pytest.mark.parametrize("fps", [5, 8, 15, 30])
def test_crossing_paths_keep_their_ids(fps):
    tracker = FaceTracker()
    owners = []
    for step in range(4 * fps):
        time_s = step / fps
        owners.append(
            tracker.update(look(square(100 * time_s, 100), square(300 - 100 * time_s, 140)), time_s)
        )
    assert {tuple(row.tolist()) for row in owners} == {(0, 1)}


@pytest.mark.parametrize("fps", [5, 15])
def test_a_fast_face_is_followed_from_its_first_step(fps):
    tracker = FaceTracker()
    speed = 3.0 * 50
    ids = {int(tracker.update(look(square(speed * step / fps)), step / fps)[0]) for step in range(fps)}
    assert ids == {0}


def test_irregular_and_dropped_looks_do_no_harm():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.35, 60))
    tracker = FaceTracker()
    assert {int(tracker.update(look(square(60 * t), square(60 * t, 300)), t)[0]) for t in times} == {0}


def test_a_gap_shorter_than_the_limit_is_bridged_where_the_face_is_expected():
    tracker = FaceTracker(lost_after_s=1.0)
    for step in range(15):
        tracker.update(look(square(100 * step / 15)), step / 15)
    for step in range(15, 27):
        tracker.update(look(), step / 15)
    assert tracker.update(look(square(180)), 27 / 15).tolist() == [0]


@pytest.mark.parametrize("looks_between", [0, 5])
def test_a_gap_longer_than_the_limit_ends_the_tracklet(looks_between):
    tracker = FaceTracker(lost_after_s=1.0)
    for step in range(5):
        tracker.update(look(square(100)), step * 0.1)
    for time_s in np.linspace(0.5, 1.5, looks_between):
        tracker.update(look(), time_s)
    assert tracker.update(look(square(100)), 1.6).tolist() == [1]


def test_low_scores_hold_a_tracklet_but_never_begin_one():
    tracker = FaceTracker(high_score=0.6, low_score=0.3)
    assert tracker.update(look(square(100), scores=[0.5]), 0.0).tolist() == [NOBODY]
    for step in range(1, 4):
        tracker.update(look(square(100)), step / 15)
    for step in range(4, 40):
        assert tracker.update(look(square(100), scores=[0.4]), step / 15).tolist() == [0]
    assert tracker.update(look(square(100), scores=[0.2]), 40 / 15).tolist() == [NOBODY]


def test_high_scores_choose_first():
    tracker = FaceTracker()
    for step in range(4):
        tracker.update(look(square(100)), step / 15)
    owners = tracker.update(look(square(101), square(106), scores=[0.4, 0.9]), 4 / 15)
    assert owners.tolist() == [NOBODY, 0]


def test_an_unconfirmed_tracklet_ends_with_its_first_miss():
    tracker = FaceTracker()
    tracker.update(look(square(100)), 0.0)
    tracker.update(look(), 0.1)
    assert tracker.update(look(square(100)), 0.2).tolist() == [1]


def test_a_newcomer_takes_no_face_from_a_confirmed_tracklet():
    tracker = FaceTracker()
    for step in range(4):
        tracker.update(look(square(100)), step / 15)
    owners = tracker.update(look(square(110), square(160)), 4 / 15)
    assert owners.tolist() == [0, 1]
    assert tracker.update(look(square(120)), 5 / 15).tolist() == [0]


def test_of_two_tracklets_on_one_face_the_better_known_stays():
    tracker = FaceTracker(duplicate_iou=0.7)
    for step in range(4):
        tracker.update(look(square(100)), step / 15)
    assert tracker.update(look(square(100), square(103)), 4 / 15).tolist() == [0, NOBODY]
    assert tracker.ids.tolist() == [0]


def test_an_unfound_tracklet_gives_way_to_the_one_in_its_place():
    tracker = FaceTracker(duplicate_iou=0.7, lost_after_s=5.0)
    for step in range(10):
        tracker.update(look(square(100), square(300)), step / 10)
    for step in range(10, 20):
        tracker.update(look(square(max(100, 300 - 30 * (step - 9)))), step / 10)
    assert tracker.ids.tolist() == [1]


def test_reset_forgets_the_faces_but_neither_ids_nor_time():
    tracker = FaceTracker()
    tracker.update(look(square(100)), 5.0)
    tracker.reset()
    with pytest.raises(ValueError, match="time_s"):
        tracker.update(look(square(100)), 4.9)
    assert tracker.update(look(square(100)), 5.1).tolist() == [1]


def test_rename_goes_on_under_a_new_id():
    tracker = FaceTracker()
    for step in range(3):
        tracker.update(look(square(100), square(300)), step / 15)
    assert tracker.rename(0) == 2
    assert tracker.update(look(square(100), square(300)), 3 / 15).tolist() == [2, 1]
    assert tracker.is_confirmed(2)
    assert not tracker.is_confirmed(0)
    with pytest.raises(ValueError, match="tracklet_id"):
        tracker.rename(0)


def test_forget_frees_the_face_for_a_new_tracklet():
    tracker = FaceTracker()
    for step in range(3):
        tracker.update(look(square(100)), step / 15)
    tracker.forget(0)
    assert tracker.update(look(square(100)), 3 / 15).tolist() == [1]


@pytest.mark.parametrize("time_s", [0.9, float("nan"), float("inf")])
def test_time_does_not_run_backwards(time_s):
    tracker = FaceTracker()
    tracker.update(look(), 1.0)
    with pytest.raises(ValueError, match="time_s"):
        tracker.update(look(), time_s)


@pytest.mark.parametrize(
    "setting",
    [
        {"low_score": 0.7, "high_score": 0.6},
        {"min_overlap": 0.0},
        {"margin": -0.1},
        {"duplicate_iou": 1.5},
        {"confirm_after": 0},
        {"lost_after_s": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match="expected"):
        FaceTracker(**setting)


faces_of_a_look = st.lists(
    st.tuples(st.floats(0, 300), st.floats(0, 100), st.floats(10, 120), st.floats(0, 1)), max_size=5
)
actions = st.sampled_from(["look", "look", "look", "look", "reset", "rename", "forget"])


@given(st.lists(st.tuples(actions, st.floats(0, 0.8), faces_of_a_look), max_size=25))
def test_ids_are_given_once_and_a_look_gives_each_to_one_face(steps):
    tracker = FaceTracker(confirm_after=2)
    time_s, newest, ended = 0.0, -1, set()
    for action, dt_s, found in steps:
        time_s += dt_s
        if action == "reset":
            tracker.reset()
        elif action == "rename" and len(tracker.ids):
            assert tracker.rename(int(tracker.ids[0])) > newest
        elif action == "forget" and len(tracker.ids):
            tracker.forget(int(tracker.ids[-1]))
        before = set(tracker.ids.tolist())
        newest = max([newest, *before])
        faces = look(*(square(x, y, side) for x, y, side, _ in found), scores=[s for *_, s in found])
        owners = tracker.update(faces, time_s)
        given_out = owners[owners != NOBODY].tolist()
        assert len(set(given_out)) == len(given_out)
        assert set(given_out) <= set(tracker.ids.tolist())
        assert not set(given_out) & ended
        assert all(owner in before or owner > newest for owner in given_out)
        assert all(score >= 0.3 for *_, score in np.array(found, float).reshape(-1, 4)[owners != NOBODY])
        ended |= before - set(tracker.ids.tolist())


@given(st.floats(2.0, 50.0), st.lists(st.floats(0.6, 1.0), min_size=1, max_size=8))
def test_at_a_usual_pace_a_face_is_confirmed_by_three_looks_however_sure(fps, scores):
    tracker = FaceTracker(pace=Pace(least_s=1 / fps))
    for step, score in enumerate([0.9, *scores]):
        tracker.update(look(square(100), scores=[score]), step / fps)
        assert tracker.is_confirmed(0) == (step >= 2)


@given(st.floats(0.01, 1.9), st.floats(0.3, 1.0))
def test_at_a_slow_pace_one_sure_look_is_enough(fps, score):
    tracker = FaceTracker(pace=Pace(least_s=1 / fps))
    assert tracker.is_slow
    tracker.update(look(square(100), scores=[score]), 0.0)
    assert tracker.is_confirmed(0) == (score >= 0.8)


@given(st.floats(0.02, 1.9), st.integers(1, 5))
def test_at_a_slow_pace_a_still_face_is_one_tracklet_that_a_missed_look_does_not_end(fps, missed_at):
    tracker = FaceTracker(pace=Pace(least_s=1 / fps))
    for step in range(8):
        tracker.update(look(*[square(100)] * (step != missed_at)), step / fps)
    assert tracker.ids.tolist() == [0]


def test_a_slow_camera_is_known_by_its_looks():
    tracker = FaceTracker()
    confirmed = []
    for step in range(3):
        (face,) = tracker.update(look(square(300 * step)), 5.0 * step).tolist()
        confirmed.append(tracker.is_confirmed(face))
    assert confirmed == [False, True, True]


@pytest.mark.parametrize("seen", ["110000111", "1000000000011", "1110000000000000001"])
def test_what_a_damaged_look_does_not_find_is_not_missed(seen):
    tracker = FaceTracker(lost_after_s=0.5)
    ids = set()
    for step, found in enumerate(seen):
        faces = look(square(100)) if found == "1" else look()
        ids |= set(tracker.update(faces, 0.1 + step / 15, may_miss=found == "0").tolist())
    assert ids == {0}
    assert tracker.is_confirmed(0)


def test_a_face_that_was_missed_before_the_damage_is_given_up_by_whole_looks():
    tracker = FaceTracker(lost_after_s=0.5)
    for step in range(3):
        tracker.update(look(square(100)), step / 10)
    for step in range(3, 30):
        tracker.update(look(), step / 10, may_miss=step >= 6)
    assert tracker.ids.tolist() == [0]
    for step in range(30, 34):
        tracker.update(look(), step / 10)
    assert tracker.ids.tolist() == []
