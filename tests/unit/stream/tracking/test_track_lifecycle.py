"""Persons' tracks from faces and embeddings that are made up, so that who is who is known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.faces import Faces, Image
from engine.models.alignment import ARCFACE_TEMPLATE_XY
from engine.models.package import Likeness
from stream.events.event_types import EmbeddingModel, FaceEvent, TrackChange
from stream.tracking.track_lifecycle import CameraTracks
from stream.tracking.track_state import TrackState
from stream.tracking.tracker import FaceTracker
from stream.video.frames import Frame
from stream.video.sampling_interval import Pace

START = datetime(2026, 1, 1, tzinfo=UTC)
FPS = 10
SIDE = 110.0
PICTURE = np.zeros((360, 640, 3), np.uint8)
CROP = {name: np.full((4, 4, 3), ord(name), np.uint8) for name in "abc"}
PEOPLE = dict(zip("abc", np.eye(8, dtype=np.float32), strict=False))


class Stage:
    """One camera before which people stand; plays the part of detector and embedder."""

    def __init__(self, *, fps: float = FPS, **settings: object) -> None:
        defaults = {
            "embedder": EmbeddingModel("made-up"),
            "likeness": Likeness(),
            "rejoin_similarity": 0.4,
            "leave_after_s": 3.0,
            "refresh_s": 1.0,
            "update_every_s": 2.0,
            "min_quality": 0.2,
            "on_left": None,
        }
        tracker = FaceTracker(pace=Pace(least_s=1 / fps))
        self.tracks = CameraTracks("door", "run", tracker=tracker, **defaults | settings)
        self.fps = fps
        self.events: list[FaceEvent] = []
        self.embedded: list[tuple[str, float]] = []
        self.number = -1

    def show(
        self,
        people: Mapping[str, float],
        seconds: float,
        *,
        quality: float = 0.8,
        image: Image = PICTURE,
        looks_like: Mapping[str, str] | None = None,
        is_damaged: bool = False,
    ) -> list[FaceEvent]:
        """Let people, by name their horizontal place in pixels, be seen for some time; the new events."""
        known = len(self.events)
        for _ in range(round(seconds * self.fps)):
            self.number += 1
            time_s = self.number / self.fps
            frame = Frame("door", self.number, time_s, START + timedelta(seconds=time_s), image, is_damaged)
            look = self.tracks.look(frame, faces_at(people.values()))
            for row in look.brief.tolist():
                self.tracks.hold(look, row, quality, CROP[list(people)[row]])
            for row in look.candidates.tolist():
                name = list(people)[row]
                if self.tracks.wants(look, row, quality):
                    self.embedded.append((name, time_s))
                    person = (looks_like or {}).get(name, name)
                    self.tracks.learn(look, row, quality, PEOPLE[person])
            self.events += self.tracks.conclude(look)
        return self.events[known:]

    def look(self, people: Mapping[str, float], looks: int = 1, **how: object) -> list[FaceEvent]:
        """The same, for so many looks."""
        return self.show(people, looks / self.fps, **how)

    def close(self) -> list[FaceEvent]:
        """The camera ends; faces that it showed briefly are embedded now."""
        held = [(face, PEOPLE[chr(face.crop[0, 0, 0])]) for face in self.tracks.held()]
        return self.tracks.close(held)

    def wait(self, seconds: float) -> list[FaceEvent]:
        return self.show({}, seconds)


def faces_at(places: object) -> Faces:
    lefts = list(places)
    boxes = [(left, 100.0, left + SIDE, 100.0 + SIDE) for left in lefts]
    landmarks = [np.array(ARCFACE_TEMPLATE_XY) * (SIDE / 112) + np.array([left, 100.0]) for left in lefts]
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(lefts), 0.9, np.float32),
        np.array(landmarks, np.float32).reshape(-1, 5, 2),
    )


def told(events: list[FaceEvent]) -> list[tuple[str, str]]:
    return [(event.track_id, event.change.value) for event in events]


def test_damaged_pictures_follow_a_face_but_do_not_enter_its_template():
    stage = Stage()
    assert told(stage.show({"a": 100}, 0.5)) == [("run-1", "appeared")]
    embedded = len(stage.embedded)
    stage.show({"a": 120}, 4.0, quality=0.95, is_damaged=True)
    assert len(stage.embedded) == embedded
    assert stage.tracks.live[0].state is TrackState.IN_VIEW
    stage.show({"a": 140}, 0.5)
    assert len(stage.embedded) > embedded
    assert {event.track_id for event in stage.events} == {"run-1"}


def test_a_face_that_damaged_pictures_hide_is_waited_for():
    stage = Stage(leave_after_s=1.0)
    stage.show({"a": 100}, 0.5)
    assert ("run-1", "left") not in told(stage.show({}, 8.0, is_damaged=True))
    assert {event.track_id for event in stage.show({"a": 100}, 1.5)} == {"run-1"}
    assert told(stage.wait(2.0))[-1] == ("run-1", "left")
    assert stage.tracks.live == ()


def test_it_is_not_waited_for_for_ever():
    stage = Stage(leave_after_s=1.0)
    stage.show({"a": 100}, 0.5)
    assert told(stage.show({}, 12.0, is_damaged=True))[-1] == ("run-1", "left")


def test_who_is_only_seen_in_damaged_pictures_is_believed_late_and_little():
    stage = Stage()
    assert told(stage.show({"a": 100}, 2.5, quality=0.9, is_damaged=True)) == []
    (event,) = stage.show({"a": 100}, 1.0, quality=0.9, is_damaged=True)
    assert event.quality == pytest.approx(0.1)
    stage.show({"a": 100}, 2.0, quality=0.9)
    assert stage.events[-1].quality == pytest.approx(0.9)
    assert {event.track_id for event in stage.events} == {"run-1"}


def test_a_damaged_picture_is_no_cut():
    stage = Stage()
    stage.show({"a": 100}, 0.5)
    smeared = np.random.default_rng(0).integers(0, 255, PICTURE.shape, np.uint8)
    for image in (smeared, PICTURE, smeared):
        stage.show({"a": 100}, 0.1, image=image, is_damaged=True)
    stage.show({"a": 100}, 0.1)
    assert stage.tracks.live[0].state is TrackState.IN_VIEW


def test_a_person_appears_is_updated_and_leaves():
    stage = Stage()
    assert told(stage.show({"a": 100}, 3)) == [("run-1", "appeared"), ("run-1", "updated")]
    assert told(stage.wait(2.9)) == []
    assert told(stage.wait(0.3)) == [("run-1", "left")]
    left = stage.events[-1]
    assert [event.sequence for event in stage.events] == [0, 1, 2]
    assert (left.last_seen - left.first_seen).total_seconds() == pytest.approx(2.9)
    assert left.faces_seen == 30
    np.testing.assert_allclose(left.embedding, PEOPLE["a"])


def test_a_face_costs_an_embedding_when_it_is_new_or_due_and_not_in_every_look():
    stage = Stage()
    stage.show({"a": 100}, 5)
    assert 5 <= len(stage.embedded) <= 7, stage.embedded
    assert stage.embedded[0][1] <= 0.3


def test_a_clearly_better_face_does_not_wait_until_it_is_due():
    stage = Stage(refresh_s=100.0)
    stage.show({"a": 100}, 1, quality=0.3)
    assert len(stage.embedded) == 1
    stage.show({"a": 100}, 1, quality=0.31)
    assert len(stage.embedded) == 1
    stage.show({"a": 100}, 1, quality=0.9)
    assert len(stage.embedded) == 2
    stage.tracks.close()


def test_the_template_is_the_mean_weighted_with_quality():
    vectors = np.array([[1, 0, 0, 0, 0, 0, 0, 0], [0.8, 0.6, 0, 0, 0, 0, 0, 0]], np.float32)
    stage = Stage(refresh_s=100.0)
    PEOPLE["turned"] = vectors[1]
    stage.show({"a": 100}, 1, quality=0.3)
    stage.show({"a": 100}, 0.1, quality=0.9, looks_like={"a": "turned"})
    (left,) = stage.tracks.close()
    expected = 0.3 * vectors[0] + 0.9 * vectors[1]
    np.testing.assert_allclose(left.embedding, expected / np.linalg.norm(expected), atol=1e-6)
    assert left.quality == pytest.approx(0.9)
    del PEOPLE["turned"]


def test_a_poor_face_waits_a_moment_for_a_better_one():
    stage = Stage()
    assert told(stage.show({"a": 100}, 0.4, quality=0.05)) == []
    assert told(stage.show({"a": 100}, 0.4, quality=0.05)) == [("run-1", "appeared")]


def test_whoever_comes_back_elsewhere_is_the_same_track():
    stage = Stage()
    stage.show({"a": 100}, 2)
    stage.wait(2)
    assert "appeared" not in [change for _, change in told(stage.show({"a": 450}, 2))]
    assert [track.track_id for track in stage.tracks.live] == ["run-1"]
    (left,) = stage.tracks.close()
    assert (left.last_seen - left.first_seen).total_seconds() == pytest.approx(5.9)


def test_somebody_else_in_the_same_place_is_another_track():
    stage = Stage()
    stage.show({"a": 100}, 2)
    stage.wait(1.5)
    assert ("run-2", "appeared") in told(stage.show({"b": 100}, 2))


def test_whoever_comes_back_after_leaving_is_a_new_track_with_a_new_id():
    stage = Stage()
    stage.show({"a": 100}, 2)
    stage.wait(3.5)
    stage.show({"a": 100}, 1)
    assert [event.track_id for event in stage.events if event.change is TrackChange.APPEARED] == [
        "run-1",
        "run-2",
    ]


def test_a_look_alike_beside_a_person_is_not_that_person():
    stage = Stage()
    stage.show({"a": 50}, 2)
    stage.show({"a": 50, "b": 400}, 2, looks_like={"b": "a"})
    assert len(stage.tracks.live) == 2


def test_a_person_who_steps_into_anothers_place_is_split_off():
    """No gap: the box stays, the face changes."""
    stage = Stage(refresh_s=0.3)
    stage.show({"a": 100}, 3)
    events = stage.show({"b": 100}, 3)
    assert ("run-2", "appeared") in told(events)
    final = {event.track_id: event for event in stage.tracks.close()}
    left_earlier = {event.track_id: event for event in events if event.change is TrackChange.LEFT}
    final = left_earlier | final
    np.testing.assert_allclose(final["run-1"].embedding, PEOPLE["a"], atol=1e-6)
    np.testing.assert_allclose(final["run-2"].embedding, PEOPLE["b"], atol=1e-6)


def test_one_odd_view_does_not_split_a_track():
    stage = Stage(refresh_s=0.0)
    stage.show({"a": 100}, 3)
    stage.show({"a": 100}, 0.1, looks_like={"a": "c"})
    assert len(stage.embedded) >= 28, "each look is embedded, the odd one too"
    stage.show({"a": 100}, 3)
    (left,) = stage.tracks.close()
    np.testing.assert_allclose(left.embedding, PEOPLE["a"], atol=1e-6)
    assert left.faces_seen == 61


def test_after_a_cut_places_mean_nothing_and_faces_do():
    rng = np.random.default_rng(5)
    here, there = (rng.integers(0, 255, (360, 640, 3), np.uint8) for _ in range(2))
    here[:, :320] //= 4
    there[:180] //= 4
    stage = Stage(refresh_s=100.0)  # faces are not looked at again by themselves
    stage.show({"a": 100}, 2, image=here)
    stage.show({"b": 100}, 1, image=there)
    stage.show({"a": 300}, 1, image=here)
    assert [event.track_id for event in stage.events if event.change is TrackChange.APPEARED] == [
        "run-1",
        "run-2",
    ]
    assert {track.track_id: track.state for track in stage.tracks.live} == {
        "run-1": TrackState.IN_VIEW,
        "run-2": TrackState.LOST,
    }


def test_time_passes_without_frames():
    stage = Stage()
    stage.show({"a": 100}, 1)
    time_s = stage.number / FPS
    at = START + timedelta(seconds=time_s)
    assert stage.tracks.advance(time_s + 2.9, at) == []
    assert [event.change for event in stage.tracks.advance(time_s + 3.1, at)] == [TrackChange.LEFT]
    assert stage.tracks.live == ()
    with pytest.raises(ValueError, match="expected a time from"):
        stage.tracks.advance(time_s - 0.1, at)


def test_frames_out_of_order_are_the_callers_mistake():
    stage = Stage()
    stage.show({"a": 100}, 1)
    stage.number -= 1
    with pytest.raises(ValueError, match="expected a frame after number 9"):
        stage.show({"a": 100}, 0.1)


def test_the_best_shot_comes_with_the_end():
    shots = []
    stage = Stage(on_left=lambda event, shot: shots.append((event.track_id, shot.shape)))
    stage.show({"a": 100}, 1)
    stage.tracks.close()
    assert shots == [("run-1", (160, 160, 3))]
    assert stage.tracks.close() == []


def test_the_same_scene_gives_the_same_events():
    def play() -> list[FaceEvent]:
        stage = Stage()
        stage.show({"a": 100}, 2)
        stage.show({"a": 140, "b": 400}, 2)
        stage.wait(2)
        stage.show({"b": 90}, 2)
        return stage.events + stage.tracks.close()

    first, second = play(), play()
    assert [event.event_id for event in first] == [event.event_id for event in second]
    assert len({event.event_id for event in first}) == len(first)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
        assert one.box_xyxy == other.box_xyxy


SLOW_FPS = (1.5, 1.0, 0.8, 0.5, 0.2, 0.1)


@pytest.mark.parametrize("fps", [5.0, 2.0, *SLOW_FPS])
def test_whoever_stays_is_one_track_at_any_pace(fps: float):
    stage = Stage(fps=fps)
    stage.look({"a": 100, "b": 400}, 4)
    stage.look({"b": 400})  # one look does not find somebody
    stage.look({"a": 100, "b": 400}, 3)
    changes = told(stage.events)
    assert [each for each in changes if each[1] != "updated"] == [
        ("run-1", "appeared"),
        ("run-2", "appeared"),
    ]


@pytest.mark.parametrize("fps", [0.8, 0.5, 0.2, 0.1])
def test_at_a_slow_pace_each_who_passes_is_seen_in_one_place_or_in_many(fps: float):
    stage = Stage(fps=fps)
    for number, name in enumerate("abaca"):
        stage.look({name: 100 + 10 * number})
    appeared = [event for event in stage.events if event.change is TrackChange.APPEARED]
    assert len(appeared) == 3, "who comes back soon is known"
    for event, name in zip(appeared, "abc", strict=True):
        np.testing.assert_allclose(event.embedding, PEOPLE[name])


@pytest.mark.parametrize("fps", SLOW_FPS)
def test_at_a_slow_pace_who_walks_about_is_one_track(fps: float):
    stage = Stage(fps=fps)
    for place in (0, 300, 120, 450, 0):
        stage.look({"a": place})
    assert {event.track_id for event in stage.events} == {"run-1"}


@pytest.mark.parametrize("fps", [10.0, 2.0, 0.8, 0.1])
def test_whoever_is_gone_for_three_looks_and_the_limit_has_left(fps: float):
    stage = Stage(fps=fps)
    stage.look({"a": 100}, 5)
    stage.wait(3.2 + 3 / fps)
    assert stage.events[-1].change is TrackChange.LEFT


@pytest.mark.parametrize("fps", [10.0, 0.5])
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_camera_that_ends_at_once_tells_who_was_there(fps: float, looks: int):
    stage = Stage(fps=fps)
    stage.look({"a": 100, "b": 400}, looks)
    stage.events += stage.close()
    changes = [each for each in told(stage.events) if each[1] != "updated"]
    assert sorted(changes) == [(f"run-{n}", what) for n in (1, 2) for what in ("appeared", "left")]
    assert {event.faces_seen for event in stage.events if event.change is TrackChange.LEFT} == {looks}


def test_single_pictures_of_people_are_a_track_each():
    stage = Stage()
    for name, place in (("a", 100), ("b", 350), ("a", 20), ("c", 200), ("b", 100)):
        stage.look({name: place})
    assert stage.events == []
    events = stage.close()
    left = [event for event in events if event.change is TrackChange.LEFT]
    assert sorted(event.faces_seen for event in left) == [1, 2, 2]


def test_a_poor_face_of_a_camera_that_ends_at_once_is_told_of():
    stage = Stage()
    stage.look({"a": 100}, 4, quality=0.05)
    assert stage.events == []
    assert told(stage.close()) == [("run-1", "appeared"), ("run-1", "left")]


def test_a_face_that_came_once_is_nobody_where_there_was_more_to_see():
    stage = Stage()
    stage.look({"a": 100})
    stage.wait(3)
    stage.look({"b": 100})
    assert stage.tracks.held() == []
    assert stage.close() == []
