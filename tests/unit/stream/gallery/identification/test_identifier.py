from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captured import capture_logs
from event_checks import camera_event, face_event, validate_event
from hypothesis import given, settings
from hypothesis import strategies as st
from people import MODEL, SEALER, gallery_of, template, vector

from engine.errors import GalleryError
from engine.search.index import TemplateIndex
from stream.events.cloudevents import from_cloudevent, to_cloudevent
from stream.events.event_types import Event, FaceEvent, IdentityChange, IdentityEvent, TrackChange
from stream.gallery.erasure import erase
from stream.gallery.identification import matcher as matcher_module
from stream.gallery.identification.identifier import Identifier, IdentifyingSink
from stream.gallery.identification.matcher import Matcher
from stream.gallery.people import Gallery
from stream.gallery.records import GallerySnapshot, Negative


def seen(embedding: np.ndarray, **changes: Any) -> FaceEvent:
    return face_event(embedding=embedding, embedding_model=MODEL.name, **changes)


def of(person: int, cosine: float = 0.8, *, seed: int = 77) -> np.ndarray:
    """A face of the person whose template is ``vector(person)``."""
    return vector(seed, near=vector(person), cosine=cosine)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    with gallery_of(tmp_path / "g.db", "Ann", "Bob", "Cid", sealer=SEALER) as opened:
        yield opened


def test_the_first_event_is_answered_and_then_only_what_changes(gallery: Gallery) -> None:
    identifier = Identifier(gallery)
    (event,) = identifier.identify([seen(of(0))], 0.0)
    ann = gallery.find("Ann")
    assert (event.change, event.person_id, event.person_name) == (IdentityChange.DECIDED, ann.id, "Ann")
    assert event.similarity == pytest.approx(0.8, abs=1e-5)
    assert 0.3 < event.threshold < 0.6
    assert event.margin is not None
    assert event.margin > 0.3
    assert (event.gallery_people, event.gallery_id) == (3, gallery.id)
    assert identifier.identify([seen(of(0, 0.9), sequence=1)], 1.0) == []
    (event,) = identifier.identify([seen(of(1), sequence=2)], 2.0)
    assert (event.change, event.person_name) == (IdentityChange.CORRECTED, "Bob")
    assert event.previous_person_id == ann.id
    assert event.reason == "the track has shown more"
    (event,) = identifier.identify([seen(vector(55), sequence=3)], 3.0)
    assert (event.person_id, event.person_name, event.known) == (None, None, False)
    assert event.previous_person_id == gallery.find("Bob").id
    validate_event(to_cloudevent(event))
    assert from_cloudevent(to_cloudevent(event)).event_id == event.event_id


def test_how_a_track_stands_follows_each_of_its_events_also_where_nothing_is_told(gallery: Gallery) -> None:
    identifier = Identifier(gallery)
    assert identifier.standing("door-1") is None
    told = []
    for sequence, cosine in enumerate((0.8, 0.9, 0.1)):
        event = seen(of(0, cosine), sequence=sequence)
        told += identifier.identify([event], float(sequence))
        standing = identifier.standing(event.track_id)
        assert standing is not None
        assert standing.person_name == ("Ann" if cosine > 0.5 else None)
        assert standing.similarity == pytest.approx(cosine, abs=1e-5)
    assert len(told) == 2
    identifier.identify([seen(of(0), sequence=3, change=TrackChange.LEFT)], 3.0)
    assert identifier.standing(event.track_id) is None


def test_a_stranger_is_unknown_and_the_nearest_is_told(gallery: Gallery) -> None:
    (event,) = Identifier(gallery).identify([seen(of(0, 0.2))], 0.0)
    assert not event.known
    assert event.similarity == pytest.approx(0.2, abs=1e-5)


def test_nobody_enrolled_means_unknown(tmp_path: Path) -> None:
    with gallery_of(tmp_path / "g.db") as gallery:
        (event,) = Identifier(gallery).identify([seen(vector(0))], 0.0)
        assert (event.known, event.similarity, event.margin, event.gallery_people) == (False, None, None, 0)
        validate_event(to_cloudevent(event))


def test_a_poor_track_waits_for_a_better_face_and_is_unknown_when_it_leaves(gallery: Gallery) -> None:
    identifier = Identifier(gallery, min_quality=0.3)
    assert identifier.identify([seen(of(0), quality=0.1)], 0.0) == []
    (event,) = identifier.identify([seen(of(0), quality=0.4, sequence=1)], 1.0)
    assert event.person_name == "Ann"
    poor = [seen(of(0), track_id="t", quality=0.1)]
    poor.append(seen(of(0), track_id="t", quality=0.1, sequence=1, change=TrackChange.LEFT))
    (event,) = identifier.identify(poor, 2.0)
    assert (event.change, event.known, event.sequence) == (IdentityChange.DECIDED, False, 1)


