from __future__ import annotations

from people import vector
from seen import four_tracks_of_two, track

from stream.clusters.incremental import Joined, LiveClusters, Merged
from stream.events.event_types import EmbeddingModel, TrackChange

MODEL = EmbeddingModel("sface-2021dec")


def clusters(**changes: float) -> LiveClusters:
    return LiveClusters(MODEL, **{"cut": 0.5, "caution": 0.0} | changes)


def told(live: LiveClusters, *events: object) -> list[tuple[int, bool]]:
    found = [each for event in events for each in live.add(event)]  # type: ignore[arg-type]
    return [(each.person, each.is_new) for each in found if isinstance(each, Joined)]


def test_tracks_join_their_people_as_they_leave() -> None:
    live = clusters()
    assert told(live, *four_tracks_of_two()) == [(1, True), (2, True), (1, False), (2, False)]
    assert (live.people, live.tracks, live.passed_over) == (2, 4, 0)


def test_a_repeat_and_a_track_that_stays_tell_nothing() -> None:
    live = clusters()
    assert told(live, track(0, 0), track(0, 0)) == [(1, True)]
    assert told(live, track(1, 1, change=TrackChange.UPDATED, sequence=1)) == []
    assert told(live, track(1, 1)) == [(2, True)]


def test_tracks_of_another_embedder_are_counted_and_not_compared() -> None:
    live = clusters()
    assert told(live, track(0, 0), track(1, 0, embedding_model="dlib-resnet-v1")) == [(1, True)]
    assert (live.tracks, live.passed_over) == (1, 1)


def test_a_model_of_the_same_name_is_another_one() -> None:
    live = clusters()
    assert told(live, track(0, 0), track(1, 0, embedding_model_id="1" * 16)) == [(1, True), (1, False)]
    assert told(live, track(2, 0, embedding_model_id="2" * 16), track(3, 0)) == [(1, False)]
    assert (live.tracks, live.passed_over) == (3, 1)


def test_two_people_turn_out_to_be_one_when_the_stream_settles() -> None:
    live = clusters(cut=0.6, caution=0.15)
    first, second = track(0, 0), track(1, 0, embedding=vector(7, near=track(0, 0).embedding, cosine=0.75))
    assert told(live, first, second) == [(1, True), (2, True)]
    (merged,) = live.settle()
    assert isinstance(merged, Merged)
    assert (merged.gone, merged.kept) == (2, 1)
    assert live.people == 1