def test_a_face_that_is_known_not_to_be_hers_is_not_hers(gallery: Gallery) -> None:
    stranger = of(0, 0.7, seed=5)
    assert Identifier(gallery).identify([seen(stranger)], 0.0)[0].person_name == "Ann"
    gallery.add_negative("Ann", Negative(stranger, "door-1-9"))
    again = vector(6, near=stranger, cosine=0.9)
    assert Identifier(gallery).identify([seen(again)], 0.0)[0].known is False
    assert Identifier(gallery).identify([seen(of(0, 0.95))], 0.0)[0].person_name == "Ann"


def test_what_changes_in_the_gallery_reaches_a_running_identifier(gallery: Gallery) -> None:
    with Gallery.open(gallery.path, sealer=SEALER) as watched:
        identifier = Identifier(watched)
        first = identifier.identify([seen(of(0), track_id="a"), seen(of(3), track_id="d")], 0.0)
        assert [event.person_name for event in first] == ["Ann", None]
        ann = gallery.find("Ann").id
        erase(gallery, "Ann")
        gallery.enrol("Dan", [template(vector(3))])
        next_events = [seen(of(0), track_id="a", sequence=1), seen(of(3), track_id="d", sequence=1)]
        assert identifier.identify(next_events, 0.5) == []  # looked at once a second at most
        told = identifier.identify(next_events, 1.5)
        assert [(event.previous_person_id, event.person_name) for event in told] == [
            (ann, None),
            (None, "Dan"),
        ]
        assert [event.reason for event in told] == [
            "the person was removed from the gallery",
            "the gallery has changed",
        ]


def test_nobody_is_named_from_a_gallery_that_was_deleted_or_replaced(gallery: Gallery) -> None:
    identifier = Identifier(gallery)
    assert identifier.identify([seen(of(0))], 0.0)[0].known
    gallery.path.rename(gallery.path.with_name("old.db"))
    for now_s in (1.5, 1.6, 9.0):
        with pytest.raises(GalleryError, match="deleted or replaced"):
            identifier.identify([seen(of(1), sequence=1)], now_s)
    gallery_of(gallery.path, "Eve").close()
    with pytest.raises(GalleryError, match="deleted or replaced"):
        identifier.identify([seen(of(1), sequence=1)], 20.0)


def test_a_gallery_that_did_not_change_is_not_read_again(gallery: Gallery) -> None:
    with Gallery.open(gallery.path, sealer=SEALER) as watched:
        reads = []
        source = Counting(watched, reads)
        identifier = Identifier(source)
        for second in range(5):
            identifier.identify([seen(of(0), sequence=second)], float(second))
        assert len(reads) == 1


@dataclass
class Counting:
    gallery: Gallery
    reads: list[int]
    path: Path = field(default=Path("g.db"))

    @property
    def change_mark(self) -> int:
        return self.gallery.change_mark

    def snapshot(self, previous: GallerySnapshot | None = None) -> GallerySnapshot:
        self.reads.append(1)
        return self.gallery.snapshot(previous)


def test_repeats_say_nothing_new_and_other_events_are_passed_over(gallery: Gallery) -> None:
    identifier = Identifier(gallery)
    events: list[Event] = [camera_event(), seen(of(0), sequence=3)]
    assert len(identifier.identify(events, 0.0)) == 1
    assert identifier.identify(events, 0.1) == []
    assert identifier.identify([seen(of(1), sequence=2)], 0.2) == []
    assert identifier.identify([], 0.3) == []


def test_a_new_identifier_goes_on_where_the_old_one_ended(gallery: Gallery) -> None:
    told = Identifier(gallery).identify([seen(of(0), sequence=4)], 0.0)
    again = Identifier(gallery)
    again.restore(told)
    assert again.identify([seen(of(0), sequence=4), seen(of(0), sequence=5)], 0.0) == []
    (event,) = again.identify([seen(of(1), sequence=6)], 0.0)
    assert event.change is IdentityChange.CORRECTED


def test_only_so_many_tracks_are_remembered_and_none_that_left(gallery: Gallery) -> None:
    identifier = Identifier(gallery, most_tracks=2)
    for number in range(5):
        identifier.identify([seen(of(0), track_id=f"t{number}")], 0.0)
    assert list(identifier._answers) == ["t3", "t4"]
    identifier.identify([seen(of(0), track_id="t4", sequence=1, change=TrackChange.LEFT)], 0.0)
    assert list(identifier._answers) == ["t3"]


def test_embeddings_of_another_model_are_refused(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="facestream gallery upgrade"):
        Identifier(gallery).identify([face_event(embedding_model="dlib-resnet-v1")], 0.0)
    mine = {"embedding_model_id": MODEL.sha256[:16], "embedding_mirrored": MODEL.mirror}
    assert Identifier(gallery).identify([seen(of(0), **mine)], 0.0)
    for changes, words in [
        ({"embedding_model_id": "b" * 16}, r"not compatible with those of sface-2021dec \(bbbbbbbb\)"),
        ({"embedding_mirrored": True}, r"of sface-2021dec, mirrored \(aaaaaaaa\); move .* --mirror"),
    ]:
        with pytest.raises(GalleryError, match=words):
            Identifier(gallery).identify([seen(of(0), **mine | changes)], 0.0)


@pytest.mark.parametrize(
    "arguments",
    [{"false_accept_rate": 0.0}, {"false_accept_rate": 1.0}, {"min_quality": 2.0}, {"most_tracks": 0}],
)
def test_settings_out_of_range_are_refused(gallery: Gallery, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Identifier(gallery, **arguments)


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed: float | None = None

    def emit(self, events: Sequence[Event]) -> None:
        self.events += events

    def close(self, timeout_s: float) -> None:
        self.closed = timeout_s


def test_answers_follow_their_events_into_the_sink(gallery: Gallery) -> None:
    kept = Kept()
    sink = IdentifyingSink(kept, Identifier(gallery), clock=lambda: 0.0)
    sink.emit([camera_event(), seen(of(0))])
    assert [type(event).__name__ for event in kept.events] == ["CameraEvent", "FaceEvent", "IdentityEvent"]
    sink.close(2.0)
    assert kept.closed == 2.0


def test_events_go_on_when_the_gallery_cannot_be_used_and_it_is_said_once(gallery: Gallery) -> None:
    kept = Kept()
    sink = IdentifyingSink(kept, Identifier(gallery), clock=lambda: 0.0)
    with capture_logs() as logs:
        for sequence in range(3):
            sink.emit([face_event(embedding_model="other", sequence=sequence)])
        sink.emit([seen(of(0))])
    assert [entry["event"] for entry in logs] == ["tracks are not identified", "tracks are identified again"]
    assert [isinstance(event, IdentityEvent) for event in kept.events] == [False] * 4 + [True]


def test_the_threshold_rises_with_the_gallery_and_falls_with_the_rate(tmp_path: Path) -> None:
    with (
        gallery_of(tmp_path / "g.db", "Ann") as few,
        gallery_of(tmp_path / "h.db", *map(str, range(60))) as many,
    ):
        small, large = few.snapshot(), many.snapshot()
    thresholds = [Matcher(each, false_accept_rate=0.01).threshold for each in (small, large)]
    assert thresholds[0] < thresholds[1]
    assert Matcher(large, false_accept_rate=0.001).threshold > thresholds[1]


def test_a_large_gallery_is_decided_as_if_everybody_were_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with gallery_of(tmp_path / "g.db", *map(str, range(40))) as gallery:
        for seed in range(40):
            gallery.enrol(str(seed), [template(of(seed, 0.7, seed=100 + seed))])
        gallery.add_negative("3", Negative(of(3, 0.95, seed=9), "t"))
        before = gallery.snapshot()
        gallery.enrol("39", [template(of(39, 0.6, seed=300))])
        erase(gallery, "0")
        after = gallery.snapshot(before)
    probes = np.stack([of(person, 0.75, seed=200 + person) for person in range(40)] + [of(3, 0.97, seed=9)])
    everybody = Matcher(after, false_accept_rate=0.01).match(probes)
    monkeypatch.setattr(matcher_module, "SCAN_FROM", 10)
    near = Matcher(after, false_accept_rate=0.01, previous=Matcher(before, false_accept_rate=0.01))
    assert isinstance(near._index, TemplateIndex)
    assert len(near._index) == len(after.keys)
    found = near.match(probes)
    np.testing.assert_array_equal(found.person, everybody.person)
    np.testing.assert_allclose(found.score, everybody.score, atol=1e-6)
    assert everybody.person[0] == -1
    assert (everybody.person[1:3] >= 0).all()
    assert everybody.person[-1] == -1


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.floats(0, 1)), max_size=25))
def test_answers_take_turns_for_any_course_of_events(
    tmp_path_factory: pytest.TempPathFactory, course: list[tuple[int, int, float]]
) -> None:
    with gallery_of(tmp_path_factory.mktemp("g") / "g.db", "Ann", "Bob", "Cid") as gallery:
        identifier = Identifier(gallery)
        last: dict[str, str | None] = {}
        for sequence, (track, person, quality) in enumerate(course):
            event = seen(of(person), track_id=f"t{track}", sequence=sequence, quality=quality)
            for told in identifier.identify([event], float(sequence)):
                if told.change is IdentityChange.DECIDED:
                    assert told.track_id not in last
                else:
                    assert told.previous_person_id == last[told.track_id] != told.person_id
                last[told.track_id] = told.person_id
